"""What `check` says of how much ran: a verdict holds for what ran, and for nothing else."""

import json
import os
import textwrap
from pathlib import Path

import pytest

from bowerbird import cli
from bowerbird.errors import BowerbirdError
from bowerbird.reading.check import CheckResult, as_text, check, fix
from bowerbird.reading.explain.read import read
from bowerbird.reading.explain.text import ours, told
from bowerbird.reading.facts import FactStore
from bowerbird.reading.running import observation
from bowerbird.reading.running.launch import Child

MIXER = """
import torch
from torch import nn

class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.register_buffer("before", torch.ones(6, 6).tril(-1))
    def forward(self, x):
        return self.layer(x) @ self.before
"""
TRAINED = (
    MIXER
    + """
net = Mixer()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(5):
    opt.zero_grad()
    net(torch.randn(3, 6)).square().mean().backward()
    opt.step()
"""
)


def run(child: Child, folder: Path, code: str, *, seconds: float = 30.0) -> CheckResult:
    file = folder / "program.py"
    file.write_text(textwrap.dedent(code), encoding="utf-8")
    return check(file, seconds=seconds, child=child)


def first(result: CheckResult) -> str:
    return next(iter(as_text(result)))


def last(result: CheckResult) -> str:
    return list(as_text(result))[-1]


def test_a_program_that_trains_its_modules_is_judged(child: Child, tmp_path: Path) -> None:
    result = run(child, tmp_path, TRAINED)
    seen = result.exercised
    assert result.ran and seen.modules == {"Mixer": True} and seen.own_steps == seen.steps == 5
    assert seen.covered == (10, 10) and seen.missed == []
    assert last(result) == "Nothing was found." and result.exit_status == 0
    assert first(result).endswith("1 of 1 module ran, 5 optimiser steps, 10 of 10 lines.")


def test_a_slip_that_ends_the_program_is_a_finding_and_no_verdict(child: Child, tmp_path: Path) -> None:
    result = run(child, tmp_path, TRAINED.replace("net.parameters()", "net.weights_()"))
    assert [(f.rule, f.severity, f.line) for f in result.findings if f.severity != "ok"] == [("X17", "error", 14)]
    assert "weights_" in result.findings[0].message
    assert [e["line"] for e in result.to_json()["exceptions"]] == [14, 16], "what follows is told, and is no finding"
    assert "opt" not in {s.name for s in result.run.stand_ins}, "what the failed line would have bound gets no stand-in"
    assert last(result).startswith("Not judged: it raised AttributeError at line 14")
    assert result.exit_status == 3 and not result.to_json()["judged"]


def test_a_defect_that_is_proved_outranks_the_exception_after_it(child: Child, tmp_path: Path) -> None:
    code = TRAINED.replace("    opt.zero_grad()\n", "") + "print(net.no_such_thing)\n"
    result = run(child, tmp_path, code)
    assert {f.rule for f in result.errors} == {"L01", "X17"} and result.exit_status == 1
    assert last(result).startswith("Not judged: it raised")


def test_an_exception_where_stand_ins_took_part_is_no_error_of_the_program(child: Child, tmp_path: Path) -> None:
    code = TRAINED.replace("torch.randn(3, 6)", "next(iter(loader))[0]")
    result = run(child, tmp_path, code)
    assert result.errors == [] and result.exit_status == 3
    raised = [f for f in result.findings if f.rule == "X17"]
    assert [f.severity for f in raised] == ["info"] and "loader was not there" in raised[0].evidence


def test_a_program_that_refuses_to_go_on_is_not_called_wrong(child: Child, tmp_path: Path) -> None:
    result = run(child, tmp_path, MIXER + "raise ValueError('give me a data set')\n")
    assert result.errors == [] and result.exit_status == 3


def test_a_module_that_nothing_could_call_is_not_judged(child: Child, tmp_path: Path) -> None:
    code = """
        from torch import nn
        class Odd(nn.Module):
            def __init__(self, table):
                super().__init__()
                self.size = table.rows["width"].size
            def forward(self, x):
                return x * self.size
        """
    result = run(child, tmp_path, code)
    assert not result.ran and result.exit_status == 3
    assert last(result).startswith("Not judged: none of its modules ran (Odd)")
    assert result.to_json()["modules"] == {"ran": [], "never": ["Odd"]}


