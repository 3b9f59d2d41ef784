"""Where a run used to be stuck: finished, moved, on another machine, beside another trainer, before it began."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bowerbird import api, cli, config
from bowerbird.api import training
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.media import open_data
from bowerbird.models.autoregressive import AutoregressiveConfig
from bowerbird.models.gan import GANConfig
from bowerbird.models.vae import VAEConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.training import lock
from bowerbird.training.budget import continued_budget
from bowerbird.training.rundir import RunDir, explaining_full_disk
from bowerbird.training.trainer import Trainer, train

SMALL = config.Train(
    steps=3, batch_size=4, threads=1, device="cpu", precision="fp32", sample_every=0, log_every=1, checkpoint_every=2
)
NET = MLPConfig(hidden=(8,))


def small(data: Path, model: config.ModelConfig | None = None, **changes: object) -> config.Run:
    return config.Run(model or VAEConfig(net=NET, n_latent=2), config.Data(str(data)), replace(SMALL, **changes))


@pytest.fixture(scope="module")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(small(tiny), folder, open_data(config.Data(str(tiny))), quiet=True)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


# ---------------------------------------------------------------------------------------- finished runs


def test_a_finished_run_says_what_to_add(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["resume", str(run)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(run)
    assert "is finished; to continue it, add for example --budget +500steps" in said.err
    assert RunDir(run).status()["step"] == 3


def test_a_finished_run_goes_on_as_if_it_had_been_longer(run: Path, tiny: Path, tmp_path: Path) -> None:
    assert cli.main(["resume", str(run), "--budget", "+2steps", "--quiet"]) == 0
    train(small(tiny, steps=5), tmp_path / "longer", open_data(config.Data(str(tiny))), quiet=True)
    a, b = RunDir(run).load_state(), RunDir(tmp_path / "longer").load_state()
    assert all(torch.equal(a[name], b[name]) for name in b) and a.keys() == b.keys()
    assert RunDir(run).config().train.steps == 5


def test_steps_raised_in_run_toml_are_noticed(run: Path) -> None:
    """Case 22 (a)."""
    toml = run / "run.toml"
    toml.write_text(toml.read_text().replace("steps = 3\n", "steps = 4\n", 1))
    with pytest.raises(BowerbirdError, match="train.steps was 3, run.toml says 4"):
        api.resume(run, quiet=True)
    api.resume(run, accept_changes=True, quiet=True)
    assert RunDir(run).status()["step"] == 4


@pytest.mark.parametrize(
    "text, budget",
    [
        ("+2steps", {"steps": 7}),
        ("8steps", {"steps": 8}),
        ("+1m", {"seconds": 62.5}),
        ("+30 examples", {"examples": 50}),
    ],
)
def test_budgets_that_add_count_from_where_the_run_is(text: str, budget: dict) -> None:
    assert continued_budget(text, {"step": 5, "examples": 20, "seconds": 2.5, "flops": 1e9}) == budget


def test_a_budget_that_is_used_up_is_refused() -> None:
    with pytest.raises(BowerbirdError, match=r"already used 5 steps.*--budget \+5steps"):
        continued_budget("5steps", {"step": 5})


def test_a_run_of_another_machine_goes_on_here(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Case 22 (c): the advice that the error gives is one that resume takes."""
    toml = run / "run.toml"
    toml.write_text(toml.read_text().replace('device = "cpu"', 'device = "cuda:7"'))
    words = ["resume", str(run), "--budget", "+1steps", "--quiet"]
    assert cli.main(words) == 2
    assert f"To continue here: bowerbird resume {run} --device auto" in capsys.readouterr().err
    assert cli.main([*words, "--device", "cpu"]) == 0
    assert RunDir(run).config().train.device == "cpu" and RunDir(run).status()["step"] == 4


# ---------------------------------------------------------------------------------------- weights of another run


