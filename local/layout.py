"""Checks that a module of `shared` uses only modules below it, and that no two use each other. Prints each import that breaks this."""

import re
import sys
from pathlib import Path

SOURCE = Path("shared/src")

# From the top. All other modules are the lowest level; `lib.rs` and `function.rs`, the crate's root, are not checked.
LEVELS = ["http", "number", "error", "store", "wpp"]
ROOT = {"lib", "function", "properties", "testing"}

USED = re.compile(r"\bcrate::([a-z_]+)")
TEST_FILE = re.compile(r"/(tests?|testing)(/|\.rs)")


def level(module):
    return LEVELS.index(module) if module in LEVELS else len(LEVELS)


def imports():
    for path in sorted(SOURCE.rglob("*.rs")):
        module = path.relative_to(SOURCE).parts[0].removesuffix(".rs")
        if module not in ROOT and not TEST_FILE.search(f"/{path}"):
            code = path.read_text(encoding="utf-8").split("#[cfg(test)]\nmod tests {")[0]
            code = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith("//"))
            for used in set(USED.findall(code)) - ROOT - {module}:
                yield path, module, used


found = list(imports())
pairs = {(module, used) for _, module, used in found}
wrong = [
    f"{path} uses {used}, which is above {module} or uses it"
    for path, module, used in found
    if level(used) < level(module) or (used, module) in pairs
]
print("\n".join(wrong))
sys.exit(bool(wrong))
