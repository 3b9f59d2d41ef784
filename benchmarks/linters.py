"""The defects of the corpus beside linters and type checkers: ruff (all rules), pylint (all checks), TorchFix, mypy.

A tool names a defect when it reports, at the line of the defect (two lines off at most), a code that is about such a
defect (``ABOUT``), and no longer reports it there once the program is mended.  Counted beside it: any new message at
the line, whatever it says, and any message at all.  The tools live in an environment of their own:

    python -m venv linters && linters/bin/pip install ruff pylint torchfix flake8 mypy
    python benchmarks/linters.py --tools linters/bin --ours results-of-defects.json --write docs/check.md
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "reading"))

from corpus import Case, cases

from bowerbird.reading.source import open_source

UNUSED, UNDEFINED, DISCARDED = (
    ("F841", "W0612", "RUF059"),
    ("F821", "E0602", "name-defined"),
    ("B018", "W0106", "W0104"),
)
ATTRIBUTE, ARGUMENT = ("E1101", "E1102", "attr-defined"), ("ARG001", "ARG002", "W0613")
ABOUT: dict[str, tuple[str, ...]] = {
    "D09": ("PLW2901", "W2901"),
    "D12": ARGUMENT,
    "G03": (*UNUSED, "B007", "F811"),
    "G04": UNUSED,
    "G07": UNUSED,
    "G11": ("PLW2901", "W2901", "assignment"),
    "G17": ARGUMENT,
    "L03": UNUSED,
    "L04": (*ATTRIBUTE, "operator"),
    "M05": (*UNUSED, "W0631"),
    "P04": (*UNUSED, "W0238"),
    "P05": ARGUMENT,
    "P07": ("W0231", "W0201", "E0203", "PLE0237", "misc"),
    "R01": (*DISCARDED, "E1111", "func-returns-value"),
    "R02": UNUSED,
    "R04": (*ARGUMENT, *UNUSED),
    "T02": DISCARDED,
    "T05": DISCARDED,
    "T09": DISCARDED,
    "V01": UNUSED,
    "X01": UNDEFINED,
    "X02": (*ATTRIBUTE, "operator", "call-overload", "arg-type"),
    "X03": ("operator", "arg-type"),
    "X04": ("arg-type", "call-overload"),
    "X05": (*DISCARDED, *UNUSED),
    "X07": UNUSED,
    "X08": UNUSED,
}
"""Codes that, at the right line, say what is wrong in a defect of each id; of the other ids no tool has a code."""

SECTION = """## Beside other tools

The same programs, {total} with one real defect each ({silent} of them silent: no exception, no warning), given to ruff
(all rules, with those in preview), pylint (all checks), TorchFix and mypy.  A defect counts as named when a message
about it stands at its line, two lines off at most, and is gone once the program is mended; beside it, whatever else is
new at that line, and how much each tool says in all of broken and mended programs.  `benchmarks/linters.py` makes the
table and says which codes are about which defect.

{table}

Named by another tool:

