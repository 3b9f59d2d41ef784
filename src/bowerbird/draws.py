"""Random numbers: sample number i has its own, whatever else is drawn with it.

Row i of every draw comes from a generator that is seeded with a hash of (seed, i), so that a sample does not depend on
how many are requested, on the batch size, or on which process draws which part.  All numbers are drawn on the CPU, so a
seed means the same on every device.  Hashed, because neighbouring seeds of the Mersenne Twister start alike.
"""

import hashlib
from collections.abc import Iterable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

UNIFORMS_AT_ONCE = 64
"""Numbers that a row draws ahead for ``uniform``, because token samplers request them one at a time."""


class Draws:
    """The random numbers of samples ``first``, ``first`` + 1 … of a seed."""

    def __init__(self, seed: int, first: int = 0):
        self.seed, self.first = seed, first
        self._rows: list[torch.Generator] = []
        self._ahead = torch.empty(0, 0)
        self._begin, self._at = 0, -1

    @classmethod
    def joined(cls, parts: Iterable[tuple["Draws", int]]) -> "Draws":
        """The first rows of several draws as one batch: each row goes on with its own numbers."""
        together = cls(0)
        together._rows = [row for draws, n in parts for row in draws.rows(n)]
        return together

    def rows(self, n: int) -> list[torch.Generator]:
        """The generators of the first n rows."""
        for i in range(len(self._rows), n):
            digest = hashlib.blake2b(f"{self.seed}:{self.first + i}".encode(), digest_size=8).digest()
            self._rows.append(torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True)))
        return self._rows[:n]

    def randn(self, n: int, *shape: int) -> Float[Tensor, "n *shape"]:
        """Standard normal numbers."""
        return torch.stack([torch.randn(shape, generator=row) for row in self.rows(n)])

    def rand(self, n: int, *shape: int) -> Float[Tensor, "n *shape"]:
        """Uniform numbers in [0, 1)."""
        return torch.stack([torch.rand(shape, generator=row) for row in self.rows(n)])

    def uniform(self, n: int, at: int | None = None) -> Float[Tensor, " n"]:
        """One uniform number in [0, 1) per row: the next of its sequence, or number ``at``, skipping those between.

        Requesting the same or an earlier number, or another n, starts a new sequence.
        """
        at = self._at + 1 if at is None else at
        if self._ahead.shape[0] != n or at <= self._at:
            self._ahead, self._begin = self.rand(n, UNIFORMS_AT_ONCE), 0
        while at >= self._begin + UNIFORMS_AT_ONCE:
            self._ahead, self._begin = self.rand(n, UNIFORMS_AT_ONCE), self._begin + UNIFORMS_AT_ONCE
        self._at = at
        return self._ahead[:, at - self._begin]

    def choice(self, n: int, weights: Float64[Tensor, " k"]) -> Int64[Tensor, " n"]:
        """A number in 0 … k-1 per row, with probabilities in proportion to the weights."""
        cumulative = weights.cumsum(0)
        return torch.searchsorted(cumulative, self.rand(n).double() * cumulative[-1], right=True)


def fresh() -> Draws:
    """Draws with a seed from torch's global generator, for callers that pass none."""
    return Draws(int(torch.randint(2**62, ())))
