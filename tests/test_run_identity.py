"""A run knows its data and its settings: what differs is refused in one sentence, and accepted on request."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bowerbird import api, cli, config
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.models.flow import FlowConfig
from bowerbird.models.vae import VAEConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.training.rundir import RunDir
from bowerbird.training.trainer import Trainer, train


def small(data: Path, **changes: object) -> config.Run:
    values = {"steps": 6, "batch_size": 4, "lr": 0.01, "checkpoint_every": 2, "log_every": 1, "sample_every": 0}
    fixed = {"threads": 1, "device": "cpu", "precision": "fp32"}
    return config.Run(
        VAEConfig(net=MLPConfig(hidden=(8,)), n_latent=2),
        config.Data(str(data)),
        config.Train(**(values | fixed | changes)),
    )


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.fixture(scope="module")
def begun(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps that was killed in its fifth, and beside it the folder of its data."""
    place = tmp_path_factory.mktemp("begun")
    shutil.copytree(tiny, place / "data")
    step = Trainer.train_step

    def dies(trainer: Trainer) -> dict[str, torch.Tensor]:
        if trainer.step == 4:
            raise Killed
        return step(trainer)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "train_step", dies)
        train(small(place / "data"), place / "run", open_data(config.Data(str(place / "data"))), quiet=True)
    return place


@pytest.fixture
def run(begun: Path, tmp_path: Path) -> Path:
    """A copy of it whose data may be changed."""
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    folder = RunDir(tmp_path / "run")
    folder.run_toml.write_text(folder.run_toml.read_text().replace(str(begun / "data"), str(tmp_path / "data")))
    return folder.path


def more_pictures(folder: Path, n: int = 40) -> None:
    rng = np.random.default_rng(1)
    folder.mkdir(exist_ok=True)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"more{i}.png")


def events(folder: Path) -> list[str]:
    return [row["changes"] for row in RunDir(folder).metrics() if "event" in row]


def test_the_same_data_elsewhere_are_the_same(run: Path, begun: Path) -> None:
    (run.parent / "data").rename(run.parent / "moved")
    with pytest.raises(BowerbirdError, match="are no longer at .*--data SRC"):
        api.resume(run, quiet=True)
    api.resume(run, data=str(run.parent / "moved"), quiet=True)
    assert RunDir(run).status()["finished"] and not events(run)
    assert RunDir(run).config().data.source == str(run.parent / "moved")
    whole = run.parent / "whole"
    train(small(begun / "data"), whole, open_data(config.Data(str(begun / "data"))), quiet=True)
    a, b = RunDir(run).load_state(), RunDir(whole).load_state()
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_more_pictures_are_refused_and_accepted(run: Path) -> None:
    """Case 21 (a)."""
    before = json.loads((run / "environment.json").read_text())["fingerprint"]
    more_pictures(run.parent / "data" / "upper")
    with pytest.raises(BowerbirdError, match=rf"64 images.*fingerprint {before}.*104 images.*--accept-changes"):
        api.resume(run, quiet=True)
    assert RunDir(run).status()["step"] == 4
    api.resume(run, accept_changes=True, quiet=True)
    assert RunDir(run).status()["finished"]
    (said,) = events(run)
    now = json.loads((run / "environment.json").read_text())["fingerprint"]
    assert before in said and now in said and before != now
    api.resume(run, budget="+1steps", quiet=True)  # what was accepted is not asked about again


def test_other_classes_are_named(run: Path) -> None:
    """Case 21 (b): the numbers of the classes would have changed their meaning."""
    (run.parent / "data" / "lower").rename(run.parent / "data" / "z")
    with pytest.raises(BowerbirdError, match="classes of 'label' were lower, upper, now upper, z"):
        api.resume(run, quiet=True)
    api.resume(run, accept_changes=True, quiet=True)
    assert api.load(run).spec.given["label"].names == ("upper", "z")


@pytest.mark.parametrize("accept", [False, True])
def test_more_classes_than_weights(run: Path, accept: bool) -> None:
    """Case 21 (c)."""
    more_pictures(run.parent / "data" / "middle")
    with pytest.raises(
        BowerbirdError, match="do not fit its weights: .*lower, upper, now lower, middle, upper.*--start"
    ):
        api.resume(run, accept_changes=accept, quiet=True)


def test_settings_are_compared_and_examples_counted(run: Path) -> None:
    """Case 21 (d): four steps of 4 and two of 8 are 32 examples."""
    toml = run / "run.toml"
    toml.write_text(toml.read_text().replace("batch_size = 4", "batch_size = 8"))
    with pytest.raises(BowerbirdError, match=r"train.batch_size was 4, run.toml says 8\. Restore the old values"):
        api.resume(run, quiet=True)
    api.resume(run, accept_changes=True, quiet=True)
    assert RunDir(run).status()["examples"] == 4 * 4 + 2 * 8
    assert events(run) == ["train.batch_size was 4, now 8"]


