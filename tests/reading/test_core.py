"""Running strangers' programs: what is seen, what stands in, what may not be done, and what `check` answers."""

import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from bowerbird.errors import BowerbirdError
from bowerbird.reading.check import CheckResult, check, fix
from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding, in_order
from bowerbird.reading.patching import Edit, Patch
from bowerbird.reading.program import Program
from bowerbird.reading.running import imports
from bowerbird.reading.running.launch import Child
from bowerbird.reading.running.observation import observe
from bowerbird.reading.running.standins import einops
from bowerbird.reading.source import open_source, write_back
from bowerbird.reading.undefined import undefined_names

NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.head = nn.Linear(8, 2)
    def forward(self, x):
        return self.head(self.body(x))
"""
TRAIN = (
    NET
    + """
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(1000):
    opt.zero_grad()
    loss = nn.functional.cross_entropy(net(torch.randn(8, 4)), torch.zeros(8).long())
    loss.backward()
    opt.step()
    if step == 999:
        print("the last round")
print("after the loop")
"""
)


def run(child: Child, folder: Path, code: str, *, seconds: float = 30.0, name: str = "program.py") -> CheckResult:
    file = folder / name
    file.write_text(textwrap.dedent(code), encoding="utf-8")
    return check(file, seconds=seconds, child=child)


def said(result: CheckResult, severity: str = "error") -> set[tuple[str, int]]:
    return {(f.rule, f.line) for f in result.findings if f.severity == severity}


def test_a_training_loop_is_cut_short_and_the_code_after_it_runs(child: Child, tmp_path: Path) -> None:
    result = run(child, tmp_path, TRAIN)
    facts = result.facts
    assert result.ran and not result.run.exceptions()
    assert 6 <= result.run.steps <= 8
    assert facts.of("run.output")[0]["text"] == "the last round\nafter the loop\n"
    assert facts.first("module.parameters", "net").value == 4 * 8 + 8 + 8 * 2 + 2
    assert facts.first("module.io", "net.body")["out"]["shape"] == [8, 8]
    assert facts.first("optimizer.created")["owners"] == {"net": {"tensors": 4, "of": 4}}
    steps = facts.of("event.step")
    assert {step.subject for step in steps} == {"opt"} and all(step["delta"] > 0 for step in steps)
    backward = facts.first("event.backward")
    assert backward["through"][0]["module"] == "net" and backward["grads"]["net"]["norm_before"] == 0
    assert backward.line == 17
    assert result.errors == []


def test_missing_zero_grad_is_an_error_and_its_patch_mends_it(child: Child, tmp_path: Path) -> None:
    broken = TRAIN.replace("    opt.zero_grad()\n", "")
    result = run(child, tmp_path, broken)
    assert said(result) == {("L01", 16)}
    assert fix(result, child=child).files == [str(tmp_path / "program.py")]
    assert "    opt.zero_grad()\n" in (tmp_path / "program.py").read_text()
    assert check(tmp_path / "program.py", child=child).errors == []


@pytest.mark.parametrize(
    ("encoding", "ends", "last"),
    [("utf-8", "\n", True), ("utf-8-sig", "\r\n", True), ("gb18030", "\r\n", False), ("utf-8", "\n", False)],
)
def test_a_file_that_is_mended_keeps_its_form(tmp_path: Path, encoding: str, ends: str, last: bool) -> None:
    text = "# 生成器\nnet = 1\n" + ("pass\n" if last else "pass")
    path, link = tmp_path / "p.py", tmp_path / "link.py"
    path.write_bytes(text.replace("\n", ends).encode(encoding))
    path.chmod(0o755)
    link.symlink_to(path)
    source = open_source(link)
    write_back(link, source.texts[source.main].replace("net = 1", "net = 2"))
    assert path.read_bytes() == text.replace("net = 1", "net = 2").replace("\n", ends).encode(encoding)
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o755
    before = path.read_bytes()
    with pytest.raises(BowerbirdError, match="is as it was"):
        write_back(path, "\ud800")
    assert path.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["link.py", "p.py"]


def test_a_patched_run_shows_what_a_patch_changes(child: Child, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(TRAIN)
    patch = Patch("no step", (Edit(str(file), 18, 18, ("    pass",)),))
    with observe(open_source(file), child=child) as seen:
        patched = seen.patched(patch)
        same = seen.patched(Patch("nothing", ()))
    assert patched is not None and same is not None
    assert not patched.of("event.step")
    values = [[f["loss"] for f in facts.of("event.backward")] for facts in (seen.facts, same, patched)]
    assert values[0] == values[1], "the same program under the same seed sees the same numbers"
    assert values[2][0] == values[0][0] and values[2][1] != values[0][1]


def test_a_fragment_runs_with_stand_ins_that_are_named(child: Child, tmp_path: Path) -> None:
    result = run(
        child,
        tmp_path,
        """
        # 生成器
        class Generator(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = nn.Sequential(nn.Linear(100, 784), nn.Tanh())
            def forward(self, z):
                return self.model(z).view(-1, 1, 28, 28)
        G = Generator().cuda()
        D = nn.Sequential(nn.Flatten(), nn.Linear(784, 1), nn.Sigmoid()).to(device)
        optimizer_G = torch.optim.Adam(G.parameters(), lr=opt.lr, betas=(opt.b1, opt.b2))
        for epoch in range(opt.n_epochs):
            for i, (imgs, _) in enumerate(dataloader):
                z = Variable(torch.FloatTensor(np.random.normal(0, 1, (imgs.shape[0], opt.latent_dim)))).cuda()
                optimizer_G.zero_grad()
                g_loss = F.binary_cross_entropy(D(G(z)), torch.ones(imgs.size(0), 1).cuda())
                g_loss.backward()
                optimizer_G.step()
            plt.imshow(G(z)[0, 0].detach().cpu().numpy())
            plt.show()
        """,
    )
    assert result.ran and not result.run.exceptions() and result.run.steps >= 4
    names = {stand_in.name for stand_in in result.run.stand_ins}
    assert {"nn", "torch", "dataloader", "device", "opt", "CUDA", "plt"} <= names
    assert result.errors == []
    assert result.facts.first("image.saved", "imshow") is not None
    draw = result.facts.first("random.draw", "numpy.normal")
    assert draw["shape"] == [16, 100] and abs(draw["mean"]) < 0.1


def test_data_sets_downloads_and_missing_files_have_stand_ins(child: Child, tmp_path: Path) -> None:
    result = run(
        child,
        tmp_path,
        """
        import argparse, os, urllib.request
        import torch, wandb
        from torchvision import datasets, transforms
        from torchvision.utils import save_image
        from nowhere import thing
        parser = argparse.ArgumentParser()
        parser.add_argument("--data", required=True)
        parser.add_argument("--epochs", type=int, default=20)
        args = parser.parse_args()
        os.makedirs("../out/images", exist_ok=True)
        tf = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
        loader = torch.utils.data.DataLoader(datasets.MNIST("data", download=True, transform=tf), batch_size=32,
                                             shuffle=True, num_workers=4)
        x, y = next(iter(loader))
        print(x.shape, y.dtype, float(x.min()), float(x.max()), len(loader))
        save_image(x, "../out/images/x.png")
        urllib.request.urlretrieve("https://example.org/input.txt", "input.txt")
        print(len(open("input.txt").read()) > 1000, len(open("data/corpus.txt").read()) > 1000)
        thing.log(thing(3))
        """,
    )
    assert not result.run.exceptions()
    text = result.facts.first("run.output")["text"].splitlines()
    assert text == ["torch.Size([32, 1, 28, 28]) torch.int64 -1.0 1.0 4", "True True"]
    saved = result.facts.first("image.saved", "save_image")
    assert saved["input"]["min"] == -1.0 and saved["normalize"] is False
    assert {"torchvision", "wandb", "nowhere", "--data"} <= {s.name for s in result.run.stand_ins}
    assert not (tmp_path.parent / "out").exists()


def test_classes_that_are_only_defined_are_built_and_called(child: Child, tmp_path: Path) -> None:
    result = run(
        child,
        tmp_path,
        """
        import torch
        from torch import nn
        class Attention(nn.Module):
            def __init__(self, d_model, n_heads, dropout=0.1):
                super().__init__()
                self.heads, self.qkv, self.out = n_heads, nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
            def forward(self, x, mask=None):
                b, n, d = x.shape
                q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
                return self.out((q @ k.transpose(-1, -2)).softmax(-1).matmul(v).transpose(1, 2).reshape(b, n, d))
        class Decoder(nn.Module):
            def __init__(self, latent_dim: int, channels: int):
                super().__init__()
                self.net = nn.Sequential(nn.ConvTranspose2d(latent_dim, 8, 4), nn.Conv2d(8, channels, 3))
            def forward(self, z):
                return self.net(z)
        """,
    )
    assert result.ran and not result.run.exceptions()
    assert {f.subject for f in result.facts.of("module.tree")} == {"attention", "decoder"}
    assert result.facts.first("module.calls", "attention.out")["calls"] == 1
    assert any(name.name.startswith("Attention(d_model=64, n_heads=4") for name in result.run.stand_ins)


def test_a_package_with_its_own_files_and_a_main_function(child: Child, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NET)
    result = run(
        child,
        tmp_path,
        """
        import torch
        from nets import Net
        def main():
            model = Net()
            optimiser = torch.optim.Adam(model.parameters())
            for epoch in range(50):
                for i in range(100):
                    optimiser.zero_grad()
                    model(torch.randn(2, 4)).sum().backward()
                    optimiser.step()
        if __name__ == "__main__":
            main()
        """,
    )
    assert result.run.steps <= 24 and result.facts.first("module.tree", "model")["class"] == "Net"
    assert {f.subject for f in result.facts.of("event.step")} == {"optimiser"}


def test_a_failing_statement_does_not_hide_the_next(child: Child, tmp_path: Path) -> None:
    result = run(
        child, tmp_path, "import torch\nx = torch.ones(2) @ torch.ones(3)\nprint('on', flush=True)\nmade_up_xyz()\n"
    )
    assert [(f.subject, f.line) for f in result.run.exceptions()] == [("RuntimeError", 2), ("NameError", 4)]
    assert result.facts.first("run.output")["text"] == "on\n"
    assert ("X01", 4) in said(result, "warning")  # like no name of the program: a fragment may expect it


def test_a_discarded_result_is_an_error_only_where_a_tensor_is_thrown_away(child: Child, tmp_path: Path) -> None:
    code = (
        "import torch\nfrom torch import nn\nx = torch.randn(3)\nx.clamp(0, 1)\nnet = nn.Linear(2, 2)\nnet.double()\n"
    )
    assert said(run(child, tmp_path, code)) == {("X05", 4)}


def test_modules_in_a_list_are_an_error(child: Child, tmp_path: Path) -> None:
    broken = TRAIN.replace("nn.Sequential(nn.Linear(4, 8), nn.ReLU())", "[nn.Linear(4, 8)]")
    broken = broken.replace("self.body(x)", "self.body[0](x)")
    assert said(run(child, tmp_path, broken)) == {("P01", 7)}


HOSTILE = {
    "fork bomb": ("import os\nwhile True:\n    os.fork()\n", "process"),
    "network": ("import socket\nsocket.create_connection(('127.0.0.1', 9))\n", "network"),
    "processes": ("import subprocess\nsubprocess.Popen(['touch', 'x'])\n", "process"),
    "deleting": ("import shutil\nshutil.rmtree(VICTIM)\n", "deleting or moving"),
    "secrets": ("open('/etc/shadow').read()\n", "reading secrets"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_harms_nothing_and_is_reported(child: Child, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept.txt").write_text("kept")
    code, what = HOSTILE[name]
    folder = tmp_path / "code"
    folder.mkdir()
    result = run(child, folder, code.replace("VICTIM", repr(str(victim))), seconds=3)
    assert {f.subject for f in result.facts.of("run.refused")} == {what}
    assert any(f.rule == "X09" and f.line for f in result.findings)
    assert (victim / "kept.txt").read_text() == "kept"
    assert [p.name for p in folder.iterdir()] == ["program.py"]


def test_the_kernel_refuses_what_goes_around_python(child: Child, tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("kept")
    folder = tmp_path / "code"
    folder.mkdir()
    result = run(
        child,
        folder,
        f"""
        import _posixsubprocess, ctypes, os
        for attempt in (lambda: ctypes.CDLL(None).unlink({str(victim)!r}.encode()), lambda: os.kill(os.getppid(), 9)):
            try:
                attempt()
            except OSError as error:
                print(type(error).__name__)
        """,
        seconds=3,
    )
    assert victim.read_text() == "kept"
    assert result.facts.first("run.output")["text"].split() == ["Refused", "Refused"]


def test_memory_and_endless_loops_have_limits(child: Child, tmp_path: Path) -> None:
    code = """
        import torch
        try:
            torch.zeros(25_000_000_000)
        except RuntimeError:
            print("refused")
        while True:
            try:
                [i for i in iter(int, 1)]
            except BaseException:
                pass
    """
    result = run(child, tmp_path, code, seconds=1.5)
    assert result.ran and result.facts.first("run.output")["text"] == "refused\n"
    assert check_answers(child, tmp_path), "the child serves the next program"


def check_answers(child: Child, folder: Path) -> bool:
    return run(child, folder, "print('here')", name="next.py").facts.first("run.output")["text"] == "here\n"


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("bad.py", b"x = = 3\n", "bad.py is not valid Python: line 1"),
        ("big.py", b"x = 1\n" * 350_000, "big.py is 2.1 MB long"),
        ("blob.py", bytes(range(256)) * 4, "blob.py is not Python source"),
        ("broken.ipynb", b"{]", "broken.ipynb is not a notebook"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path: Path, name: str, data: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BowerbirdError, match=sentence):
        open_source(tmp_path / name)
    with pytest.raises(BowerbirdError, match="There is no file"):
        open_source(tmp_path / "absent.py")


def test_a_notebook_keeps_its_cells(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": "# title"},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "import torch\n"]},
        {"cell_type": "code", "source": "!pip install torch\nx = torch.ones(2)\nx.clamp(0, 1)"},
    ]
    file = tmp_path / "book.ipynb"
    file.write_text(json.dumps({"cells": cells}))
    source = open_source(file)
    line = source.texts[str(file)].splitlines().index("x.clamp(0, 1)") + 1
    assert source.where(line) == "cell 3, line 3"


def test_undefined_names_are_those_that_nothing_binds() -> None:
    text = "import a\ndef f(x):\n    global g\n    g = x\n    return [y for y in x] + [lost, a.b]\nfound = g\n"
    program = compile(text, "p", "exec", flags=1024)
    assert undefined_names(text, program) == {"lost": 5}


def test_the_static_model_knows_optimisers_loops_and_constants(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(TRAIN + "\nN = 4\nM = N * 2 + 1\n")
    unit = Program(open_source(tmp_path / "p.py")).main
    assert unit.classes["Net"].is_module and unit.modules["net"] == "Net"
    assert [(o.name, o.kind, o.modules) for o in unit.optimizers] == [("opt", "SGD", ("net",))]
    assert [loop.lineno for loop in unit.training_loops] == [14]
    assert unit.constant(unit.assignments["M"][0][0]) == 9


def test_facts_are_found_by_topic_subject_and_line() -> None:
    store = FactStore()
    first = store.add("observed", "event.step", "opt", {"n": 1}, file="a.py", line=3, run="run")
    store.add("static", "module.tree", "net", 5)
    assert store.get("F1") is first and store.get("F9") is None and first["n"] == 1 and first["absent"] is None
    assert store.of("event.*", "o*") == [first] == store.of("event.step", line=3)
    assert FactStore.from_json(store.to_json()).to_json() == store.to_json()


def test_findings_come_worst_first_and_once() -> None:
    a, b, c = Finding("L01", "info", 2, "a"), Finding("L01", "error", 2, "b"), Finding("G06", "warning", 1, "c")
    assert in_order([a, b, c]) == [b, c]


def test_the_command_prints_json_and_its_status_tells(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(TRAIN.replace("    opt.zero_grad()\n", ""))
    done = subprocess.run(
        [sys.executable, "-m", "bowerbird", "check", str(tmp_path / "p.py"), "--json"], capture_output=True, text=True
    )
    answer = json.loads(done.stdout)
    assert done.returncode == 1 and answer["ran"] is True and answer["stand_ins"] == []
    found = next(f for f in answer["findings"] if f["rule"] == "L01")
    assert {"rule", "severity", "line", "message", "evidence", "fix"} <= set(found) and found["line"] == 16


def test_the_parent_loads_no_torch() -> None:
    code = "import sys, bowerbird.cli, bowerbird.reading.check; bowerbird.check; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_stand_ins_have_the_names_that_programs_expect_of_them(child: Child, tmp_path: Path) -> None:
    """A part of a package, a class of it to derive from, a name that the stand-in never heard of."""
    code = """
        import torch
        from torch._six import PY3, inf
        from torchvision import models
        from torchvision.models.inception import InceptionA
        from tqdm.auto import tqdm

        class Block(InceptionA):
            def __init__(self):
                super().__init__(3, pool_features=4)

        tqdm.set_lock(None)
        for _ in tqdm(range(2)):
            x = Block()(torch.ones(2, 3))
        print(models.resnet.resnet18(num_classes=7)(torch.ones(2, 3, 32, 32)).shape, inf)
        """
    result = run(child, tmp_path, code)
    assert result.ran and result.run.exceptions() == [] and result.exercised.never == []


def test_an_installed_module_is_imported_without_the_hook_on_every_call() -> None:
    seen: list[tuple[str, str]] = []

    def watch(frame, event, value):
        if event == "call":
            seen.append((Path(frame.f_code.co_filename).name, frame.f_code.co_name))

    sys.setprofile(watch)
    try:
        spec = imports._unwatched("colorsys", None)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert sys.getprofile() is watch
        module.rgb_to_hsv(1, 0, 0)
    finally:
        sys.setprofile(None)
    assert [name for file, name in seen if file == "colorsys.py"] == ["rgb_to_hsv"], "nothing of the import"
    assert imports._unwatched("colorsys", None) is None, "where nothing watches, Python imports as always"


def test_the_stand_in_of_einops_moves_splits_joins_repeats_and_reduces() -> None:
    x = torch.arange(48).reshape(2, 6, 4)
    heads = x.reshape(2, 3, 2, 4).permute(0, 1, 3, 2)
    assert torch.equal(einops.rearrange(x, "b (h d) n -> b h n d", h=3), heads)
    assert torch.equal(einops.rearrange(heads, "b h n d -> b (h d) n"), x)
    assert torch.equal(einops.rearrange(x, "b ... -> b (...)"), x.flatten(1))
    assert torch.equal(einops.rearrange(list(x), "b c n -> b n c"), x.mT)
    assert torch.equal(einops.repeat(x, "b c n -> b (c r) n", r=2), x.repeat_interleave(2, 1))
    assert torch.equal(einops.repeat(x[:1], "1 c n -> b c n", b=3), x[:1].expand(3, -1, -1))
    assert torch.equal(einops.reduce(x.float(), "b c n -> b n", "mean"), x.float().mean(1))
    packed, shapes = einops.pack([x, x[:, :2]], "b * n")
    assert torch.equal(einops.unpack(packed, shapes, "b * n")[1], x[:, :2])
    with pytest.raises(ValueError, match="names 2 axes"):
        einops.rearrange(x, "a b -> b a")
