"""N steps = k steps, a killed process, N - k steps: bit for bit, for every shipped recipe."""

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from bowerbird import api, cli, config
from bowerbird.data import catalogue
from bowerbird.media import open_data
from bowerbird.spec import Classes, Tensors, Tokens
from bowerbird.training import salvage
from bowerbird.training.preflight import Preflight
from bowerbird.training.rundir import RunDir, renamed
from bowerbird.training.stopping import SIGNALS, catching_signals
from bowerbird.training.trainer import Trainer, resume, train

KILLS = int(os.environ.get("BOWERBIRD_KILLS", "1"))
"""Random kills in test_kill; ``make kill`` does 20."""


@pytest.fixture(scope="module")
def digits():
    return open_data(config.Data("digits", size=16))


STANDS_FOR = {"multi30k": "tatoeba", "emoji-motion": "bouncing-digits"}
"""Built-in data of the same kind in place of what has to be fetched; of images digits."""


NARROW = {"channels": 32, "n_embd": 96, "n_layer": 2}
"""At most so large; 4 and 6 heads divide the width."""


def narrowed(settings: Any) -> Any:
    """The settings of a model with smaller networks of the same kind."""
    smaller: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            smaller[field.name] = narrowed(value)
        elif isinstance(value, int) and field.name in NARROW:
            smaller[field.name] = min(value, NARROW[field.name])
    return replace(settings, **smaller)


def shortened(name: str, steps: int) -> config.Run:
    """A shipped recipe with its own losses, kinds of network and optimiser, but few and small steps on small data."""
    run = config.load(name)
    built_in = {record.name for record in catalogue.RECORDS if record.kind == "data" and record.built_in}
    return replace(
        run,
        model=narrowed(run.model),
        data=replace(
            run.data,
            source=run.data.source if run.data.source in built_in else STANDS_FOR.get(run.data.source, "digits"),
            size=16,
            text=replace(run.data.text, context=32, vocab_size=min(run.data.text.vocab_size, 512)),
            music=replace(run.data.music, context=32),
            video=replace(run.data.video, frames=4),
        ),
        train=replace(
            run.train, steps=steps, examples=None, seconds=None, flops=None, batch_size=4 * run.train.accumulate,
            warmup_steps=3, checkpoint_every=2, sample_every=0, log_every=1, device="cpu", threads=1,
        ),
    )  # fmt: skip


def contents(folder: Path) -> dict[str, torch.Tensor]:
    return RunDir(folder).load_state()


def scalars(folder: Path) -> list[dict]:
    """The logged rows without the columns that time the machine."""
    timed = {"seconds", "compute_seconds", "examples_per_second", "memory_gb"}
    return [{k: v for k, v in row.items() if k not in timed} for row in RunDir(folder).metrics()]


