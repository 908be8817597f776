# make test    everything a change must pass, set-up included
# make demo    see it work on this machine's own files
# make dev     only the virtual environment, .venv
# make check   what `make test` runs, without installing system packages
# make fix     format, and repair what ruff can repair
# make lab     only the tests between hosts: network namespaces, real mDNS, thin links
# make long    the tests that take minutes each, and those of `make oracle`
# make kills   kill agent and writer a hundred times while they deploy with ostree
# make oracle  compare with the ostree of the next Debian release
# make install-service   the systemd service, below DESTDIR; see docs/operations.md
# make bench   measure against ostree; prints tables

BIN := .venv/bin
SOURCES := p2p tests $(wildcard bench examples)
# Pure modules: tests reach every branch.
CORE := p2p/deploy/journal.py \
    p2p/deploy/machine.py \
    p2p/ostree/filez.py \
    p2p/ostree/gvariant.py \
    p2p/ostree/objects.py \
    p2p/ostree/walk.py \
    p2p/qos.py \
    p2p/rate.py \
    p2p/swarm/action.py \
    p2p/swarm/bits.py \
    p2p/swarm/event.py \
    p2p/swarm/giving.py \
    p2p/swarm/hearsay.py \
    p2p/swarm/inquiry.py \
    p2p/swarm/lifecycle.py \
    p2p/swarm/meter.py \
    p2p/swarm/news.py \
    p2p/swarm/parts.py \
    p2p/swarm/patience.py \
    p2p/swarm/tuning.py \
    p2p/trust/policy.py \
    p2p/trust/sign.py \
    p2p/wire/*.py

.PHONY: test check dev system trees fix lint types imports suite lab long oracle kills demo bench \
    install-service
.NOTPARALLEL:

test: system trees check

check: lint types imports suite

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
suite: dev
	$(BIN)/pytest -n 2 --dist loadscope --cov --cov-report=
	$(BIN)/coverage report
	$(BIN)/coverage report --fail-under=100 \
	    --include=$(subst $(empty) $(empty),$(comma),$(CORE))

lab: dev system
	$(BIN)/pytest -n 2 --dist load tests/lab

long: dev system trees oracle
	$(BIN)/pytest -m long

# The comparisons once more, with the ostree of the next Debian release.
oracle: dev system trees
	newer=$$($(BIN)/python -m tests.debian --ostree) && \
	    PATH="$$newer:$$PATH" $(BIN)/pytest -n 2 --dist loadscope tests/compat

# Eight of these kills are among the tests of `make check`.
kills: dev system
	P2P_KILLS=100 $(BIN)/pytest -s tests/compat/test_deploy_killed.py

fix: dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

demo: dev
	@$(BIN)/python examples/demo.py

bench: dev system trees
	$(BIN)/python -m bench.pull_origin
	$(BIN)/python -m bench.pull
	$(BIN)/python -m bench.footprint

# The program itself comes by pip or from a package.
UNITS := $(wildcard systemd/*.service systemd/*.socket)
install-service:
	install -D -m 644 -t $(DESTDIR)/usr/lib/systemd/system $(UNITS)
	install -D -m 644 systemd/ostree-p2p.sysusers \
	    $(DESTDIR)/usr/lib/sysusers.d/ostree-p2p.conf
	install -D -m 644 systemd/ostree-p2p.tmpfiles \
	    $(DESTDIR)/usr/lib/tmpfiles.d/ostree-p2p.conf
	install -D -m 644 -t $(DESTDIR)/usr/lib/ostree-p2p/agent.d systemd/10-service.toml
	install -D -m 644 -t $(DESTDIR)/usr/share/doc/ostree-p2p systemd/agent.toml