@pytest.mark.parametrize(
    "model",
    [
        VAEConfig(net=NET, n_latent=2),
        GANConfig(net=NET),
        AutoregressiveConfig(net=TransformerConfig(n_layer=1, n_head=2, n_embd=16)),
    ],
)
def test_every_family_starts_from_another_run(model: config.ModelConfig, tiny: Path, tmp_path: Path) -> None:
    data = open_data(config.Data(str(tiny)))
    train(small(tiny, model), tmp_path / "first", data, quiet=True)
    run = small(tiny, model, start=str(tmp_path / "first"), lr=1e-30, ema_decay=0.0)
    train(run, tmp_path / "second", data, quiet=True)
    a, b = (api.load(tmp_path / name).state_dict() for name in ("first", "second"))
    assert all(
        torch.allclose(a[name], b[name], rtol=0, atol=1e-20)
        for name, _ in api.load(tmp_path / "first").named_parameters()
    )
    environment = json.loads((tmp_path / "second" / "environment.json").read_text())
    assert "(100% of the weights)" in environment["start"] and "new:" not in environment["start"]


def test_what_does_not_fit_is_new_and_named(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "data" / name / f"{i}.png")
    out = tmp_path / "out"
    words = ["train", str(finished / "run.toml"), "--data", str(tmp_path / "data"), "--start", str(finished)]
    assert cli.main([*words, "--out", str(out), "--budget", "2steps"]) == 0
    said = capsys.readouterr().err
    assert f"were taken from {finished.resolve()}; new: " in said
    assert ".table.weight' of shape (" in said
    assert RunDir(out).config().train.start == str(finished.resolve())


def test_classes_in_another_order_are_not_taken_for_one_another(tiny: Path, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "data")
    (tmp_path / "data" / "lower").rename(tmp_path / "data" / "z")
    run = small(tmp_path / "data", start=str(finished))
    train(run, tmp_path / "run", open_data(run.data), quiet=True)
    said = json.loads((tmp_path / "run" / "environment.json").read_text())["start"]
    assert "table.weight" in said.partition("new: ")[2]


def test_a_start_of_another_kind_is_refused(finished: Path, tiny: Path, tmp_path: Path) -> None:
    run = small(tiny, AutoregressiveConfig(net=TransformerConfig(n_layer=1, n_head=2, n_embd=16)), start=str(finished))
    with pytest.raises(BowerbirdError, match=r"it holds the family vae \(image\), and this is autoregressive"):
        train(run, tmp_path / "run", open_data(run.data), quiet=True)
    with pytest.raises(BowerbirdError, match=r"has no model.safetensors"):
        train(
            replace(run, train=replace(run.train, start="/nowhere")), tmp_path / "run", open_data(run.data), quiet=True
        )
    assert not (tmp_path / "run").exists()


def test_a_run_resumes_without_the_run_that_it_started_from(finished: Path, tiny: Path, tmp_path: Path) -> None:
    first = shutil.copytree(finished, tmp_path / "first")
    run = small(tiny, start=str(first))
    train(run, tmp_path / "second", open_data(run.data), quiet=True)
    shutil.rmtree(first)
    api.resume(tmp_path / "second", budget="+1steps", quiet=True)
    assert RunDir(tmp_path / "second").status()["step"] == 4


def test_frozen_parameters_stay(tiny: Path, tmp_path: Path) -> None:
    run = small(tiny, freeze=("decoder.*",), ema_decay=0.5)
    data = open_data(run.data)
    names = [name for name, _ in run.model.build(data.spec).named_parameters()]
    assert any(name.startswith("decoder.") for name in names)
    torch.manual_seed(run.train.seed)
    first = dict(run.model.build(data.spec).named_parameters())
    train(run, tmp_path / "run", data, quiet=True)
    last = RunDir(tmp_path / "run").load_state()
    stayed = {name for name in names if torch.equal(first[name], last[f"model/{name}"])}
    assert stayed == {name for name in names if name.startswith("decoder.")}


