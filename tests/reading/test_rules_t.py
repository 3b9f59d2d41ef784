"""Rules of recurrent networks on small programs: each defect at its line, and none where the program is right."""

from pathlib import Path

import pytest

from bowerbird.reading.check import check
from bowerbird.reading.findings import Finding
from bowerbird.reading.running.launch import Child

TAUGHT = """
import torch
from torch import nn

class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8, padding_idx=0)
        self.rnn = nn.GRU(8, 16, batch_first=True)
        self.out = nn.Linear(16, 3)

    def forward(self, x, lengths):
        h, _ = self.rnn(self.embed(x))
        last = h[torch.arange(x.size(0)), lengths - 1]
        return self.out(last)

model = Tagger()
optimizer = torch.optim.Adam(model.parameters())
for _ in range(3):
    lengths = torch.tensor([9, 4, 7, 2, 9, 5])
    x = torch.randint(1, 20, (6, 9)) * (torch.arange(9) < lengths[:, None])
    loss = nn.functional.cross_entropy(model(x, lengths), torch.arange(6) % 3)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""

STREAM = """
import torch
from torch import nn

class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(12, 8), nn.Linear(16, 12)
        self.rnn = nn.LSTM(8, 16, batch_first=True)

    def forward(self, x, hidden):
        features, hidden = self.rnn(self.embed(x), hidden)
        return self.out(features), hidden

text = torch.randint(0, 12, (4, 200), generator=torch.Generator().manual_seed(0))
model = Reader()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
hidden = (torch.zeros(1, 4, 16), torch.zeros(1, 4, 16))
for i in range(0, 80, 10):
    x, y = text[:, i : i + 10], text[:, i + 1 : i + 11]
    hidden = tuple(h.detach() for h in hidden)
    logits, hidden = model(x, hidden)
    loss = nn.functional.cross_entropy(logits.reshape(-1, 12), y.reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


def found(child: Child, folder: Path, text: str) -> list[Finding]:
    file = folder / "program.py"
    file.write_text(text)
    result = check(file, child=child, rules=("R01", "R03", "T12"))
    return [f for f in result.findings if f.severity in ("error", "warning")]


def line_of(text: str, what: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if what in line)


def test_right_programs_are_left_alone(child: Child, tmp_path: Path):
    assert found(child, tmp_path, TAUGHT) == []
    assert found(child, tmp_path, STREAM) == []


@pytest.mark.parametrize(
    "identity, severity, right, wrong, place",
    [
        ("R03", "error", "16, batch_first=True)", "16)", "self.rnn = "),
        ("T12", "error", "h[torch.arange(x.size(0)), lengths - 1]", "h[:, -1]", "last = "),
    ],
)
def test_taught_tagger(
    child: Child, tmp_path: Path, identity: str, severity: str, right: str, wrong: str, place: str
):  # fmt: skip
    text = TAUGHT.replace(right, wrong)
    assert [(f.rule, f.severity, f.line) for f in found(child, tmp_path, text)] == [
        (identity, severity, line_of(text, place))
    ]


@pytest.mark.parametrize("backward", ["loss.backward()", "loss.backward(retain_graph=True)"])
def test_state_with_its_graph(child: Child, tmp_path: Path, backward: str):
    cut = "    hidden = tuple(h.detach() for h in hidden)\n"
    text = STREAM.replace(cut, "").replace("loss.backward()", backward)
    findings = found(child, tmp_path, text)
    assert [(f.rule, f.severity, f.line) for f in findings] == [("R01", "error", line_of(text, "= model(x, hidden)"))]
    assert findings[0].patch is not None
    assert found(child, tmp_path, findings[0].patch.apply({str(tmp_path / "program.py"): text}).popitem()[1]) == []


def test_detached_state_thrown_away(child: Child, tmp_path: Path):
    text = STREAM.replace("    hidden = tuple(h.detach() for h in hidden)\n", "    hidden[0].detach()\n")
    assert ("R01", "error", line_of(text, "hidden[0].detach()")) in [
        (f.rule, f.severity, f.line) for f in found(child, tmp_path, text)
    ]
