"""Where models that were trained are loaded, and in which layout."""

from pathlib import Path

import pytest
import torch

from bowerbird import api, config, machine
from bowerbird.errors import BowerbirdError
from bowerbird.training.rundir import load_model


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    run = config.with_settings(
        config.load("vae"),
        {"train.steps": 1, "train.examples": None, "train.batch_size": 4, "train.threads": 1, "train.precision": "fp32"}
        | {"train.device": "cpu"},
    )
    return api.train(run, tmp_path_factory.mktemp("runs") / "vae", data="digits", quiet=True)


def test_a_model_has_the_layout_that_it_was_trained_in(run):
    assert config.load(str(run)).train.channels_last is True
    kernels = [p for p in load_model(run)[0].parameters() if p.ndim == 4 and min(p.shape) > 1]
    assert kernels and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    assert not any(p.is_contiguous() for p in kernels)


def test_samples_are_the_same_in_either_layout_but_for_the_last_bits(run, tmp_path):
    text = (run / "run.toml").read_text(encoding="utf-8")
    other = tmp_path / "contiguous"
    other.mkdir()
    (other / "run.toml").write_text(text.replace("channels_last = true", "channels_last = false"), encoding="utf-8")
    (other / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    ours, theirs = (api.generate(folder, 4, seed=3, device="cpu").x for folder in (run, other))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda run, device: api.sample(run, 1, device=device),
        lambda run, device: api.chat(run, device=device),
        lambda run, device: api.measure(run, device=device),
        lambda run, device: api.load(run, device=device),
    ],
)
def test_every_verb_takes_a_device_and_refuses_one_that_is_not_there(call, run):
    if torch.cuda.device_count() > 7:
        pytest.skip("this machine has eight GPUs")
    with pytest.raises(BowerbirdError, match=r"The device 'cuda:7' is not on this machine"):
        call(run, "cuda:7")
    with pytest.raises(BowerbirdError, match="'toaster' is not a device"):
        call(run, "toaster")


def test_auto_takes_the_gpu_for_sampling(run, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(machine, "resolve_device", lambda name: torch.device("cuda" if name == "auto" else name))
    monkeypatch.setattr(
        "bowerbird.api.sampling.load_model", lambda run, device, best=False: asked.append(device) or load_model(run)
    )
    api.generate(run, 1)
    api.generate(run, 1, device="cpu")
    assert asked == ["cuda", "cpu"]