def test_a_method_that_fails_when_it_is_only_shown_ends_nothing(child: Child, tmp_path: Path) -> None:
    shy = TRAINED.replace("    def forward", "    def extra_repr(self):\n        return self.nowhere\n    def forward")
    shy = shy.replace("self.layer = nn.Linear(6, 6)", "self.layer = nn.Linear(6, 6)\n        self.add = nn.Identity()")
    shy = shy.replace("nn.Identity()", "Leaf()").replace(
        "class Mixer", "class Leaf(nn.Identity):\n    def extra_repr(self):\n        return self.nowhere\n\nclass Mixer"
    )
    result = run(child, tmp_path, shy)
    assert result.exercised.modules["Mixer"] and not result.run.why_not


def test_what_a_script_defines_and_never_uses_is_named(child: Child, tmp_path: Path) -> None:
    spare = TRAINED.replace(
        "net = Mixer()", "class Spare(Mixer):\n    def forward(self, x):\n        return -x\n\nnet = Mixer()"
    )
    result = run(child, tmp_path, spare)
    assert result.exercised.never == ["Spare"] and result.exit_status == 0
    assert last(result) == "Nothing was found in what ran; never reached: Spare."
    assert "(never: 15)" in first(result)


def test_a_file_of_functions_is_judged_by_its_functions(child: Child, tmp_path: Path) -> None:
    result = run(child, tmp_path, "def kl(mean, logvar):\n    return (mean**2 + logvar.exp() - logvar - 1).sum() / 2\n")
    assert last(result) == "Nothing was found; its functions ran with arguments that were made up (kl)."
    assert result.to_json()["guessed"] == ["kl"] and not result.exit_status
    result = run(child, tmp_path, "def kl(posterior):\n    return posterior['mean'].kl.of(posterior).sum()\n")
    assert last(result) == "Not judged: none of its functions ran (kl)." and result.exit_status == 3


def test_a_program_that_uses_up_its_time_is_not_judged(child: Child, tmp_path: Path) -> None:
    code = MIXER + "net = Mixer()\nnet(torch.randn(2, 6))\n[x for x in iter(int, 1)]\n"
    result = run(child, tmp_path, code, seconds=1)
    assert result.exit_status == 3 and "1 s of processor time" in last(result)


def test_a_filter_of_a_share_of_the_tokens_is_no_error(child: Child, tmp_path: Path) -> None:
    code = """
        import torch
        def top_share(logits, share=0.8):
            chosen = logits.topk(round((1 - share) * logits.shape[-1]))
            return torch.full_like(logits, -torch.inf).scatter(-1, chosen.indices, chosen.values)
        def filter_low(logits, share=0.8):
            chosen = (-logits).topk(round((1 - share) * logits.shape[-1]))
            return torch.full_like(logits, -torch.inf).scatter(-1, chosen.indices, -chosen.values)
        print(torch.multinomial(filter_low(torch.randn(2, 40)).softmax(-1), 1))
        print(torch.multinomial(top_k_share(torch.randn(2, 40)).softmax(-1), 1))
        """.replace("top_share", "top_k_share")
    result = run(child, tmp_path, code)
    assert [(f.rule, f.line) for f in result.errors] == [("S05", 6)], "only the one that keeps the least likely"


def test_a_table_of_zeros_and_ones_is_no_sinusoid(child: Child, tmp_path: Path) -> None:
    code = TRAINED.replace("6, 6", "8, 8").replace("3, 6", "3, 8")
    assert run(child, tmp_path, code).errors == []


