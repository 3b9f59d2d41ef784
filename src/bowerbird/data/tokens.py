"""Token data: three splits of sequences of integers, kept flat, from which rows of a batch are cut.

    tokens      all tokens of a split one after the other, int32 (t,)
    begin, end  example i is tokens[begin_i : end_i], at most context + 1 tokens; examples may overlap

A model reads x[:, :-1] and predicts x[:, 1:].  ``counted`` marks the tokens of x that are to be predicted: no padding
and no first token of a row, for nothing stands before it.  Three layouts share this:

    stream      one text; an example begins at any token
    documents   bos + document + eos per row.  A longer one becomes pieces that overlap by one token, so that every
                token but bos is predicted exactly once
    packed      as many whole documents per row as fit, numbered from 1; padding has the number 0
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, Int32, Int64
from torch import Tensor

from bowerbird.data.split import SPLITS
from bowerbird.errors import unknown
from bowerbird.spec import Spec, Tokens


class Ragged(NamedTuple):
    """Sequences of unequal length, one after the other."""

    values: Int32[Tensor, "t"]
    offsets: Int64[Tensor, "n_offsets"]
    """Sequence i is values[offsets_i : offsets_i+1]."""

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass
class TokenSet(ABC):
    """One split: examples of tokens."""

    tokens: Int32[Tensor, "t"]

    @property
    def lengths(self) -> Int64[Tensor, "n"] | None:
        """Tokens of each example, where they differ."""
        return None

    @abstractmethod
    def __len__(self) -> int:
        """How many examples there are."""

    @abstractmethod
    def batch(self, indices: Int64[Tensor, "b"], device: torch.device | str = "cpu") -> dict[str, Any]:
        """The fields of ``models.base.Batch`` for these examples, padded at the end to the longest, on the device."""


@dataclass
class Stream(TokenSet):
    """A text in which an example begins at any token."""

    context: int

    def __len__(self) -> int:
        return max(1, len(self.tokens) - self.context)

    def batch(self, indices: Int64[Tensor, "b"], device: torch.device | str = "cpu") -> dict[str, Any]:
        length = min(self.context + 1, len(self.tokens))
        x = self.tokens[indices[:, None] + torch.arange(length)].long()
        counted = torch.ones(x.shape, dtype=torch.bool)
        counted[:, 0] = False
        return {"x": x.to(device), "weight": counted.to(device)}


@dataclass
class Rows(TokenSet):
    """Examples with a begin and an end of their own."""

    begin: Int64[Tensor, "n"]
    end: Int64[Tensor, "n"]
    pad: int
    counted: Bool[Tensor, "t"] | None = None
    """Which of ``tokens`` are to be predicted (None: all but the first of a row)."""
    documents: Int64[Tensor, "m"] | None = None
    """Packed: where the documents begin, and the end of the last."""
    source: Ragged | None = None
    """Pairs: the source of each example, with its eos."""

    @cached_property
    def lengths(self) -> Int64[Tensor, "n"] | None:
        longest = self.end - self.begin
        if self.source is not None:
            longest = torch.maximum(longest, self.source.offsets.diff())
        return longest if len(longest) and longest.min() < longest.max() else None

    def __len__(self) -> int:
        return len(self.begin)

    def batch(self, indices: Int64[Tensor, "b"], device: torch.device | str = "cpu") -> dict[str, Any]:
        at, present = _positions(self.begin[indices], self.end[indices])
        counted = present.clone()
        counted[:, :1] = False
        if self.counted is not None:
            counted &= self.counted[at.clamp(max=len(self.tokens) - 1)]
        x, given = _gathered(self.tokens, at, present, self.pad), {}
        if self.documents is not None:
            number = torch.searchsorted(self.documents, at, right=True)
            counted[:, 1:] &= number[:, 1:] == number[:, :-1]  # the first token of a document follows from nothing
            given["document"] = torch.where(present, number - number[:, :1] + 1, 0)
        if self.source is not None:
            begin, end = self.source.offsets[:-1], self.source.offsets[1:]
            at, present = _positions(begin[indices], end[indices])
            given["source"] = _gathered(self.source.values, at, present, self.pad)
        given = {name: value.to(device) for name, value in given.items()}
        return {"x": x.to(device), "given": given, "weight": counted.to(device)}

    def n_counted(self) -> int:
        """How many tokens one pass over all examples predicts."""
        return sum(int(self.batch(part)["weight"].sum()) for part in torch.arange(len(self)).split(1024))


def _positions(begin: Int64[Tensor, "b"], end: Int64[Tensor, "b"]) -> tuple[Int64[Tensor, "b l"], Bool[Tensor, "b l"]]:
    """The position of every token of the rows, and which of them exist."""
    longest = int((end - begin).max()) if len(begin) else 0
    at = begin[:, None] + torch.arange(longest)
    return at, at < end[:, None]


def _gathered(
    tokens: Int32[Tensor, "t"], at: Int64[Tensor, "b l"], present: Bool[Tensor, "b l"], pad: int
) -> Int64[Tensor, "b l"]:
    return torch.where(present, tokens[at.clamp(max=len(tokens) - 1)].long(), pad)


def joined(sets: Sequence[TokenSet]) -> TokenSet:
    """The examples of several splits as one set; streams of neighbouring splits become one text again."""
    first = sets[0]
    if len(sets) == 1:
        return first
    tokens = torch.cat([one.tokens for one in sets])
    if isinstance(first, Stream):
        return Stream(tokens, first.context)
    rows = [one for one in sets if isinstance(one, Rows)]
    shift = np.cumsum([0] + [len(one.tokens) for one in rows]).tolist()
    counted = [one.counted for one in rows if one.counted is not None]
    documents = [s + one.documents for s, one in zip(shift, rows, strict=False) if one.documents is not None]
    sources = [one.source for one in rows if one.source is not None]
    return Rows(
        tokens,
        torch.cat([s + one.begin for s, one in zip(shift, rows, strict=False)]),
        torch.cat([s + one.end for s, one in zip(shift, rows, strict=False)]),
        rows[0].pad,
        torch.cat(counted) if counted else None,
        torch.cat(documents).unique() if documents else None,
        _joined_ragged(sources) if sources else None,
    )


def _joined_ragged(parts: Sequence[Ragged]) -> Ragged:
    lengths = torch.cat([part.offsets.diff() for part in parts])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return Ragged(torch.cat([part.values for part in parts]), offsets)


# --------------------------------------------------------------------------------------------- making examples


def framed(documents: Ragged, bos: int | None, eos: int | None) -> Ragged:
    """bos + tokens + eos of every document; None leaves one out."""
    n_added = int(bos is not None) + int(eos is not None)
    offsets = documents.offsets + n_added * torch.arange(len(documents) + 1)
    values = torch.empty(int(offsets[-1]), dtype=torch.int32)
    inside = np.ones(len(values), bool)  # a byte per token, where indices would be eight
    for token, at in ((bos, offsets[:-1]), (eos, offsets[1:] - 1)):
        if token is not None:
            values[at], inside[at.numpy()] = token, False
    values.numpy()[inside] = documents.values.numpy()
    return Ragged(values, offsets)


def pieces(offsets: Int64[Tensor, "n_offsets"], context: int) -> tuple[Int64[Tensor, "m"], Int64[Tensor, "m"]]:
    """Begin and end of pieces of at most context + 1 tokens, which overlap by one inside of a document."""
    length = offsets.diff()
    n_pieces = ((length - 1 + context - 1) // context).clamp(min=1)
    first = n_pieces.cumsum(0) - n_pieces
    number = torch.arange(int(n_pieces.sum())) - first.repeat_interleave(n_pieces)
    begin = offsets[:-1].repeat_interleave(n_pieces) + number * context
    end = torch.minimum(begin + context + 1, offsets[1:].repeat_interleave(n_pieces))
    return begin, end


def packed(
    begin: Int64[Tensor, "m"], end: Int64[Tensor, "m"], context: int
) -> tuple[Int64[Tensor, "r"], Int64[Tensor, "r"]]:
    """Neighbouring pieces joined, in their order, into rows of at most context + 1 tokens."""
    rows: list[tuple[int, int]] = []
    for b, e in zip(begin.tolist(), end.tolist(), strict=True):
        if rows and rows[-1][1] == b and e - rows[-1][0] <= context + 1:
            rows[-1] = (rows[-1][0], e)
        else:
            rows.append((b, e))
    both = torch.tensor(rows, dtype=torch.int64).view(-1, 2)
    return both[:, 0].contiguous(), both[:, 1].contiguous()


def windows(tokens: Int32[Tensor, "t"], start: Sequence[int], context: int, pad: int) -> Rows:
    """A stream in rows that predict every token exactly once; ``start`` stands before the first and is not counted."""
    whole = torch.cat([torch.tensor(start, dtype=torch.int32), tokens])
    begin, end = pieces(torch.tensor([0, len(whole)]), context)
    counted = torch.arange(len(whole)) >= len(start)
    return Rows(whole, begin, end, pad, counted)


# ------------------------------------------------------------------------------------------------------- data


class Evaluation(NamedTuple):
    """Examples that predict a split exactly once, and how much text that is.

    With nll the sum of -log p over counted tokens in nats, bits per byte = nll / (ln 2 · n_bytes).  The tokens that
    end documents are counted in nll and are no bytes.
    """

    examples: Rows
    n_tokens: int
    """Counted tokens."""
    n_bytes: int
    """UTF-8 bytes of the text, of a pair's target, of a chat's answers; 0 for music."""
    n_characters: int


@dataclass
class TokenData:
    """All splits of one source of sequences, and how it was read."""

    name: str
    spec: Spec
    train: TokenSet
    val: TokenSet
    test: TokenSet
    preprocessing: dict[str, str | int]
    """What the protocol of a measurement has to state."""
    skipped: int
    """Documents, pairs or chats that are left out."""
    fingerprint: str
    """16 hexadecimal digits of the SHA-256 of every split's text, which does not depend on the tokenizer."""
    contents: str
    """What there is, for the summary: how many of what, how tokenised."""
    skipped_why: str = ""
    note: str = ""
    """Something that the user may not expect, in a few words."""
    written: dict[str, list[str]] = field(default_factory=dict)
    """The text of each split that models learn to write."""
    read: dict[str, list[str]] = field(default_factory=dict)
    """Pairs: the source of each ``written``."""

    @property
    def tokens(self) -> Tokens:
        """What a model learns to write."""
        return self.spec.needs(Tokens, "autoregressive")

    def split(self, name: str) -> TokenSet:
        """train, val or test, or several joined by "+"."""
        return joined([getattr(self, part) for part in _parts(name)])

    def texts(self, split: str) -> list[str]:
        """The documents of a split as they were read (a stream is one); of pairs the targets, of chats the answers."""
        return [text for part in _parts(split) for text in self.written.get(part, [])]

    def pairs(self, split: str) -> list[tuple[str, str]]:
        """Source and target of every pair of a split; empty when the data are no pairs."""
        sources = [text for part in _parts(split) for text in self.read.get(part, [])]
        return list(zip(sources, self.texts(split), strict=True)) if sources else []

    def evaluation(self, split: str) -> Evaluation:
        """Rows that predict every token of the split exactly once, each document in rows of its own.

        What a training split does to its examples at random is not done here.
        """
        chosen, target = self.split(split), self.tokens
        context = target.context
        if isinstance(chosen, Rows):
            begin, end = chosen.begin, chosen.end
            if chosen.documents is not None:
                begin, end = pieces(chosen.documents, context)
            examples = Rows(chosen.tokens, begin, end, chosen.pad, chosen.counted, source=chosen.source)
        else:
            examples = windows(chosen.tokens, target.start, context, target.pad)
        texts = self.texts(split)
        n_bytes, n_characters = sum(len(text.encode()) for text in texts), sum(len(text) for text in texts)
        return Evaluation(examples, examples.n_counted(), n_bytes, n_characters)

    def summary(self) -> str:
        """One line: what there is, tokenizer, vocabulary, splits, what was left out."""
        stream = isinstance(self.train, Stream)
        sizes = {name: len(getattr(self, name).tokens if stream else getattr(self, name)) for name in SPLITS}
        splits = ", ".join(f"{name} {size:,}" for name, size in sizes.items()) + (" tokens" if stream else "")
        skipped = f"skipped {self.skipped} ({self.skipped_why})" if self.skipped else "none skipped"
        return f"{self.name}: {self.contents}; {splits}; {skipped}" + (f"; {self.note}" if self.note else "")


def _parts(name: str) -> list[str]:
    for part in (parts := name.split("+")):
        if part not in SPLITS:
            raise unknown("split", part, SPLITS)
    return parts


def flat(ids: Int[np.ndarray, "t"], offsets: Int[np.ndarray, "n_offsets"]) -> Ragged:
    """Token ids and offsets as tensors."""
    return Ragged(torch.from_numpy(ids.astype(np.int32, copy=False)), torch.from_numpy(offsets.astype(np.int64)))
