"""Waveforms of spectrograms: losses against closed forms, what the data give, what is measured, said and diagnosed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bowerbird import api, cli, config
from bowerbird.data import packs
from bowerbird.data.builtin import path as pack_path
from bowerbird.diagnosis.rule import find
from bowerbird.diagnosis.signals import Signals
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.media.medium import medium
from bowerbird.media.speech.soundset import from_mu_law, to_mu_law
from bowerbird.media.speech.spectrogram import Mel
from bowerbird.models.base import Batch
from bowerbird.models.vocoder import (
    FLOOR,
    VocoderConfig,
    log_distance,
    loudness,
    magnitude,
    spectral_convergence,
    transform,
)
from bowerbird.nets.convnext import ColumnNet
from bowerbird.spec import Spec, Tensors

SAMPLES, HOP = 1536, 96
SPEC = Spec("speech", Tensors((1, SAMPLES)), {"spectrogram": Tensors((1, 8, SAMPLES // HOP))})


def sine(hz: float, amplitude: float = 0.5) -> Tensor:
    return (amplitude * torch.sin(2 * torch.pi * hz * torch.arange(SAMPLES) / 8000))[None, None]


# ---------------------------------------------------------------------------------------------------------- losses


def test_a_sine_of_amplitude_a_has_the_magnitude_a_times_half_the_window() -> None:
    spectrum = magnitude(sine(1000), 256)[0]  # bin 32 of 31.25 Hz each; the sum of a Hann window is half its length
    assert torch.allclose(spectrum[32, 5:-5], torch.tensor(0.5 * 128 / 2 / 256**0.5), rtol=1e-3)


def test_distances_of_spectra_have_their_closed_forms() -> None:
    real = magnitude(sine(1000), 256)
    assert spectral_convergence(real, real) == 0 == log_distance(real, real)
    assert torch.allclose(spectral_convergence(real, real * 1.1), torch.tensor(0.1))
    assert torch.allclose(log_distance(real, real * 10**0.05), torch.tensor(0.05 * np.log(10)).float())  # one decibel
    silence = magnitude(torch.zeros(1, 1, SAMPLES), 256)
    assert (silence == FLOOR).all() and 0.9 < spectral_convergence(real, silence) <= 1


def test_the_magnitude_of_silence_has_a_finite_gradient() -> None:
    y = torch.zeros(1, 1, SAMPLES, requires_grad=True)
    magnitude(y, 128).sum().backward()
    assert y.grad is not None and torch.isfinite(y.grad).all()


def test_noise_is_equally_loud_at_every_window() -> None:
    noise = torch.randn(8, 1, 8192, generator=torch.Generator().manual_seed(0))
    levels = [transform(noise, window).abs().square().mean() for window in (128, 256, 512)]
    assert max(levels) / min(levels) < 1.1


def test_a_vocoder_learns_a_tone() -> None:
    """Two steps of the right size would do nothing; forty bring the spectrum of one sine near."""
    torch.manual_seed(0)
    model = VocoderConfig(channels=16, blocks=1, windows=(128, 256)).build(SPEC)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    batch = Batch(sine(500), {"spectrogram": torch.rand(1, 1, 8, SAMPLES // HOP) * 2 - 1})
    values = []
    for _ in range(40):
        (loss,) = model.losses(batch)
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        values.append(float(loss.logs["convergence"]))
    assert values[-1] < 0.5 * values[0]


def test_a_column_sees_its_neighbours_and_no_further() -> None:
    net = ColumnNet(4, 8, 2, 3)
    x = torch.randn(1, 4, 41, requires_grad=True)
    net(x)[0, 20].sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0).nonzero().flatten()
    assert (int(seen.min()), int(seen.max())) == (20 - 9, 20 + 9)  # 3 + 3 · blocks


def test_the_discriminator_joins_in_when_it_is_told_to() -> None:
    table = {"family": "vocoder", "channels": 8, "blocks": 1, "windows": [128], "alone": 5,
             "discriminator": {"name": "patchgan", "channels": 4, "depth": 1}}  # fmt: skip
    model = config.model_from(table, "test").build(SPEC)
    batch = Batch(sine(500), {"spectrogram": torch.rand(1, 1, 8, SAMPLES // HOP)})
    players = [[loss.player for loss in model.losses(batch._replace(step=step))] for step in (4, 5)]
    assert players == [["G"], ["D", "G"]]


def test_what_is_no_waveform_is_one_sentence() -> None:
    with pytest.raises(BowerbirdError, match="--data.speech.target waveform"):
        VocoderConfig().build(Spec("image", Tensors((1, 28, 28))))
    with pytest.raises(BowerbirdError, match="too short for a window of 2048"):
        VocoderConfig(windows=(2048,)).build(SPEC)
    with pytest.raises(ValueError, match="multiple of 4"):
        VocoderConfig(windows=(130,))
    with pytest.raises(BowerbirdError, match="needs 2 spectrograms of 8x16 numbers, and none were given"):
        VocoderConfig(channels=8, blocks=1, windows=(128,)).build(SPEC).sample(2)


# ------------------------------------------------------------------------------------------------------- the data


def digits(**wish: Any) -> Any:
    named = {"given": ("digit", "speaker")} if "target" not in wish else {}
    return open_data(config.Data("spoken-digits", speech=config.Speech(**wish), **named))


def test_a_subset_of_spoken_digits_ships() -> None:
    data = digits(test="index<5")
    assert len(data.test) == 60 and len(data.train) + len(data.val) == 180
    assert data.spec.given["digit"].names == tuple("0123456789") and len(data.spec.given["speaker"].names) == 6
    assert set(packs.read(pack_path("spoken-digits"))) == {
        "coded", "offsets", "rate_hz", "split", "digit", "speaker", "index",
    }  # fmt: skip


def test_seven_bits_are_31_decibels_above_their_noise() -> None:
    waveform = np.random.default_rng(0).uniform(-1, 1, 20_000).astype(np.float32) ** 3
    noise = from_mu_law(to_mu_law(waveform)) - waveform
    assert 10 * np.log10(np.square(waveform).mean() / np.square(noise).mean()) > 31


def test_waveforms_come_with_their_spectrograms() -> None:
    data = digits(target="waveform", test="index<5")
    mel, batch = Mel.from_json(data.spec.codec), data.test.batch(torch.arange(3))
    assert batch["x"].shape == (3, 1, mel.samples) and data.spec.target == Tensors((1, mel.samples))
    heard = mel.encoded(batch["x"][:, 0])[:, None]
    assert (heard - batch["given"]["spectrogram"]).abs().max() < 0.02  # 8 bits, and half precision
    assert data.fingerprint != digits(test="index<5").fingerprint or not data.spec.given.keys() & {"digit"}
    said = medium("speech").decoded(batch["x"], data.spec)
    assert all(np.abs(one).max() <= 0.9001 for one in said) and len({len(one) for one in said}) > 1


# ------------------------------------------------------------------------------------------------------ whole runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocoder and a flow of two steps each."""
    folder = tmp_path_factory.mktemp("runs")
    short = ["--train.steps", "2", "--train.batch-size", "4", "--quiet"]
    small = {
        "vocoder": ["--model.channels", "8", "--model.blocks", "1"],
        "spoken-digits": ["--model.net.channels", "8", "--model.sample-steps", "1"],
    }
    for recipe, smaller in small.items():
        assert cli.main(["train", recipe, "--out", str(folder / recipe), *short, *smaller]) == 0
    return folder


