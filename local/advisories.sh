#!/bin/sh
# Checks the dependencies against deny.toml. With a folder that holds a copy of the advisory database, it fetches nothing.
set -eu
cd "$(dirname "$0")/.."

if [ $# = 0 ]; then
  exec .tools/bin/cargo-deny --all-features check
fi
# cargo-deny expects a clone of https://github.com/RustSec/advisory-db in a folder that it names itself.
clone=.tools/advisories/advisory-db-3157b0e258782691
rm -rf "$clone"
mkdir -p "$clone"
cp -R "$1/crates" "$clone"
git -C "$clone" init --quiet
git -C "$clone" add crates
git -C "$clone" -c user.name=copy -c user.email=copy@localhost commit --quiet --message "a copy"
cargo fetch --quiet --locked
exec .tools/bin/cargo-deny --offline check
