"""No error without a run that bears it out: what its patch leaves standing is none, what goes with it is the same."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bowerbird.reading.check import as_text, check, fix
from bowerbird.reading.counterfactual import MOST_RUNS, settled
from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import Edit, Patch
from bowerbird.reading.program import Program
from bowerbird.reading.running.launch import Child
from bowerbird.reading.running.run import Run
from bowerbird.reading.source import open_source

PATCH = Patch("a line more", ())


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "p.py").write_text("a = 1\nb = 2\nc = 3\nd = 4\n")
    return Program(open_source(tmp_path / "p.py"))


def ran(*, raised: int = 0) -> FactStore:
    facts = FactStore()
    facts.add("observed", "run.program", "program", {"ran": True})
    for _ in range(raised):
        facts.add("observed", "run.exception", "ValueError", {"phase": "program"})
    return facts


def judged(program: Program, findings: list[Finding], after: list[Finding], facts: FactStore | None) -> list[Finding]:
    """The findings, settled by a patched run that has these facts and in which that is found."""
    run = Run(executed=True, facts=ran(), rerun=lambda patch: facts)
    said: Callable[[Program, Run], list[Finding]] = lambda p, r: after  # noqa: E731
    return settled(program, run, findings, said)


def found(program: Program, rule: str, line: int, severity: str = "error", patch: Patch | None = None) -> Finding:
    return Finding(rule, severity, line, "m", "e.", file=program.file, facts=("F1",), patch=patch)  # type: ignore[arg-type]


def inserted(program: Program) -> Patch:
    return Patch("two lines", (Edit(program.file, 1, 0, ("x = 0", "y = 0")),))


def test_an_error_that_its_patch_mends_stays_and_takes_along_what_it_caused(program: Program) -> None:
    patch = inserted(program)
    before = [found(program, "A1", 2, patch=patch), found(program, "B1", 4, "warning"), found(program, "C1", 3)]
    (error, other) = judged(program, before, [found(program, "C1", 5)], ran())
    assert (error.rule, error.severity, error.patch) == ("A1", "error", patch)
    assert error.explains == ("B1 at line 4",) and other.rule == "C1", "the line of C1 moved with the patch"


@pytest.mark.parametrize("case", ["still there", "fails", "not run"])
def test_an_error_that_its_patch_does_not_mend_is_a_warning_without_patch(program: Program, case: str) -> None:
    after = [found(program, "A1", 4)] if case == "still there" else []
    facts = {"still there": ran(), "fails": ran(raised=1), "not run": None}[case]
    (finding,) = judged(program, [found(program, "A1", 2, patch=inserted(program))], after, facts)
    assert (finding.severity, finding.patch, finding.explains) == ("warning", None, ())
    assert ("still there" if case == "still there" else "could not be run") in finding.evidence


def test_an_error_that_rests_on_no_observation_is_a_warning(program: Program) -> None:
    (finding,) = judged(program, [Finding("A1", "error", 1, "m", file=program.file)], [], ran())
    assert finding.severity == "warning" and "by the text alone" in finding.evidence


def test_an_error_without_a_patch_needs_an_experiment_or_an_identity(program: Program) -> None:
    facts = ran()
    facts.add("probed", "probe.causality", "net", {"sees": 3})
    run = Run(executed=True, facts=facts)
    seen = Finding("A1", "error", 1, "m", file=program.file, facts=("F1",))
    exact, probed = replace(seen, rule="L03"), replace(seen, facts=("F2",))
    severities = [settled(program, run, [f], lambda p, r: [])[0].severity for f in (seen, exact, probed)]
    assert severities == ["warning", "error", "error"]


def test_an_error_whose_patch_was_not_tried_is_a_warning(program: Program) -> None:
    errors = [found(program, f"A{n}", n, patch=inserted(program)) for n in range(1, 5)] * 2
    errors = [replace(e, rule=f"{e.rule}{n}") for n, e in enumerate(errors)]
    kept = judged(program, errors, errors[4:], ran())
    assert sum(f.severity == "error" for f in kept) <= MOST_RUNS
    assert any("not put to the test" in f.evidence and f.patch is None for f in kept)


def test_what_is_no_error_is_not_run_again(program: Program) -> None:
    def never(patch: Patch) -> Iterator[FactStore]:
        raise AssertionError("a warning was put to the test")

    run = Run(executed=True, facts=ran(), rerun=never)  # type: ignore[arg-type]
    warning = found(program, "A1", 2, "warning", inserted(program))
    assert settled(program, run, [warning], lambda p, r: []) == [warning]


def test_a_missing_clearing_is_proved_by_the_run_with_it(tmp_path: Path, child: Child) -> None:
    file = tmp_path / "train.py"
    file.write_text(
        "import torch\nnet = torch.nn.Linear(4, 1)\nopt = torch.optim.SGD(net.parameters(), lr=0.1)\n"
        "for _ in range(8):\n    loss = net(torch.randn(8, 4)).pow(2).mean()\n    loss.backward()\n    opt.step()\n"
    )
    result = check(file, child=child)
    (error,) = result.errors
    assert (error.rule, error.line) == ("L01", 6) and error.patch is not None
    assert result.to_json()["findings"][0]["explains"] == list(error.explains)
    assert not any("same cause" in line for line in as_text(result)) or error.explains


def test_only_patches_that_run_clean_are_applied(tmp_path: Path, child: Child) -> None:
    file = tmp_path / "train.py"
    text = (
        "import torch\nnet = torch.nn.Linear(4, 1)\nopt = torch.optim.SGD(net.parameters(), lr=0.1)\n"
        "for _ in range(8):\n    loss = net(torch.randn(8, 4)).pow(2).mean()\n    loss.backward()\n    opt.step()\n"
    )
    file.write_text(text)
    result = check(file, child=child)
    wrong = Finding("A1", "warning", 5, "m", file=str(file), patch=Patch("w", (Edit(str(file), 5, 5, ("    1 / 0",)),)))
    fixed = fix(replace(result, findings=[*result.findings, wrong]), child=child)
    assert fixed.files == [str(file)] and fixed.left == [wrong]
    assert file.read_text() == text.replace("    loss.backward", "    opt.zero_grad()\n    loss.backward")
