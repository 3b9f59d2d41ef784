"""The general experiments: each property fails in a program that breaks it, and holds in the same program mended."""

from pathlib import Path

import pytest

from bowerbird.reading.check import check
from bowerbird.reading.properties import properties
from bowerbird.reading.running.launch import Child

PROGRAM = """import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return torch.softmax(self.linear(x), dim=AXIS) * x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = Gate()
        SCALE

    def forward(self, x):
        if self.training:
            self.scale.mul_(0.9).add_(0.1 * x.detach().std())
        noise = 0.1 * torch.randn_like(x)
        x = x + NOISE
        return self.gate(x) * self.scale


net = Net()
opt = torch.optim.Adam(net.parameters())
loader = DataLoader(TensorDataset(torch.rand(64, 8)), batch_size=16)


@torch.no_grad()
def evaluate(model, loader):
    model.eval()
    total = 0.0
    for (x,) in loader:
        total += (x - 0.5).square().mean().item()
    model.train()
    return total / len(COUNT)


for epoch in range(2):
    for (x,) in loader:
        CLEAR
        loss = (net(x) - x).square().mean()
        loss.backward()
        opt.step()
    print(evaluate(net, loader))
"""
RIGHT = {
    "AXIS": "-1", "SCALE": 'self.register_buffer("scale", torch.ones(1))', "NOISE": "noise", "COUNT": "loader",
    "CLEAR": "opt.zero_grad()",
}  # fmt: skip
WRONG = {"AXIS": "0", "SCALE": "self.scale = torch.ones(1)", "NOISE": "0.1", "COUNT": "loader.dataset", "CLEAR": "pass"}
NAMES = {"batch size", "dataflow", "independence", "ledger", "state"}


def written(folder: Path, parts: dict[str, str]) -> Path:
    text = PROGRAM
    for name, part in parts.items():
        text = text.replace(name, part)
    (folder / "train.py").write_text(text)
    return folder / "train.py"


def test_every_property_fails_where_it_is_broken(tmp_path: Path, child: Child) -> None:
    result = check(written(tmp_path, WRONG), child=child)
    failing = {prop.name: prop for prop in properties(result.facts).values() if not prop.holds}
    assert set(failing) == NAMES, failing
    lines = PROGRAM.splitlines()
    for rule, words in (
        ("X18", "softmax"),
        ("P09", "SCALE"),
        ("X08", "noise ="),
        ("M01", "COUNT"),
        ("L01", "backward"),
    ):
        finding = next(f for f in result.findings if f.rule == rule)
        assert words in lines[finding.line - 1], finding


def test_every_property_holds_once_it_is_mended(tmp_path: Path, child: Child) -> None:
    result = check(written(tmp_path, RIGHT), child=child)
    examined = properties(result.facts)
    assert {prop.name for prop in examined.values()} >= NAMES
    assert [prop for prop in examined.values() if not prop.holds] == []
    assert result.errors == []


@pytest.mark.parametrize(
    ("text", "unused"),
    [
        ("y = x * 2", "never read"),
        ("x.clamp(0, 1)", "discarded"),
        ("y = x * 2; print(y.shape)", ""),
        ("kept.append(x * 2)", ""),
        ("x.mul_(2)", ""),
        ("y = x.view(-1)", ""),
        ("y = x * 2\n    if len(kept) > 99:\n        print(y)", ""),
        ("y = x * 2\n    kept.append(lambda: y)", ""),
        ("_ = x * 2", ""),
    ],
)
def test_what_is_used_by_nothing(text: str, unused: str, tmp_path: Path, child: Child) -> None:
    file = tmp_path / "f.py"
    file.write_text(
        f"import torch\nkept = []\ndef f(x):\n    {text}\n    return x + 1\nfor _ in range(3):\n    f(torch.ones(4))\n"
    )
    fact = check(file, rules=(), child=child).facts.first("property.dataflow", "f")
    assert fact is not None and [row["how"] for row in fact["unused"]] == [unused] * bool(unused)


FLOW = """import torch
from torch import nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 16), nn.Linear(16, 4)

    def forward(self, x, t):
        return self.b(torch.tanh(self.a(torch.cat([x, t[:, None]], 1))))


class Trained(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, data):
        noise = torch.randn_like(data)
        t = torch.rand(data.shape[0])
        u = t[:, None]
        x = MIXED
        return F.mse_loss(WANTED, self.net(x, t))


trained = Trained(Net())
opt = torch.optim.Adam(trained.parameters())
for _ in range(3):
    opt.zero_grad()
    trained(torch.rand(16, 4)).backward()
    opt.step()
"""


@pytest.mark.parametrize(
    ("mixed", "wanted", "said", "rule"),
    [
        ("u * data + (1 - u) * noise", "data - noise", "the difference of data and noise", ""),
        ("torch.cos(u) * (2 * data - 1) + torch.sin(u) * noise", "noise", "the target is the noise", ""),
        ("u.cos() * data + u.sin() * noise", "u.cos() * noise - u.sin() * data", "the target is v", ""),
        ("u**2 * data + (1 - u**2) * noise", "2 * u * (data - noise)", "the target is", ""),
        ("data + u * noise", "data", "the target is the data", ""),
        ("u * data", "data - noise", "line 21 draws is in the target", "D14"),
        ("u * data + u * noise", "data", "which is no path", "D14"),
        ("u * data + (1 - u) * noise", "data + noise", "neither data, noise", "D15"),
    ],
)
def test_a_path_is_known_by_what_is_mixed(
    mixed: str, wanted: str, said: str, rule: str, tmp_path: Path, child: Child
) -> None:
    file = tmp_path / "flow.py"
    file.write_text(FLOW.replace("MIXED", mixed).replace("WANTED", wanted))
    result = check(file, child=child)
    told = [fact for topic in ("path", "target") for fact in result.facts.of(f"property.{topic}")]
    assert any(said in fact["said"] for fact in told), told
    assert [fact["holds"] for fact in told].count(False) == bool(rule)
    assert {f.rule for f in result.findings if f.rule in ("D14", "D15")} == ({rule} if rule else set())


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("torch.mean(x.sum(), dim=0)", {"X19"}),
        ("torch.mean(x.sum(dim=1), dim=0)", set()),
        ("x.mean().mean()", set()),
    ],
)
def test_a_single_number_has_no_axis_to_reduce(text: str, rules: set[str], tmp_path: Path, child: Child) -> None:
    file = tmp_path / "loss.py"
    file.write_text(f"import torch\n\n\ndef loss(x):\n    return {text}\n\n\nprint(loss(torch.ones(3, 4)))\n")
    assert {f.rule for f in check(file, child=child).findings if f.rule == "X19"} == rules
