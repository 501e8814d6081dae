#!/bin/sh
# Have the servers and tools of the tests; these packages bring no service, so no port is opened.
set -eu
packages="redis-tools mariadb-server-core mariadb-client-core nmap libfaketime iproute2 iptables"
PATH=$PATH:/usr/sbin:/sbin

has() { command -v "$1" >/dev/null; }
complete() {
    { has redis-server || has redis-check-rdb; } && has mariadbd && has mariadb-install-db &&
        has nmap && has ip && has iptables && ls /usr/lib*/*/faketime/libfaketime.so.1 >/dev/null 2>&1
}

if complete; then exit; fi
root=
[ "$(id -u)" = 0 ] || root="sudo -n"
if has apt-get && $root true 2>/dev/null; then
    echo "test: installing $packages" >&2
    $root apt-get update -q >/dev/null
    # shellcheck disable=SC2086 # the packages are words
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends $packages >/dev/null
fi
if ! complete; then
    echo "test: servers of the tests are missing; install them with: apt-get install --no-install-recommends $packages" >&2
    exit 1
fi
