# make demo       build poller and watch it do its main job, on a throwaway git server
# make test       everything that must hold: lint, then all tests
# make faults     every attack of docs/reliability.md in full, as root; about an hour
# make fuzz       each fuzz target for a minute (FUZZ_SECONDS=60), TARGETS="remote config_app" for some
# make advisories is anything known about a dependency? needs the network
# make bench      what poller costs beside git and others; ROWS=refs,apps for some, RECORD=yes into docs/performance.md
# make build      the program as it is installed: target/release/poller
# make reproducible  build it twice, in two places: the two must be equal byte for byte
# make sbom       what is in it, crates and C libraries: target/poller.cdx.json
# make install    put it and what goes with it under DESTDIR; without DESTDIR make the user too; enables nothing
#
# On Debian, with Rust (https://rustup.rs), a C compiler and make. What else demo and test
# need is installed as root or by passwordless sudo; otherwise they say what to install.

PREFIX  = /usr
DESTDIR =
CARGO   = cargo
TARGET  = $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

# Used when cargo does not have them already; they are kept out of the way, in $(TARGET)/tools.
NEXTEST_VERSION = 0.9.128
DENY_VERSION    = 0.20.2
FUZZ_VERSION    = 0.13.2
CYCLONEDX_VERSION = 0.5.9

DEMO_PACKAGES = git openssh-client openssh-server bsdutils
TEST_PACKAGES = $(DEMO_PACKAGES) cron e2fsprogs faketime gnupg iproute2 logrotate mandoc nftables procps prometheus \
    psmisc shellcheck strace sudo systemd util-linux xfsprogs

BENCH_PACKAGES = $(DEMO_PACKAGES) ansible-core

SCRIPTS = .ci/run tools/demo.sh tools/faults.sh tools/fuzz.sh tools/packages.sh tools/reproducible.sh tools/sbom.sh \
    packaging/examples/django/deploy.sh
PAGES   = docs/man/poller.8 docs/man/poller.toml.5

SHELL = /bin/bash
.SHELLFLAGS = -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL = help
.PHONY: help demo test faults fuzz lint advisories bench build reproducible sbom install uninstall packages nextest deny \
    cargo-fuzz cyclonedx

export ROUNDS ROWS RECORD GIT_SYNC
export PATH := $(abspath $(TARGET))/tools/bin:$(PATH)

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo:
	@tools/packages.sh $(DEMO_PACKAGES)
	$(CARGO) build --locked
	@tools/demo.sh $(TARGET)/debug/poller

test: packages nextest lint
	$(CARGO) nextest run --locked

# The table of docs/reliability.md, from what each attack told of itself. Of the program as it is installed.
faults: packages nextest
	@[ "$$(id -u)" = 0 ] || { echo "it needs users, mounts and network namespaces: run it as root"; exit 1; }
	rm -rf $(TARGET)/faults-in-full
	POLLER_FAULTS=all CI=true $(CARGO) nextest run --locked --release --profile faults --test faults
	tools/faults.sh $(TARGET)/faults

# A crash says in which file it is kept, and how to run it again.
fuzz: cargo-fuzz
	@CARGO=$(CARGO) tools/fuzz.sh $(or $(FUZZ_SECONDS),60) $(TARGETS)

lint: packages deny
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) deny --locked --log-level error check bans licenses sources
	shellcheck $(SCRIPTS)
	mandoc -T lint -W warning $(PAGES)

advisories: deny
	$(CARGO) deny --locked check advisories

# ROUNDS, ROWS, RECORD and GIT_SYNC: docs/performance.md. Without ansible-core its row is left out.
bench:
	@tools/packages.sh $(BENCH_PACKAGES) || echo "going on without"
	$(CARGO) bench --locked --bench poll
	$(CARGO) bench --locked --bench fleet

# So that the program does not depend on where it was built, nor tell it.
CARGO_FILES = $(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)
# Looked up whatever is made, though root, who installs, may have no Rust.
RUST_FILES  = $(shell rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust=/rustc/$(shell rustc -vV 2>/dev/null | sed -n 's/^commit-hash: //p')
PLACES = $(CURDIR)=/poller $(abspath $(TARGET))=/poller/target $(CARGO_FILES)=/cargo $(RUST_FILES)
EPOCH  = $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

build: export SOURCE_DATE_EPOCH := $(or $(SOURCE_DATE_EPOCH),$(EPOCH))
build: export RUSTFLAGS := $(RUSTFLAGS) $(PLACES:%=--remap-path-prefix=%)
build: export CFLAGS := $(CFLAGS) $(PLACES:%=-ffile-prefix-map=%)
build:
	$(CARGO) build --release --locked

reproducible:
	tools/reproducible.sh

sbom: cyclonedx
	@tools/packages.sh jq
	tools/sbom.sh $(TARGET)/poller.cdx.json

packages:
	@tools/packages.sh $(TEST_PACKAGES)

# Built without optimisation: a minute instead of several, for tools that run for seconds.
INSTALL_TOOL = env -u CARGO_TARGET_DIR $(CARGO) install --quiet --locked --debug --root $(TARGET)/tools

nextest:
	@$(CARGO) nextest --version >/dev/null 2>&1 || { echo "installing cargo-nextest $(NEXTEST_VERSION)"; \
	    $(INSTALL_TOOL) cargo-nextest --version $(NEXTEST_VERSION) --no-default-features --features default-no-update; }

deny:
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "installing cargo-deny $(DENY_VERSION)"; \
	    $(INSTALL_TOOL) cargo-deny --version $(DENY_VERSION); }

