"""What a program only defines: arguments and inputs fitted to it; and rules that read the text alone."""

import ast
from pathlib import Path

import pytest
import torch

from bowerbird.reading.check import check, judge
from bowerbird.reading.facts import FactStore
from bowerbird.reading.program import Program
from bowerbird.reading.running.building import compared_strings
from bowerbird.reading.running.calling import called, repaired
from bowerbird.reading.running.launch import Child
from bowerbird.reading.running.run import Run
from bowerbird.reading.source import open_source
from bowerbird.reading.undefined import undefined_names


class Choosy:
    def __init__(self, kind, width):
        assert kind in ["wide", "narrow"]
        self.width = width


class Masked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.project = torch.nn.Linear(8, 8)

    def forward(self, x, mask=None):
        return self.project(x) * (~mask).float().mean(-1, keepdim=True)


def test_the_strings_a_constructor_accepts_are_read_from_its_text():
    assert compared_strings(Choosy) == {"kind": ["wide", "narrow"]}


@pytest.mark.parametrize(
    ("message", "given", "shape"),
    [
        ("mat1 and mat2 shapes cannot be multiplied (48x64 and 8x64)", torch.zeros(4, 12, 64), (4, 12, 8)),
        ("expected input[4, 3, 32, 32] to have 1 channels, but got 3 channels instead", torch.zeros(4, 3, 32, 32),
         (4, 1, 32, 32)),
        ("not enough values to unpack (expected 4, got 3)", torch.zeros(4, 12, 64), (4, 4, 12, 16)),
    ],
)  # fmt: skip
def test_inputs_become_what_the_message_asks_for(message, given, shape):
    changed = repaired((given,), RuntimeError(message))
    assert changed is not None and tuple(changed[0].shape) == shape


def test_a_message_without_sizes_changes_nothing():
    assert repaired((torch.zeros(2, 3),), RuntimeError("something else")) is None


def test_a_call_is_corrected_until_it_works_and_given_the_mask_it_takes_for_granted():
    out, given = called(Masked(), (torch.zeros(4, 12, 64),), forget=lambda module: None)
    assert out.shape == (4, 12, 8) and given[0].shape == (4, 12, 8)


def test_an_undefined_name_is_placed_where_no_function_binds_it():
    text = "def f(scale):\n    return scale\n\ndef g(x):\n    return x * scale\n"
    assert undefined_names(text, ast.parse(text)) == {"scale": 5}


TEXTS = {
    "X16": "clip = lambda x: x.clamp(-1, 1) if signed else lambda x: x\n",
    "S07": """
import torch.nn.functional as F
from torch import nn

class Block(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.1)
""",
}
RIGHT = {
    "X16": "clip = (lambda x: x.clamp(-1, 1)) if signed else (lambda x: x)\n",
    "S07": TEXTS["S07"].replace("0.1)", "0.1, training=self.training)"),
}


def said(text: str, folder: Path) -> set[str]:
    file = folder / "program.py"
    file.write_text(text)
    run = Run(executed=False, facts=FactStore(), stand_ins=(), why_not="")
    findings = judge(Program(open_source(file)), run)
    return {finding.rule for finding in findings if finding.severity in ("error", "warning")}


@pytest.mark.parametrize("rule", TEXTS)
def test_the_text_alone_shows_the_defect_and_its_absence(rule, tmp_path):
    assert rule in said(TEXTS[rule], tmp_path)
    assert rule not in said(RIGHT[rule], tmp_path)


def test_a_dataclass_of_settings_is_filled_by_its_own_defaults(tmp_path: Path, child: Child) -> None:
    text = """
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class NetConfig:
    width: int = 24
    bias: bool = False


class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.first = nn.Linear(10, config.width, bias=config.bias)

    def forward(self, x):
        return self.first(x)
"""
    (tmp_path / "net.py").write_text(text)
    result = check(tmp_path / "net.py", child=child)
    assert any("config=NetConfig(width=24, bias=False)" in name for name in result.stand_ins), result.stand_ins
