# Every target makes what it needs first; the second time that is quick.
.DEFAULT_GOAL := help
.PHONY: help setup dev run check test test-all rq-suite bench chaos screenshot clean lock
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
# two processes a core, since tests wait for servers most of the time, but no more servers than a
# small machine bears; who is done takes tests over from the others, of which some have the long ones
PYTEST := $(BIN)/pytest --dist worksteal -n $(shell n=$$(nproc); echo $$((n < 2 ? 2 : 4)))

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## make .venv/, with the command .venv/bin/rqscan
	@tools/setup.sh

dev: # .venv/ with the tools of check and test as well
	@tools/setup.sh dev

run: setup ## start everything on this machine, scan it, and show the live view
	@$(BIN)/rqscan up --scan 127.0.0.1

check: dev ## format, lint, types, floors, dependencies, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/codespell

test: dev ## all tests but the slow ones, with real servers
	@tools/servers.sh
	$(PYTEST) -m "not slow"

test-all: dev ## all tests
	@tools/servers.sh
	$(PYTEST)

rq-suite: dev ## RQ's own tests, with our worker, queue and job
	@tools/servers.sh
	@tools/rq_suite.sh

bench: dev .venv-bench/stamp ## run what is in bench/
	@tools/servers.sh
	@for script in bench/*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit; done

chaos: dev ## a fleet under random faults; MINUTES=10 SEED=n, DATABASE=1 with MariaDB, STOCK=1 beside stock RQ
	@tools/servers.sh
	@$(BIN)/python -m bench.chaos --minutes $(or $(MINUTES),2) $(if $(SEED),--seed $(SEED)) \
		$(if $(STOCK),--stock) $(if $(DATABASE),--database) $(if $(KEEP_DATA),--keep-data)

screenshot: dev ## draw docs/top.svg, the README's picture, from a live fleet with faults
	@tools/servers.sh
	@$(BIN)/python -m tools.screenshot

# the systems that bench/ runs beside ours: never in .venv, where they would change its pins
.venv-bench/stamp: requirements-bench.txt | dev
	rm -rf .venv-bench
	$(BIN)/python -m venv .venv-bench
	.venv-bench/bin/python -m pip install -qq --disable-pip-version-check --no-input --require-hashes -r $<
	touch $@

clean: ## remove .venv/ and all that was made here
	rm -rf .venv .venv-bench .servers .hypothesis .*_cache build dist *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

lock: dev ## pin the newest allowed versions of what is new in pyproject.toml
	$(COMPILE) --group build -o requirements-build.txt
	$(COMPILE) --extra embedded pyproject.toml -o requirements.txt
	$(COMPILE) --group dev -c requirements.txt -o requirements-dev.txt
	$(COMPILE) --group bench -o requirements-bench.txt
