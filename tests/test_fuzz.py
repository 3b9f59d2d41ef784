"""Damaged input of every format: whatever its bytes are, it is read, or refused in one sentence (``make fuzz``).

Each format has a small valid file.  Hypothesis damages it: bytes are changed, cut out, doubled, moved, or replaced by
what trips readers up.  Then the file is read the way a command reads it.  Anything except a ``BowerbirdError`` is a
failure, and so are a read of more than ``SECONDS`` and memory that grows by more than ``MEGABYTES``.
Hypothesis stores what fails in .hypothesis and tries it first the next time.
"""

import contextlib
import gc
import io
import json
import os
import shutil
import signal
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from bowerbird import api, config
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.report.run import write_run_report

MUTATIONS = int(os.environ.get("BOWERBIRD_FUZZ", "8"))
"""Damaged files of each format."""
SECONDS, MEGABYTES = 20, 400

# ------------------------------------------------------------------------------------------------------ damage

DANGEROUS = (
    b"", b"\x00", b"\xff\xfe", b"\xff" * 9, b"\r", b"\xe2\x80\xa8", b"nan", b"-1", b"1e999", b"9" * 400, b'"', b"'",
    b",", b"\t", b"{", b"[" * 2000, b"}", b"null", b"true", b"../../x", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00",
    b"%s", b"\n\n",
)  # fmt: skip
"""What trips readers up: ends of strings and files, numbers at the edge, depth, paths."""


class Edit(NamedTuple):
    """One damage; places are parts of the file's length."""

    kind: str
    start: float
    length: int
    what: bytes


