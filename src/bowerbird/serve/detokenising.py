"""Tokens as they come → text as it may be shown: no half characters, nothing of a stop sequence."""

from collections.abc import Sequence
from typing import NamedTuple

from tokenizers.decoders import DecodeStream

from bowerbird.data.tokenizers import Tokenizer


class Token(NamedTuple):
    """A token of the model, and how probable it was."""

    number: int
    text: str
    log_prob: float | None = None
    """Natural logarithm, in the model's own distribution: before temperature, top_k …"""
    alternatives: tuple[tuple[str, float], ...] = ()
    """The most probable tokens at its place, with their log-probabilities."""
    at: int = 0
    """Where in the text it begins, in characters."""


class Piece(NamedTuple):
    """What has become certain of a text."""

    text: str
    tokens: tuple[Token, ...] = ()
    finish: str | None = None
    """stop: it ended by itself or with a stop sequence; length: it was cut off; None: it goes on."""


class Detokeniser:
    """The text of one row, piece by piece."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()):
        self.tokenizer, self.stop = tokenizer, [word for word in stop if word]
        self.numbers: list[int] = []
        self.stopped = False
        """A stop sequence has come; what follows is not wanted."""
        self._stream = DecodeStream(skip_special_tokens=True)
        self._text, self._shown = "", 0
        self._tokens: list[Token] = []

    def add(self, number: int, log_prob: float | None, alternatives: Sequence[tuple[int, float]]) -> None:
        """The next token."""
        beside = tuple((self._one(other), value) for other, value in alternatives)
        self._tokens.append(Token(number, self._one(number), log_prob, beside, len(self._text)))
        self.numbers.append(number)
        self._text += self._stream.step(self.tokenizer.core, number) or ""
        self._stop_where_asked()

    def piece(self, finish: str | None = None) -> Piece:
        """What can be shown by now; with ``finish``, all the rest."""
        if finish is not None and not self.stopped:
            whole = self.tokenizer.decode(self.numbers)
            self._text += whole[len(self._text) :] if whole.startswith(self._text) else ""
            self._stop_where_asked()
        ending = self.stopped or finish is not None
        end = len(self._text) if ending else len(self._text) - self._held_back()
        text = self._text[self._shown : end]
        ready = [token for token in self._tokens if ending or token.at < end]
        self._tokens, self._shown = self._tokens[len(ready) :], end
        return Piece(text, tuple(ready), "stop" if self.stopped else finish)

    def _stop_where_asked(self) -> None:
        found = [at for word in self.stop if (at := self._text.find(word, self._shown)) >= 0]
        if found and not self.stopped:
            self.stopped = True
            self._text = self._text[: min(found)]
            self._tokens = [token for token in self._tokens if token.at < len(self._text)]

    def _held_back(self) -> int:
        """Characters at the end that may be the beginning of a stop sequence."""
        most = min(max(map(len, self.stop), default=1) - 1, len(self._text) - self._shown)
        tails = (self._text[len(self._text) - n :] for n in range(most, 0, -1))
        return next((len(tail) for tail in tails if any(word.startswith(tail) for word in self.stop)), 0)

    def _one(self, number: int) -> str:
        return self.tokenizer.decode([number]) or str(self.tokenizer.core.id_to_token(number) or "")
