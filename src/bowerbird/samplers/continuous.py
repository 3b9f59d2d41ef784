"""Continuous batching: rows of tokens join while others go on, and leave when they have ended.

    step      t    t+1    t+2    t+3
    row A     a₁₇  a₁₈    eos
    row B     b₃   b₄     b₅     b₆
    row C          c₁     c₂     c₃          joined at t+1, its prompt read by itself

Every step reads one token of every row in one call of the network, whatever the lengths of the rows.  A row gets the
random numbers that it would get alone, because they depend on its seed and on the place of the token.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.nets.roles import SequenceState
from bowerbird.samplers import greenlist
from bowerbird.samplers.decoding import NO_TOKEN, Read, Sampling, chosen, unusable


@dataclass(eq=False)
class Continuation:
    """One sequence that is being continued."""

    tokens: list[int]
    """Its beginning, at least one token, and what was added."""
    most: int
    """Most tokens that it will have."""
    sampling: Sampling
    draws: Draws
    """Of one row."""
    ends: frozenset[int] = frozenset()
    """Tokens after which it has ended."""
    first: int = 0
    """Where in the row the network's state begins (see ``decoding.Reader``)."""
    failure: BowerbirdError | None = None
    """Why it cannot go on; the rows beside it do."""

    @property
    def ended(self) -> bool:
        return len(self.tokens) >= self.most or self.tokens[-1] in self.ends


class Added(NamedTuple):
    """A token that was added to a row, and the logits that it was chosen from."""

    row: Continuation
    token: int
    logits: Float[Tensor, " vocab"]


class _OwnPlaces(Draws):
    """One uniform number for each row: that of its own place."""

    def __init__(self, rows: list[Continuation]):
        super().__init__(0)
        self.of = rows

    def uniform(self, n: int, at: int | None = None) -> Float[Tensor, " n"]:
        return torch.cat([row.draws.uniform(1, len(row.tokens)) for row in self.of])


class ContinuousBatch:
    """Rows that are continued together; ``context`` is the most tokens that the network reads at once (None: any)."""

    def __init__(
        self,
        read: Read,
        initial_state: Callable[[int, int], SequenceState],
        context: int | None,
        device: torch.device | str = "cpu",
    ):
        self.read, self.initial_state, self.context, self.device = read, initial_state, context, device
        self.rows: list[Continuation] = []
        self._state: SequenceState | None = None

    @torch.inference_mode()
    def join(self, row: Continuation) -> None:
        """Reads a row's tokens except the last, which the next step reads with those of all others."""
        state = self.initial_state(1, self.context or 0)
        if known := row.tokens[row.first : -1]:
            _, after = self.read(torch.tensor([known], device=self.device), state)
            assert after is not None, "a network that is given a state returns one"
            state = after
        self._state = state if self._state is None else self._state.beside(state)
        self.rows.append(row)

    @torch.inference_mode()
    def leave(self, rows: Collection[Continuation]) -> None:
        """Forgets these rows."""
        kept = [i for i, row in enumerate(self.rows) if row not in rows]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[i] for i in kept]
        assert self._state is not None, "rows have a state"
        self._state = self._state.rows(torch.tensor(kept, device=self.device)) if kept else None

    @torch.inference_mode()
    def step(self) -> list[Added]:
        """Adds a token to every row; one from whose logits none can be chosen gets none, but its ``failure``.

        Rows that have ended or failed are to leave before the next step.
        """
        self._begin_again()
        last = torch.tensor([row.tokens[-1:] for row in self.rows], device=self.device)
        assert self._state is not None, "at least one row has joined"
        read, self._state = self.read(last, self._state)
        logits = read[:, -1].float()
        tokens = self._chosen(logits)
        added = [Added(row, token, own) for row, token, own in zip(self.rows, tokens, logits, strict=True)]
        for row, token, own in added:
            if token == NO_TOKEN:
                row.failure = unusable(own)
            else:
                row.tokens.append(token)
        return [one for one in added if one.token != NO_TOKEN]

    def _begin_again(self) -> None:
        """Rows that have filled the context go on from the last half of it, as ``decoding.Reader`` does."""
        if self.context is None:
            return
        full = [row for row in self.rows if len(row.tokens) - row.first > self.context]
        self.leave(full)
        for row in full:
            row.first = len(row.tokens) - max(1, self.context // 2)
            self.join(row)

    def _chosen(self, logits: Float[Tensor, "n vocab"]) -> list[int]:
        """The next token of each row: rows with the same settings in one go."""
        places: dict[tuple[Sampling, int], list[int]] = {}
        for place, row in enumerate(self.rows):  # a watermark needs so many tokens before the next
            seen = min(len(row.tokens), greenlist.WIDTH) if row.sampling.watermark else 0
            places.setdefault((row.sampling, seen), []).append(place)
        tokens = [NO_TOKEN] * len(self.rows)
        for (sampling, _), own in places.items():
            rows = [self.rows[place] for place in own]
            past = self._past(rows) if sampling.repetition_penalty != 1 or sampling.watermark else None
            part = logits if len(own) == len(self.rows) else logits[own]
            for place, token in zip(own, chosen(part, sampling, _OwnPlaces(rows), past).tolist(), strict=True):
                tokens[place] = token
        return tokens

    def _past(self, rows: list[Continuation]) -> Tensor:
        """The tokens of each row; shorter ones repeat their first, which a penalty counts once."""
        longest = max(len(row.tokens) for row in rows)
        padded = [row.tokens[:1] * (longest - len(row.tokens)) + row.tokens for row in rows]
        return torch.tensor(padded, device=self.device)