def test_a_pattern_must_fit_and_leave_something(tiny: Path, tmp_path: Path) -> None:
    data = open_data(config.Data(str(tiny)))
    with pytest.raises(BowerbirdError, match=r"no parameter 'decodr.\*'; did you mean 'decoder"):
        train(small(tiny, freeze=("decodr.*",)), tmp_path / "run", data, quiet=True)
    with pytest.raises(BowerbirdError, match=r"player 'D' has no parameters to train"):
        train(small(tiny, GANConfig(net=NET), freeze=("D.*",)), tmp_path / "run", data, quiet=True)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------- locks and folders


HOLD = """
import sys, time
from pathlib import Path
from bowerbird.training import lock
with lock.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(run: Path):
    """Another process that holds the run's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_trainer_is_refused_by_name(run: Path, holder: subprocess.Popen) -> None:
    with pytest.raises(BowerbirdError, match=f"being written by process {holder.pid} on this machine"):
        api.resume(run, budget="+1steps", quiet=True)
    holder.kill()
    holder.wait()
    api.resume(run, budget="+1steps", quiet=True)  # a lock of the dead is taken over without a question
    assert RunDir(run).status()["step"] == 4 and not (run / lock.NAME).exists()


@pytest.mark.parametrize("host, pid, free", [("", 0, False), ("elsewhere", 0, False), ("", 1 << 22, True)])
def test_without_locks_of_the_system_the_name_decides(
    host: str, pid: int, free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "msvcrt", None)
    holder = {"host": host or socket.gethostname(), "pid": pid or os.getppid()}
    (tmp_path / lock.NAME).write_text(json.dumps(holder))
    if free:
        with lock.locked(tmp_path):
            assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
        assert not (tmp_path / lock.NAME).exists()
    else:
        with pytest.raises(BowerbirdError, match=f"by process {holder['pid']} on"), lock.locked(tmp_path):
            pass


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": "x"}', "\udce9"])
def test_a_damaged_lock_is_no_lock(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    (tmp_path / lock.NAME).write_bytes(content.encode(errors="surrogateescape"))
    with lock.locked(tmp_path):
        pass


def test_unfinished_files_of_the_dead_are_swept(run: Path) -> None:
    dead, alive, strange = (run / f".run.toml.{pid}.part" for pid in (1 << 22, os.getppid(), "mine"))
    of_safetensors = run / ".tmpsAdlfv"
    for path in (dead, alive, strange, of_safetensors, run / "state" / f".state.safetensors.{1 << 22}.part"):
        path.write_text("half")
    api.resume(run, budget="+1steps", quiet=True)
    assert not dead.exists() and not of_safetensors.exists() and alive.exists() and strange.exists()
    assert not list((run / "state").glob(".*"))


def test_trainings_that_start_together_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(training._new_folder("flow"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in found) == [f"flow-{i:03d}" for i in range(1, 21)]


def test_a_folder_that_holds_something_else_is_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "2024").mkdir(parents=True)
    (tmp_path / "photos" / "2024" / "cat.png").write_text("a cat")
    with pytest.raises(BowerbirdError, match=r"is not empty \(it holds 2024/cat.png\)"):
        api.train(small(tiny), tmp_path / "photos", quiet=True)
    assert [path.name for path in (tmp_path / "photos").rglob("*")] == ["2024", "cat.png"]


@pytest.mark.parametrize(
    "write", [lambda run, out: api.sample(run, 1, out=out), lambda run, out: api.export(run, "safetensors", out)]
)
def test_what_is_made_goes_to_no_folder_of_somebody_else(finished: Path, tmp_path: Path, write: Any) -> None:
    for _ in range(2):  # what it wrote itself may be written again
        write(finished, tmp_path / "mine")
    (theirs := tmp_path / "theirs").mkdir()
    for name in ("00000.png", "metadata.jsonl", "README.md"):
        (theirs / name).write_text('{"file_name": "a.png", "text": "mine"}')
    while names := sorted(path.name for path in theirs.iterdir()):
        with pytest.raises(BowerbirdError, match=rf"holds files that (are no samples|no export wrote) \({names[0]}\)"):
            write(finished, theirs)
        assert sorted(path.name for path in theirs.iterdir()) == names
        assert (theirs / names[0]).read_text() == '{"file_name": "a.png", "text": "mine"}'
        (theirs / names[0]).unlink()
    write(finished, theirs)


def test_a_path_that_is_no_run_says_which_run_may_be_meant(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(BowerbirdError, match=f"it lies in a run folder; give that: {finished}$"):
        api.sample(finished / "model.safetensors", 1)
    runs = tmp_path / "runs"
    for i in (10, 9):
        shutil.copytree(finished, runs / f"flow-{i}")
    with pytest.raises(BowerbirdError, match=r"it holds runs \(2\); give one of them: .*flow-9, .*flow-10$"):
        api.sample(runs, 1)
    with pytest.raises(BowerbirdError, match="it does not exist"):
        api.sample(tmp_path / "flow", 1)


def test_a_killed_start_is_no_obstacle(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "state").mkdir(parents=True)
    (tmp_path / "run" / lock.NAME).write_text("{}")
    (tmp_path / "run" / f".run.toml.{1 << 22}.part").write_text("half")
    api.train(small(tiny), tmp_path / "run", quiet=True)
    assert RunDir(tmp_path / "run").status()["finished"]


@pytest.mark.parametrize(
    "words",
    [
        ("--data", "gone"),
        ("--data", "photos", "--train.accumulate", "3"),
        ("--data", "photos", "--train.freeze", "nothing.*"),
        ("--data", "photos", "--train.device", "cuda:77"),
        ("--data", "photos", "--start", "nowhere"),
    ],
)
@pytest.mark.parametrize("out", [(), ("--out", "mine")])
def test_a_failed_start_leaves_no_folder(
    words: tuple, out: tuple, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(tiny)
    assert cli.main(["train", "vae", "--budget", "2steps", "--train.batch-size", "4", "--quiet", *words, *out]) == 2
    assert not (tmp_path / "mine").exists() and not (tmp_path / "runs").exists()


def test_what_preflight_refuses_leaves_no_folder(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bowerbird.training.preflight.available_memory", lambda device: 100)
    with pytest.raises(BowerbirdError, match="batch-size"):
        api.train(small(tiny), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_was_there_stays(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise BowerbirdError("no")

    monkeypatch.setattr(Trainer, "_preflight", fails)
    (tmp_path / "run").mkdir()
    with pytest.raises(BowerbirdError, match="no"):
        api.train(small(tiny), tmp_path / "run", quiet=True)
    assert list((tmp_path / "run").iterdir()) == []


# ---------------------------------------------------------------------------------------- room and places


def test_a_full_disk_promises_a_checkpoint_only_where_one_is(run: Path, tmp_path: Path) -> None:
    for folder, said in ((run, f"continue with: bowerbird resume {run}"), (tmp_path / "new", "repeat the command")):
        with pytest.raises(RunFailed, match=said), explaining_full_disk(folder):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_place_that_is_read_only_is_named_with_what_to_do(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", ".00000.png.1.part")

    monkeypatch.setattr("bowerbird.generating.Samples.save", refuse)
    assert cli.main(["sample", str(run), "-n", "1"]) == 1
    assert "seed-0 cannot be written to (Read-only file system); choose another --out." in capsys.readouterr().err


def test_more_samples_than_there_is_room_for_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sample", str(run), "-n", str(10**13)]) == 2
    assert "10,000,000,000,000 samples take at least" in capsys.readouterr().err


def test_a_run_inside_its_data_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BowerbirdError, match="lies inside the data"):
        api.train(small(tiny), tiny / "run")
    monkeypatch.chdir(tiny)
    with pytest.raises(BowerbirdError, match="The run folder runs lies inside the data"):
        api.train(small(Path(".")))
    assert not (tiny / "run").exists() and not (tiny / "runs").exists()
