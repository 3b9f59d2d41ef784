"""What ``check`` says of files of public repositories that nobody changed: how many errors, and how much of them ran.

    python benchmarks/unmodified.py CLONES [--list popular|drawn|blind|aside] [--out FILE] [--judged FILE]

CLONES holds a folder OWNER+NAME for each repository of unmodified.tsv, a checkout at its commit.  What is not there is
passed over and counted.  ``popular`` are repositories that many read, up to four files of each; ``drawn`` were drawn at
random from an index of public repositories that are named after a family, up to two files of each.  The files were
drawn too, among those up to 700 lines that define a ``forward`` or call ``.step()``, before anybody looked at one.

An error is a claim that the file is wrong; which of them are right was judged by hand once (unmodified-judged.tsv).
"""

import argparse
import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bowerbird.errors import BowerbirdError
from bowerbird.reading.check import check
from bowerbird.reading.running.launch import Child

HERE = Path(__file__).parent


def rows(name: str, wanted: str | None) -> list[dict[str, str]]:
    with (HERE / name).open(newline="") as file:
        return [r for r in csv.DictReader(file, delimiter="\t") if wanted in (None, r.get("list"))]


def verdict(path: Path, child: Child) -> dict[str, Any]:
    """What was found in one file and how much of it ran."""
    began = time.perf_counter()
    try:
        result = check(path, child=child)
    except BowerbirdError as error:
        return {"refused": str(error), "errors": [], "modules": {"ran": [], "never": []}}
    told = result.to_json()
    kinds = {"modules", "functions"} & set(told)
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "errors": [[f.rule, f.line, f.message] for f in result.errors],
        "warnings": [[f.rule, f.line, f.message] for f in result.findings if f.severity == "warning"],
        "not_judged": told["not_judged"],
        "modules": told.get("modules", {"ran": [], "never": []}),
        "kind": next(iter(kinds), ""),
        "ran": told["ran"],
        "steps": told["steps"],
        "lines": [told["lines"]["ran"], told["lines"]["of"]],
        "driver": told.get("driver"),
    }


def judged(clones: Path, wanted: str | None) -> Iterator[dict[str, Any]]:
    child = Child()
    with child:
        for row in rows("unmodified.tsv", wanted):
            path = clones / row["repository"].replace("/", "+") / row["file"]
            yield {**row, **(verdict(path, child) if path.is_file() else {"absent": True})}


def summary(found: list[dict[str, Any]]) -> Iterator[str]:
    there = [row for row in found if "absent" not in row]
    errors = [(row, error) for row in there for error in row["errors"]]
    known = {
        (r["repository"], r["file"], r["rule"], r["line"]): r["right"] for r in rows("unmodified-judged.tsv", None)
    }
    keyed = [(row["repository"], row["file"], error[0], str(error[1])) for row, error in errors]
    wrong = [key for key in keyed if known.get(key) == "no"]
    new = [key for key in keyed if key not in known]
    ran, every = (sum(len(row["modules"][k]) for row in there for k in kinds) for kinds in (["ran"], ["ran", "never"]))
    with_modules = [row for row in there if row["modules"]["ran"] or row["modules"]["never"]]
    whole = [row for row in with_modules if not row["modules"]["never"]]
    some = [row for row in with_modules if row["modules"]["ran"]]
    yield f"{len(there)} files, {len(found) - len(there)} not at hand"
    yield f"errors: {len(errors)}, of which false: {len(wrong)}, not judged by hand yet: {len(new)}"
    yield from (f"  to be judged: {' '.join(key)}" for key in new)
    yield f"modules that ran: {ran} of {every}"
    yield f"files with a module that ran: {len(some)} of {len(with_modules)}; with all of them: {len(whole)}"
    yield f"files in which an optimiser stepped: {sum(bool(row.get('steps')) for row in there)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", type=Path)
    parser.add_argument("--list", choices=("popular", "drawn", "blind", "aside"))
    parser.add_argument("--out", type=Path, help="one JSON line for each file")
    arguments = parser.parse_args()
    found = []
    for row in judged(arguments.clones, arguments.list):
        found.append(row)
        if arguments.out is not None:
            with arguments.out.open("a") as file:
                print(json.dumps(row), file=file)
    print("\n".join(summary(found)))


if __name__ == "__main__":
    main()
