#!/bin/sh
# Run RQ's own tests with our worker, queue and job: see tests/rq_suite/. Their source is fetched
# once, by the pin that RQ itself is installed by. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
pin=$(sed -n '/^rq==/,/# via/p' requirements.txt)
suite=.servers/$(echo "$pin" | sed -n 's/^rq==\([^ ]*\).*/rq-\1/p')

if [ ! -d "$suite" ]; then
    echo "rq-suite: fetching RQ's source" >&2
    rm -rf "$suite.new"
    mkdir -p "$suite.new"
    echo "$pin" >"$suite.new/pin.txt"
    .venv/bin/python -m pip download -qq --disable-pip-version-check --no-input --no-deps \
        --no-binary rq --require-hashes -r "$suite.new/pin.txt" -d "$suite.new" || {
        echo "rq-suite: cannot fetch RQ's source from the package index; it is needed once, so run make rq-suite again with a network" >&2
        exit 1
    }
    tar -xzf "$suite.new"/rq-*.tar.gz -C "$suite.new" --strip-components=1
    rm -r "$suite.new/rq" "$suite.new/pyproject.toml" # the tests are to meet the RQ of .venv/
    mv "$suite.new" "$suite"
fi

cd "$suite"
# those of public behaviour; RQ's scheduler, cron, pool, decorator and command line are RQ's own
modules="callbacks commands dependencies executions group intermediate_queue job job_dependency"
modules="$modules job_lifecycle queue queue_unique rate_limit registry repeat results retry"
modules="$modules serializers timeouts webhooks worker worker_registration"
if [ $# = 0 ]; then
    set -- -n logical --maxprocesses 4
    for module in $modules; do set -- "$@" "tests/test_$module.py"; done
fi
export PYTHONPATH="$PWD:$root/tests/rq_suite:$root"
exec "$root/.venv/bin/python" -m pytest -p rq_suite -p no:cacheprovider --import-mode=prepend \
    --rootdir=. --timeout 120 -q -W ignore::DeprecationWarning "$@"
