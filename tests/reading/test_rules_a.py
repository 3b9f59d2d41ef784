"""Rules of loops, adversaries, modules, values and reports: on facts as they would be recorded, and on source alone."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from bowerbird.reading.adversaries import pairs
from bowerbird.reading.check import check, judge
from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import loss_line
from bowerbird.reading.phases import contributions, phases
from bowerbird.reading.program import Program
from bowerbird.reading.rules import all_rules
from bowerbird.reading.running.launch import Child
from bowerbird.reading.running.run import Run, StandIn
from bowerbird.reading.source import open_source

MINE = tuple(rule for rule in all_rules() if rule[0] in "LGPXM")


class Story:
    """A run told by its events: what was called, propagated, cleared and stepped, in order."""

    def __init__(self, file: str) -> None:
        self.facts, self.file, self.numbers = FactStore(), file, itertools.count(1)
        self.gradients: dict[str, float] = {}

    def event(self, topic: str, subject: str, value: dict[str, Any], line: int) -> None:
        self.facts.add("observed", topic, subject, value, file=self.file, line=line)

    def optimizer(self, number: int, name: str, owner: str, line: int = 1) -> None:
        owners = {owner: {"tensors": 2, "of": 2}}
        value = {"identity": number, "class": "Adam", "owners": owners, "tensors": 2, "frozen": 0}
        self.event("optimizer.created", f"optimizer {number}", value, line)

    def forward(self, name: str, line: int, *, source: int | None = None, graph: bool = True) -> int:
        number = next(self.numbers)
        width = 2 if name == "G" else 1
        given = [
            {"shape": [8, 64 if name == "D" else 16], "dtype": "float32", "requires_grad": graph and source is not None}
        ]
        self.event("event.forward", name, {
            "call": number, "class": name, "training": True, "grad_enabled": True, "in": given, "kwargs": {},
            "out": {"shape": [8, width], "min": -1.0, "max": 1.0, "mean": 0.01 * number, "dtype": "float32"},
            "from": [source] if source else [], "detached": source is not None and not graph, "graph": True,
        }, line)  # fmt: skip
        return number

    def backward(self, line: int, reached: dict[str, float], pulls: dict[int, float] = {}) -> None:  # noqa: B006
        grads = {}
        for name, norm in reached.items():
            grads[name] = {"tensors": 2, "norm_before": self.gradients.get(name, 0.0), "norm": norm, "trainable": 2}
            self.gradients[name] = self.gradients.get(name, 0.0) + norm
        rows = [
            {"call": c, "module": "D", "mean": m, "abs": abs(m), "min": m, "max": m, "of": 8} for c, m in pulls.items()
        ]
        through = [{"module": "D", "call": call, "line": line} for call in pulls]
        value = {"loss": 0.7, "grads": grads, "pulls": rows, "through": through, "nodes": 9}
        self.event("event.backward", "backward", value, line)

    def clear(self, name: str, *owners: str, line: int = 1) -> None:
        self.gradients.update(dict.fromkeys(owners, 0.0))
        self.event("event.zero_grad", name, {"owners": list(owners)}, line)

    def step(self, number: int, name: str, owner: str, line: int) -> None:
        none = 0 if self.gradients.get(owner) else 2
        self.event("event.step", name, {
            "identity": number, "n": 1, "tensors": 2, "none": none, "zero": 0, "owners": {owner: 2}, "lr": [0.1],
            "delta": 0.1, "class": "Adam",
        }, line)  # fmt: skip


def told(story: Story, text: str, tmp_path: Path, *rules: str) -> list[Finding]:
    path = tmp_path / "program.py"
    path.write_text(text, encoding="utf-8")
    run = Run(executed=True, facts=story.facts)
    return [f for f in judge(Program(open_source(path)), run, rules or MINE) if f.severity != "ok"]


def read(text: str, tmp_path: Path, *rules: str) -> list[tuple[str, str, int]]:
    """What is said of a text that did not run."""
    found = told(Story(str(tmp_path / "program.py")), text, tmp_path, *rules)
    assert not [f for f in found if "could not be applied" in f.message]
    return [(f.rule, f.severity, f.line) for f in found]


def game(path: Path, *, real: float = -0.1, fake: float = 0.1, made: float = -0.1, detach: bool = True,
         clear_first: bool = False) -> Story:  # fmt: skip
    """Two rounds of an alternating game, lines 10 to 30; numbers are the pulls of the losses at the scores."""
    story = Story(str(path / "program.py"))
    story.optimizer(1, "opt_d", "D")
    story.optimizer(2, "opt_g", "G")
    for _ in range(2):
        story.clear("opt_d", "D")
        if clear_first:
            story.clear("opt_g", "G")
        batch = story.forward("G", 11)
        data = story.forward("D", 12)
        judged = story.forward("D", 13, source=batch, graph=not detach)
        story.backward(14, {"D": 1.0} | ({} if detach else {"G": 1.0}), {data: real, judged: fake})
        story.step(1, "opt_d", "D", 15)
        if not clear_first:
            story.clear("opt_g", "G")
        story.backward(22, {"D": 1.0, "G": 1.0}, {story.forward("D", 21, source=story.forward("G", 20)): made})
        story.step(2, "opt_g", "G", 23)
    return story


PROGRAM = "\n".join("pass" for _ in range(40))


def test_roles_and_phases_of_a_game(tmp_path: Path) -> None:
    facts = game(tmp_path).facts
    assert [(p.generator, p.discriminator) for p in pairs(facts)] == [("G", "D")]
    assert [sorted(p.owners) for p in phases(facts)] == [["D"], ["G"]] * 2
    assert [b.line for b in contributions(facts, facts.of("event.step")[3], "G")] == [22]


def test_a_sound_game_is_not_reproached(tmp_path: Path) -> None:
    assert told(game(tmp_path), PROGRAM, tmp_path) == []


def test_both_may_be_written_the_other_way_round(tmp_path: Path) -> None:
    assert told(game(tmp_path, real=0.1, fake=-0.1, made=0.1), PROGRAM, tmp_path) == []


@pytest.mark.parametrize(
    ("pulls", "line"), [({"made": 0.1}, 22), ({"fake": -0.1}, 14), ({"real": 0.1, "fake": -0.1}, 14)]
)  # fmt: skip
def test_sides_that_pull_alike(tmp_path: Path, pulls: dict[str, float], line: int) -> None:
    found = told(game(tmp_path, **pulls), PROGRAM, tmp_path, "G05", "G06")  # type: ignore[arg-type]
    assert [(f.rule, f.line) for f in found if f.severity == "error"] == [("G06", line)]
    turned = "real" in pulls  # a critic turned round: the generator's loss may be the wrong one
    assert len(found) == 1 and ("or else the generator's loss" in found[0].message) == turned


def test_missing_detach_matters_only_where_gradients_stay(tmp_path: Path) -> None:
    harmless = told(game(tmp_path, detach=False), PROGRAM, tmp_path, "G02")
    harmful = told(game(tmp_path, detach=False, clear_first=True), PROGRAM, tmp_path, "G02")
    assert {f.severity for f in harmless} == {"info"}
    assert ("error", 13) in {(f.severity, f.line) for f in harmful}


def test_clearing(tmp_path: Path) -> None:
    def trained(cleared: str) -> list[tuple[str, int]]:
        story = Story(str(tmp_path / "program.py"))
        story.optimizer(1, "opt", "net")
        for _ in range(3):
            if cleared == "before":
                story.clear("opt", "net", line=4)
            story.forward("net", 5)
            story.backward(6, {"net": 1.0})
            if cleared == "between":
                story.clear("opt", "net", line=7)
            story.step(1, "opt", "net", 8)
        return [(f.rule, f.line) for f in told(story, PROGRAM, tmp_path)]

    assert trained("before") == []
    assert trained("never") == [("L01", 6)]
    assert trained("between") == [("L02", 7)]


def test_gradients_of_several_batches(tmp_path: Path) -> None:
    story = Story(str(tmp_path / "program.py"))
    story.optimizer(1, "opt", "net")
    for _ in range(2):
        story.clear("opt", "net")
        for _ in range(4):
            story.backward(3, {"net": 1.0})
        story.step(1, "opt", "net", 4)
    whole = "for x in xs:\n    loss = f(x)\n    loss.backward()\n"
    assert [(f.rule, f.line) for f in told(story, whole, tmp_path, "L05")] == [("L05", 3)]
    assert told(story, whole.replace("f(x)", "f(x) / 4"), tmp_path, "L05") == []


LOOP = """import torch
from torch import nn, optim
net = nn.Linear(3, 1)
opt = optim.Adam(net.parameters())
total = 0
for x in data:
    loss = net(x).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    {}
