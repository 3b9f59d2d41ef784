"""What nobody calls is built with the settings of its project, and by what its code reads of its parameters."""

from pathlib import Path

import pytest

from bowerbird.reading.check import check
from bowerbird.reading.defaults import found
from bowerbird.reading.running.launch import Child
from bowerbird.reading.running.uses import uses
from bowerbird.reading.source import open_source

NETS = """import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, h):
        super().__init__()
        widths = [h.model.width * factor for factor in h.model.factors]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.rate = h["rate"]

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x

    def loss_function(self, *args, **kwargs):
        return args[0].square().mean() * kwargs["weight"]


class Slower:
    def __init__(self, optimizer, steps):
        self.optimizer, self.steps = optimizer, steps

    def at(self, step):
        return self.optimizer.param_groups[0]["lr"] * min(1, step / self.steps)


def halved(parameters):
    return [p.detach() / 2 for p in parameters]


def never(thing):
    return thing.of_no_kind.at_all()
"""
TRAIN = """import argparse
from nets import Net

parser = argparse.ArgumentParser()
parser.add_argument("--rate", "-r", type=float, default=0.25)
parser.add_argument("--quick", action="store_true")
defaults = dict(weight=2.0, steps=7, name="nets")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "base.json").write_text('{"model": {"width": 6, "factors": [1, 2, 3]}, "data": {"size": 8}}')
    (tmp_path / "conf" / "broken.json").write_text("{")
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path / "nets.py"


def test_settings_are_found_where_the_project_makes_them(project: Path) -> None:
    settings = found(open_source(project))
    assert settings["model"] == {"width": 6, "factors": [1, 2, 3]} and settings["width"] == 6
    assert settings["rate"] == 0.25 and settings["quick"] is False
    assert settings["weight"] == 2.0 and settings["steps"] == 7 and settings["size"] == 8


def test_what_nobody_calls_runs_with_them(project: Path, child: Child) -> None:
    result = check(project, child=child)
    assert result.exercised.modules == {"Net": True} and not result.errors
    missed = {first for _, first, _ in result.exercised.missed}
    assert missed == {34}, "all ran but the function that nothing could be made up for"


class Kept:
    def __init__(self, cfg: object, net: object, items: object) -> None:
        self.cfg = cfg
        self.parts = [str(item) for item in items]  # type: ignore[attr-defined]
        self.out = net(1)  # type: ignore[operator]

    def width(self) -> object:
        return self.cfg.width  # type: ignore[attr-defined]


def test_a_parameter_is_known_by_what_is_read_of_it() -> None:
    used = uses(Kept)
    assert used["cfg"].is_settings and used["cfg"].attributes == {"width"}
    assert used["net"].called and not used["net"].is_settings and used["items"].iterated
