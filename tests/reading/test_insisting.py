"""What raises on every guess runs all the same: what fails in it is passed over, and said; switches are turned."""

import textwrap
from pathlib import Path

from bowerbird.reading.check import CheckResult, check
from bowerbird.reading.drivers import found
from bowerbird.reading.running.launch import Child
from bowerbird.reading.source import open_source


def run(child: Child, folder: Path, code: str) -> CheckResult:
    file = folder / "program.py"
    file.write_text(textwrap.dedent(code), encoding="utf-8")
    return check(file, child=child)


def reached(result: CheckResult) -> set[str]:
    """The lines of the program that ran, as they are written."""
    ran, _ = result.exercised.lines[result.program.file]
    lines = result.program.source.texts[result.program.file].splitlines()
    return {lines[n - 1].strip() for n in ran}


def test_a_statement_that_fails_is_passed_over_and_not_counted(child: Child, tmp_path: Path) -> None:
    result = run(
        child,
        tmp_path,
        """
        import torch
        def evaluate(samples):
            table = open("/nowhere/at/all.xyz").read()
            size = len(table)
            return torch.zeros(3) + 1
        """,
    )
    ran = reached(result)
    assert "return torch.zeros(3) + 1" in ran and "size = len(table)" in ran
    assert not any(line.startswith("table = open") for line in ran)
    assert result.exercised.passed == ["evaluate"] and result.exit_status == 3
    assert "passed over (evaluate)" in result.exercised.not_judged
    assert any("passed over" in stand_in for stand_in in result.stand_ins)


def test_what_runs_with_guesses_passes_over_nothing(child: Child, tmp_path: Path) -> None:
    code = """
        def double(x):
            return 2 * x
        """
    result = run(child, tmp_path, code)
    assert result.exercised.passed == [] and not result.exercised.not_judged


def test_a_switch_is_turned_where_a_branch_waits_for_it(child: Child, tmp_path: Path) -> None:
    result = run(
        child,
        tmp_path,
        """
        import torch
        class Scaler:
            def __init__(self, halved=False):
                self.halved = halved
            def scale(self, x):
                if self.halved:
                    return x / 2
                return x
        def mean(x, absolute=False):
            if absolute:
                return x.abs().mean()
            return x.mean()
        """,
    )
    assert {"return x / 2", "return x", "return x.abs().mean()", "return x.mean()"} <= reached(result)


def test_training_that_was_passed_over_is_not_judged_as_training(child: Child, tmp_path: Path) -> None:
    result = run(
        child,
        tmp_path,
        """
        import torch
        def train(model, optimizer, batches):
            for batch in batches["never"].there():
                pass
            loss = model.nothing.like(this=1)
            loss.backward()
            optimizer.step()
        """,
    )
    assert "optimizer.step()" in reached(result)
    assert result.facts.of("event.step") == [] and result.errors == []


def test_a_test_is_called_with_what_its_fixtures_give(tmp_path: Path, child: Child) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    code = "def ratio(sizes):\n    return sizes['rows'] / sizes['columns']\n"
    (tmp_path / "ratios.py").write_text(code)
    (tmp_path / "test_ratios.py").write_text(
        "import pytest\nfrom ratios import ratio\n\n"
        "@pytest.fixture(params=[{'rows': 3, 'columns': 4}, {}])\ndef sizes(request):\n    yield request.param\n\n"
        "@pytest.fixture\ndef half(sizes):\n    return {**sizes, 'rows': 2}\n\n"
        "def test_refused():\n    with pytest.raises(KeyError):\n        ratio({})\n\n"
        "def test_ratio(half):\n    assert ratio(half) == 0.5\n\n"
        "def test_other(unknown):\n    ratio(unknown)\n"
    )
    driver = next(d for d in found(open_source(tmp_path / "ratios.py")) if "test_ratios" in d.place)
    calls = driver.text.splitlines()[-2:]
    assert calls[0].startswith("test_ratio(half=half(next(sizes(") and calls[1] == "test_refused()"
    result = check(tmp_path / "ratios.py", child=child)
    assert result.exercised.functions == {"ratio": True} and result.exercised.guessed == []