print(total / len(data))
"""


def test_what_the_text_of_a_loop_shows(tmp_path: Path) -> None:
    found = read(LOOP.format("total += loss"), tmp_path, "L09")
    assert [(rule, line) for rule, _, line in found] == [("L09", 11)]


@pytest.mark.parametrize("line", ["total += loss.item()", "opt.zero_grad()", "history = float(loss)"])
def test_what_is_right_in_a_loop(tmp_path: Path, line: str) -> None:
    assert read(LOOP.format(line), tmp_path, "L09") == []


@pytest.mark.parametrize(
    ("message", "severity"),
    [
        ("'Linear' object has no attribute 'step'", "error"),
        ("'Loader' object has no attribute 'step'", "info"),
        ("cannot assign parameters before Module.__init__() call", "error"),
    ],
)
def test_what_no_value_can_have_caused_is_an_error_beside_stand_ins(
    tmp_path: Path, message: str, severity: str
) -> None:
    story = Story(str(tmp_path / "program.py"))
    story.event("run.stand_in", "data", {"reason": "stand-in images were taken"}, 6)
    value = {"message": message, "phase": "program", "statement": 11, "stack": [[story.file, 11, "<module>"]]}
    story.event("run.exception", "AttributeError", value, 11)
    text = LOOP.format("net.step()")
    path = tmp_path / "program.py"
    path.write_text(text, encoding="utf-8")
    run = Run(True, story.facts, (StandIn("data", "stand-in images were taken"),))
    found = judge(Program(open_source(path)), run, ("X17",))
    assert [(f.severity, f.line) for f in found] == [(severity, 11)]


CLASSES = '''import torch
from torch import nn

class Net(nn.Module):
    """A convolutional network."""

    def __init__(self, channels):
        self.first = nn.Linear(4, 4)
        super().__init__()
        self.norm1 = nn.LayerNorm(4)
        self.norm2 = nn.LayerNorm(4)
        self.layers = nn.ModuleList([nn.Linear(4, 4)] * 3)
        self.gain = nn.Parameter(torch.ones(1, 1, 1))

    def forward(self, x):
        x = self.norm1(self.first(x))
        for layer in self.layers:
            x = layer(x)
        return self.norm1(x) * self.gain
'''


def test_what_the_text_of_a_class_shows(tmp_path: Path) -> None:
    found = {(rule, line) for rule, _, line in read(CLASSES, tmp_path)}
    assert {("P04", 11), ("P02", 12)} <= found


def test_what_is_right_in_a_class(tmp_path: Path) -> None:
    right = (
        CLASSES.replace("[nn.Linear(4, 4)] * 3", "[nn.Linear(4, 4)]")
        .replace("        super().__init__()\n", "")
        .replace("        self.first", "        super().__init__()\n        self.first")
        .replace("return self.norm1", "return self.norm2")
    )  # fmt: skip
    assert [f for f in read(right, tmp_path) if f[0] != "X01"] == []


REPORTS = """import argparse
import torch
from torch.utils.data import DataLoader
parser = argparse.ArgumentParser()
parser.add_argument("--save", type=bool, default=False)
train_loader = DataLoader(train_set, shuffle=True)
val_loader = DataLoader(train_set)

