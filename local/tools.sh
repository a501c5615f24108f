#!/bin/sh
# Installs what a target of the Makefile needs in addition to Rust, make and Python. PostgreSQL comes from the system's packages;
# the rest is installed below .tools and local, from lock files, and again only when a lock file changes.
set -eu
cd "$(dirname "$0")/.."

say() { echo "tools: $*" >&2; }
fail() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# Installs the packages $* with the system's package manager, with sudo if this user is not root.
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

need_python() {
  has python3 || system_packages python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || system_packages python3-venv
}

# Creates the virtual environment .tools/$1 with the packages of local/requirements/$1.txt, pinned by hash. No package is built from
# source.
python_tools() {
  requirements="local/requirements/$1.txt"
  cmp -s "$requirements" ".tools/$1/installed.txt" && return
  need_python
  say "installing $1 into .tools/$1 (pip)"
  python3 -m venv --clear ".tools/$1"
  ".tools/$1/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes \
    --only-binary=:all: --requirement "$requirements"
  cp "$requirements" ".tools/$1/installed.txt"
}

need_postgresql() {
  [ -n "${POSTGRES_BIN:-}" ] && return
  has postgres && return
  ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 && return
  system_packages postgresql
}

# The extension that lets `supabase db lint` read the bodies of functions.
need_plpgsql_check() {
  need_postgresql
  postgres="${POSTGRES_BIN:+$POSTGRES_BIN/postgres}"
  [ -n "$postgres" ] || postgres=$(command -v postgres || ls /usr/lib/postgresql/*/bin/postgres | sort -V | tail -1)
  pg_config="$(dirname "$(readlink -f "$postgres")")/pg_config"
  [ -e "$("$pg_config" --pkglibdir)/plpgsql_check.so" ] && return
  system_packages "postgresql-$("$pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')-plpgsql-check"
}

need_cargo_lambda() {
  [ -n "${CARGO_LAMBDA:-}" ] && return
  has cargo-lambda && return
  python_tools cargo-lambda
}

# Installs a program from crates.io: `cargo install $3...` into .tools/bin, built by profile $2, with the crate's lock file.
cargo_tool() {
  program=$1 profile=$2
  shift 2
  say "building $program into .tools (cargo, some minutes)"
  cargo install --quiet --profile "$profile" --locked --force --root .tools --target-dir .tools/build "$@"
  rm -rf .tools/build
}

# PostgREST if it is installed, otherwise a crate that implements its protocol, built by profile $1: `dev` takes half the time, and
# `release` makes it as quick as PostgREST. A release build also serves where `dev` would do.
need_postgrest() {
  [ -n "${POSTGREST_BIN:-}${POSTRUST_BIN:-}" ] && return
  has postgrest || has postrust && return
  sources='local/postrust/Cargo.toml local/postrust/Cargo.lock local/postrust/src/main.rs'
  for built in release "$1"; do
    cat $sources | cmp -s - ".tools/postrust-$built.txt" && return
  done
  rm -f .tools/postrust-*.txt
  cargo_tool postrust "$1" --path local/postrust
  cat $sources >".tools/postrust-$1.txt"
}

# Node.js with npm: the system's, otherwise one from PyPI.
need_node() {
  has npm && node -e 'process.exit(parseInt(process.versions.node) < 24 ? 1 : 0)' && return
  python_tools node
}

# Installs the packages in the folder $1 by its lock file, with the npm options that follow. If the package $needed is missing,
# fewer packages were installed before.
npm_packages() {
  need_node
  cmp -s "$1/package-lock.json" "$1/node_modules/installed.json" && [ -d "$1/node_modules/${needed:-}" ] && return
  say "installing the packages of $1 into $1/node_modules (npm)"
  PATH="$PWD/.tools/node/bin:$PATH" npm ci --ignore-scripts --silent --no-audit --no-fund --prefix "$@"
  cp "$1/package-lock.json" "$1/node_modules/installed.json"
}

need_chromium() {
  [ -n "${CHROMIUM:-}" ] && return
  [ -x /usr/bin/chromium ] || system_packages chromium
}

need_valgrind() {
  has valgrind || system_packages valgrind
}

for tool in "${@:-all}"; do
  case "$tool" in
    cargo-lambda | sam | lint | ministack) python_tools "$tool" ;;
    cargo-mutants) [ -x .tools/bin/cargo-mutants ] || cargo_tool cargo-mutants dev --version 27.1.0 cargo-mutants ;;
    cargo-deny) [ -x .tools/bin/cargo-deny ] || cargo_tool cargo-deny dev --version 0.20.2 cargo-deny ;;
    contract)
      python_tools contract
      npm_packages local/contract
      ;;
    node) need_node ;;
    migrate) npm_packages local/migrate ;;
    plpgsql-check) need_plpgsql_check ;;
    browser)
      need_chromium
      needed=lighthouse npm_packages local/browser
      ;;
    valgrind) need_valgrind ;;
    quick-postgrest) need_postgrest release ;;
    all)
      need_postgresql
      need_python
      # The downloads run while the replacement for PostgREST is built.
      need_cargo_lambda &
      cargo_lambda=$!
      npm_packages local/browser --omit=dev &
      browser=$!
      need_postgrest dev
      wait "$cargo_lambda"
      wait "$browser"
      ;;
    *) fail "unknown tool $tool" ;;
  esac
done
