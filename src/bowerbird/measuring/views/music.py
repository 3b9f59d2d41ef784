"""Music: grids of voices, or notes."""

from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.measuring.context import Context, Sides, Written
from bowerbird.measuring.offers import Offers, music_offers, music_sides
from bowerbird.measuring.views.sequences import SequenceView
from bowerbird.media.music.codec import MusicCodec
from bowerbird.media.music.codecs import codec_from
from bowerbird.media.music.grid import GridCodec
from bowerbird.metrics.harmony import Music
from bowerbird.metrics.ngram import fit_bigram


class PieceView(SequenceView):
    """Music: grids of voices, or notes."""

    @cached_property
    def codec(self) -> MusicCodec:
        return codec_from(self.data.spec.codec)

    @property
    def written(self) -> Written:
        codec = self.codec
        return Written(True, codec.frame_quarters) if isinstance(codec, GridCodec) else Written(False)

    def offers(self) -> Offers:
        scored = super().offers()
        if scored:
            scored |= {"notes": self.notes, "bigram": self.bigram}
            scored |= {"frames": self.frames} if self.written.grid else {}
        return scored | music_offers(self.pieces, self.written)

    def pieces(self, context: Context) -> Sides[list[Music]]:
        samples = [piece for row in self.rows if len(piece := self.piece(row))]
        if not samples:
            raise BowerbirdError("The model's samples hold no notes; train it longer.")
        real, training = ([self.piece(row) for row in self.documents(part)] for part in (self.split, "train"))
        return music_sides(self.drawn_protocol, samples, [piece for piece in real if len(piece)], training)

    def piece(self, tokens: Tensor) -> Music:
        """A grid (frames, voices), or notes (notes, 3) of onset, duration and pitch, without drums."""
        tokens = self.new(tokens)
        if isinstance(self.codec, GridCodec):
            return self.codec.decode(tokens.tolist())
        piece = self.codec.piece(tokens.tolist())
        notes = [
            (note.onset, note.duration, note.pitch) for note in piece.notes if not piece.voices[note.voice].is_drum
        ]
        return np.array(notes, dtype=float).reshape(-1, 3)

    def new(self, row: Any) -> Any:
        """A row's tokens without the first, where it repeats the last of the row before: it would shift all voices."""
        return row if not len(row) or row[0] == self.codec.bos else row[1:]

    def notes(self, context: Context) -> np.ndarray:
        return np.array([len(self.codec.notes(self.new(row).tolist())) for row in self.scored[2]])

    def frames(self, context: Context) -> np.ndarray:
        codec = self.codec
        assert isinstance(codec, GridCodec)
        return np.array([(self.new(row) >= codec.rest).sum() / codec.n_voices for row in self.scored[2]])

    def bigram(self, context: Context) -> np.ndarray:
        """Nats of each row under the bigram model of the training split."""
        learnt, held_out = ([row.numpy() for row in self.documents(split)] for split in ("train", "val"))
        model, pad = fit_bigram(learnt, held_out, self.data.tokens.vocab_size), self.data.tokens.pad
        return np.array([model.nll(row[row != pad]).sum() for row in self.scored[2]])


view = PieceView
