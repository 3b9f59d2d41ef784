"""Digit strings, generated and real, for a recogniser of others to write down, and how many digits it hears right.

python benchmarks/judge_speech.py make RUN RECORDINGS FOLDER [N] [seed=S] [vocoder=RUN] [OPTION=VALUE …]
                                                         N strings of six digits
python benchmarks/judge_speech.py hear MODEL FOLDER      whisper (faster-whisper, an environment of its own)
python benchmarks/judge_speech.py count FOLDER
python benchmarks/recognise_speech.py RECORDINGS FOLDER  the same words, for a network that knows the recordings

RECORDINGS is the Free Spoken Digit Dataset; real strings are made of its test recordings (index below 5) of one
speaker, joined as ``bowerbird say`` joins.  With a vocoder, both are made once more from their spectrograms by each way
to a waveform: the vocoder, Griffin-Lim as of 1984, and its fast variant, which ``say`` uses and ``made`` is made by.
The seed chooses strings, recordings and noise; OPTION is one of sampling, such as temperature=0.65.  A digit counts as
right if the best alignment of what was heard and said (least edits) matches it; digits that were heard but not said are
counted beside.
"""

import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

    from bowerbird.generating import Samples
    from bowerbird.media.speech.spectrogram import Mel

WORDS = "zero one two three four five six seven eight nine".split()
HEARD = {word: str(digit) for digit, word in enumerate(WORDS)} | {
    "oh": "0", "o": "0", "won": "1", "to": "2", "too": "2", "tree": "3", "for": "4", "fore": "4", "ate": "8",
}  # fmt: skip
"""Words that sound alike are the same."""
LENGTH = 6


def make(
    run: str, recordings: str, folder: Path, n: int, seed: int, vocoder: str | None, options: dict[str, float]
) -> None:
    import bowerbird
    from bowerbird.data.writing import write_lines, write_wav
    from bowerbird.media.speech.saying import PAUSE_S, joined
    from bowerbird.media.speech.spectrogram import Mel
    from bowerbird.media.speech.supplied import supplied

    real, speakers = recordings_of(recordings)
    rng = random.Random(seed)
    strings, parts = [], []
    for i in range(n):
        text, speaker = "".join(rng.choices("0123456789", k=LENGTH)), speakers[i % len(speakers)]
        strings.append((text, speaker))
        parts += [real(f"{digit}_{speaker}_{rng.randrange(5)}.wav") for digit in text]
    given = {
        "digit": [d for text, _ in strings for d in text],
        "speaker": [s for _, s in strings for _ in range(LENGTH)],
    }
    made = bowerbird.generate(run, LENGTH * n, given=given, options=options, seed=seed)
    save_words(folder, made)
    kinds, rows = {"made": list(made), "real": parts}, []
    if vocoder is not None:
        mel = Mel.from_json(made.spec.codec)
        kinds |= ways(made.x, mel, vocoder, "made") | ways(supplied(parts, mel)[0], mel, vocoder, "real")
        del kinds["made-fast"]  # which is what "made" is
    for kind, words in kinds.items():
        for i, (text, speaker) in enumerate(strings):
            whole = joined(words[LENGTH * i : LENGTH * (i + 1)], [PAUSE_S] * LENGTH, 8000)
            write_wav(folder / f"{kind}-{i:03}.wav", whole[None], 8000)
            rows.append({"file_name": f"{kind}-{i:03}.wav", "text": text, "speaker": speaker})
    write_lines(folder / "metadata.jsonl", rows)


def recordings_of(archive: str) -> "tuple[Callable[[str], np.ndarray], list[str]]":
    """What reads a recording by its name, and the speakers."""
    import io
    import zipfile

    import soundfile

    opened = zipfile.ZipFile(archive)
    files = {name.rpartition("/")[2]: name for name in opened.namelist() if name.endswith(".wav")}
    speakers = sorted({name.split("_")[1] for name in files})
    return lambda name: soundfile.read(io.BytesIO(opened.read(files[name])), dtype="float32")[0], speakers