def test_a_relative_path_finds_what_an_absolute_one_finds(
    child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "net"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "sizes.py").write_text("def width():\n    return 6\n")
    code = TRAINED.replace("    opt.zero_grad()\n", "").replace(
        "import torch\n", "import torch\nfrom .sizes import width\n", 1
    )
    (package / "train.py").write_text(code.replace("randn(3, 6)", "randn(3, width())"))
    monkeypatch.chdir(tmp_path)
    found = [
        check(path, child=child)
        for path in ("net/train.py", package / "train.py", Path("net") / ".." / "net" / "train.py")
    ]
    said = [[(f.rule, f.line) for f in result.errors] for result in found]
    assert said == [[("L01", 17)]] * 3 and [result.exercised.own_steps > 2 for result in found] == [True] * 3
    assert first(found[0]).startswith(f"net{os.sep}train.py: ")


def test_relative_imports_work_without_an_init(child: Child, tmp_path: Path) -> None:
    (tmp_path / "nets" / "parts").mkdir(parents=True)
    (tmp_path / "sizes.py").write_text("WIDTH = 6\n")
    (tmp_path / "nets" / "parts" / "layers.py").write_text("from torch.nn import Linear as Layer\n")
    code = "from .parts.layers import Layer\nfrom sizes import WIDTH\n" + TRAINED.replace(
        "nn.Linear(6, 6)", "Layer(6, WIDTH)"
    )
    (tmp_path / "nets" / "train.py").write_text(code)
    result = check(tmp_path / "nets" / "train.py", child=child)
    assert result.exercised.own_steps == 5 and not result.run.exceptions()
    assert {s.name for s in result.run.stand_ins} <= {"lr"}


def test_a_program_made_smaller_keeps_its_number_of_parameters(
    child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observation, "LARGEST_PROBED", 100_000)
    code = """
        import torch
        from torch import nn
        class Wide(nn.Module):
            \"\"\"Has 360,600 parameters.\"\"\"
            def __init__(self, hidden_dim):
                super().__init__()
                self.layer = nn.Linear(hidden_dim, hidden_dim)
            def forward(self, x):
                return self.layer(x)
        hidden_dim = 600
        net = Wide(hidden_dim)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(4):
            opt.zero_grad()
            net(torch.randn(2, hidden_dim)).square().mean().backward()
            opt.step()
        """
    result = run(child, tmp_path, code)
    assert result.run.shrunk == ["hidden_dim 600 → 96"]
    assert result.facts.first("module.parameters", "net").value == 600 * 600 + 600
    assert any("made smaller (hidden_dim 600 → 96)" in line for line in as_text(result))
    told = str([str(text) for text in read(tmp_path / "program.py", measure=0, child=child).texts()])
    assert "360,600" in told and "made smaller" in told