def test_a_vocoder_speaks_for_a_run(runs: Path, tmp_path: Path, capsys: Any) -> None:
    run, vocoder = str(runs / "spoken-digits"), str(runs / "vocoder")
    assert cli.main(["say", run, "314", "--vocoder", vocoder, "--out", str(tmp_path / "said")]) == 0, (
        capsys.readouterr()
    )
    assert '"vocoder": ' in (tmp_path / "said" / "metadata.jsonl").read_text()
    assert cli.main(["verify", str(tmp_path / "said" / "said.wav")]) == 0
    assert cli.main(["say", run, "314", "--vocoder", run]) == 2 and "is no vocoder" in capsys.readouterr().err
    other = tmp_path / "coarse"
    coarse = ["--data.speech.n-mels", "32", "--model.channels", "8", "--train.steps", "1", "--quiet"]
    assert cli.main(["train", "vocoder", "--out", str(other), *coarse]) == 0
    assert cli.main(["say", run, "3", "--vocoder", str(other)]) == 2
    assert "other parameters" in capsys.readouterr().err


def test_a_vocoder_makes_sound_of_files(runs: Path, tmp_path: Path) -> None:
    sf = pytest.importorskip("soundfile")
    sound = 0.2 * np.sin(np.arange(12_000) / 5)
    sf.write(tmp_path / "a.wav", sound, 16_000)
    sf.write(tmp_path / "b.flac", np.stack([sound, sound], 1), 8000)
    with pytest.warns(UserWarning, match="1 of 2 sounds lose what comes after 0.77 s"):
        made = api.generate(runs / "vocoder", given={"source": tmp_path})
    assert made.names == ["a", "b"] and made.x.shape == (2, 1, 6144)
    (tmp_path / "c.wav").write_bytes(b"")
    with pytest.raises(BowerbirdError, match="Not all sounds of .* can be read: 1 empty recording"):
        api.generate(runs / "vocoder", given={"source": tmp_path})
    with pytest.raises(BowerbirdError, match="does not exist; give a sound"):
        api.generate(runs / "vocoder", given={"source": tmp_path / "d.wav"})


