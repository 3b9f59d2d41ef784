"""A grid: a fixed number of voices in frames of one length, each voice with one pitch or silent in each frame.

Tokens go frame by frame and in each frame voice by voice, the highest voice first: with four voices token 4t + v is
what voice v does in frame t.  A token is a rest or a pitch; every semitone between the lowest and the highest one of
the training data has its token, so that a shift by a semitone is a shift by one token.

A grid does not say whether a pitch that is repeated in the next frame is held or struck again.  Here it is held.
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from bowerbird.errors import BowerbirdError
from bowerbird.media.music.codec import MusicCodec
from bowerbird.media.music.score import Note, Piece, Tempo, Voice

REST = -1
"""In a grid; other entries are MIDI pitches."""
CHURCH_ORGAN = 19
"""General MIDI's number."""


@dataclass(frozen=True)
class GridCodec(MusicCodec):
    """Grids ⇄ tokens: rest, then the pitches ``low`` … ``high``."""

    voices: tuple[str, ...]
    """Names, the highest voice first."""
    frame_quarters: float
    """Length of a frame in quarters."""
    low: int
    high: int
    qpm: float
    """Tempo of what is written, in quarters per minute; the grid itself has none."""

    @classmethod
    def of(
        cls, grids: Sequence[np.ndarray], voices: tuple[str, ...], frame_quarters: float, qpm: float, margin: int = 0
    ) -> "GridCodec":
        """The codec of training data, with ``margin`` semitones more on both sides."""
        pitches = np.concatenate([grid[grid != REST] for grid in grids])
        return cls(voices, frame_quarters, int(pitches.min()) - margin, int(pitches.max()) + margin, qpm)

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> "GridCodec":
        return cls(**{**table, "voices": tuple(table["voices"])})

    def to_json(self) -> str:
        return json.dumps({"kind": "grid"} | dataclasses.asdict(self))

    @property
    def n_voices(self) -> int:
        return len(self.voices)

    @property
    def rest(self) -> int:
        """The token of silence; pitch p is token ``rest + 1 + p - low``."""
        return self.n_specials

    @property
    def vocab_size(self) -> int:
        return self.rest + 2 + self.high - self.low

    @property
    def pitched(self) -> Bool[np.ndarray, " vocab"]:
        return np.arange(self.vocab_size) > self.rest

    def encode(self, grid: Int[np.ndarray, "frames voices"]) -> list[int]:
        """The tokens of a grid of MIDI pitches and ``REST``."""
        sounding = grid[grid != REST]
        if grid.shape[1] != self.n_voices or (sounding < self.low).any() or (sounding > self.high).any():
            raise BowerbirdError(
                f"This model writes {self.n_voices} voices with the pitches {self.low} to {self.high}; "
                "the music has other voices or pitches."
            )
        return np.where(grid == REST, self.rest, grid.astype(np.int64) + self.rest + 1 - self.low).ravel().tolist()

    def decode(self, tokens: Sequence[int]) -> Int[np.ndarray, "frames voices"]:
        """The grid that the tokens mean; special tokens are dropped, and so is a last frame that is not complete."""
        values = np.asarray(tokens, dtype=np.int64)
        values = values[(values >= self.rest) & (values < self.vocab_size)]
        values = values[: len(values) // self.n_voices * self.n_voices].reshape(-1, self.n_voices)
        return np.where(values == self.rest, REST, values - self.rest - 1 + self.low)

    def piece(self, tokens: Sequence[int]) -> Piece:
        grid = self.decode(tokens)
        voices = tuple(Voice(name, CHURCH_ORGAN) for name in self.voices)
        return Piece(held(grid, self.frame_quarters), voices, tempos=(Tempo(0.0, self.qpm),))


def held(grid: Int[np.ndarray, "frames voices"], frame_quarters: float) -> list[Note]:
    """The notes of a grid by onset: each run of one pitch in one voice is one note."""
    notes = []
    for voice, column in enumerate(grid.T):
        changes = np.flatnonzero(np.diff(column, prepend=REST - 1, append=REST - 1))
        for start, end in itertools.pairwise(changes.tolist()):
            if column[start] != REST:
                notes.append(Note(start * frame_quarters, (end - start) * frame_quarters, int(column[start]), voice))
    return sorted(notes)
