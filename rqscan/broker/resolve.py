"""Resolve: a program that prints the addresses of HOST, one a line, and then ends.

It runs as a child process (`rqscan.broker.addresses`), because nothing else makes `getaddrinfo`
end early; it imports next to nothing, so that it starts in some 30 ms.
"""

import socket
import sys

__all__: list[str] = []


def _main() -> None:
    try:
        found = socket.getaddrinfo(sys.argv[1], 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as e:
        sys.exit(getattr(e, "strerror", None) or str(e))
    for *_, address in found:
        sys.stdout.write(socket.getnameinfo(address, socket.NI_NUMERICHOST)[0] + "\n")


if __name__ == "__main__":
    _main()
