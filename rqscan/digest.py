"""The digest that keys and names are made of, without the OpenSSL that `hashlib` loads with it.

In a work-horse's template that would be a sixth of what each fork costs.
"""

from _blake2 import blake2b

__all__ = ["blake2b"]
