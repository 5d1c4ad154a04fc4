# Every target makes its own .venv with the first Python >= 3.11 that runs here; a second call installs nothing.
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint words format docs clean bench-backfill bench-growth bench-impact bench-locks bench-tables matrix faults

# A name on PATH may be a shim that fails, or a Python without venv: the first that runs is taken.
python = $(shell for p in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; done)
comma = ,
pip = .venv/bin/python -m pip --disable-pip-version-check --no-input -qq
define install
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || { \
		test -n "$(python)" || { echo "no Python 3.11 or newer with venv on PATH (Debian: python3-venv); name one: make PYTHON=..." >&2; exit 1; }; \
		echo "making .venv with $(python)" && "$(python)" -m venv --clear .venv; }
	@echo "installing into .venv"
	@$(pip) install --constraint tests/constraints.txt --editable '.[$(1)]'
endef

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1|/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

demo: .venv/.demo ## the main job on an embedded PostgreSQL, under traffic; ARGS="..." are handed on
	@.venv/bin/online-migrate demo $(ARGS)

# Each worker starts a server of its own; one that is given is shared, so one worker uses it.
JOBS ?= $(if $(ONLINE_MIGRATE_TEST_DSN),0,auto)
pytest = .venv/bin/python -m pytest --numprocesses $(JOBS) --maxprocesses 4 --dist loadfile

test: .venv/.test lint ## every check and test; ALL=1: a missing server is a failure; JOBS=0: one after the other; ARGS="..." go to pytest
	@ONLINE_MIGRATE_TEST_ALL=$(ALL) $(pytest) $(ARGS)

MATRIX = tests/operations tests/locks tests/journal tests/cli/test_whole_plan.py $(wildcard tests/cases)
matrix: .venv/.test .venv/.matrix ## what takes locks and makes objects, on PostgreSQL 14 to 18 (servers from npm; needs Node.js)
	@for v in 14 15 16 17 18; do \
		PG_BIN="$(CURDIR)/.venv/matrix/node_modules/postgresql-$$v/native/bin" $(pytest) --quiet $(MATRIX) $(ARGS) || exit 1; done

faults: .venv/.test ## faults at every statement boundary of the plan, writes docs/reliability.md (hours; ARGS="--boundaries 60 --minutes 15")
	@nice -n 10 .venv/bin/python -m tests.faults $(ARGS)

lint: .venv/.test ## ruff, mypy, the packages' order and the words that are not used
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --check --quiet || { .venv/bin/ruff format --check; echo "make format puts it right" >&2; exit 1; }
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/lint-imports --cache-dir .import_linter_cache >.venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }
	@.venv/bin/python -m tests.words >.venv/words.log || { cat .venv/words.log; exit 1; }
	@echo "ruff, mypy, import-linter and the word list found nothing"

words: .venv/.test ## words that the project does not use, each with what to write instead; ARGS="src docs/locks.md"
	@.venv/bin/python -m tests.words $(ARGS)

golden: .venv/.test ## rewrite tests/golden: the product's texts, for a change that is intended
	@.venv/bin/python -m pytest --quiet --write-golden tests/golden

format: .venv/.test ## put the code into shape
	@.venv/bin/ruff check --quiet --fix-only
	@.venv/bin/ruff format --quiet

docs: .venv/.test ## make what the documentation has from the code: references, locks, JSON Schema, dashboards
	@.venv/bin/python -m docs.generate
	@.venv/bin/python -m grafana.dashboard

bench-backfill: .venv/.demo ## a backfill against one UPDATE and keyset batches; ARGS="--docs" writes docs/benchmarks.md
	@.venv/bin/python -m benchmarks.backfill $(ARGS)

bench-growth: .venv/.demo ## ten times the rows, snapshots beside us, two workers
	@.venv/bin/python -m benchmarks.growth $(ARGS)

bench-impact: .venv/.demo ## what an application feels beside a backfill
	@.venv/bin/python -m benchmarks.impact $(ARGS)

bench-locks: .venv/.demo ## how long statements of an application wait behind our lock requests; ARGS="--json", "--write" writes docs/benchmarks-locks.md
	@.venv/bin/python -m benchmarks.locks $(ARGS)

bench-tables: .venv/.demo ## what a step costs with 75 and 300 tables; ARGS="--tables 75 300 1000 --docs"
	@.venv/bin/python -m benchmarks.tables $(ARGS)

clean: ## remove .venv and all caches
	rm -rf .venv .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache dist htmlcov
	find src tests -name __pycache__ -prune -exec rm -rf {} +

.venv/.demo: pyproject.toml tests/constraints.txt
	$(call install,demo)
	@touch $@

# The packages' own scripts make the links between their libraries; npm asks before it runs any.
.venv/.matrix: tests/matrix/package.json tests/matrix/package-lock.json | .venv/.test
	@mkdir -p .venv/matrix && cp $^ .venv/matrix/
	@cd .venv/matrix && npm ci --ignore-scripts --no-audit --no-fund --silent
	@for p in .venv/matrix/node_modules/postgresql-*; do (cd "$$p" && node scripts/hydrate-symlinks.js >/dev/null) || exit 1; done
	@touch $@

.venv/.test: pyproject.toml tests/constraints.txt
	$(call install,demo$(comma)test)
	@touch .venv/.demo $@