def perplexity(model):
    total, n = 0.0, 0
    for x in val_loader:
        loss = model(x)
        total += torch.exp(loss).item()
        n += 1
    return total / n

def report(kl):
    return {"kl": -kl.mean()}

def train(model, opt):
    total = 0.0
    for x in train_loader:
        loss = model(x)
        opt.zero_grad()
        loss.backward()
        opt.step()
        total += loss.item()
    return loss.item()
"""


def test_what_the_text_of_a_report_shows(tmp_path: Path) -> None:
    found = {(rule, line) for rule, _, line in read(REPORTS, tmp_path) if rule[0] in "XM" and rule != "X01"}
    assert found == {("X06", 5), ("X07", 7), ("M03", 13), ("M05", 28)}


def test_where_a_loss_comes_from(tmp_path: Path) -> None:
    text = "def hinge(s):\n    a = 1\n    return (a - s).mean()\n\nloss = hinge(net(x))\nloss.backward()\n"
    (tmp_path / "program.py").write_text(text)
    unit = Program(open_source(tmp_path / "program.py")).main
    assert loss_line(unit, 6) == 3


GAN = """import torch
from torch import nn
G = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
D = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
g_opt = torch.optim.SGD(G.parameters(), 0.01)
d_opt = torch.optim.SGD(D.parameters(), 0.01)
bce = nn.BCEWithLogitsLoss()
for i in range(100):
    real, fake = torch.randn(16, 2) + 3, G(torch.randn(16, 4)).detach()
    d_loss = bce(D(real), torch.ones(16, 1)) + bce(D(fake), torch.zeros(16, 1))
    d_opt.zero_grad()
    d_loss.backward()
    d_opt.step()
    g_loss = bce(D(G(torch.randn(16, 4))), torch.zeros(16, 1))
    g_opt.zero_grad()
    g_loss.backward()
    d_opt.step()
"""


def test_a_game_that_runs(tmp_path: Path, child: Child) -> None:
    """Swapped labels and the wrong optimiser, seen while the program runs; put right, nothing is said."""
    path = tmp_path / "gan.py"
    path.write_text(GAN, encoding="utf-8")
    errors = {(f.rule, f.line): f.explains for f in check(path, rules=MINE, child=child).errors}
    assert ("G07", 17) in errors
    path.write_text(GAN[: GAN.rindex("d_opt.step()")] + "g_opt.step()\n", encoding="utf-8")
    assert [(f.rule, f.line) for f in check(path, rules=MINE, child=child).errors] == [("G05", 14)]
