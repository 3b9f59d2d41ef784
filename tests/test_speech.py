"""Recordings as spectrograms and back, every kind of file that people have, and words spoken one after the other."""

import io
import struct
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bowerbird import cli, config
from bowerbird.data.writing import wav_bytes
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.media.medium import medium
from bowerbird.media.speech.recordings import is_clipped, lacks_its_end, pieces, resampled
from bowerbird.media.speech.saying import LEAD_S, field_of, joined, numbers_of
from bowerbird.media.speech.soundset import lowered
from bowerbird.media.speech.spectrogram import HOPS_PER_WINDOW, Mel, unmixed
from bowerbird.spec import Classes, Spec, Tensors

MEL = Mel.of(8000, 0.7, 12, 64)
sf = pytest.importorskip("soundfile")


def tone(hz: float, seconds: float, rate_hz: int = 8000, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def chirp(seed: int, seconds: float = 0.4, rate_hz: int = 8000) -> np.ndarray:
    """Harmonics of a falling pitch, as a voice has them."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    phase = 2 * np.pi * np.cumsum(rng.uniform(120, 250) * (1 - 0.3 * t / seconds)) / rate_hz
    voice = sum(np.sin(k * phase) / k for k in range(1, 8)) * np.hanning(len(t))
    return (0.2 * voice).astype(np.float32)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Twelve words of two speakers, named as spoken digits are."""
    folder = tmp_path / "words"
    folder.mkdir()
    for i in range(12):
        sf.write(folder / f"{i % 3}_{'ab'[i % 2]}_{i}.wav", chirp(i, 0.3 + 0.02 * i), 8000)
    return folder


# ----------------------------------------------------------------------------------------------------- spectrograms


@pytest.mark.parametrize("hz", [300, 1000, 2500])
def test_a_sine_of_full_scale_lies_in_its_band_at_its_level(hz: float) -> None:
    x = MEL.encoded(torch.from_numpy(tone(hz, MEL.seconds, level=1.0))[None])[0]
    column = x[:, x.shape[1] // 2]
    middles = 700 * (10 ** (torch.linspace(0, 2595 * np.log10(1 + 4000 / 700), 66)[1:-1] / 2595) - 1)
    assert abs(float(middles[column.argmax()]) - hz) < 0.04 * hz + 20
    decibels = (column.max() + 1) / 2 * 60 - 60
    assert -3 < decibels <= 0  # a Hann window leaks half of the energy into neighbours, which a wide band collects


def test_levels_are_decibels_and_silence_is_the_bottom() -> None:
    loud, soft = (MEL.encoded(torch.from_numpy(tone(700, MEL.seconds, level=a))[None]) for a in (0.1, 0.01))
    middle = MEL.frames // 2
    assert torch.allclose((loud - soft)[0, :, middle].amax() * 30, torch.tensor(20.0), atol=0.01)
    assert (MEL.encoded(torch.zeros(1, MEL.samples)) == -1).all()


def test_the_mel_bands_cover_everything_between() -> None:
    filters = MEL._filters
    assert filters.shape == (64, MEL.n_fft // 2 + 1) and (filters.sum(1) > 0).all()
    inner = filters[:, 4:-6].sum(0)  # triangles that overlap by half add up to one
    assert inner.min() > 0.6 and inner.max() < 1.6


def test_griffin_lim_gets_nearer_with_every_step_and_the_fast_variant_faster() -> None:
    waveform = torch.from_numpy(np.pad(chirp(0), (0, MEL.samples - 3200)))[None]
    magnitude = MEL._transform(waveform).abs()

    def error(steps: int, momentum: float) -> float:
        found = MEL.with_phase(magnitude, steps, momentum)
        return float((MEL._transform(found).abs() - magnitude).norm() / magnitude.norm())

    slow = [error(steps, 0.0) for steps in (1, 8, 32)]
    assert slow[0] > slow[1] > slow[2]
    assert error(32, 0.99) < 0.7 * slow[2] and error(60, 0.99) < 0.1


def test_sound_comes_back_from_its_spectrogram() -> None:
    waveform = torch.from_numpy(np.stack([np.pad(chirp(i), (0, MEL.samples - 3200)) for i in range(3)]))
    x = MEL.encoded(waveform)
    heard = MEL.encoded(MEL.decoded(x))
    assert (heard - x).abs().mean() * 30 < 1.5  # dB
    assert torch.allclose(heard, MEL.encoded(MEL.decoded(x.flip(0))).flip(0), atol=1e-3)  # rows do not see one another
    assert MEL.ends(x)[0] < 3200 + 5 * MEL.hop


def test_unmixing_is_a_least_squares_solution_that_is_never_negative() -> None:
    power = MEL._filters @ torch.rand(MEL.n_fft // 2 + 1, 5, generator=torch.Generator().manual_seed(0))
    errors = [
        float((MEL._filters @ unmixed(power[None], MEL._filters, steps)[0] - power).norm()) for steps in (1, 9, 99)
    ]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.02 * float(power.norm())
    assert (unmixed(power[None], MEL._filters) >= 0).all()


@pytest.mark.parametrize("rate_hz", [8000, 22_050, 48_000])
@pytest.mark.parametrize("frame_ms", [5.0, 12.0])
def test_the_parameters_fit_any_rate_and_survive_json(rate_hz: int, frame_ms: float) -> None:
    mel = Mel.of(rate_hz, 0.5, frame_ms, 40)
    assert mel.frames % 16 == 0 and mel.n_fft >= HOPS_PER_WINDOW * mel.hop and mel.seconds >= 0.5
    assert Mel.from_json(mel.beside()) == mel
    assert mel.encoded(torch.zeros(1, mel.samples)).shape == (1, 40, mel.frames)


# ------------------------------------------------------------------------------------------------------------ files


def speech(source: Path, given: tuple[str, ...] = (), **wish: Any) -> config.Data:
    return config.Data(str(source), modality="speech", given=given, speech=config.Speech(**wish))


def test_names_become_columns_and_a_condition_the_test_split(recordings: Path) -> None:
    data = open_data(speech(recordings, ("digit", "who"), pattern="{digit}_{who}_{index}", test="index<4"))
    assert data.spec.given["digit"] == Classes(("0", "1", "2"), data.spec.given["digit"].counts)
    assert len(data.test) == 4 and len(data.train) + len(data.val) == 8
    batch = data.test.batch(torch.arange(4))
    assert batch["x"].shape == (4, *data.spec.target.shape) and batch["x"].abs().max() <= 1
    assert batch["given"]["digit"].tolist() == [0, 0, 1, 2] and batch["given"]["who"].tolist() == [0, 1, 1, 0]
    assert "12 recordings" in data.summary() and "none skipped" in data.summary()
    with pytest.raises(BowerbirdError, match="12 of 12 file names do not match"):
        open_data(speech(recordings, pattern="{digit}-{who}"))
    with pytest.raises(BowerbirdError, match="column"):
        open_data(speech(recordings, pattern="{digit}_{who}_{index}", test="number<4"))
    with pytest.raises(BowerbirdError, match="compares numbers"):
        open_data(speech(recordings, pattern="{digit}_{who}_{index}", test="who<4"))


def test_every_odd_file_is_used_or_counted(recordings: Path) -> None:
    def write(name: str, samples: np.ndarray, rate_hz: int = 8000, **how: Any) -> None:
        sf.write(recordings / name, samples, rate_hz, **how)

    write("stereo.wav", np.stack([chirp(20), chirp(21)], 1))
    write("high.wav", chirp(22, rate_hz=96_000), 96_000)
    write("eight.wav", chirp(23), subtype="PCM_U8")
    write("clipped.wav", (20 * chirp(24)).clip(-1, 1))
    write("silent.wav", np.zeros(3000, np.float32))
    write("zero.wav", np.zeros(0, np.float32))
    write("nan.wav", np.full(3000, np.nan, np.float32), subtype="FLOAT")
    write("a.flac", chirp(25))
    write("b.ogg", chirp(26))
    write("c.mp3", chirp(27))
    whole = wav_bytes(chirp(28)[None], 8000)
    (recordings / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (recordings / "cut.flac").write_bytes((recordings / "a.flac").read_bytes()[:-900])
    (recordings / "nothing.wav").write_bytes(b"")
    (recordings / "text.wav").write_bytes(b"not a sound" * 50)
    (recordings / "notes.docx").write_bytes(b"PK")
    data = open_data(speech(recordings))
    said = data.summary()
    assert data.spec.target.shape[1] == 64 and sum(len(one) for one in (data.train, data.val, data.test)) == 19
    for part in (
        "1 truncated recording (cut.wav)", "2 empty recordings (nothing.wav …)", "1 silent recording (silent.wav)",
        "1 not finite recording (nan.wav)", "2 damaged recordings (cut.flac …)", "1 other file (notes.docx)",
        "1 recording in several channels, mixed to one (stereo.wav)", "1 recording of 8 bits",
        "1 recording of 96,000 Hz, resampled to 8,000 (high.wav)", "1 clipped recording",
    ):  # fmt: skip
        assert part in said, f"{part} is not in: {said}"


def test_a_folder_of_nothing_that_can_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    sf.write(tmp_path / "b.wav", np.zeros(800), 8000)
    with pytest.raises(BowerbirdError, match="None of the 2 recordings .* can be used: 1 empty recording .*1 silent"):
        open_data(speech(tmp_path))
    (tmp_path / "a.wav").unlink()
    sf.write(tmp_path / "b.wav", chirp(0), 8000)
    with pytest.raises(BowerbirdError, match=r"holds one recording.*add more\.$"):
        open_data(speech(tmp_path))
    sf.write(tmp_path / "b.wav", np.concatenate([chirp(i) for i in range(12)]), 8000)
    with pytest.raises(BowerbirdError, match=r"add more, or set --data\.speech\.longer pieces"):
        open_data(speech(tmp_path))


def test_folders_tables_and_ljspeech_say_what_is_said(tmp_path: Path) -> None:
    for i in range(24):
        path = tmp_path / "folders" / ("yes" if i % 2 else "no") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, chirp(i), 16_000)
    data = open_data(speech(tmp_path / "folders"))
    assert data.spec.given["label"].names == ("no", "yes") and "(from folders)" in data.summary()
    lj = tmp_path / "lj"
    (lj / "wavs").mkdir(parents=True)
    texts = ["yes", "no", "yes please", "no thanks"]
    for i in range(24):
        sf.write(lj / "wavs" / f"LJ{i:03}.wav", chirp(i), 22_050)
    (lj / "metadata.csv").write_text("".join(f"LJ{i:03}|{texts[i % 4]}|{texts[i % 4]}\n" for i in range(24)))
    data = open_data(config.Data(str(lj), given=("text",)))
    assert data.spec.given["text"].names == tuple(sorted(texts, key=str)) and data.spec.medium == "speech"
    zipped = tmp_path / "lj.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for path in lj.rglob("*.*"):
            archive.write(path, path.relative_to(lj))
    assert open_data(config.Data(str(zipped), given=("text",))).fingerprint == data.fingerprint
    (lj / "metadata.csv").write_text("LJ000|yes\nLJ001\n")
    with pytest.raises(BowerbirdError, match="line 2 is not ID"):
        open_data(config.Data(str(lj)))


def test_captions_ride_with_the_spectrogram(tmp_path: Path) -> None:
    for i in range(30):
        sf.write(tmp_path / f"{i}.wav", chirp(i), 8000)
        (tmp_path / f"{i}.txt").write_text(f"sound number {i}")
    data = open_data(speech(tmp_path, ("caption",)))
    field = data.spec.given["caption"]
    assert medium("speech").decoded(data.test.batch(torch.tensor([0]))["x"], data.spec)[0].ndim == 1
    from bowerbird.data.tokenizers import Tokenizer

    tokens = data.train.given["caption"][0].tolist()
    assert Tokenizer.from_spec(data.spec).decode(tokens).startswith("sound number") and field.context >= 4


def test_longer_recordings_lose_their_end_or_become_pieces(tmp_path: Path) -> None:
    sf.write(tmp_path / "long.wav", tone(500, 3.0), 8000)
    sf.write(tmp_path / "short.wav", tone(300, 0.4), 8000)
    cut = open_data(speech(tmp_path, seconds=0.5))
    assert "1 longer than 0.58 s lose their end" in cut.summary()
    parts = open_data(speech(tmp_path, seconds=0.5, longer="pieces"))
    assert sum(len(one) for one in (parts.train, parts.val, parts.test)) == 1 + 6
    assert [len(one) for one in pieces(np.concatenate([tone(9, 1, 10), np.zeros(10), tone(9, 0.5, 10)]), 10)] == [10, 5]


def test_rates_are_lowered_by_whole_numbers_and_resampling_keeps_a_tone() -> None:
    assert [lowered(rate) for rate in (8000, 22_050, 44_100, 48_000, 96_000)] == [8000, 22_050, 22_050, 24_000, 24_000]
    low = resampled(tone(440, 0.5, 96_000), 96_000, 8000)
    assert len(low) == 4000 and np.abs(low - tone(440, 0.5))[200:-200].max() < 5e-3
    assert (
        np.abs(resampled(tone(6000, 0.5, 96_000), 96_000, 8000))[100:-100].max() < 0.005
    )  # would be heard as 2,000 Hz


def test_a_header_that_promises_more_and_a_flat_top_are_recognised() -> None:
    whole = wav_bytes(chirp(0)[None], 8000)
    assert not lacks_its_end(whole) and lacks_its_end(whole[:-2]) and lacks_its_end(whole[:40])
    piped = whole[:40] + struct.pack("<I", 0xFFFFFFFF) + whole[44:]
    assert not lacks_its_end(piped)
    assert is_clipped(np.array([[0.1], [1], [1], [1], [-1], [0.2]])) and not is_clipped(np.array([[1.0], [0.1], [1.0]]))


# ---------------------------------------------------------------------------------------------------------- writing

SPEC = Spec("speech", Tensors((1, MEL.n_mels, MEL.frames)), {"digit": Classes(tuple("0123"))}, MEL.beside())


def test_samples_are_written_as_sound_and_picture(tmp_path: Path) -> None:
    x = MEL.encoded(torch.from_numpy(np.stack([np.pad(chirp(i), (0, MEL.samples - 3200)) for i in range(4)])))[:, None]
    given = {"digit": torch.arange(4)}
    rows = medium("speech").write(x, given, SPEC, tmp_path, [*"abcd"])
    assert [row["file_name"] for row in rows] == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"{n}.{s}" for n in "abcd" for s in ("wav", "png")),
        "sheet.png",
    }
    with wave.open(io.BytesIO((tmp_path / "a.wav").read_bytes())) as file:
        assert (file.getframerate(), file.getnchannels()) == (8000, 1) and 3200 <= file.getnframes() < 3800
    html = medium("speech").html(x, given, SPEC)
    assert html.count("<audio") == 4 and html.count("<img") == 1


def test_noise_and_silence_are_sounds_too() -> None:
    x = torch.stack([torch.full((1, 64, 64), -1.0), torch.rand(1, 64, 64) * 2 - 1])
    silence, noise = medium("speech").decoded(x, SPEC)
    assert np.isfinite(silence).all() and np.abs(silence).max() < 1e-3
    assert np.isfinite(noise).all() and np.abs(noise).max() <= 0.9001


# ----------------------------------------------------------------------------------------------------------- saying


def test_numbers_and_words_are_the_same() -> None:
    digits, words = Classes(tuple("0123456789")), Classes(("one", "two", "stop"))
    assert numbers_of("three ONE four", digits)[0] == numbers_of("314", digits)[0] == [3, 1, 4]
    assert numbers_of("1 two, stop.", words)[0] == [0, 1, 2]
    assert numbers_of("3, 1", digits)[1] == [0.25, 0.06]
    fields = {"speaker": Classes(("george",)), "digit": digits}
    assert field_of(fields, "seven") == "digit"
    with pytest.raises(BowerbirdError, match="cannot say 'thre'; did you mean 'three'"):
        numbers_of("thre", digits)
    with pytest.raises(BowerbirdError, match="cannot say '5'; it knows: one, two, stop"):
        numbers_of("5", words)
    for nothing in ("", "  ", "..."):
        with pytest.raises(BowerbirdError, match="nothing to say"):
            numbers_of(nothing, digits)
    with pytest.raises(BowerbirdError, match="at most 1,000"):
        numbers_of("1" * 1001, digits)


def test_words_are_joined_at_one_level_without_clicks() -> None:
    around = round(LEAD_S * 8000)
    whole = joined([chirp(0), 0.01 * chirp(1)], [0.1, 0.1], 8000)
    assert not whole[:around].any() and not whole[-around:].any()
    whole = whole[around:-around]
    first, second = whole[:3200], whole[4000:7200]
    assert abs(np.sqrt(np.square(first).mean()) / np.sqrt(np.square(second).mean()) - 1) < 0.05
    assert whole[0] == 0 and whole[3200:4000].max() == 0 and len(whole) == 2 * (3200 + 800)


def test_a_run_speaks_and_its_speech_is_labelled(recordings: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    small = [
        "--train.steps",
        "2",
        "--train.batch-size",
        "4",
        "--model.net.channels",
        "8",
        "--model.sample-steps",
        "2",
        "--data.speech.n-mels",
        "16",
    ]
    named = ["--data.speech.pattern", "{digit}_{speaker}_{index}", "--data.modality", "speech"]
    status = cli.main(
        ["train", "spoken-digits", "--data", str(recordings), "--out", str(run), "--quiet", *small, *named]
    )
    assert status == 0, capsys.readouterr().err
    assert cli.main(["say", str(run), "two 1, 0", "--given", "speaker=b", "--out", str(tmp_path / "said")]) == 0
    assert capsys.readouterr().out.strip().endswith("said.wav")
    assert cli.main(["verify", str(tmp_path / "said" / "said.wav")]) == 0
    assert "generated by Bowerbird" in capsys.readouterr().out
    assert cli.main(["say", str(run), "two ten"]) == 2 and "cannot say 'ten'" in capsys.readouterr().err
    assert cli.main(["say", str(run), "two", "--given", "speaker=c"]) == 2
    out = tmp_path / "s"
    assert (
        cli.main(["sample", str(run), "--given", "digit=1", "--given", "speaker=a", "-n", "2", "--out", str(out)]) == 0
    )
    assert (out / "metadata.jsonl").read_text().count('"digit": "1", "speaker": "a"') == 2


def test_flags_of_what_is_given_add_up() -> None:
    from bowerbird.cli.flags import together

    assert together("--given", ["r", "--given", "a=1", "--n", "2", "--given=b=2"]) == [
        "r", "--n", "2", "--given", "a=1", "b=2",
    ]  # fmt: skip
    assert together("--given", ["r", "--given", "a=1", "b=2"]) == ["r", "--given", "a=1", "b=2"]
    assert together("--given", ["r", "-n", "2"]) == ["r", "-n", "2"]


def test_speech_is_judged_as_it_is_heard(recordings: Path) -> None:
    from bowerbird.measuring.request import Measuring
    from bowerbird.measuring.views import context_of
    from bowerbird.models.flow import FlowConfig
    from bowerbird.nets.mlp import MLPConfig

    named = dict(pattern="{digit}_{speaker}_{index}", test="index<4", n_mels=16)
    data = open_data(speech(recordings, ("digit", "speaker"), **named))
    model = FlowConfig(net=MLPConfig(hidden=(8,)), sample_steps=2).build(data.spec)
    found = context_of(model, data, Measuring(n_samples=6))["attributes"]
    assert found.samples.shape == (6, *data.spec.target.shape) and found.samples.dtype == torch.uint8
    assert found.asked.keys() == {"digit", "speaker"} == found.classes.keys() and len(found.held_out) == 4
    drawn = context_of(model, data, Measuring(n_samples=6))["examples"].samples
    assert not torch.equal(found.samples, ((drawn + 1) * 127.5).round().to(torch.uint8))
    other = open_data(speech(recordings, ("digit",), **named))
    with pytest.raises(BowerbirdError, match="given a speaker that words does not have"):
        context_of(model, other, Measuring(n_samples=2))["attributes"]
    coarse = open_data(speech(recordings, ("digit", "speaker"), **(named | {"n_mels": 8})))
    with pytest.raises(BowerbirdError, match="other parameters"):
        context_of(model, coarse, Measuring(n_samples=2))["attributes"]