{named}
"""

PATTERN = re.compile(r"^(?P<file>[^:\n]+):(?P<line>\d+):(?:\d+:)? ?(?P<rest>.*)$", re.MULTILINE)
Found = dict[str, list[tuple[int, str]]]
"""File -> its messages: line and code."""


def written_out(known: list[Case], folder: Path) -> None:
    """Every program as one file with a name of its own; notebooks as their code."""
    for case in known:
        for kind, path in (("broken", case.broken), ("mended", case.mended)):
            source = open_source(path)
            (folder / f"{case.name}__{kind}.py").write_text(source.texts[source.main], encoding="utf-8")


def messages(command: list[str], folder: Path, code: str) -> Found:
    """What a command prints, read by the pattern of its codes; without one the lines are ruff's JSON."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found: Found = defaultdict(list)
    if not code:
        for told in map(json.loads, done.stdout.splitlines()):
            found[Path(told["filename"]).name].append((told["location"]["row"], told["code"]))
    for match in PATTERN.finditer(done.stdout) if code else ():
        coded = re.search(code, match["rest"])
        if coded:
            found[Path(match["file"]).name].append((int(match["line"]), coded[1]))
    if not found and done.stderr:
        print(f"{command[0]}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
    return found


def tools(folder: Path, programs: Path) -> dict[str, Found]:
    """What each tool says of the programs.  mypy looks at the torch of this environment; pylint, which cannot follow
    the attributes of modules, does without."""
    names = sorted(path.name for path in programs.glob("*.py"))
    typed = ["--ignore-missing-imports", "--check-untyped-defs", "--python-executable", sys.executable]
    commands = {
        "ruff": (["ruff", "check", "--isolated", "--select", "ALL", "--preview", "--output-format", "json-lines"], ""),
        "pylint": (["pylint", "--enable=all", "--disable=import-error,duplicate-code", "-f", "text"], r"^(\w\d+)"),
        "TorchFix": (["torchfix", "--select", "ALL"], r"^(TOR\d+)"),
        "mypy": (["mypy", *typed], r"\[([\w-]+)\]$"),
    }
    with ThreadPoolExecutor(2) as pool:
        running = {
            tool: pool.submit(messages, [str(folder / command[0]), *command[1:], *names], programs, code)
            for tool, (command, code) in commands.items()
        }
    return {tool: job.result() for tool, job in running.items()}


def verdict(case: Case, found: Found) -> tuple[bool, bool, bool]:
    """Whether the defect is named, whether anything new is said at its line, and whether anything is."""
    at_line = [code for line, code in found[f"{case.name}__broken.py"] if case.near(line)]
    # lines move little between the two, so the codes are compared over the neighbourhood
    after = [code for line, code in found[f"{case.name}__mended.py"] if case.near(line) or case.near(line - 1)]
    new = [code for code in set(at_line) if at_line.count(code) > after.count(code)]
    about = {code for rule in case.rules for code in ABOUT.get(rule, ())}
    return any(code in about for code in new), bool(new), bool(at_line)


def table(known: list[Case], said: dict[str, Found], ours: dict[str, str] | None) -> list[str]:
    counts = {
        tool: [sum(v) for v in zip(*(verdict(c, found) for c in known), strict=True)] for tool, found in said.items()
    }
    total = len(known)
    rows = ["| tool | names the defect | new message at its line | any message at its line | messages in all |"]
    rows.append("|---|---:|---:|---:|---:|")
    if ours is not None:
        here = sum(bool(ours.get(case.name)) for case in known)
        rows.append(f"| `bowerbird check` | {here} of {total} | | | |")
    for tool, (named, new, any_) in counts.items():
        every = sum(len(found) for found in said[tool].values())
        rows.append(f"| {tool} | {named} of {total} | {new} | {any_} | {every:,} |")
    return rows


def named_by_each(known: list[Case], said: dict[str, Found]) -> list[str]:
    """The defects that some other tool names, with the tools that do."""
    rows = []
    for case in known:
        who = [tool for tool, found in said.items() if verdict(case, found)[0]]
        if who:
            rows.append(f"| {case.rules[0]} | {case.name[4:].replace('_', ' ')} | {', '.join(who)} |")
    return ["| id | defect | named by |", "|---|---|---|", *rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path, required=True, help="the folder of the tools' executables")
    parser.add_argument("--write", type=Path, help="the page whose section 'Beside other tools' is written anew")
    parser.add_argument("--ours", type=Path, help="results kept by benchmarks/defects.py --json")
    arguments = parser.parse_args()
    known = cases()
    ours = None
    if arguments.ours:
        ours = {row["name"]: row["named"] for row in json.loads(arguments.ours.read_text(encoding="utf-8"))}
    with tempfile.TemporaryDirectory() as name:
        written_out(known, Path(name))
        said = tools(arguments.tools.resolve(), Path(name))
    silent = sum(case.silent for case in known)
    rows, others = "\n".join(table(known, said, ours)), "\n".join(named_by_each(known, said))
    section = SECTION.format(total=len(known), silent=silent, table=rows, named=others)
    print(section)
    if arguments.write:
        page = arguments.write.read_text(encoding="utf-8") if arguments.write.exists() else "# Checking a program\n"
        arguments.write.write_text(placed(page, section), encoding="utf-8")


def placed(page: str, section: str) -> str:
    """The page with this section in the place of the one of the same heading, or at its end."""
    heading = section.split("\n", 1)[0]
    before, found, rest = page.partition(heading + "\n")
    if not found:
        return f"{page.rstrip()}\n\n{section}"
    following = re.search(r"^## ", rest, re.MULTILINE)
    after = rest[following.start() :] if following else ""
    return f"{before}{section}\n{after}".rstrip() + "\n"


if __name__ == "__main__":
    main()
