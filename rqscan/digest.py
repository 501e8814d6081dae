"""The digest that keys and names are made of, without the OpenSSL that `hashlib` loads with it.

A work-horse's template must not have that in memory: each fork would pay for it.
"""

from _blake2 import blake2b

__all__ = ["blake2b"]
