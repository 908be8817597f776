# make test    everything a change must pass, set-up included
# make demo    see it work on this machine's own files
# make dev     only the virtual environment, .venv
# make check   what `make test` runs, without installing system packages
# make fix     format, and repair what ruff can repair
# make long    the tests that take minutes each
# make bench   measure against ostree; prints tables

BIN := .venv/bin
SOURCES := p2p tests $(wildcard bench examples)
# Pure modules: their own unit and property tests reach every branch.
CORE := p2p/ostree/filez.py \
    p2p/ostree/gvariant.py \
    p2p/ostree/objects.py \
    p2p/ostree/walk.py \
    p2p/trust/policy.py \
    p2p/trust/sign.py \
    p2p/wire/*.py

.PHONY: test check dev system trees fix lint types imports core suite long demo bench
.NOTPARALLEL:

test: system trees check

check: lint types imports core suite

dev: .venv/ready

.venv/ready: pyproject.toml scripts/make-venv
	scripts/make-venv

system:
	@scripts/install-packages

# The Debian tree the tests share, made once a machine and kept in the cache.
trees: dev system
	@$(BIN)/python -m tests.debian

lint: dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: dev
	$(BIN)/mypy

imports: dev
	$(BIN)/lint-imports --no-logo

comma := ,
empty :=
core: dev
	$(BIN)/pytest -q -n 2 --cov --cov-report= --cov-fail-under=0 \
	    tests/net tests/ostree tests/trust tests/wire tests/property
	$(BIN)/coverage report --fail-under=100 \
	    --include=$(subst $(empty) $(empty),$(comma),$(CORE))

# Last, so that pytest's own closing line ends the output.
suite: dev
	$(BIN)/pytest -n 2 --dist loadscope --cov --cov-report=term

long: dev system trees
	$(BIN)/pytest -m long

fix: dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

demo: dev
	@$(BIN)/python examples/demo.py

bench: dev system trees
	$(BIN)/python bench/pull_origin.py
