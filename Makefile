# Every verb sets up what it needs, says what it installs, and repeats no set-up.

SHELL := /bin/bash

# Many tests wait for servers rather than for a processor.
export RUST_TEST_THREADS ?= 4

# Every test copies its own database. In memory, if some gigabytes are free, that is three times as fast.
SCRATCH = $(shell [ "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 2000000 ] 2>/dev/null && \
	echo /dev/shm || echo "$${TMPDIR:-/tmp}")

# The architecture to build and deploy for: the one in samconfig.toml, otherwise arm64. The first time also make deploy ARCH=x86_64
SAVED_ARCH := $(or $(shell sed -n '/^ *\#/d;s/.*Architecture=[\\"]*\([a-z0-9_]*\).*/\1/p' samconfig.toml 2>/dev/null),arm64)
ARCH ?= $(SAVED_ARCH)
TARGET = $(if $(filter x86_64,$(ARCH)),x86_64,aarch64)-unknown-linux-gnu

# SAM builds with the cargo-lambda in .tools, and that with the zig in .tools. SAM checks and builds without an account.
export SAM_CLI_TELEMETRY = 0
SAM = PATH="$(CURDIR)/.tools/cargo-lambda/bin:$$PATH" .tools/sam/bin/sam

.PHONY: dev link test test-browser bench limits measurable check properties walk simulate mutants contract advisories target build as-saved deploy migrate smoke sam tools clean

dev: tools
	cargo run --package local dev

# Links a number in this terminal, at `make dev` or at another address: WPP_TOKEN=... make link WPP_URL=https://...
link:
	@cargo run --quiet --package local link

# Builds the functions first, as they are deployed: the tests run them, and cargo lambda watch finds them built. A fleet of eight
# processes with fifty requests each needs more open files than the usual limit of a user. The end of each test shows its counts.
test: tools
	@sh local/tools.sh migrate plpgsql-check
	cargo build
	ulimit -S -n "$$(ulimit -H -n)" && TMPDIR=$(SCRATCH) cargo test --workspace -- --show-output

# Tests the connect page in Chromium, against all that `make dev` runs: about five minutes, of which it watches a code for two. Its
# pictures are in target/page.
test-browser: tools
	@sh local/tools.sh browser
	cargo build
	cargo build --package local
	PATH="$(CURDIR)/.tools/node/bin:$$PATH" npm --prefix local/browser --silent test

# Measures the functions against their targets and an empty function: a table, and target/bench.json. It takes a good minute after
# the build. Run it on an idle machine; it says if the machine was busy.
bench: measurable
	ulimit -S -n "$$(ulimit -H -n)" && TMPDIR=$(SCRATCH) cargo run --quiet --profile bench --package local bench

# Fails if the functions send more upstream requests, or use more processor, than local/limits.json allows. To accept new limits:
# make limits RENEW=1
limits: measurable
	TMPDIR=$(SCRATCH) cargo run --quiet --profile bench --package local limits $(if $(RENEW),renew)

# Builds the measured programs as they are deployed.
measurable: tools
	@sh local/tools.sh valgrind
	cargo build --release
	cargo build --release --package empty

# Never edit a released migration: SHA256SUMS lists each. WS1004 only accepts a log group that is named after its function. The
# template makes the log groups before their functions, and `make smoke` checks their retention.
# The deployed functions do not have the feature `testing`.
check: sam
	@sh local/tools.sh lint
	cd migrations && sha256sum --check --strict --quiet SHA256SUMS && ls [0-9]*.sql | diff - <(sed -n 's/.*  //p' SHA256SUMS)
	python3 local/layout.py
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	features="$$(cargo tree --edges normal,features)" && ! grep 'shared feature "testing"' <<< "$$features"
	$(SAM) validate --lint --region eu-central-1
	.tools/lint/bin/cfn-lint --append-rules cfn_lint_serverless.rules --ignore-checks WS1004 --template template.yaml

# Tests openapi.yaml as its users do: with schemathesis, and with a generated TypeScript client, against the local stack.
contract: tools
	@sh local/tools.sh contract
	cargo build
	TMPDIR=$(SCRATCH) cargo test --package local --test api contract -- --ignored --show-output

# Runs each target of foreign input for so many seconds: make properties SECONDS=600
SECONDS := 60
properties:
	FUZZ_SECONDS=$(SECONDS) cargo test --package shared properties -- --nocapture

# Walks every interleaving of a token's refresh with two faults in one run instead of one: a minute, after its own build.
walk:
	CARGO_PROFILE_DEV_OPT_LEVEL=2 WALK_MISHAPS=2 cargo test --package shared --target-dir target/walk walk -- --nocapture

# Simulates an hour of a fleet: writes docs/fleet.svg and the table of docs/fleet.md. It takes a minute, after the build that it
# shares with `make walk`.
simulate:
	CARGO_PROFILE_DEV_OPT_LEVEL=2 cargo test --package shared --lib --target-dir target/walk simulate -- --ignored --nocapture

# Makes one mistake at a time in a file, or in the code of a diff. Lists the mistakes that no in-process test of `shared` finds:
# make mutants FILE=shared/src/wpp/token.rs, make mutants DIFF=my.diff
mutants:
	@sh local/tools.sh cargo-mutants
	.tools/bin/cargo-mutants mutants --package shared --output target $(if $(FILE),--file $(FILE)) $(if $(DIFF),--in-diff $(DIFF)) -- --lib

# Checks the dependencies' known faults, licenses and sources: make advisories ADVISORY_DB=folder for a copy of the database
advisories:
	@sh local/tools.sh cargo-deny
	local/advisories.sh $(ADVISORY_DB)

# The version that each line of the log names.
build smoke: export WPP_VERSION = $(or $(shell git describe --tags --always --dirty 2>/dev/null),unknown)

# Without this check, cargo-lambda would fetch a missing target.
target:
	@test -d "$$(rustc --print sysroot)/lib/rustlib/$(TARGET)" || { echo "Rust builds nothing for $(ARCH) yet: rustup target add $(TARGET)" >&2; exit 1; }

# Builds the deployment: .aws-sam/build. It uses only what the files of hashes and Cargo.lock name.
build: target sam
	@sh local/tools.sh cargo-lambda
	cargo fetch --locked --quiet
	CARGO_NET_OFFLINE=true $(SAM) build --region eu-central-1 --parameter-overrides Architecture=$(ARCH)

# SAM deploys with the saved parameters, even if the build is for another architecture.
as-saved:
	@test "$(ARCH)" = "$(SAVED_ARCH)" || test ! -e samconfig.toml || \
		{ echo "samconfig.toml deploys for $(SAVED_ARCH): put Architecture=$(ARCH) into it, then make deploy" >&2; exit 1; }

# The first time, SAM asks for all that it needs and saves the answers in samconfig.toml. With BUILT=1 it deploys .aws-sam/build as
# it is.
deploy: as-saved $(if $(BUILT),sam,build)
	$(SAM) deploy $(if $(wildcard samconfig.toml),,--guided --capabilities CAPABILITY_IAM --parameter-overrides Architecture=$(ARCH))

# Brings a database's schema up to date, with the Supabase CLI: DATABASE_URL='postgresql://...' make migrate
migrate:
	@env -u DATABASE_URL sh local/tools.sh node
	@PATH="$(CURDIR)/.tools/node/bin:$$PATH" node local/migrate/push.js

# Deploys the build to an emulator of AWS, built for this machine.
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
