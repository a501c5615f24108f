"""Makes one mistake at a time in the migrations, and lists each mistake that no test of the database notices.

Usage: python3 local/sql_mutants.py [COUNT] [--only TEXT] [--list]

It draws COUNT mistakes (by default 120; 0: all) with a fixed seed, builds the tests once, and runs them against a copy of the
migrations. --only keeps the mistakes whose line contains TEXT, and --list prints the lines and runs nothing. It fails if fewer than
95 % are noticed. A mistake that makes a migration invalid does not count.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

WORKSPACE = Path(__file__).resolve().parent.parent
MIGRATIONS = WORKSPACE / "migrations"
NEEDED = 0.95

# The tests of the database, fastest first. `migrate::` is left out: it tests the Supabase CLI.
FUNCTION_TESTS = [("database", ["creations::", "numbers::", "leases::"]), ("interleavings", ["sql::"])]
TABLE_TESTS = [("database", ["migrations::", "shapes::", "hide_settings::"])]
LOCK_TESTS = [("database", ["torture::"])]

# Mistakes that change no behavior: a part of the mistake's line, and the reason.
EQUIVALENT = {
    "if false or v_owner = p_organization_id then": "without a row, the update that follows changes none",
    "settle_primary: condition is false: if false then": "the second condition has the same effect",
    "wpp_save_snapshot: condition is true: if true and p_may_insert then": "a row that exists conflicts, and stays",
    "where s.session_name = 'wpp_' || p_session and true;": "the name of a session is unique",
    "new_number: boolean: select p_organization_id, r.messenger_type, r.provider, r.name, false, false, r.webhook_key": "wpp_save_credentials makes the row active",
    "_tables.sql:88 : boolean: select v_organization, r.messenger_type": "the row is removed again",
    "wpp_numbers n where true and n.platform_id": "a platform id names its organization",
    "wpp_creations c where true and c.platform_id": "a platform id names its organization",
    "settle_primary: condition is true: where true and n.is_usable": "all rows of the organization are locked",
    "v_is_same_session := v_before.session = p_session": "null is used like false",
}

# What ends an operand of `and`, `or`, `where`, `if` and `elsif`.
OPERAND_END = re.compile(r"\b(and|or|then|where|order by|limit|for|returning|on|loop|offset|end|else|when)\b|[;,]|\$\$")
ARGUMENT_END = re.compile(",")

# A number may be inside a regular expression, so the result replaces it and not an expression such as `n + 1`.
NUMBER = r"(?<=[ ,(])(?<!\* )(\d\d+)(?=[,);} ]|$)"


def blank(found):
    """Returns blanks of the same length, so that offsets stay valid."""
    return re.sub(r"[^'\n]", " ", found[0])


def operand(text, start, ends=OPERAND_END):
    """Returns where the operand that begins here ends."""
    depth, at = 0, start
    while at < len(text):
        if text[at] == "'":
            at = text.index("'", at + 1)
        elif text[at] in "([":
            depth += 1
        elif text[at] in ")]":
            depth -= 1
            if depth < 0:
                break
        elif depth == 0 and (text[at - 1].isspace() or text[at] in ";,$") and ends.match(text, at):
            break
        at += 1
    return start + len(text[start:at].rstrip())


def conditions(text):
    # Keywords that join no conditions here.
    others = r"create or replace|if not exists \w|between[^;]*?\band\b|^ +when \w+ or \w+ then"
    text = re.sub(others, blank, text, flags=re.MULTILINE)
    for found in re.finditer(r"\b(where|and|or|if|elsif) (?!case\b)", text):
        end = operand(text, found.end())
        for value in ["true", "false"] if found[1] in ("if", "elsif") else ["false" if found[1] == "or" else "true"]:
            yield f"condition is {value}", found.end(), end, value


def orders(text):
    for found in re.finditer(r"\border by ", text):
        at = found.end()
        while True:
            end = operand(text, at)
            key = text[at:end]
            if not key.endswith(" desc nulls last"):
                yield "order reversed", at, end, key.removesuffix(" desc") if key.endswith(" desc") else f"{key} desc"
            yield "order left out", at, end, "null::integer"
            if text[end] != ",":
                break
            at = end + 1 + len(text[end + 1 :]) - len(text[end + 1 :].lstrip())


def coalesces(text):
    for found in re.finditer(r"\bcoalesce\(", text):
        first = last = operand(text, found.end(), ARGUMENT_END)
        while text[last] == ",":
            last = operand(text, last + 1, ARGUMENT_END)
        yield "coalesce left out", found.start(), last + 1, (found.end(), first)


def rule(name, pattern, *replacements):
    def found(text):
        for match in re.finditer(pattern, text, re.MULTILINE):
            for replacement in replacements:
                replaced = replacement(match) if callable(replacement) else match.expand(replacement)
                yield name, match.start(), match.end(), replaced

    return found


RULES = [
    conditions,
    orders,
    coalesces,
    rule("`not` dropped", r"\bnot (?=exists \(|in \(|[a-z(](?!ull))(?<!is not )(?<!if not )(?<!do not )", r""),
    rule("is not true reversed", r"\bis not true\b", r"is true"),
    rule("distinct", r"\bis distinct from\b", r"<>"),
    rule("not distinct", r"\bis not distinct from\b", r"="),
    rule("comparison reversed", r" (<=?) (?!>)", r" > "),
    rule("comparison reversed", r" (>=?) ", r" < "),
    rule("interval", r"interval '\d+ (?!milli)\w+'", r"(\g<0> * 1.1)", r"(\g<0> * 0.9)"),
    rule("number - 1", NUMBER, lambda match: str(int(match[1]) - 1)),
    rule("number + 1", NUMBER, lambda match: str(int(match[1]) + 1)),
    rule("boolean", r"(?<=[,=] )true\b", r"false"),
    rule("boolean", r"(?<=[,=] )false\b", r"true"),
    rule("not emptied", r"\b\w+ = null, ", r""),
    rule("not emptied", r", \w+ = null\b", r""),
    rule("call left out", r"^( +)perform [^;]*;", r"\1null;"),
    rule("lock left out", r"\s*\bfor (no key update|key share)( nowait| skip locked)?", r""),
    rule("waits for a lock", r" set lock_timeout = '\d+m?s'$", r""),
    rule("waits for a lock", r"(?<=for no key update) nowait|(?<=for key share) skip locked", r""),
    rule("default left out", r" default (?!null|privileges)[^\s,()]+(\(\))?(::\w+)?(?=[,)]|$)", r""),
]


def mutants():
    """Returns [(line of the list, file, text with the mistake)], each text once."""
    found, seen = [], set()
    for file in sorted(MIGRATIONS.glob("[0-9]*.sql")):
        text = file.read_text(encoding="utf-8")
        code = re.sub(r"--[^\n]*", lambda comment: " " * len(comment[0]), text)
        code = re.sub(r"'[^']*'", lambda quoted: blank(quoted) if re.match(r"'\D*\s", quoted[0]) else quoted[0], code)
        for mistakes in RULES:
            for name, start, end, replacement in mistakes(code):
                if isinstance(replacement, tuple):
                    replacement = text[slice(*replacement)]
                mutated = text[:start] + replacement + text[end:]
                if mutated == text or mutated in seen:
                    continue
                seen.add(mutated)
                within = re.findall(r"^create or replace function (?:\w+\.)?(\w+)", text[:start], re.MULTILINE)
                number = text.count("\n", 0, start)
                where = f"{file.name}:{number + 1} {within[-1] if within else ''}"
                shown = f"{where}: {name}: {mutated.splitlines()[number].strip()}"
                if not any(part in shown for part in EQUIVALENT):
                    found.append((shown, file, mutated))
    return found


def binaries():
    """Builds the tests. Returns their programs by name."""
    build = "cargo test --package local --test database --test interleavings --no-run --message-format json".split()
    output = subprocess.run(build, cwd=WORKSPACE, check=True, stdout=subprocess.PIPE, text=True).stdout
    built = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {unit["target"]["name"]: unit["executable"] for unit in built if unit.get("executable")}


def run(program, filters, migrations):
    """Runs tests until one fails. Returns its name, `invalid` if the migrations cannot be applied, `ended` if no
    test is named, or `None`."""
    variables = os.environ | {"WPP_LOCAL_MIGRATIONS": str(migrations), "RUST_BACKTRACE": "0", "PROPTEST_RNG_SEED": "1"}
    command = [program, *filters, "--nocapture"]
    test = subprocess.Popen(
        command, cwd=WORKSPACE / "local", env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    failed = None
    for line in test.stdout:
        if re.search(r"\.sql: ERROR: .*(syntax|unrecognized|does not exist)", line):
            failed = "invalid"
        elif match := re.search(r"thread '([\w:]+)' .*panicked", line):
            failed = failed or match[1]
        elif match := re.search(r"^test (\S+) \.\.\. FAILED", line):
            failed = failed or match[1]
        elif failed:
            break
    # The servers that the tests started end with them.
    test.send_signal(signal.SIGTERM)
    test.stdout.close()
    return None if test.wait() == 0 else failed or "ended"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("count", nargs="?", type=int, default=120)
    arguments.add_argument("--only", default="")
    arguments.add_argument("--list", action="store_true")
    chosen = arguments.parse_args()
    drawn = [mutant for mutant in mutants() if chosen.only in mutant[0]]
    if 0 < chosen.count < len(drawn):
        drawn = random.Random(1).sample(drawn, chosen.count)
    if chosen.list:
        print("\n".join(name for name, _, _ in drawn))
        return 0
    programs, noticed, survived = binaries(), 0, []
    for test, filters in FUNCTION_TESTS + TABLE_TESTS:
        assert run(programs[test], filters, MIGRATIONS) is None, "The tests already fail without a mistake."
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        copy = Path(folder) / "migrations"
        shutil.copytree(MIGRATIONS, copy)
        for name, file, mutated in drawn:
            (copy / file.name).write_text(mutated, encoding="utf-8")
            stages = TABLE_TESTS if file.name.endswith("_tables.sql") else FUNCTION_TESTS + TABLE_TESTS + LOCK_TESTS
            failed = next(filter(None, (run(programs[test], filters, copy) for test, filters in stages)), None)
            shutil.copy(file, copy / file.name)
            print(f"{failed or 'SURVIVED'}: {name}", flush=True)
            noticed += failed not in (None, "invalid")
            survived += [] if failed else [name]
    print(f"{noticed} noticed, {len(survived)} survived", *survived, sep="\n")
    return int(noticed < NEEDED * (noticed + len(survived)))


if __name__ == "__main__":
    sys.exit(main())