def assert_identical(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, f"{len(different)} of {len(a)} tensors differ, first {different[:3]}"


def test_a_run_killed_before_its_first_checkpoint_starts_over(digits, tmp_path, monkeypatch):
    run = shortened("vae", steps=3)
    monkeypatch.setattr(Trainer, "_preview", lambda self: None)
    train(run, tmp_path / "whole", digits, quiet=True)
    save = Trainer.save_checkpoint
    monkeypatch.setattr(Trainer, "save_checkpoint", lambda self: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        train(run, tmp_path / "parts", digits, quiet=True)
    assert RunDir(tmp_path / "parts").metrics()
    monkeypatch.setattr(Trainer, "save_checkpoint", save)
    resume(tmp_path / "parts", digits, quiet=True)
    assert_identical(contents(tmp_path / "whole"), contents(tmp_path / "parts"))
    assert scalars(tmp_path / "whole") == scalars(tmp_path / "parts")


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def kinds() -> list[str]:
    """A recipe of each family on each network with each optimiser; with ``make contract``, all."""
    if os.environ.get("BOWERBIRD_CONTRACT") == "all":
        return config.recipe_names()
    first: dict[object, str] = {}
    for name in config.recipe_names():
        run = config.load(name)
        first.setdefault((run.train.optimizer, *types(run.model)), name)
    return list(first.values())


def types(settings: Any) -> Iterator[type]:
    """The class of the settings and those of their parts."""
    yield type(settings)
    for field in fields(settings):
        if is_dataclass(part := getattr(settings, field.name)):
            yield from types(part)


@pytest.mark.parametrize("recipe", kinds())
def test_resume_is_exact(recipe, digits, tmp_path, monkeypatch):
    run = shortened(recipe, steps=3)
    data = digits if run.data.source == "digits" and run.data.binarize == "none" else open_data(run.data)
    monkeypatch.setattr(Trainer, "_preview", lambda self: None)  # many network evaluations, and no part of the state
    if part := run.model.build(data.spec).borrowed:
        train(replace(run, model=getattr(run.model, part)), tmp_path / "part", data, quiet=True)
        run = replace(run, train=replace(run.train, start=str(tmp_path / "part")))
    monkeypatch.setattr(Trainer, "_preflight", lambda self: Preflight(0, 1.0, 0, 0.0))  # likewise
    train(run, tmp_path / "whole", data, quiet=True)

    step = Trainer.train_step

    def dies_in_the_third_step(self):
        logs = step(self)
        if self.step == 3:
            raise Killed
        return logs

    monkeypatch.setattr(Trainer, "train_step", dies_in_the_third_step)
    with pytest.raises(Killed):
        train(run, tmp_path / "parts", data, quiet=True)
    monkeypatch.setattr(Trainer, "train_step", step)
    assert RunDir(tmp_path / "parts").status()["step"] == 2
    torch.manual_seed(random.randrange(2**31))  # a new process does not have the old one's random state
    result = resume(tmp_path / "parts", data, quiet=True)

    assert result.finished and result.step == 3
    assert_identical(contents(tmp_path / "whole"), contents(tmp_path / "parts"))
    assert scalars(tmp_path / "whole") == scalars(tmp_path / "parts")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "bowerbird", *map(str, arguments)]


def forked(*arguments: object) -> multiprocessing.process.BaseProcess:
    """The command in a fork of this process, which has torch loaded already: nothing is trained while that loads."""

    def run() -> None:
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os._exit(cli.main([str(argument) for argument in arguments]))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def finish_under_fire(toml: Path, folder: Path, steps: int, rng: random.Random, most_kills: int) -> int:
    """Trains to the end in processes, each killed with -9 when it has reached a random step; returns how often."""
    arguments: tuple = ("train", toml, "--out", folder)
    for kills in itertools.count():
        process = forked(*arguments)
        if kills < most_kills:
            last = rng.randrange(reached(folder), steps)
            while process.is_alive() and reached(folder) <= last:
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.02))
            process.kill()
        process.join()
        if process.exitcode == 0:
            return kills
        assert process.exitcode == -signal.SIGKILL
        if (folder / "run.toml").exists():
            arguments = ("resume", folder)
    raise AssertionError("unreachable")


def reached(folder: Path) -> int:
    """The step of the last line of the log, 0 where there is none."""
    return max((row["step"] for row in salvage.json_rows(folder / "metrics.jsonl")), default=0)


def test_kill(digits, tmp_path):
    run = shortened("vae", steps=60)
    run = replace(run, train=replace(run.train, checkpoint_every=7, log_every=5))
    toml = tmp_path / "run.toml"
    toml.write_text(config.dumps(run))
    train(run, tmp_path / "whole", digits, quiet=True)

    rng, kills, parts = random.Random(0), 0, tmp_path / "parts"
    while kills < KILLS:
        kills += finish_under_fire(toml, parts, run.train.steps, rng, KILLS - kills)
        assert RunDir(parts).status()["finished"]
        assert_identical(contents(tmp_path / "whole"), contents(parts))
        assert scalars(tmp_path / "whole") == scalars(parts)
        shutil.rmtree(parts)
    print(f"killed {kills} times")


