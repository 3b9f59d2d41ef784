"""Time by the wall clock and by computing, with a clock that the test moves."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bowerbird import config
from bowerbird.media import open_data
from bowerbird.report.run import write_run_report
from bowerbird.training import clock
from bowerbird.training.budget import compute_budget, describe_budget, only
from bowerbird.training.clock import Clock, starvation
from bowerbird.training.rundir import RunDir
from bowerbird.training.trainer import Interrupted, Trainer, resume, train

WALL, CPU, RUNNING = 10.0, 2.5, 1.5
"""What each step takes, on a machine that does something else most of the time."""


@pytest.fixture(scope="module")
def digits():
    return open_data(config.Data(source="digits"))


@pytest.fixture
def busy(monkeypatch):
    """Every look at the clock finds it moved on by one step."""
    looks = SimpleNamespace(n=0)

    def now() -> tuple[float, float, float]:
        looks.n += 1
        return looks.n * WALL, looks.n * CPU, looks.n * RUNNING

    monkeypatch.setattr(clock, "_now", now)
    monkeypatch.setattr(Trainer, "_preview", lambda self: None)
    return looks


def small(**budget) -> config.Run:
    run = config.load("vae")
    changed = replace(
        run.train, **only(budget), batch_size=4, device="cpu", threads=1, precision="fp32", log_every=1, warmup_steps=0,
    )  # fmt: skip
    return replace(run, train=changed)


def test_a_budget_of_computing_is_not_used_up_by_waiting(digits, tmp_path, busy):
    by_wall = train(small(seconds=40.0), tmp_path / "wall", digits, quiet=True)
    by_cpu = train(small(compute_seconds=40.0), tmp_path / "cpu", digits, quiet=True)
    assert (by_wall.step, by_cpu.step) == (4, 16)
    assert (by_cpu.seconds, by_cpu.compute_seconds, by_cpu.running_seconds) == (160.0, 40.0, 24.0)
    logged = RunDir(tmp_path / "cpu").metrics()[-1]
    assert (logged["seconds"], logged["compute_seconds"]) == (160.0, 40.0)
    assert RunDir(tmp_path / "cpu").config().train.compute_seconds == 40.0


def test_resuming_goes_on_counting(digits, tmp_path, busy, monkeypatch):
    step = Trainer.train_step

    def dies(self):
        if self.step == 3:
            self.save_checkpoint()
            raise Interrupted(15, self.step, self.rundir.path)
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", dies)
    with pytest.raises(Interrupted):
        train(small(compute_seconds=20.0), tmp_path / "run", digits, quiet=True)
    monkeypatch.setattr(Trainer, "train_step", step)
    result = resume(tmp_path / "run", digits, quiet=True)
    assert (result.step, result.seconds, result.compute_seconds) == (8, 80.0, 20.0)


def test_a_run_from_before_computing_was_counted_resumes_and_claims_nothing(digits, tmp_path, busy):
    run = small(steps=4)
    train(run, tmp_path / "run", digits, quiet=True)
    rundir = RunDir(tmp_path / "run")
    kept = {key: value for key, value in rundir.status().items() if key not in ("compute_seconds", "running_seconds")}
    saved = rundir.saved_state()
    assert saved is not None
    rundir.save_state(rundir.load_state(), kept | {"step": 2, "finished": False}, saved.record)
    result = resume(tmp_path / "run", digits, quiet=True)
    assert (result.step, result.seconds, result.compute_seconds) == (4, 60.0, None)
    assert starvation(rundir.status()) == ""


@pytest.mark.parametrize(
    "counters, said",
    [
        ({"seconds": 100.0, "running_seconds": 17.0}, "17 s of its 100 s"),
        ({"seconds": 100.0, "running_seconds": 80.0}, ""),
        ({"seconds": 5.0, "running_seconds": 1.0}, ""),  # too short to matter
        ({"seconds": 100.0, "running_seconds": None}, ""),
        ({}, ""),
    ],
)
def test_a_starved_run_is_named(counters, said):
    assert (said in starvation(counters)) and (bool(starvation(counters)) == bool(said))


def test_the_report_of_a_run_shows_both_times_and_that_it_was_starved(digits, tmp_path, busy):
    train(small(steps=10), tmp_path / "run", digits, quiet=True)
    page = write_run_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "1 min 40 s" in page and "Compute time" in page and "25 s" in page
    assert "This run was starved: it ran for 15 s of its 100 s (15%)" in page


def test_the_console_shows_both_times_where_they_differ(digits, tmp_path, busy, capsys):
    train(small(steps=10), tmp_path / "run", digits)
    said = capsys.readouterr().err
    assert "100 s (25 CPU s)" in said and "This run was starved" in said


def test_time_on_an_accelerator_is_waited_for(monkeypatch):
    waited: list[str] = []
    times = iter([(0.0, 0.0, 0.0), (3.0, 1.0, 1.0)])
    monkeypatch.setattr(clock, "_now", lambda: next(times))
    monkeypatch.setattr(clock.machine, "synchronize", lambda device: waited.append(device.type))
    watch = Clock(torch.device("meta"))
    with watch.step():
        assert not waited
    assert waited == ["meta"] and watch.counters() == {"seconds": 3.0, "compute_seconds": 3.0, "running_seconds": 3.0}


def test_comparisons_count_time_in_computing_and_the_rest_as_it_is():
    assert compute_budget("2m") == {"compute_seconds": 120.0}
    assert compute_budget("500steps") == {"steps": 500} and compute_budget("1e15flops") == {"flops": 1e15}
    assert describe_budget(compute_budget("2m")) == "2 minutes of compute time"
    assert only(compute_budget("60s")) == {
        "steps": None, "examples": None, "seconds": None, "compute_seconds": 60.0, "flops": None
    }  # fmt: skip


def test_old_checkpoints_without_the_new_counters_are_read(tmp_path: Path):
    """Those of version 0.1 in the tests' data."""
    for folder in sorted((Path(__file__).parent / "data" / "runs-0.1").iterdir()):
        status = RunDir(folder).status()
        assert "compute_seconds" not in status and json.dumps(status)
        watch = Clock(torch.device("cpu"))
        if status:
            watch.load(status)
            assert watch.seconds == status["seconds"] and watch.compute_seconds is None
