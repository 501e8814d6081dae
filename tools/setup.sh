#!/bin/sh
# Make .venv/ with rqscan and its pinned packages; `setup.sh dev` adds those of tests and checks.
set -eu
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }
can() { "$1" -c "import sys; assert sys.version_info >= (3, 11); $2" 2>/dev/null; }

# The first Python that can make a virtual environment, else the first that is new enough.
find_python() {
    for test in 'import ensurepip, venv' ''; do
        for name in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
            if can "$name" "$test"; then command -v "$name"; return; fi
        done
    done
}

make_venv() {
    python=$(find_python)
    [ -n "$python" ] || fail "found no Python 3.11 or newer; install one, or name it: make setup PYTHON=/path/to/python3"
    if ! can "$python" 'import ensurepip, venv'; then
        advice="$python cannot make a virtual environment; install it with: apt-get install python3-venv"
        [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "$advice"
        say "installing python3-venv"
        apt-get update -q >/dev/null && apt-get install -yq --no-install-recommends python3-venv >/dev/null
        can "$python" 'import ensurepip, venv' || fail "$advice"
    fi
    say "making .venv with $("$python" -V)"
    rm -rf .venv
    "$python" -m venv .venv
}

pip() { .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input "$@"; }

# What the stamps hold: the place (scripts in .venv name it), the Python, and the pins.
state() { { pwd; .venv/bin/python -V; cat pyproject.toml "$@"; } 2>&1 | sha256sum; }
runtime="requirements-build.txt requirements.txt"

# shellcheck disable=SC2086 # the names are words
if [ "$(state $runtime)" != "$(cat .venv/stamp 2>/dev/null)" ]; then
    [ "$(pwd)" = "$(cat .venv/place 2>/dev/null)" ] && .venv/bin/python -m pip -V >/dev/null 2>&1 || make_venv
    say "installing rqscan and what it needs"
    pip --require-hashes -r requirements-build.txt
    # without isolation, in which pip would fetch an unpinned setuptools to build crontab
    pip --require-hashes --no-build-isolation -r requirements.txt
    pip --no-deps --no-build-isolation -e .
    pwd >.venv/place
    state $runtime >.venv/stamp
fi
if [ "${1:-}" = dev ] && [ "$(state requirements-dev.txt)" != "$(cat .venv/stamp-dev 2>/dev/null)" ]; then
    say "installing the tools of tests and checks"
    pip --require-hashes -r requirements-dev.txt
    state requirements-dev.txt >.venv/stamp-dev
fi
