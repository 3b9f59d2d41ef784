"""Digit strings, generated and real, for a recogniser of others to write down, and how many digits it hears right.

python benchmarks/judge_speech.py make RUN RECORDINGS FOLDER [N]     N strings of six digits each, of both kinds
python benchmarks/judge_speech.py hear MODEL FOLDER                  whisper (faster-whisper, an environment of its own)
python benchmarks/judge_speech.py count FOLDER

RECORDINGS is the Free Spoken Digit Dataset; real strings are made of its test recordings (index below 5) of one
speaker, joined as ``bowerbird say`` joins.  A digit counts as right if the best alignment of what was heard and said
(least edits) matches it; digits that were heard but not said are counted beside.
"""

import json
import random
import re
import sys
from pathlib import Path

WORDS = "zero one two three four five six seven eight nine".split()
HEARD = {word: str(digit) for digit, word in enumerate(WORDS)} | {
    "oh": "0", "o": "0", "won": "1", "to": "2", "too": "2", "tree": "3", "for": "4", "fore": "4", "ate": "8",
}  # fmt: skip
"""Words that sound alike are the same."""
LENGTH = 6


def make(run: str, recordings: str, folder: Path, n: int) -> None:
    import io
    import zipfile

    import numpy as np
    import soundfile

    import bowerbird
    from bowerbird.data.writing import write_lines, write_wav
    from bowerbird.media.speech.saying import PAUSE_S, joined

    archive = zipfile.ZipFile(recordings)
    files = {name.rpartition("/")[2]: name for name in archive.namelist() if name.endswith(".wav")}
    speakers = sorted({name.split("_")[1] for name in files})
    rng = random.Random(0)
    rows = []
    for i in range(n):
        text, speaker = "".join(rng.choices("0123456789", k=LENGTH)), speakers[i % len(speakers)]
        said = bowerbird.say(run, text, seed=i, given={"speaker": speaker})
        write_wav(folder / f"made-{i:03}.wav", said.waveform[None], said.rate_hz)
        names = [files[f"{digit}_{speaker}_{rng.randrange(5)}.wav"] for digit in text]
        parts = [soundfile.read(io.BytesIO(archive.read(name)), dtype="float32")[0] for name in names]
        real = joined([np.asarray(part) for part in parts], [PAUSE_S] * LENGTH, 8000)
        write_wav(folder / f"real-{i:03}.wav", real[None], 8000)
        rows += [{"file_name": f"{kind}-{i:03}.wav", "text": text, "speaker": speaker} for kind in ("made", "real")]
    write_lines(folder / "metadata.jsonl", rows)


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
    for kind in ("made", "real"):
        mine = [row for row in rows if row["file_name"].startswith(kind)]
        found = [matches(row["text"], digits(row["heard"])) for row in mine]
        right, total = sum(match for match, _ in found), sum(len(row["text"]) for row in mine)
        whole = sum(digits(row["heard"]) == row["text"] for row in mine)
        print(
            f"{kind}: {right} of {total} digits right ({right / max(1, total):.1%}), "
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
        case ["make", run, recordings, folder, *n]:
            make(run, recordings, Path(folder), int(*n or [50]))
        case ["hear", model, folder]:
            hear(model, Path(folder))
        case ["count", folder]:
            count(Path(folder))
        case _:
            print(__doc__)
