"""What a program only defines: arguments and inputs fitted to it; and rules that read the text alone."""

import ast
from pathlib import Path

import pytest
import torch

from bowerbird.reading.check import check
from bowerbird.reading.running.calling import called
from bowerbird.reading.running.launch import Child
from bowerbird.reading.running.refusals import fitted
from bowerbird.reading.running.uses import uses
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


class Joined(torch.nn.Module):
    """Two inputs that an addition joins, of which the second is a sequence of whole numbers."""

    def __init__(self):
        super().__init__()
        self.table, self.project = torch.nn.Embedding(7, 16), torch.nn.Conv1d(16, 5, 3)

    def forward(self, x, tokens):
        _, _, width = x.shape
        return self.project((x + self.table(tokens)).transpose(1, 2)), width


def test_the_strings_a_constructor_accepts_are_read_from_its_text():
    assert uses(Choosy)["kind"].choices == ["wide", "narrow"]


@pytest.mark.parametrize(
    ("layer", "given", "shape"),
    [
        (torch.nn.Linear(8, 8), torch.zeros(4, 12, 64), (4, 12, 8)),
        (torch.nn.Conv2d(1, 2, 3), torch.zeros(4, 3, 32, 32), (4, 1, 32, 32)),
        (torch.nn.Conv2d(6, 2, 3, groups=2), torch.zeros(4, 12), (4, 6, 12, 16)),
        (torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(75, 1)), torch.zeros(4, 3, 4, 4), (4, 3, 5, 5)),
        (lambda x: len(x.unbind()) if x.ndim == 4 else [1 for b, c, h, w in [x.shape]], torch.zeros(4, 12, 64),
         (4, 4, 12, 16)),
    ],
)  # fmt: skip
def test_inputs_become_what_the_operation_asks_for(layer, given, shape):
    assert fitted(layer, (given,))[1][0].shape == shape


def test_inputs_are_made_to_fit_each_other():
    _, (x, tokens) = fitted(Joined(), (torch.zeros(4, 12, 64), torch.zeros(4, 9)))
    assert (x.shape[-1], tokens.dtype) == (16, torch.long) and x.shape[1] == tokens.shape[1]


def test_a_failure_that_asks_for_nothing_is_raised():
    def refuses(x):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        fitted(refuses, (torch.zeros(2, 3),))


def test_a_call_is_corrected_until_it_works_and_given_the_mask_it_takes_for_granted():
    out, given = called(Masked(), (torch.zeros(4, 12, 64),), forget=lambda module: None)
    assert out.shape == (4, 12, 8) and given[0].shape == (4, 12, 8)


def test_an_undefined_name_is_placed_where_no_function_binds_it():
    text = "def f(scale):\n    return scale\n\ndef g(x):\n    return x * scale\n"
    assert undefined_names(text, ast.parse(text)) == {"scale": 5}
    inner = "def f(row):\n    return all(map(lambda x: x > 0, row)) and len(x) == 3\n"
    assert undefined_names(inner, ast.parse(inner)) == {"x": 2}


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


FORMS = {
    "named": """from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(13, 8)
    def forward(self, x, **given):
        return x + self.head(given["head_embedding"].float()).mean()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()
    def forward(self, x, **given):
        return self.block(x, **given)
""",
    "missing layer": """import torch
from torch import nn
from coupling import Coupling

class Flow(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.layers, self.scale = nn.ModuleList([Coupling(width)]), nn.Linear(width, width)
    def forward(self, x):
        for layer in self.layers:
            x, more = layer(x, invert=isinstance(layer, Coupling))
        return self.scale(x) + more
""",
    "tokens": """import argparse
import torch
from datasets import load_dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

class Model(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.table, self.out = nn.Embedding(vocabulary, 16), nn.Linear(16, vocabulary)
    def forward(self, x):
        n, length = x.shape
        return self.out(self.table(x))

tokenizer = AutoTokenizer.from_pretrained("gpt2")
model = Model(tokenizer.vocab_size)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for ids in DataLoader(load_dataset("stories")["train"], batch_size=8):
    ids = ids.to("cpu")
    loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
""",
}


@pytest.mark.parametrize("form", FORMS)
def test_values_take_the_form_that_the_code_asks_for(form: str, tmp_path: Path, child: Child) -> None:
    (tmp_path / "program.py").write_text(FORMS[form], encoding="utf-8")
    result = check(tmp_path / "program.py", child=child)
    assert not result.exercised.never, result.facts.of("run.exception")
    assert result.exercised.own_steps or form != "tokens"
