"""The general experiments: one program in which each finds its defect, and the same program put right."""

from pathlib import Path

import pytest

from bowerbird.reading.check import check
from bowerbird.reading.running.launch import Child

RIGHT = """import torch
from torch import nn


class Coupling(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 4)

    def forward(self, x):
        a, b = x.chunk(2, 1)
        s, t = self.net(a).tanh().chunk(2, 1)
        return torch.cat([a, b * s.exp() + t], 1), s.sum(1)

    def inverse(self, z):
        a, b = z.chunk(2, 1)
        s, t = self.net(a).tanh().chunk(2, 1)
        return torch.cat([a, (b - t) * (-s).exp()], 1)

class Carrying(Coupling):
    def forward(self, x, density):
        z, volume = super().forward(x)
        return z, density - volume

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.act, self.norm, self.out = nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 4)
        ones = torch.ones(4)
        self.gain = nn.Parameter(ones)

    def forward(self, x, given):
        h = self.act(x)
        c = self.norm(given)
        h = (h - h.mean(-1, keepdim=True)) * self.gain
        return self.out(h + x + c)

class Shadow:
    def __init__(self, model):
        self.decay, self.kept = 0.99, {n: p.detach().clone() for n, p in model.named_parameters()}

    def follow(self, model):
        for n, p in model.named_parameters():
            self.kept[n] = self.decay * self.kept[n] + (1 - self.decay) * p.data

def mixed(block, x, given):
    return block(x, given)

x = torch.randn(6, 4)
coupling = Coupling()
z, volume = coupling(x)
again = coupling.inverse(z)
carried, density = Carrying()(x, torch.zeros(6))
block = Block()
shadow = Shadow(block)
optimizer = torch.optim.SGD(block.parameters(), 0.1)
for step in range(3):
    given = torch.randn(6, 4)
    loss = mixed(block, given, x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    shadow.follow(block)
"""
SLIPS = [
    ("X22", "t], 1), s.sum(1)", "t], 1), -s.sum(1)"),
    ("X23", "(b - t) * (-s).exp()", "b * (-s).exp() - t"),
    ("P08", "self.act, self.norm, self.out = nn.ReLU()", "self.act, self.norm, self.out = nn.ReLU(inplace=True)"),
    ("X20", "c = self.norm(given)", "c = self.norm(given); c = x"),
    ("X18", "h.mean(-1, keepdim=True)", "h.mean()"),
    ("P10", "* self.gain", "* self.gain.detach()"),
    ("D09", "self.decay * self.kept[n] + (1 - self.decay) * p", "(1 - self.decay) * self.kept[n] + self.decay * p"),
]
AT = {"P08": "h = self.act(x)", "X23": "def inverse"}
"""Where a slip shows that does not stand there."""


def found(text: str, folder: Path, child: Child) -> set[tuple[str, int]]:
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    result = check(path, child=child)
    return {(f.rule, f.line) for f in result.findings if f.severity in ("error", "warning")}


def test_each_experiment_finds_its_defect(tmp_path: Path, child: Child) -> None:
    text = RIGHT
    for _, right, wrong in SLIPS:
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    lines = text.splitlines()
    told = found(text, tmp_path, child)
    for rule, _, wrong in SLIPS:
        line = next(n for n, row in enumerate(lines, 1) if AT.get(rule, wrong) in row)
        assert any(r == rule and abs(at - line) <= 2 for r, at in told), (rule, line, sorted(told))


@pytest.mark.parametrize("rules", ["XMPTVDL"])
def test_nothing_is_found_in_the_right_program(rules: str, tmp_path: Path, child: Child) -> None:
    assert {f for f in found(RIGHT, tmp_path, child) if f[0][0] in rules} == set()


GUESSED = """import torch
from torch import nn

class Gate(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.lin = nn.Linear(width, width)

    def forward(self, x, mask):
        unused = torch.randn(3) * 2
        return self.lin(x) + 0 * mask.sum()
"""


def test_what_only_guesses_called_is_a_remark(tmp_path: Path, child: Child) -> None:
    """The same class, defined alone and called by its program."""
    path = tmp_path / "program.py"
    for more, expected in (
        ("", set()),
        ("\nprint(Gate()(torch.randn(6, 4), torch.rand(6, 4)).sum())\n", {"X08", "X20"}),
    ):
        path.write_text(GUESSED + more, encoding="utf-8")
        serious = {f.rule for f in check(path, child=child).findings if f.severity in ("error", "warning")}
        assert serious == expected


KNOWN = """import torch

def first(x, y):
    return (x.clamp(min=0) - x * y + torch.log1p(torch.exp(-x.abs()))).mean()

def second(a, b):
    return (-0.5 * (1 + b - a**2 - b.exp()).sum(1)).mean()

def almost(a, b):
    return (-0.5 * (1 + b - a - b.exp()).sum(1)).mean()

x, y = torch.randn(8, 5), torch.rand(8, 5)
first(x, y), second(x, y), almost(x, y)
"""