def test_a_setting_that_is_asked_for_needs_no_consent(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["resume", str(run), "--train.lr", "0.001", "--train.schedule", "cosine", "--budget", "+4steps", "--quiet"]
    assert cli.main(words) == 0, capsys.readouterr().err
    status, after = RunDir(run).status(), RunDir(run).config().train
    assert (status["step"], status["examples"]) == (8, 32)
    assert (after.steps, after.lr, after.schedule) == (8, 0.001, "cosine")
    rates = [row["lr"] for row in RunDir(run).metrics() if "lr" in row]
    assert rates[:4] == [0.01] * 4 and rates[4] == pytest.approx(0.0005) and rates[7] < rates[6]


def test_another_network_does_not_fit(run: Path) -> None:
    toml = run / "run.toml"
    toml.write_text(re.sub(r"hidden = .*", "hidden = [9]", toml.read_text()))
    with pytest.raises(BowerbirdError, match=r"model.net.hidden was \[8\], run.toml says \[9\]"):
        api.resume(run, quiet=True)
    with pytest.raises(BowerbirdError, match=r"no longer fit: '.*' is \(.*8.*\) in the checkpoint and \(.*9.*\)"):
        api.resume(run, accept_changes=True, quiet=True)


def test_another_optimiser_starts_anew(run: Path) -> None:
    api.resume(run, quiet=True, **{"train.optimizer": "muon"})
    assert RunDir(run).status()["finished"] and events(run) == ["train.optimizer was adam, now muon"]


def test_a_state_that_does_not_say_what_it_was_made_with_resumes(run: Path) -> None:
    """As version 0.1 wrote them; beside it test_resume opens run folders of that version."""
    folder = RunDir(run)
    saved = folder.saved_state()
    assert saved is not None
    folder.save_state(saved.tensors, saved.counters, {})
    more_pictures(run.parent / "data" / "upper")
    api.resume(run, quiet=True)
    assert folder.status()["finished"] and not events(run)


def test_before_the_first_checkpoint_nothing_is_compared(run: Path) -> None:
    shutil.rmtree(run / "state")
    (run / "model.safetensors").unlink()
    more_pictures(run.parent / "data" / "upper")
    api.resume(run, quiet=True)
    environment = json.loads((run / "environment.json").read_text())
    assert RunDir(run).status()["step"] == 6
    assert environment["fingerprint"] == RunDir(run).record()["data"]["fingerprint"]


def test_a_model_without_its_state_is_not_started_over(run: Path) -> None:
    shutil.rmtree(run / "state")
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(BowerbirdError, match=r"no training state .* --start"):
        api.resume(run, quiet=True)
    assert (run / "model.safetensors").read_bytes() == before


def test_killed_between_the_first_state_and_the_first_weights(begun: Path, tmp_path: Path, monkeypatch) -> None:
    wanted, data = small(begun / "data", checkpoint_every=6), open_data(config.Data(str(begun / "data")))
    with pytest.raises(Killed), monkeypatch.context() as patch:
        patch.setattr(RunDir, "save_model", lambda *_: (_ for _ in ()).throw(Killed()))
        train(wanted, tmp_path / "run", data, quiet=True)
    run = RunDir(tmp_path / "run")
    assert run.status()["finished"] and not run.model_file.exists()
    api.resume(run.path, quiet=True)
    assert run.model_file.is_file() and api.load(run.path)


def test_changed_data_are_not_measured_against_in_silence(run: Path) -> None:
    api.resume(run, quiet=True)
    assert api.measure(run, n_samples=4, metrics=["psnr"])
    more_pictures(run.parent / "data" / "upper")
    with pytest.raises(BowerbirdError, match=r"have changed since .* --against"):
        api.measure(run, n_samples=4, metrics=["psnr"])


def test_flops_and_examples_are_counters(tiny: Path, tmp_path: Path) -> None:
    """A budget of them ends where it did when they were steps times a constant."""
    run = small(tiny, steps=None, examples=18)
    result = train(run, tmp_path / "examples", open_data(run.data), quiet=True)
    assert (result.step, result.examples) == (5, 20)
    per_step = result.flops / 5
    flops = replace(run, train=replace(run.train, examples=None, flops=3.5 * per_step))
    assert train(flops, tmp_path / "flops", open_data(run.data), quiet=True).step == 4


def test_a_damaged_record_of_another_version_is_no_obstacle(run: Path) -> None:
    folder = RunDir(run)
    saved = folder.saved_state()
    assert saved is not None
    table = saved.record["run"]
    folder.save_state(saved.tensors, saved.counters, saved.record | {"run": table | {"a_key_of_the_future": 1}})
    api.resume(run, quiet=True)
    assert folder.status()["finished"]


def test_equal_runs_are_equal_files(tiny: Path, tmp_path: Path) -> None:
    run = replace(small(tiny, steps=2), model=FlowConfig(net=MLPConfig(hidden=(8,))))
    data = open_data(run.data)
    for name in ("a", "b"):
        train(run, tmp_path / name, data, quiet=True)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