def damaged(content: bytes, edits: list[Edit]) -> bytes:
    for kind, start, length, what in edits:
        at = int(start * len(content))
        piece = content[at : at + length]
        if kind == "cut off":
            content = content[:at]
        elif kind == "replace":
            content = content[:at] + what + content[at + len(what) :]
        elif kind == "insert":
            content = content[:at] + what + content[at:]
        elif kind == "cut out":
            content = content[:at] + content[at + length :]
        elif kind == "double":
            content = content[:at] + piece + content[at:]
        elif kind == "flip":
            content = (
                content[:at] + bytes(byte ^ (1 << (length % 8)) for byte in content[at : at + 1]) + content[at + 1 :]
            )
        elif kind == "move":
            rest = content[:at] + content[at + length :]
            content = rest[: len(rest) // 2] + piece + rest[len(rest) // 2 :]
    return content


edits = st.lists(
    st.builds(
        Edit,
        st.sampled_from(["cut off", "replace", "insert", "cut out", "double", "flip", "flip", "move"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 40),
        st.sampled_from(DANGEROUS) | st.binary(max_size=6),
    ),
    min_size=1,
    max_size=4,
)


@contextlib.contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """TimeoutError for work that takes longer (where the system has alarms)."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} seconds")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def peak_megabytes() -> float:
    """The most memory that this process has ever had."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


# ------------------------------------------------------------------------------------------------------ formats


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(folder: Path) -> None:
    for i in range(24):
        (folder / f"{i}.png").write_bytes(picture(i))


def png(folder: Path) -> Path:
    pictures(folder)
    return folder / "3.png"


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(24):
            archive.writestr(f"{'ab'[i % 2]}/{i}.png", picture(i))
    return folder / "data.zip"


def metadata(folder: Path) -> Path:
    pictures(folder)
    rows = [{"file_name": f"{i}.png", "label": "ab"[i % 2], "size": i} for i in range(24)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "metadata.jsonl"


def recipe(folder: Path) -> Path:
    (folder / "run.toml").write_text(config.recipe("gan"), encoding="utf-8")
    return folder / "run.toml"


LINES = [f'The "{i}"th line, naïve or not: 明月 {i * i}; it goes on.' for i in range(60)]


def text(folder: Path) -> Path:
    (folder / "data.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return folder / "data.txt"


def table(suffix: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import csv

        with open(folder / f"data.{suffix}", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter={"csv": ",", "tsv": "\t"}[suffix])
            writer.writerows([("source", "target"), *((line, line[::-1]) for line in LINES)])
        return folder / f"data.{suffix}"

    return write


def lines_of_json(folder: Path) -> Path:
    rows = [{"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": a[::-1]}]} for a in LINES]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "data.jsonl"


def midi(folder: Path) -> Path:
    from symusic import Note, Score, Tempo, Track

    for i in range(8):
        score = Score(480)
        score.tempos.append(Tempo(0, 120.0))
        track = Track("piano", 0, False)
        for n in range(32):
            track.notes.append(Note(240 * n, 240, 48 + (7 * n + i) % 24, 80))
        score.tracks.append(track)
        score.dump_midi(folder / f"{i}.mid")
    return folder / "3.mid"


TUNE = """X:{i}
T:Tune {i}
M:4/4
L:1/8
K:Dm clef=treble
|: "Dm"A2 (3def g>a {{c}}B2 | ~c'4 !trill!C,2 z2 |1 d6 ed :|2 d8 |]
"""


def abc(folder: Path) -> Path:
    (folder / "tunes.abc").write_text("\n".join(TUNE.format(i=i) for i in range(1, 13)), encoding="utf-8")
    return folder / "tunes.abc"


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a tiny language model, and beside it the same as GGUF and in the Hugging Face layout."""
    folder = tmp_path_factory.mktemp("language-model")
    source = text(folder)
    net = {"name": "transformer", "n_layer": 1, "n_embd": 16, "n_head": 2, "norm": "rms", "activation": "swiglu"}
    run = config.with_settings(config.load("poet"), {"model.net": net})
    settings_ = {
        "train.batch_size": 4,
        "train.checkpoint_every": 2,
        "data.text.tokenizer": "bpe",
        "data.text.vocab_size": 300,
    }
    api.train(run, folder / "run", data=str(source), budget="3steps", quiet=True, **settings_)
    api.export(folder / "run", "gguf", folder / "model.gguf")
    api.export(folder / "run", "huggingface", folder / "hf")
    return folder


# ------------------------------------------------------------------------------------------------------ the tests


def opened(path: Path, **settings_: object) -> None:
    open_data(config.Data(source=str(path), **settings_))


SOURCES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "png": (png, lambda path: opened(path.parent)),
    "zip": (zipped, opened),
    "metadata.jsonl": (metadata, lambda path: opened(path.parent)),
    "toml": (recipe, lambda path: config.load(str(path))),
    "txt": (text, opened),
    "csv": (table("csv"), opened),
    "tsv": (table("tsv"), opened),
    "jsonl": (lines_of_json, opened),
    "midi": (midi, lambda path: opened(path.parent)),
    "abc": (abc, opened),
}


OF_A_RUN = ("run.toml", "metrics.jsonl", "signals.jsonl", "environment.json", "model.safetensors", "tokenizer.json",
            "state/state.safetensors")  # fmt: skip
"""Files of a run folder, which share its number of mutations."""


def survives(path: Path, whole: bytes, read: Callable[[Path], object], mutations: int = MUTATIONS) -> None:
    """Damages the file many times; each time it is read or refused, within bounds of time and memory."""

    @settings(
        max_examples=mutations,
        deadline=None,
        derandomize="BOWERBIRD_FUZZ" not in os.environ,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
    @given(edits)
    def attack(damage: list[Edit]) -> None:
        path.write_bytes(damaged(whole, damage))
        with bounded(SECONDS), contextlib.suppress(BowerbirdError):
            read(path)

    read(path)  # whole, it is fine
    gc.collect()
    before = peak_megabytes()
    attack()
    assert peak_megabytes() - before < MEGABYTES


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SOURCES)
def test_a_damaged_file_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    write, read = SOURCES[kind]
    path = write(tmp_path)
    survives(path, path.read_bytes(), read)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["model.gguf", "hf/model.safetensors", "hf/config.json", "hf/tokenizer.json"])
def test_a_damaged_pretrained_model_is_read_or_refused(name: str, language_model: Path, tmp_path: Path) -> None:
    shutil.copytree(language_model, tmp_path / "from")
    source = tmp_path / "from" / Path(name).parts[0]

    def read(_: Path) -> None:
        shutil.rmtree(tmp_path / "to", ignore_errors=True)
        api.import_model(source, tmp_path / "to")
        api.generate(tmp_path / "to", 1, options={"n_tokens": 2})

    survives(tmp_path / "from" / name, (tmp_path / "from" / name).read_bytes(), read)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_damaged_run_folder_is_used_or_refused(name: str, language_model: Path, tmp_path: Path) -> None:
    shutil.copytree(language_model / "run", tmp_path / "run")
    path = tmp_path / "run" / name
    whole = path.read_bytes()

    def use(_: Path) -> None:
        """Each command that reads a run, even where another one has refused it."""
        for command in (
            lambda: api.generate(tmp_path / "run", 1, options={"n_tokens": 2}),
            lambda: api.diagnose(tmp_path / "run"),
            lambda: write_run_report(tmp_path / "run"),
            lambda: api.resume(tmp_path / "run", quiet=True),
        ):
            with contextlib.suppress(BowerbirdError):
                command()

    survives(path, whole, use, -(-MUTATIONS // len(OF_A_RUN)))