def test_a_function_is_known_by_what_it_computes(tmp_path: Path, child: Child) -> None:
    path = tmp_path / "program.py"
    path.write_text(KNOWN, encoding="utf-8")
    told = {f.line: f.message for f in check(path, child=child, rules=("X26",)).findings}
    assert set(told) == {3, 6} and "cross_entropy_with_logits" in told[3] and "KL divergence" in told[6]


CALLS = """import torch
from torch.nn import functional as F

def penalty(real, fake, weight=1.0):
    return weight * (real - fake).mean()

def later(x):
    loss = penalty(x, fake=x, wieght=2)
    return loss + F.relu(x, dim=1)

def known(x, *rest, **more):
    return penalty(x, x, 2) + penalty(*rest, weight=2) + penalty(x, **more) + other(x, anything=3)

def rebound(x, penalty):
    return penalty(x)

def guarded(x):
    try:
        return F.relu(x, dim=1)
    except TypeError:
        return F.relu(x)

print(penalty(torch.ones(3), torch.zeros(3)))
"""


def test_calls_that_cannot_be_are_named_though_they_never_ran(tmp_path: Path, child: Child) -> None:
    """Of the program's own function it is an error, of a library's a warning; what may be is let alone."""
    path = tmp_path / "program.py"
    path.write_text(CALLS.replace(", penalty):", ", crit):").replace("return penalty(x)\n", "return crit(x)\n"))
    found = {(f.line, f.severity) for f in check(path, child=child, rules=("X27",)).findings}
    assert found == {(8, "error"), (9, "warning")}
    path.write_text(CALLS)  # a name that is also a parameter somewhere may stand for anything
    assert {f.severity for f in check(path, child=child, rules=("X27",)).findings} == {"warning"}


ATTRIBUTES = """import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x):
        return self.out(self.hidden(x))

    def features(self, x):
        return self.hiden(x) + self.late + self.training

class Narrow(nn.Linear):
    def __init__(self):
        super().__init__(3, 1)

    def size(self):
        return self.in_features + len(self._modules) + self.bias

net = Net()
net.late = 1
print(net(torch.ones(2, 3)))
"""


def test_an_attribute_that_nothing_gives_is_named_though_it_was_never_read(tmp_path: Path, child: Child) -> None:
    path = tmp_path / "program.py"
    path.write_text(ATTRIBUTES)
    (found,) = check(path, child=child, rules=("X28",)).findings
    assert (found.line, found.severity, found.fix) == (13, "warning", "Did you mean hidden?")
    path.write_text(ATTRIBUTES.replace("net = Net()", "class More(Net):\n    hiden = 1\nnet = Net()"))
    assert not check(path, child=child, rules=("X28",)).findings


UNCALLED = """import torch
from torch import nn

class Path:
    def __init__(self):
        self.alpha = torch.linspace(0.9, 0.1, 4)

    def snr(self, t):
        return self.alpha[t]

    def from_to(self, x, from_t, to_t):
        if isinstance(to_t, float):
            to_t = torch.full((len(x),), to_t)
        snr = self.snr(from_t)
        snr_to = self.snr(to_t)
        return x * snr / snr_to

    def steps(self, n):
        level = self.snr(0) * n
        for step in range(n):
            yield level, step
            try:
                level = self.snr(step) + level
            finally:
                print(level)

class Net(nn.Module):
    def __init__(self, bias=False, dropout=0.1):
        super().__init__()
        self.out, self.drop = nn.Linear(4, 2, bias=bias), nn.Dropout(dropout)

    def forward(self, x):
        return self.drop(self.out(x))

class Same(Net):
    def forward(self, x, scale=3):
        return torch.full_like(super().forward(x), 3)

Net()(torch.randn(6, 4))
"""


@pytest.mark.parametrize(
    ("rule", "right", "wrong", "line"),
    [
        ("X08", "snr_to = self.snr(to_t)", "snr_to = self.snr(from_t)", 13),
        ("X08", "for step in range(n):", "level = self.snr(1) + n; last = level\n        for step in range(n):", 19),
        ("X29", "nn.Linear(4, 2, bias=bias)", "nn.Linear(4, 2)", 30),
        ("X29", "nn.Dropout(dropout)", "nn.Dropout(0.1)", 30),
    ],
)
def test_values_and_parameters_that_nothing_reads_are_named_without_a_call(
    tmp_path: Path, child: Child, rule: str, right: str, wrong: str, line: int
) -> None:
    assert UNCALLED.count(right) == 1 and not {f for f in found(UNCALLED, tmp_path, child) if f[0] == rule}
    assert (rule, line) in found(UNCALLED.replace(right, wrong), tmp_path, child)
