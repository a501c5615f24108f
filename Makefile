# Targets install the tools that they need, say so, and install them again only if a pinned version changes. Rust, make, a C
# compiler and Python 3.11 must be there.

SHELL := /bin/bash

# Most tests wait for servers and use little CPU, so more threads than cores are fine.
export RUST_TEST_THREADS ?= 4

# Each test with a database creates its own copy. In /dev/shm that is three times as fast; it is used if 2 GB are free.
SCRATCH = $(shell [ "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 2000000 ] 2>/dev/null && \
	echo /dev/shm || echo "$${TMPDIR:-/tmp}")

# The architecture to build and deploy for: the one in samconfig.toml, otherwise arm64.
SAVED_ARCH := $(or $(shell sed -n '/^ *\#/d;s/.*Architecture=[\\"]*\([a-z0-9_]*\).*/\1/p' samconfig.toml 2>/dev/null),arm64)
ARCH ?= $(SAVED_ARCH)
TARGET = $(if $(filter x86_64,$(ARCH)),x86_64,aarch64)-unknown-linux-gnu

# SAM builds with cargo-lambda from .tools, which uses zig from .tools. Neither check nor build needs an AWS account.
export SAM_CLI_TELEMETRY = 0
SAM = PATH="$(CURDIR)/.tools/cargo-lambda/bin:$$PATH" .tools/sam/bin/sam

# The tests that `make test` leaves out. Where one runs `cargo test --workspace`, it reuses that build: a package alone has fewer
# features.
SLOW = browser contract smoke properties walk

.PHONY: help dev link check test test-slow $(SLOW:%=slow-%) bench quick-postgrest simulate mutants advisories build target \
	deploy configured migrate sam tools clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

dev: tools ## run the whole system on this machine; it prints the page's address
	cargo run --package local dev

link: ## link a number in this terminal, at `make dev` or at WPP_URL with WPP_TOKEN
	@python3 local/link.py

# Never edit a released migration: SHA256SUMS lists each. WS1004 is ignored: it requires a log group whose name is computed from its
# function, but the template creates the groups first. The smoke test checks their retention. `check` also fails if the feature
# `testing` gets into a deployed function.
check: sam ## check the format, the lints, the order of the modules, the hashes of the migrations, and the template
	@sh local/tools.sh lint
	cd migrations && sha256sum --check --strict --quiet SHA256SUMS && ls [0-9]*.sql | diff - <(sed -n 's/.*  //p' SHA256SUMS)
	python3 local/layout.py
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	features="$$(cargo tree --edges normal,features)" && ! grep 'shared feature "testing"' <<< "$$features"
	$(SAM) validate --lint --region eu-central-1
	.tools/lint/bin/cfn-lint --append-rules cfn_lint_serverless.rules --ignore-checks WS1004 --template template.yaml

# Builds the functions first, with only the features that are deployed: the tests run them, and cargo lambda watch finds them built.
# A fleet of eight processes with fifty requests each needs more open files than the usual limit of a user. `--show-output`
# prints the counts of the tests that pass.
test: tools ## run the tests, with real PostgreSQL and real HTTP
	@sh local/tools.sh migrate plpgsql-check
	cargo build
	ulimit -S -n "$$(ulimit -H -n)" && TMPDIR=$(SCRATCH) cargo test --workspace -- --show-output

test-slow: $(addprefix slow-,$(or $(ONLY),$(SLOW))) ## run the slow ones: browser, contract, smoke, properties, walk; ONLY="smoke walk" runs some

# The connect page in Chromium, against everything that `make dev` runs. Takes about five minutes; one test watches a code for two
# minutes. Its pictures are in target/page.
slow-browser: tools
	@sh local/tools.sh browser
	cargo build
	cargo build --package local
	PATH="$(CURDIR)/.tools/node/bin:$$PATH" npm --prefix local/browser --silent test

# Tests openapi.yaml against the local stack, with schemathesis and with a generated TypeScript client.
slow-contract: tools
	@sh local/tools.sh contract
	cargo build
	TMPDIR=$(SCRATCH) cargo test --workspace --test api contract -- --ignored --show-output

# Deploys the build for this machine's architecture to an emulator of AWS.
slow-smoke: build
	@sh local/tools.sh ministack
	.tools/sam/bin/python local/smoke.py

# Fuzzes every parser of untrusted input for SECONDS each.
SECONDS := 60
slow-properties:
	FUZZ_SECONDS=$(SECONDS) cargo test --workspace --lib properties -- --nocapture

# Every interleaving of a token's refresh with two faults per run instead of one. Takes a minute after its own build.
slow-walk:
	CARGO_PROFILE_DEV_OPT_LEVEL=2 WALK_MISHAPS=2 cargo test --package shared --target-dir target/walk walk -- --nocapture

# Measures the build for this machine, prints a table and writes target/bench.json. It takes three minutes after the build. Run it on
# an idle machine; it says if the machine was busy. CHECK and RENEW only count, so the other servers need not be optimized, and write
# no JSON.
COUNTS := $(CHECK)$(RENEW)
bench: build $(if $(COUNTS),,quick-postgrest) tools ## measure the functions against their targets; CHECK=1 fails if a count exceeds local/limits.json, RENEW=1 writes that
	@sh local/tools.sh valgrind
	PATH="$(CURDIR)/.tools/cargo-lambda/bin:$$PATH" cargo lambda build --release --target $(TARGET) --package empty
	WPP_LOCAL_FUNCTIONS=target/lambda TMPDIR=$(SCRATCH) cargo run --quiet $(if $(COUNTS),,--profile bench) --package local bench \
		$(if $(RENEW),renew,$(if $(CHECK),check))

# Comes before `tools`, which would build the same server for development first.
quick-postgrest:
	@sh local/tools.sh quick-postgrest

# It takes a minute, after the build that it shares with the walk.
simulate: ## simulate an hour of a fleet, for docs/measured.md
	CARGO_PROFILE_DEV_OPT_LEVEL=2 cargo test --package shared --lib --target-dir target/walk simulate -- --ignored --nocapture

# .cargo/mutants.toml says where mistakes are planted, and which tests run. A full run takes two hours.
mutants: $(if $(SQL),tools) ## list the planted mistakes that no test notices: FILE=shared/src/wpp/token.rs, DIFF=my.diff, or SQL=1
	$(if $(SQL),cargo build && TMPDIR=$(SCRATCH) python3 local/sql_mutants.py,@sh local/tools.sh cargo-mutants && \
		.tools/bin/cargo-mutants mutants --output target $(if $(FILE),--file $(FILE)) $(if $(DIFF),--in-diff $(DIFF)))

advisories: ## check the dependencies for vulnerabilities, licenses and sources; ADVISORY_DB=folder uses a copy of the database
	@sh local/tools.sh cargo-deny
	local/advisories.sh $(ADVISORY_DB)

# The version that each line of the log names.
VERSION = $(or $(shell git describe --tags --always --dirty 2>/dev/null),unknown)
build slow-smoke bench: export WPP_VERSION = $(VERSION)
# These two run what they build.
slow-smoke bench: ARCH = $(shell uname -m | sed s/aarch64/arm64/)

# Uses only what Cargo.lock and the hash files pin.
build: target sam ## build what `make deploy` deploys, into .aws-sam/build
	@sh local/tools.sh cargo-lambda
	cargo fetch --locked --quiet
	CARGO_NET_OFFLINE=true $(SAM) build --region eu-central-1 --parameter-overrides Architecture=$(ARCH)

# Without this check, cargo-lambda would fetch a missing target.
target:
	@test -d "$$(rustc --print sysroot)/lib/rustlib/$(TARGET)" || { echo "the Rust target for $(ARCH) is missing: rustup target add $(TARGET)" >&2; exit 1; }

deploy: configured $(if $(BUILT),sam,build) ## build and deploy with samconfig.toml; with BUILT=1, deploy .aws-sam/build as it is
	$(SAM) deploy

# SAM deploys with the saved parameters, even if the build is for another architecture.
configured:
	@test -e samconfig.toml || { \
		echo "make deploy: copy samconfig.example.toml to samconfig.toml; edit region and the values down to AlarmTopicArn" >&2; exit 1; }
	@test "$(ARCH)" = "$(SAVED_ARCH)" || { echo "samconfig.toml deploys for $(SAVED_ARCH): put Architecture=$(ARCH) into it" >&2; exit 1; }
	@grep -q '^ *"AlarmTopicArn=arn:' samconfig.toml || echo "make deploy: AlarmTopicArn is empty, so alarms will notify no one (docs/operating.md)" >&2

migrate: ## bring the database of DATABASE_URL up to date, with the Supabase CLI
	@env -u DATABASE_URL sh local/tools.sh node
	@PATH="$(CURDIR)/.tools/node/bin:$$PATH" node local/migrate/push.js

tools:
	@sh local/tools.sh

sam:
	@sh local/tools.sh sam

clean: ## remove everything built or installed in this folder
	cargo clean
	rm -rf .tools .local .aws-sam local/browser/node_modules local/contract/node_modules local/migrate/node_modules