def test_sigterm_saves_and_leaves(tmp_path):
    run = shortened("vae", steps=100_000)
    toml = tmp_path / "run.toml"
    toml.write_text(config.dumps(replace(run, train=replace(run.train, checkpoint_every=100_000))))
    process = subprocess.Popen(command("train", toml, "--out", tmp_path / "run"), stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "bowerbird resume" in errors and "Traceback" not in errors
    status = RunDir(tmp_path / "run").status()
    assert status["step"] >= 1 and not status["finished"]
    assert RunDir(tmp_path / "run").metrics()[-1]["step"] == status["step"]


@pytest.mark.parametrize("signum", SIGNALS)
def test_every_signal_that_ends_a_program_lets_the_step_be_saved_first(signum):
    """A closed terminal (SIGHUP) too; under nohup, which ignores that, it stays ignored."""
    inherited = signal.signal(signum, before := signal.default_int_handler)
    with catching_signals() as caught:
        signal.raise_signal(signum)
        assert caught == [signum]
    assert signal.getsignal(signum) == before
    signal.signal(signum, signal.SIG_IGN)
    with catching_signals() as caught:
        signal.raise_signal(signum)
    signal.signal(signum, inherited)
    assert caught == []


OLD_RUNS = Path(__file__).parent / "data" / "runs-0.1"
"""Runs of 6 steps that version 0.1 began: killed after the fourth, last checkpoint at the second.  Beside each the
weights with which version 0.1 ended when nobody killed it.  A flow of digits, 8x8, and a model of names by characters.
"""


@pytest.mark.parametrize("name", ["flow", "text"])
def test_a_run_of_version_0_1_opens_samples_and_resumes(name, tmp_path):
    run = tmp_path / name
    shutil.copytree(OLD_RUNS / name, run)
    model, kept = api.load(run), safetensors.torch.load_file(run / "model.safetensors")
    assert model.state_dict().keys() == renamed(kept).keys() and len(kept) == len(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in renamed(kept).items())
    data = open_data(RunDir(run).config().data)
    if name == "flow":
        assert model.spec == data.spec and model.spec.target == Tensors((1, 8, 8))
        assert isinstance(label := model.spec.given["label"], Classes) and sum(label.counts) == len(data.train)
        out = api.sample(run, n=3, label="7", options={"steps": 2})
        assert all('"label": "7"' in line for line in (out / "metadata.jsonl").read_text().splitlines())
        assert len(list(out.glob("0*.png"))) == 3
    else:
        assert isinstance(model.spec.target, Tokens) and replace(model.spec, given={}) == data.spec
        out = api.sample(run, n=3, prompt="anna", options={"n_tokens": 4})
        lines = (out / "metadata.jsonl").read_text().splitlines()
        assert len(lines) == 3 and all('"text": "anna' in line for line in lines)

    assert api.resume(run, quiet=True) == run
    status = RunDir(run).status()
    assert status["finished"] and status["step"] == 6
    assert [row["step"] for row in RunDir(run).metrics()] == [1, 2, 3, 4, 5, 6]
    want = renamed(safetensors.torch.load_file(OLD_RUNS / f"{name}-finished.safetensors"))
    found = safetensors.torch.load_file(run / "model.safetensors")
    assert found.keys() == want.keys()
    for key, value in found.items():  # here bit for bit; other processors round otherwise
        torch.testing.assert_close(value, want[key], atol=1e-5, rtol=1e-4)
    assert any(not torch.allclose(value, renamed(kept)[key], atol=1e-5) for key, value in found.items())
    assert api.load(run).spec == model.spec  # now a run of today


def test_weights_of_today_keep_their_names():
    old, today = "net.conditioning.label.table.weight", "net.conditioning.given.embed.label.table.weight"
    for name in (old, today):
        assert list(renamed({name: torch.zeros(1)})) == [today]
