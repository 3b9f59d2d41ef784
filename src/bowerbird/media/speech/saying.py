"""From a text to the classes that a run was given with its recordings: "three one four", "314" or "3, 1, 4".

Each class name is a word of the vocabulary.  Numbers are read digit by digit, and a digit and its English word are the
same where only one of them is a class.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from bowerbird.data.listing import METADATA
from bowerbird.data.writing import data_uri, save_png, wav_bytes, write_lines, write_wav
from bowerbird.eightbit import to_uint8
from bowerbird.errors import BowerbirdError, nearest
from bowerbird.media.speech.sheets import spectrogram
from bowerbird.media.speech.spectrogram import Mel
from bowerbird.provenance.labelling import Labeller, labelling, marked_sheet
from bowerbird.spec import Classes, Field

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PAUSE_S = 0.06
"""Between two words."""
LONGER_S = 0.25
"""At a comma or a full stop."""
LEAD_S = 0.3
"""Silence before the first word and after the last, as in any recording: recognisers miss what begins at once."""
FADE_S = 0.004
"""Each word begins and ends so gently that nothing clicks."""
WORD = re.compile(r"[\w'-]+|[,.;:!?]")
STOPS = frozenset(",.;:!?")


@dataclass(frozen=True)
class Utterance:
    """A text that was spoken."""

    waveform: Float[np.ndarray, " samples"]
    mel: Mel
    about: dict[str, Any]
    """Text, words, what else it was made from, and by which run."""
    labeller: Labeller

    @property
    def rate_hz(self) -> int:
        return self.mel.rate_hz

    def save(self, folder: Path | str, *, labelled: bool = True) -> Path:
        """Writes ``said.wav``, its spectrogram and ``metadata.jsonl``; returns the path of the sound."""
        folder = Path(folder)
        with labelling(self.labeller if labelled else None):
            x = self.mel.encoded(torch.from_numpy(self.waveform)[None])[0]
            save_png(folder / "said.png", marked_sheet(spectrogram(to_uint8(x))))
            path = write_wav(folder / "said.wav", self.waveform[None], self.rate_hz)
        write_lines(
            folder / METADATA, [{"file_name": path.name} | self.about | ({} if labelled else {"labelled": False})]
        )
        return path

    def _repr_html_(self) -> str:
        sound = data_uri(wav_bytes(self.waveform[None], self.rate_hz), "audio/wav")
        return f'<audio controls src="{sound}"></audio>'


def field_of(given: Mapping[str, Field], text: str) -> str:
    """The field whose classes are the words of the text: the one that knows most of them."""
    fields = {name: field for name, field in given.items() if isinstance(field, Classes)}
    if not fields:
        raise BowerbirdError("This run was trained without words, such as the folders or names of recordings give.")
    known = {name: sum(_known(word, field) is not None for word in _split(text)) for name, field in fields.items()}
    return max(known, key=lambda name: known[name])


def numbers_of(text: str, field: Classes, most: int = 1000) -> tuple[list[int], list[float]]:
    """The class of each word, and the pause in seconds after it; BowerbirdError names what is not known."""
    numbers: list[int] = []
    pauses: list[float] = []
    for word in _split(text):
        if word in STOPS and pauses:
            pauses[-1] = LONGER_S
        elif word not in STOPS:
            numbers.append(_number(word, field))
            pauses.append(PAUSE_S)
    if not numbers:
        raise BowerbirdError(f"There is nothing to say; this run knows: {', '.join(field.names)}.")
    if len(numbers) > most:
        raise BowerbirdError(f"The text has {len(numbers):,} words; say at most {most:,} at once.")
    return numbers, pauses


def _split(text: str) -> list[str]:
    """Words and stops; digits one by one."""
    found = WORD.findall(text.lower())
    return [part for word in found for part in (word if word.isdecimal() and word.isascii() else [word])]


def _known(word: str, field: Classes) -> int | None:
    names = [name.lower() for name in field.names]
    twins = [*zip(map(str, range(10)), DIGITS, strict=True)]
    same = {word, *(one for pair in twins if word in pair for one in pair)}
    return next((number for number, name in enumerate(names) if name in same), None)


def _number(word: str, field: Classes) -> int:
    if (number := _known(word, field)) is not None:
        return number
    spoken = [*field.names, *(word for digit, word in enumerate(DIGITS) if str(digit) in field.names)]
    hint = f"did you mean '{near}'? It" if (near := nearest(word, spoken)) else "it"
    raise BowerbirdError(f"This run cannot say '{word}'; {hint} knows: {', '.join(spoken)}.")


def joined(words: list[Float[np.ndarray, " _"]], pauses: list[float], rate_hz: int) -> Float[np.ndarray, " samples"]:
    """The words one after the other between silences, each at the same loudness, followed by its pause."""
    around = np.zeros(round(LEAD_S * rate_hz), np.float32)
    parts: list[np.ndarray] = [around]
    for word, pause in zip(words, pauses, strict=True):
        parts += [faded(even(word), round(FADE_S * rate_hz)), np.zeros(round(pause * rate_hz), np.float32)]
    whole = np.concatenate([*parts, around])
    return whole / max(1.0, float(np.abs(whole).max()))


def even(word: Float[np.ndarray, " n"], level: float = 0.1) -> Float[np.ndarray, " n"]:
    """With a root mean square of ``level``."""
    return word * np.float32(level / max(float(np.sqrt(np.square(word).mean())), 1e-6))


def faded(word: Float[np.ndarray, " n"], n: int) -> Float[np.ndarray, " n"]:
    ramp = np.linspace(0, 1, min(n, len(word) // 2), dtype=np.float32)
    shaped = word.copy()
    shaped[: len(ramp)] *= ramp
    shaped[len(shaped) - len(ramp) :] *= ramp[::-1]
    return shaped