def test_a_vocoder_is_measured_beside_griffin_lim(runs: Path) -> None:
    (measured,) = api.measure(runs / "vocoder", n_samples=6).values()
    found = {one.name: one for one in measured}
    ours, theirs = found["mel_distance"], found["mel_distance.griffin_lim"]
    assert ours.unit == "dB" and 0.3 < theirs.value < 1.5 < ours.value
    assert found["spectral_convergence.griffin_lim"].value < 0.4 < found["spectral_convergence"].value


# ------------------------------------------------------------------------------------------------------- diagnosis


@pytest.mark.parametrize(
    ("log", "value", "named"),
    [
        ("level_db", -40.0, "silent-output"), ("level_db", -3.0, ""), ("beyond_full_scale", 0.03, "clipping"),
        ("beyond_full_scale", 0.001, ""), ("dynamics", 0.05, "vocoder-collapse"), ("dynamics", 0.8, ""),
    ],
)  # fmt: skip
def test_silence_clipping_and_one_noise_are_named(log: str, value: float, named: str) -> None:
    healthy = {"level_db": -1.0, "beyond_full_scale": 0.0, "dynamics": 0.9}
    seen = Signals(config.load("vocoder"))
    seen.rows = [{"step": 100 * k, **{f"G/{n}": v for n, v in (healthy | {log: value}).items()}} for k in range(1, 11)]
    seen.probes = [{"step": 100 * k, "used": k / 10} for k in range(1, 11)]
    causes = {finding.cause for finding in find(seen)} & {"silent-output", "clipping", "vocoder-collapse"}
    assert causes == ({named} if named else set())


@pytest.mark.parametrize(("loudest", "named"), [(-0.97, True), (-0.7, True), (0.3, False)])
def test_spectrograms_are_silent_only_if_nothing_in_them_is_loud(loudest: float, named: bool) -> None:
    """A click in a long example has a mean near silence too."""
    seen = Signals(config.load("spoken-digits"))
    samples = {"mean": -0.99, "max": loudest, "diversity": 0.9}
    seen.probes = [{"step": 100 * k, "used": k / 10, "samples": samples} for k in range(1, 11)]
    assert ("silent-output" in {finding.cause for finding in find(seen)}) == named


def test_loudness_follows_the_waveform() -> None:
    y = torch.cat([torch.zeros(1, 1, 64), torch.full((1, 1, 64), 0.5)], 2)
    assert torch.allclose(loudness(y), torch.tensor([[0.0, 0.5]]))