cargo-fuzz:
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo "installing cargo-fuzz $(FUZZ_VERSION)"; \
	    $(INSTALL_TOOL) cargo-fuzz --version $(FUZZ_VERSION); }

cyclonedx:
	@$(CARGO) cyclonedx --version >/dev/null 2>&1 || { echo "installing cargo-cyclonedx $(CYCLONEDX_VERSION)"; \
	    $(INSTALL_TOOL) cargo-cyclonedx --version $(CYCLONEDX_VERSION); }

# --- installing ---------------------------------------------------------------------------------
# What lies below /etc belongs to the administrator: it is put there once and then left alone.

BIN   = $(DESTDIR)$(PREFIX)/bin
LIB   = $(DESTDIR)$(PREFIX)/lib
SHARE = $(DESTDIR)$(PREFIX)/share
ETC   = $(DESTDIR)/etc
# Debian's zsh looks below /usr and below /usr/local in folders of different names.
ZSH   = $(SHARE)/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)
BUILT = $(TARGET)/release/poller
ONCE  = once() { if [ -e "$$3" ]; then echo "kept as it is: $$3"; else install -m "$$1" "$$2" "$$3"; fi; }
# Files that name the program.
PLACE = place() { sed 's|/usr/bin/poller|$(PREFIX)/bin/poller|g' "$$2" | install -m "$$1" /dev/stdin "$$3"; }

# The user who fetches, and the folders. A package does this in its postinst, hence not with DESTDIR.
USERS = if [ "$$(id -u)" != 0 ]; then echo "not root: no user made"; exit 0; fi; \
    if command -v systemd-sysusers >/dev/null; then systemd-sysusers poller.conf; \
    elif ! getent passwd poller >/dev/null; then \
        useradd --system --home-dir /var/lib/poller --no-create-home --shell /usr/sbin/nologin poller; fi; \
    if command -v systemd-tmpfiles >/dev/null; then systemd-tmpfiles --create poller.conf; fi

install:
	@[ -x $(BUILT) ] || { echo "$(BUILT) is not there yet, and root should not build it: make build"; exit 1; }
	@install -d $(BIN) $(LIB)/systemd/system $(LIB)/sysusers.d $(LIB)/tmpfiles.d \
	    $(SHARE)/man/man5 $(SHARE)/man/man8 $(SHARE)/bash-completion/completions $(ZSH) \
	    $(SHARE)/fish/vendor_completions.d $(SHARE)/poller/cron $(SHARE)/doc/poller/docs $(SHARE)/doc/poller/examples \
	    $(ETC)/poller/apps.d $(ETC)/logrotate.d
	@install -d -m 0700 $(ETC)/poller/keys
	install -m 0755 $(BUILT) $(BIN)/poller
	@$(PLACE); place 0644 packaging/systemd/poller.service $(LIB)/systemd/system/poller.service
	@$(PLACE); place 0644 cron/poller $(SHARE)/poller/cron/poller
	@install -m 0644 packaging/systemd/poller.timer $(LIB)/systemd/system/poller.timer
	@install -m 0644 packaging/sysusers.d/poller.conf $(LIB)/sysusers.d/poller.conf
	@install -m 0644 packaging/tmpfiles.d/poller.conf $(LIB)/tmpfiles.d/poller.conf
	@$(ONCE); once 0644 logrotate/poller $(ETC)/logrotate.d/poller
	@$(ONCE); for file in poller.toml known_hosts apps.d/todo.toml.sample; do \
	    once 0644 etc/poller/$$file $(ETC)/poller/$$file; done
	@install -m 0644 docs/man/poller.8 $(SHARE)/man/man8/poller.8
	@install -m 0644 docs/man/poller.toml.5 $(SHARE)/man/man5/poller.toml.5
	@$(BUILT) completions bash | install -m 0644 /dev/stdin $(SHARE)/bash-completion/completions/poller
	@$(BUILT) completions zsh | install -m 0644 /dev/stdin $(ZSH)/_poller
	@$(BUILT) completions fish | install -m 0644 /dev/stdin $(SHARE)/fish/vendor_completions.d/poller.fish
	@install -m 0644 README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT $(SHARE)/doc/poller/
	@install -m 0644 docs/*.md $(SHARE)/doc/poller/docs/
	@if [ -e $(TARGET)/poller.cdx.json ]; then install -m 0644 $(TARGET)/poller.cdx.json $(SHARE)/doc/poller/; fi
	@cp -R --no-preserve=ownership packaging/examples/django packaging/sudoers packaging/prometheus packaging/grafana \
	    $(SHARE)/doc/poller/examples/
	@$(if $(DESTDIR),:,$(USERS))
	@echo "installed; nothing is enabled yet. Next: poller init NAME URL"

# Leaves /etc/poller, the state, the log and the users.
uninstall:
	rm -rf $(BIN)/poller $(LIB)/systemd/system/poller.service $(LIB)/systemd/system/poller.timer \
	    $(LIB)/sysusers.d/poller.conf $(LIB)/tmpfiles.d/poller.conf $(ETC)/logrotate.d/poller \
	    $(SHARE)/man/man8/poller.8 $(SHARE)/man/man5/poller.toml.5 \
	    $(SHARE)/bash-completion/completions/poller $(ZSH)/_poller \
	    $(SHARE)/fish/vendor_completions.d/poller.fish $(SHARE)/poller $(SHARE)/doc/poller
