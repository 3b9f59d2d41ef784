"""Pictures as a stream of symbols, each coded with the probabilities that a model gives it, and back.

Both directions are the same walk over the picture: the coder is told the symbol and writes it, or reads it and says it.
Probabilities are rounded before they are used: log p to 1/``STEPS`` nats, its exponential to an integer from a table.
The rest is integers and the fixed-point arithmetic of constriction's range coder.  As in ``bitsback``, networks compute
in float64 on one thread, and in batches that follow from the number of pictures alone.
"""

import copy
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8, UInt32
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.samplers.bitsback import Coded, constriction, one_thread

Pixels = UInt8[np.ndarray, "n c h w"]
Choose = Callable[[Float[Tensor, "b k"], Int64[Tensor, " b"], Any], Int64[Tensor, " b"]]
"""(log-probabilities, pictures that they are of, what is to be chosen if that is known) → what is chosen."""
Words = UInt32[np.ndarray, " n_words"]
STEPS, LEAST = 64, 16
"""Steps of a log-probability per nat, and the probability e^-LEAST below which nothing falls."""
BATCH = 1024
"""Pictures that are coded at a time."""


def batches(n: int) -> list[range]:
    return [range(start, min(n, start + BATCH)) for start in range(0, n, BATCH)]


@cache
def _weights() -> Float[np.ndarray, " n_steps"]:
    """e^(-k / STEPS) as integers, the largest 2^30."""
    return np.array([float(round(2**30 * math.exp(-k / STEPS))) for k in range(LEAST * STEPS + 1)])


def probabilities(log_probs: Float[Tensor, "b k"]) -> Float[np.ndarray, "b k"]:
    """Rounded so that a difference in the last bits of ``log_probs`` makes none."""
    steps = (-STEPS * log_probs.cpu().double()).clamp(0, LEAST * STEPS).round().long().numpy()
    weights = _weights()[steps]
    return weights / weights.sum(1, keepdims=True)


class Writer:
    """Writes what is wanted."""

    def __init__(self) -> None:
        self.coder = constriction().stream.queue.RangeEncoder()
        self.family = constriction().stream.model.Categorical(perfect=False)

    def __call__(self, log_probs: Float[Tensor, "b k"], rows: Any, wanted: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
        self.coder.encode(wanted.int().numpy(), self.family, probabilities(log_probs))
        return wanted


class Reader:
    """Reads what was written."""

    def __init__(self, words: Words):
        self.coder = constriction().stream.queue.RangeDecoder(words)
        self.family = constriction().stream.model.Categorical(perfect=False)

    def __call__(self, log_probs: Float[Tensor, "b k"], rows: Any, wanted: None = None) -> Int64[Tensor, " b"]:
        return torch.from_numpy(self.coder.decode(self.family, probabilities(log_probs))).long()


class Drawer:
    """Chooses at random, by the inverse of the distribution function; picture i with its own random numbers alone.

    A picture that is asked for several symbols at once has them in rows that follow one another.
    """

    def __init__(self, draws: Draws, n: int, most: int):
        """``most``: how often a row is asked at most."""
        self.u = draws.rand(n, most).cpu().double()
        self.used = torch.zeros(n, dtype=torch.long)

    def __call__(self, log_probs: Float[Tensor, "b k"], rows: Int64[Tensor, " b"], wanted: None = None) -> Tensor:
        at = rows.cpu()
        _, group, counts = at.unique_consecutive(return_inverse=True, return_counts=True)
        rank = torch.arange(len(at)) - (counts.cumsum(0) - counts)[group]
        u = self.u[at, self.used[at] + rank]
        self.used.index_add_(0, at, torch.ones_like(at))
        cumulative = log_probs.cpu().double().exp().cumsum(1)
        below = cumulative < u[:, None] * cumulative[:, -1:]
        return below.sum(1).clamp(max=log_probs.shape[1] - 1).to(log_probs.device)


class WalkCodec:
    """The codec of a model that makes pictures symbol by symbol, in its ``walk``; nothing is lost."""

    lossless = True

    def __init__(self, model: Any):
        self.model = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)

    def pack(self, images: Pixels, progress: Callable[[int], object], quality: float | None = None) -> Coded:
        writer = Writer()
        self._walk(len(images), writer, progress, torch.from_numpy(images))
        return Coded(writer.coder.get_compressed(), {})

    def unpack(self, coded: Coded, n: int, shape: tuple[int, int, int], progress: Callable[[int], object]) -> Pixels:
        return self._walk(n, Reader(coded.words), progress, None)

    def _walk(self, n: int, choose: Any, progress: Callable[[int], object], truth: Tensor | None) -> Pixels:
        done = []
        with one_thread():
            for rows in batches(n):
                known = None if truth is None else truth[rows.start : rows.stop]
                done.append(self.model.walk(len(rows), choose, known).numpy())
                progress(len(rows))
        return np.concatenate(done)
