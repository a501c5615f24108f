# A few verbs. Every one sets up what it needs, says what it installs, and does no set-up twice.

SHELL := /bin/bash

# Many tests wait for servers rather than for a processor.
export RUST_TEST_THREADS ?= 4

# Every test copies a database of its own. In memory, where there are some gigabytes of it, that is three times as fast.
SCRATCH = $(shell [ "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 2000000 ] 2>/dev/null && \
	echo /dev/shm || echo "$${TMPDIR:-/tmp}")

# What is built and deployed for: what samconfig.toml says, else arm64; the first time also make deploy ARCH=x86_64
SAVED_ARCH := $(or $(shell sed -n '/^ *\#/d;s/.*Architecture=[\\"]*\([a-z0-9_]*\).*/\1/p' samconfig.toml 2>/dev/null),arm64)
ARCH ?= $(SAVED_ARCH)
TARGET = $(if $(filter x86_64,$(ARCH)),x86_64,aarch64)-unknown-linux-gnu

# SAM builds with the cargo-lambda, and that with the zig, of .tools. It checks and builds without an account.
export SAM_CLI_TELEMETRY = 0
SAM = PATH="$(CURDIR)/.tools/cargo-lambda/bin:$$PATH" .tools/sam/bin/sam

.PHONY: dev link test test-browser bench limits measurable check properties walk simulate mutants contract advisories target build as-saved deploy migrate smoke sam tools clean

dev: tools
	cargo run --package local dev

# Links a number in this terminal, with what `make dev` runs, or at another address: WPP_TOKEN=... make link WPP_URL=https://...
link:
	@cargo run --quiet --package local link

# The functions first, as they are deployed: the tests run them, and cargo lambda watch finds them built. A fleet of eight processes
# with fifty requests each needs more open files than a user mostly may have without asking. What the tests have counted
# is shown at the end of each.
test: tools
	@sh local/tools.sh migrate plpgsql-check
	cargo build
	ulimit -S -n "$$(ulimit -H -n)" && TMPDIR=$(SCRATCH) cargo test --workspace -- --show-output

# The connect page in Chromium, against all that `make dev` runs. Its pictures are in target/page.
test-browser: tools
	@sh local/tools.sh chromium
	cargo build
	cargo build --package local
	PATH="$(CURDIR)/.tools/node/bin:$$PATH" npm --prefix local/browser --silent test

# What the functions cost, against their targets and a function that does nothing: a table, and target/bench.json. A good minute
# after the build, best on a machine that does nothing else; it says so where it did.
bench: measurable
	ulimit -S -n "$$(ulimit -H -n)" && TMPDIR=$(SCRATCH) cargo run --quiet --profile bench --package local bench

# Fails where the functions ask more of their upstreams, or of the processor, than local/limits.json allows. Where that is meant:
# make limits RENEW=1
limits: measurable
	TMPDIR=$(SCRATCH) cargo run --quiet --profile bench --package local limits $(if $(RENEW),renew)

# What is measured, built as it is deployed.
measurable: tools
	@sh local/tools.sh valgrind
	cargo build --release
	cargo build --release --package empty

# A migration that was released is never edited: SHA256SUMS knows each. WS1004 knows no log group but one that is named
# after its function; ours are made before their functions, and kept as long as `make smoke` says.
# What is deployed has no feature `testing`.
check: sam
	@sh local/tools.sh lint
	cd migrations && sha256sum --check --strict --quiet SHA256SUMS && ls [0-9]*.sql | diff - <(sed -n 's/.*  //p' SHA256SUMS)
	python3 local/layout.py
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	features="$$(cargo tree --edges normal,features)" && ! grep 'shared feature "testing"' <<< "$$features"
	$(SAM) validate --lint --region eu-central-1
	.tools/lint/bin/cfn-lint --append-rules cfn_lint_serverless.rules --ignore-checks WS1004 --template template.yaml

# openapi.yaml as others take it: schemathesis, and a TypeScript client that is generated from it, against the local stack.
contract: tools
	@sh local/tools.sh contract
	cargo build
	TMPDIR=$(SCRATCH) cargo test --package local --test api contract -- --ignored --show-output

# Each target of foreign input for so many seconds: make properties SECONDS=600
SECONDS := 60
properties:
	FUZZ_SECONDS=$(SECONDS) cargo test --package shared properties -- --nocapture

# The exhaustive walk of a token's refresh with two mishaps on a way instead of one: a minute, after a build of its own.
walk:
	CARGO_PROFILE_DEV_OPT_LEVEL=2 WALK_MISHAPS=2 cargo test --package shared --target-dir target/walk walk -- --nocapture

# An hour of a fleet in simulated time: writes docs/fleet.svg and the table of docs/fleet.md. A minute, after the build that
# `make walk` has too.
simulate:
	CARGO_PROFILE_DEV_OPT_LEVEL=2 cargo test --package shared --lib --target-dir target/walk simulate -- --ignored --nocapture

# Plants one mistake after the other in a file, or in what a diff touches, and names those that no in-process test of `shared`
# notices: make mutants FILE=shared/src/wpp/token.rs, make mutants DIFF=my.diff
mutants:
	@sh local/tools.sh cargo-mutants
	.tools/bin/cargo-mutants mutants --package shared --output target $(if $(FILE),--file $(FILE)) $(if $(DIFF),--in-diff $(DIFF)) -- --lib

# Known faults in dependencies, licences, where they come from: make advisories ADVISORY_DB=folder for a copy of the database
advisories:
	@sh local/tools.sh cargo-deny
	local/advisories.sh $(ADVISORY_DB)

# What each line of the log names as the version.
build smoke: export WPP_VERSION = $(or $(shell git describe --tags --always --dirty 2>/dev/null),unknown)

# Left to itself, cargo-lambda would fetch a target that is missing.
target:
	@test -d "$$(rustc --print sysroot)/lib/rustlib/$(TARGET)" || { echo "Rust builds nothing for $(ARCH) yet: rustup target add $(TARGET)" >&2; exit 1; }

# What a deployment takes: .aws-sam/build. It is made with what files of hashes and Cargo.lock name, and with nothing else.
build: target sam
	@sh local/tools.sh cargo-lambda
	cargo fetch --locked --quiet
	CARGO_NET_OFFLINE=true $(SAM) build --region eu-central-1 --parameter-overrides Architecture=$(ARCH)

# SAM deploys with the saved parameters, whatever was built.
as-saved:
	@test "$(ARCH)" = "$(SAVED_ARCH)" || test ! -e samconfig.toml || \
		{ echo "samconfig.toml deploys for $(SAVED_ARCH): put Architecture=$(ARCH) into it, then make deploy" >&2; exit 1; }

# The first time, SAM asks for all that it needs and saves the answers in samconfig.toml. With BUILT=1 what lies in .aws-sam/build
# is deployed as it is.
deploy: as-saved $(if $(BUILT),sam,build)
	$(SAM) deploy $(if $(wildcard samconfig.toml),,--guided --capabilities CAPABILITY_IAM --parameter-overrides Architecture=$(ARCH))

# Brings a database's schema up to date, with the Supabase CLI: DATABASE_URL='postgresql://...' make migrate
migrate:
	@env -u DATABASE_URL sh local/tools.sh node
	@PATH="$(CURDIR)/.tools/node/bin:$$PATH" node local/migrate/push.js

# What is deployed, in an emulator of AWS, built for this machine.
smoke: ARCH = $(shell uname -m | sed s/aarch64/arm64/)
smoke: build
	@sh local/tools.sh ministack
	.tools/sam/bin/python local/smoke.py

tools:
	@sh local/tools.sh

sam:
	@sh local/tools.sh sam

clean:
	cargo clean
	rm -rf .tools .local .aws-sam local/browser/node_modules local/contract/node_modules local/migrate/node_modules
