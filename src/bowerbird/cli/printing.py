"""Results on standard output: columns for people, JSON for machines."""

import contextlib
import json as jsonlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def only_json(json: bool) -> Iterator[None]:
    """With --json, whatever the work itself prints goes to standard error, so that the output is JSON alone."""
    with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """Collects what is warned of, without repetitions, instead of printing it with line numbers."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield notes
    for warning in caught:
        if not issubclass(warning.category, UserWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    notes += dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning))


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Prints what is warned of at once, without repetitions and without line numbers."""

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        print_notes([str(message)])

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


def print_notes(notes: list[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def print_columns(rows: list[list[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_measurements(results: dict[str, list[Any]], notes: list[str], json: bool) -> None:
    """JSON, or lines for one target and tables for several; what is to be kept in mind goes to standard error."""
    if len(results) == 1 and not json:
        for target, found in results.items():
            print(target)
            print_columns([["", m.name, _number(m), m.unit] for m in found])
            print(*_how(found), sep="\n")
        print_notes(notes)
        return
    from bowerbird.report.tabulated import tables

    parts = tables(results)
    if json:
        rows = [{"target": target, **m.to_json()} for target, found in results.items() for m in found]
        said = [part for part in parts if isinstance(part, str)]
        print(jsonlib.dumps({"measurements": rows, "notes": [*notes, *said]}, indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for part in parts:
        console.print(part, markup=False)
    print_notes(notes)


def print_findings(findings: list[Any], json: bool) -> None:
    if json:
        print(jsonlib.dumps({"findings": [finding.to_json() for finding in findings]}, indent=2, ensure_ascii=False))
        return
    print("\n\n".join("\n".join(finding.lines()) for finding in findings) or "Nothing was found.")


def print_sweep(sweep: Any, recipe: str) -> None:
    from bowerbird.diagnosis.sweep import text_plot

    print(text_plot(sweep))
    print(f"{len(sweep.rates)} steps; {sweep.stopped}")
    print(f"bowerbird train {recipe} --train.lr {sweep.suggestion:g}")


def _number(m: Any) -> str:
    from bowerbird.report.numbers import with_error, with_interval

    return with_interval(m.value, *m.interval) if m.interval else with_error(m.value, m.stderr)


def _how(measurements: list[Any]) -> list[str]:
    """One line on what was compared with what, seen by whom."""
    protocol = next((m.protocol for m in measurements if m.protocol.extractor and m.protocol.reference), None)
    if protocol is None:
        return []
    split = "" if protocol.split == "all" else f" ({protocol.split})"
    return [
        f"{protocol.n_generated:,} images against {protocol.n_reference:,} of {protocol.reference}{split}; features: "
        f"{protocol.extractor} in {protocol.dtype}"
    ]
