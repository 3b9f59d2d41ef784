"""Trackers: each is told what metrics.jsonl says, goes on when a run is resumed, and is asked for before it sends."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import bowerbird
from bowerbird import config
from bowerbird.errors import BowerbirdError
from bowerbird.training import trackers

NAMES = ("wandb", "trackio")


class Run:
    def __init__(self, **words: Any):
        self.words, self.logged, self.finished = words, [], False

    def log(self, numbers: dict[str, float], step: int) -> None:
        assert not self.finished
        self.logged.append((step, numbers))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture(params=NAMES)
def told(request, monkeypatch) -> list[Run]:
    """Runs of a stand-in for a tracker's package; ``told.name`` is its name."""
    runs: list[Run] = []
    package = ModuleType(request.param)
    package.init = lambda **words: runs.append(Run(**words)) or runs[-1]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, request.param, package)
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: package)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return runs


def small(tiny: Path, *names: str) -> config.Run:
    settings = {"data.source": str(tiny), "model.net.channels": 4, "train.trackers": names, "train.sample_every": 0}
    return config.with_settings(config.load("gan"), settings | {"train.batch_size": 4, "train.log_every": 2})


def test_a_tracker_hears_what_metrics_say_and_goes_on(told, tiny: Path, tmp_path: Path, request) -> None:
    name = request.node.callspec.params["told"]
    folder = bowerbird.train(small(tiny, name), tmp_path / "run", budget="4steps", quiet=True)
    bowerbird.resume(folder, budget="8steps", quiet=True)
    first, second = told
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "event" not in row]
    assert [step for step, _ in first.logged + second.logged] == steps == [1, 2, 3, 4, 5, 6, 7, 8][: len(steps)]
    assert {"step": first.logged[0][0]} | first.logged[0][1] == rows[0]
    assert first.finished and second.finished
    assert first.words["name"] == second.words["name"] and first.words["resume"] == "allow"
    assert first.words["name"].startswith("run") and first.words["config"]["train.lr"] == 5e-4
    if name == "wandb":
        assert first.words["mode"] == "offline" and first.words["id"] == second.words["id"]
        assert first.words["dir"] == str(folder)


def test_tracking_changes_no_number(told, tiny: Path, tmp_path: Path, request) -> None:
    name = request.node.callspec.params["told"]
    folders = [
        bowerbird.train(small(tiny, *names), tmp_path / f"run-{len(names)}", budget="3steps", quiet=True)
        for names in ((), (name,))
    ]
    alone, tracked = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert alone == tracked and len(told) == 1


def test_a_tracker_that_is_missing_is_said_before_anything_is_trained(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BowerbirdError, match="train.trackers names wandb, which is not installed: pip install wandb"):
        bowerbird.train(small(tiny, "wandb"), tmp_path / "run", budget="1steps", quiet=True)
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(BowerbirdError, match="trackers"):
        config.with_settings(config.load("gan"), {"train.trackers": ("mlflow",)})
