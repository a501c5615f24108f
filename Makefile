# A few verbs. Every one sets up what it needs, says what it installs, and is quick the second time.

SHELL := /bin/bash
CARGO_LAMBDA ?= cargo-lambda

# Many tests wait for servers rather than for a processor.
export RUST_TEST_THREADS ?= 4

# Every test copies a database of its own. In memory, where there are some gigabytes of it, that is three times as fast.
SCRATCH = $(shell [ "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 2000000 ] 2>/dev/null && \
	echo /dev/shm || echo "$${TMPDIR:-/tmp}")

.PHONY: dev test test-browser check properties walk mutants build template tools clean

dev: tools
	cargo run --package local dev

# The functions first, as they are deployed: the tests run them, and cargo lambda watch finds them built. A fleet of eight processes
# with fifty requests each needs more open files than a user mostly may have without asking. What the tests have counted
# is shown at the end of each.
test: tools
	cargo build
	ulimit -S -n "$$(ulimit -H -n)" && TMPDIR=$(SCRATCH) cargo test --workspace -- --show-output

# The connect page in Chromium, against all that `make dev` runs. Its pictures are in target/page.
test-browser: tools
	@sh local/tools.sh browser
	cargo build
	cargo build --package local
	PATH="$(CURDIR)/.tools/node/bin:$$PATH" npm --prefix local/browser --silent test

# A migration that was released is never edited: SHA256SUMS knows each.
check:
	cd migrations && sha256sum --check --strict --quiet SHA256SUMS && ls [0-9]*.sql | diff - <(sed -n 's/.*  //p' SHA256SUMS)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# Each target of foreign input for so many seconds: make properties SECONDS=600
SECONDS := 60
properties:
	FUZZ_SECONDS=$(SECONDS) cargo test --package shared properties -- --nocapture

# The exhaustive walk of a token's refresh with two mishaps on a way instead of one: a minute, after a build of its own.
walk:
	CARGO_PROFILE_DEV_OPT_LEVEL=2 WALK_MISHAPS=2 cargo test --package shared --target-dir target/walk walk -- --nocapture

# Plants one mistake after the other in a file, or in what a diff touches, and names those that no in-process test of `shared`
# notices: make mutants FILE=shared/src/token.rs, make mutants DIFF=my.diff
mutants:
	@sh local/tools.sh mutants
	.tools/bin/cargo-mutants mutants --package shared --output target $(if $(FILE),--file $(FILE)) $(if $(DIFF),--in-diff $(DIFF)) -- --lib

# What a deployment takes: target/lambda/<name>/bootstrap. Its linker, zig, is looked for on the PATH.
build: tools
	PATH="$(CURDIR)/.tools/venv/bin:$$PATH" $(CARGO_LAMBDA) lambda build --release --x86-64 --bin wpp-create --bin wpp-qr --bin wpp-status

template: .tools/cfn/bin/cfn-lint
	$< template.yaml

tools:
	@sh local/tools.sh

.tools/cfn/bin/cfn-lint:
	@sh local/tools.sh cfn-lint

clean:
	cargo clean
	rm -rf .tools .local
