# Everything a newcomer types. `make demo` shows Sluice at work, `make test` runs every suite.
# Both need root for network namespaces and BPF: as another user they ask sudo for that part only.

# One profile for binaries, tests, demo and lints, so that nothing is compiled twice.
# `make demo PROFILE=dev` builds faster and runs slower.
PROFILE ?= release
OUT     := target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
SUDO    := $(shell [ "$$(id -u)" = 0 ] || echo sudo --preserve-env=KEEP)

.PHONY: help setup build demo test lint bench clean

help:
	@echo "make demo    builds Sluice and shows two gateways at work between network namespaces (KEEP=1 leaves them up)"
	@echo "make test    runs every suite, and says how long each took"
	@echo "make lint    rustfmt, clippy and the rules of who may import whom"
	@echo "make bench   measures Sluice beside its peers, in 30 minutes (QUICK=1: a smoke of 5; FULL=1: all, 3 hours)"
	@echo "make clean   removes what was built"

setup:
	@deploy/setup.sh

build: setup
	cargo build --profile $(PROFILE) --workspace --bins

demo: setup
	cargo build --profile $(PROFILE) --workspace --bin sluice --bin sluice-ctrl --bin sluice-dataplane --bin demo
	$(SUDO) $(OUT)/demo

test: setup
	@PROFILE=$(PROFILE) .ci/suites

lint: setup
	@PROFILE=$(PROFILE) .ci/suites lint

bench:
	@deploy/setup.sh bench
	bench/run $(if $(QUICK),--quick) $(if $(FULL),--full)

clean:
	cargo clean