def ways(x: "torch.Tensor", mel: "Mel", vocoder: str, kind: str) -> "dict[str, list[np.ndarray]]":
    """The waveforms of spectrograms, each up to the silence that it ends in."""
    import bowerbird

    found = {
        f"{kind}-1984": mel.decoded(x[:, 0], momentum=0.0),
        f"{kind}-fast": mel.decoded(x[:, 0]),
        f"{kind}-vocoder": bowerbird.generate(vocoder, len(x), given={"spectrogram": x}).x[:, 0],
    }
    return {
        name: [one[:end].numpy() for one, end in zip(waves, mel.ends(x[:, 0]), strict=True)]
        for name, waves in found.items()
    }


def save_words(folder: Path, made: "Samples") -> None:
    """The spectrogram of each word, for ``recognise_speech.py``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({"x": made.x.float().contiguous()} | dict(made.given), folder / "words.safetensors")


def hear(model: str, folder: Path) -> None:
    from faster_whisper import WhisperModel  # type: ignore[import-not-found]

    whisper = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=1)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    with open(folder / "heard.jsonl", "w") as file:
        for row in rows:
            segments, _ = whisper.transcribe(
                str(folder / row["file_name"]), language="en", beam_size=5, initial_prompt="3 1 4 1 5 9 2 6 5 3 5 8",
                condition_on_previous_text=False, without_timestamps=True,
            )  # fmt: skip
            file.write(json.dumps(row | {"heard": " ".join(one.text for one in segments)}) + "\n")
            file.flush()


def digits(text: str) -> str:
    """The digits of what was written down, in figures or words."""
    return "".join(w if w.isdecimal() else HEARD.get(w, "") for w in re.findall(r"\d|[a-z]+", text.lower()))


def matches(said: str, heard: str) -> tuple[int, int]:
    """(digits that match, digits too many) of an alignment with the least edits."""
    best = [[(0, 0, 0)] * (len(heard) + 1) for _ in range(len(said) + 1)]  # edits, -matches, insertions
    for i in range(len(said) + 1):
        for j in range(len(heard) + 1):
            options = []
            if i and j:
                edits, match, extra = best[i - 1][j - 1]
                same = said[i - 1] == heard[j - 1]
                options.append((edits + (not same), match - same, extra))
            if i:
                edits, match, extra = best[i - 1][j]
                options.append((edits + 1, match, extra))
            if j:
                edits, match, extra = best[i][j - 1]
                options.append((edits + 1, match, extra + 1))
            best[i][j] = min(options, default=(0, 0, 0))
    _, match, extra = best[-1][-1]
    return -match, extra


def count(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "heard.jsonl").read_text().splitlines()]
    for kind in dict.fromkeys(row["file_name"].rpartition("-")[0] for row in rows):
        mine = [row for row in rows if row["file_name"].rpartition("-")[0] == kind]
        found = [matches(row["text"], digits(row["heard"])) for row in mine]
        right, total = sum(match for match, _ in found), sum(len(row["text"]) for row in mine)
        whole = sum(digits(row["heard"]) == row["text"] for row in mine)
        share = right / max(1, total)
        error = (share * (1 - share) / max(1, total)) ** 0.5
        print(
            f"{kind}: {right} of {total} digits right ({share:.1%} ± {error:.1%}), "
            f"{sum(extra for _, extra in found)} too many, {whole} of {len(mine)} strings exact; "
            + ", ".join(f"{name} {share:.0%}" for name, share in by_speaker(mine, found).items())
        )


def by_speaker(rows: list[dict], found: list[tuple[int, int]]) -> dict[str, float]:
    """The share of digits that are right, of each speaker."""
    shares = {}
    for name in sorted({row["speaker"] for row in rows}):
        own = [(match, len(row["text"])) for row, (match, _) in zip(rows, found, strict=True) if row["speaker"] == name]
        shares[name] = sum(match for match, _ in own) / sum(length for _, length in own)
    return shares


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", run, recordings, folder, *more]:
            named = {name: value for name, _, value in (one.partition("=") for one in more) if value}
            n, vocoder = int(next((one for one in more if one.isdecimal()), 50)), named.pop("vocoder", None)
            options = {name: json.loads(value) for name, value in named.items()}
            make(run, recordings, Path(folder), n, int(options.pop("seed", 0)), vocoder, options)
        case ["hear", model, folder]:
            hear(model, Path(folder))
        case ["count", folder]:
            count(Path(folder))
        case _:
            print(__doc__)
