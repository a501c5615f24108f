#!/bin/sh
# Checks the dependencies by deny.toml. With a folder that holds a copy of the advisory database, nothing is fetched.
set -eu
cd "$(dirname "$0")/.."

if [ $# = 0 ]; then
  exec .tools/bin/cargo-deny --all-features check
fi
# cargo-deny looks for a clone of its own naming, of https://github.com/RustSec/advisory-db.
clone=.tools/advisories/advisory-db-3157b0e258782691
rm -rf "$clone"
mkdir -p "$clone"
cp -R "$1/crates" "$clone"
git -C "$clone" init --quiet
git -C "$clone" add crates
git -C "$clone" -c user.name=copy -c user.email=copy@localhost commit --quiet --message "a copy"
cargo fetch --quiet --locked
exec .tools/bin/cargo-deny --offline check
