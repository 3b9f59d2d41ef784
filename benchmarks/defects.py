"""Which defects of the corpus ``check`` names, case by case.

For each program: whether its defect is named at its line (two lines off at most) with severity error or warning by one
of its ids, else what was said instead (``near``: all that was said there); and how many errors its mended version and
the clean programs get, which should be none.  ``python benchmarks/defects.py G06 T0`` checks the cases whose names
begin so; ``--json FILE`` keeps the results for benchmarks/linters.py.
"""

import argparse
import json
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "reading"))

from corpus import Case, cases, clean

from bowerbird.errors import BowerbirdError
from bowerbird.reading.check import check
from bowerbird.reading.findings import Finding


def examined(path: Path) -> tuple[bool, list[Finding], float]:
    """Whether the program ran, its findings, and the CPU seconds that they took."""
    before = _cpu()
    try:
        result = check(path)
    except BowerbirdError as error:
        return False, [Finding("-", "error", 0, str(error))], _cpu() - before
    return result.ran, result.findings, _cpu() - before


def _cpu() -> float:
    """Of this process and of its children that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def judge(case: Case) -> dict[str, Any]:
    ran, findings, seconds = examined(case.broken)
    named = case.named_by(findings)
    loud = [f for f in findings if f.severity in ("error", "warning")]
    _, mended, _ = examined(case.mended)
    return {
        "name": case.name,
        "rules": list(case.rules),
        "silent": case.silent,
        "ran": ran,
        "named": named[0].severity if named else "",
        "near": [f"{f.severity} {f.rule}@{f.line}" for f in findings if f.severity != "ok" and case.near(f.line)],
        "instead": "" if named else ", ".join(f"{f.rule}@{f.line}" for f in loud) or "nothing",
        "line": case.line,
        "mended": [f"{f.rule}@{f.line}" for f in mended if f.severity == "error"],
        "mended_warnings": [f"{f.rule}@{f.line}" for f in mended if f.severity == "warning"],
        "seconds": round(seconds, 1),
    }


def errors_of(path: Path) -> tuple[str, list[str], list[str]]:
    findings = examined(path)[1]
    told = {s: [f"{f.rule}@{f.line} {f.message}" for f in findings if f.severity == s] for s in ("error", "warning")}
    return path.stem, told["error"], told["warning"]


def row(result: dict[str, Any]) -> str:
    verdict = result["named"] or f"- (line {result['line']}: {result['instead']})"
    after = "; ".join(result["mended"]) or "none"
    return f"| {result['name']} | {verdict} | {after} | {result['seconds']} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefixes", nargs="*", help="beginnings of names of cases (default: all, and the clean ones)")
    parser.add_argument("--json", type=Path, help="where to keep the results")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    wanted = [case for case in cases() if not arguments.prefixes or case.name.startswith(tuple(arguments.prefixes))]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        print("| case | named | errors once mended | CPU s |\n|---|---|---|---|")
        results = []
        for result in pool.map(judge, wanted):
            results.append(result)
            print(row(result), flush=True)
        clean_results = [] if arguments.prefixes else list(pool.map(errors_of, clean()))
    named = [r for r in results if r["named"]]
    silent = [bool(r["named"]) for r in results if r["silent"]]
    print(
        f"\nnamed {len(named)} of {len(results)}; of the silent ones {sum(silent)} of",
        end=" ",
    )
    print(f"mended programs with errors: {sum(bool(r['mended']) for r in results)};", end=" ")
    print(f"with warnings: {sum(bool(r['mended_warnings']) for r in results)}")
    for name, errors, warnings in clean_results:
        print(f"clean {name}: {'; '.join(errors) or 'no error'}; {len(warnings)} warnings")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
