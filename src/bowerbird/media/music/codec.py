"""A codec turns music into tokens and tokens into music; it is all that a run has to keep to be heard.

Tokens 0, 1 and 2 are the padding, the beginning and the end of a piece in every codec.  ``encode`` adds none of them;
``piece`` passes over them, and makes music of any sequence of tokens whatever, for a model may write anything.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from bowerbird.media.music.score import Note, Piece, write_midi


class MusicCodec(ABC):
    """Music ⇄ tokens."""

    pad, bos, eos = 0, 1, 2
    n_specials = 3

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of different tokens, with the three special ones."""

    @property
    @abstractmethod
    def pitched(self) -> Bool[np.ndarray, " vocab"]:
        """Which tokens are pitches; where the next token is one too, it is a semitone higher in the same voice."""

    @abstractmethod
    def piece(self, tokens: Sequence[int]) -> Piece:
        """The music that the tokens mean."""

    @abstractmethod
    def to_json(self) -> str:
        """Everything that ``codecs.codec_from`` needs to make an equal codec."""

    def notes(self, tokens: Sequence[int]) -> list[Note]:
        """The notes that the tokens mean, by onset."""
        return self.piece(tokens).notes

    def write_midi(self, tokens: Sequence[int], path: Path) -> Path:
        """Writes the tokens as a MIDI file and returns its path."""
        return write_midi(self.piece(tokens), path)