def test_the_command_ends_with_the_status_of_its_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "program.py"
    file.write_text(TRAINED.replace("net.parameters()", "net.weights_()"))
    assert cli.main(["check", str(file), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["ran"] and not told["judged"] and told["not_judged"].startswith("it raised AttributeError")
    assert told["modules"]["never"] == [] and told["own_steps"] == 0 and told["lines"]["of"] == 10


def test_a_reading_says_what_never_ran(child: Child, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(TRAINED + "net.missing()\n")
    reading = read(tmp_path / "program.py", measure=0, child=child)
    assert reading.exercised is not None and reading.to_json()["exercised"]["modules"]["ran"] == ["Mixer"]
    told = " ".join(str(text) for text in reading.texts())
    assert "so it could not be judged as a whole" in told and "1 of 1 modules" in told


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("2 of its 3 modules never ran (Net, Block)", "3 个模块中有 2 个从未运行（Net, Block）"),
        ("none of its functions ran (it has none)", "函数都没有运行（没有）"),
        ("it raised ValueError at line 12: too many values", "它抛出 ValueError（第 12 行）：too many values"),
        (
            "it used up its 12 s of processor time (--seconds gives more)",
            "用完了 12 秒处理器时间（--seconds 可以增加）",
        ),
        ("it could not be run: it was stopped: it wrote too much", "无法运行：被停止：写入的内容过多"),
    ],
)
def test_a_chinese_reading_says_in_chinese_why_nothing_is_judged(why: str, said: str) -> None:
    fact = FactStore().add("observed", "run.exercised", "program", {"why": why})
    assert ours(fact, ["why"], "zh").shown.replace(" ", "") == said.replace(" ", "")
    assert ours(fact, ["why"], "en").shown == why


def test_a_property_is_told_in_words() -> None:
    value = {"holds": False, "said": "no other value changes it", "module": True}
    fact = FactStore().add("probed", "property.heeded", "Net", value)
    assert str(told(fact, "zh")) == "对 `Net` 的试验：“每个参数换成别的值，输出都会变”不成立"
    assert str(told(fact, "en")).startswith("an experiment on `Net` finds it untrue that")


EQUAL = """
import torch
from torch import nn

class Scale(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.width, self.layer = width, nn.Linear(width, width)
    def __eq__(self, other):
        return isinstance(other, Scale) and self.width == other.width
    def forward(self, x):
        return self.layer(x)

print(Scale()(torch.randn(3, 4)).sum())
"""


def test_a_module_that_cannot_be_hashed_runs(child: Child, tmp_path: Path) -> None:
    result = run(child, tmp_path, EQUAL)
    assert result.ran and not result.exercised.not_judged


SLIPS = """import torchvision
import torch
from torch import nn

data = torchvision.datasets.MNIST(".")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 10)

    def encode(self, x, y):
        return self.fc(x) + y

    def forward(self, x):
        return self.encode(x)


class Other(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        return self.fcc(x)


net = Net()
net(torch.randn(3, 784))
"""


def test_an_exception_that_no_value_of_ours_caused_is_a_finding_at_its_line(child: Child, tmp_path: Path) -> None:
    result = run(child, tmp_path, SLIPS)
    assert any(stand_in.made_up for stand_in in result.run.stand_ins)
    told = [(f.rule, f.severity, f.line) for f in result.findings if f.severity in ("error", "warning")]
    assert told == [("X27", "error", 17), ("X28", "warning", 26)]
    kept = run(
        child,
        tmp_path,
        SLIPS.replace("self.fc = nn.Linear(12", "setattr(self, 'fcc', 1) if 0 else None; self.fc = nn.Linear(12"),
    )
    assert [f.line for f in kept.findings if f.severity == "warning"] == [], "something may give it that attribute"


def test_python_2_is_named_and_not_judged(child: Child, tmp_path: Path) -> None:
    result = run(child, tmp_path, TRAINED + "for i in xrange(3):\n    net(torch.randn(2, 6))\n")
    assert last(result).startswith("Not judged: it is Python 2 (xrange at line ") and result.exit_status == 3
    assert result.findings == []
    with pytest.raises(BowerbirdError, match=r"is Python 2 \(line 1\): Python 3 cannot run it"):
        run(child, tmp_path, "print 'old'\n")


LATE = """import torch
from torch import nn


class EMA:
    def __init__(self, decay=0.9, every=10):
        self.decay, self.every, self.step = decay, every, 0

    def update_model_average(self, ma_model, current_model):
        self.step += 1
        if self.step % self.every:
            return
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        for now, mean in zip(current_model.parameters(), ma_model.parameters()):
            mean.data = decay * mean.data + (1 - decay) * now.data


net, ema = nn.Linear(6, 6), EMA()
net(torch.randn(2, 6))
"""


def test_a_moving_average_that_starts_late_and_warms_up_is_right(child: Child, tmp_path: Path) -> None:
    result = run(child, tmp_path, LATE)
    assert result.run.facts.of("probe.ema") and [f for f in result.findings if f.rule == "D09"] == []


def test_a_defect_in_a_file_that_the_program_imports_is_proved_there(child: Child, tmp_path: Path) -> None:
    loop = TRAINED.replace("    opt.zero_grad()\n", "").partition("for _")[2]
    (tmp_path / "loop.py").write_text(
        f"import torch\ndef train(net, opt):\n{textwrap.indent(f'for _{loop}', '    ')}", encoding="utf-8"
    )
    head = TRAINED.partition("for _")[0].replace("import torch\n", "import torch\nfrom loop import train\n", 1)
    result = run(child, tmp_path, head + "train(net, opt)\n")
    assert [(f.rule, Path(f.file).name, f.line) for f in result.errors] == [("L01", "loop.py", 4)]
    assert fix(result, child=child).files == [] and "zero_grad" not in (tmp_path / "loop.py").read_text()
