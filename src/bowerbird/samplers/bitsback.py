"""Lossless compression with a latent-variable model: bits back with asymmetric numeral systems.

A stack of bits holds the pictures.  To push a picture x (Townsend, Bird & Barber 2019, arXiv:1901.04866):

    pop  z with q(z|x)      which takes -log₂ q(z|x) bits off the stack: they choose z, and are not lost
    push x with p(x|z)
    push z with p(z)

so that it grows by log₂ q(z|x) - log₂ p(x|z) - log₂ p(z), whose mean over z is the negative evidence bound.  To take
the picture off again, do the opposite of each step in the opposite order; the last step gives the borrowed bits back.

Latents lie on the grid z = k · ``GRID``, |z| ≤ ``EDGE``.  The likelihood is learnt while coding: the decoder's expected
picture sorts pixels into bins, and p(x|z) is the histogram of the true values of the pixels in each bin, over
the pictures that the *decompressor* has seen already (those that were pushed later), and a prior.  It needs no side
information and fits any likelihood that the model was trained with, of two values or of 256.

Both sides must compute the same bins and the same q to the last bit.  Networks do not do that by themselves: sums in
another order, as another number of threads or another batch makes them, differ in the last bits.  So networks compute
in float64, on one thread, in batches that the file states, and what they say is rounded to coarse grids: a difference
of 1e-15 changes a rounded number about once in 1e12.  A checksum finds what slips through.  Everything after the
rounding is integers, Python's floats, or constriction's fixed-point models.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8, UInt32
from torch import Tensor

from bowerbird.errors import BowerbirdError

Pixels = UInt8[np.ndarray, "n c h w"]

GRID, EDGE = 2**-7, 8
LOGVAR_STEPS = 32
"""Steps of log σ² per unit; mu is rounded to ``GRID`` / 8."""
BLOCK = 64
"""Pictures after which the histograms are renewed, and the largest batch."""
BINS, LARGEST_LOGIT = {2: 256, 256: 64}, 12.0
"""Bins of an expected value p in (0, 1), equally wide in log(p / (1 - p)), for pixels of two values and of 256."""
PRIOR_COUNT = 24.0
"""Pixels that the prior of a bin stands for."""
BORROWED = 14
"""Bits that a latent may take off the stack, on average over a batch."""


class Networks(NamedTuple):
    """The model, as functions of float64 on one thread."""

    infer: Callable[[Tensor], tuple[Tensor, Tensor]]
    """x in [-1, 1] → mean and log-variance of z, each (n, n_latent)."""
    expect: Callable[[Tensor], Tensor]
    """z → the expected x."""
    n_latent: int


class Packed(NamedTuple):
    """Compressed pictures."""

    words: UInt32[np.ndarray, " n_words"]
    """The stack."""
    batches: list[int]
    """How many pictures were pushed at a time."""
    n_borrowed: int
    """Words that lay on the stack before the first picture."""


class Coded(NamedTuple):
    """What a codec makes of pictures."""

    words: UInt32[np.ndarray, " n_words"]
    facts: dict[str, Any]
    """What it must be told beside the words to give the pictures back, for JSON."""


def constriction() -> Any:
    """The package with the entropy coder."""
    try:
        return import_module("constriction")
    except ImportError as error:
        raise BowerbirdError("To compress: pip install 'bowerbird[compress]', which brings constriction.") from error


def networks_of(model: Any) -> Networks:
    """A copy of the model that computes in float64 on the CPU."""
    exact = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    return Networks(exact.posterior, exact.decode, model.config.n_latent)


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, sums have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --------------------------------------------------------------------------------------------- what networks say


def posterior(nets: Networks, x: Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of z in units of ``GRID``, rounded, float64 (n · n_latent,)."""
    mu, logvar = nets.infer(torch.from_numpy(x).double() / 127.5 - 1)
    edge = EDGE / GRID
    means = (mu.double() * (8 / GRID)).round().clamp(-8 * edge, 8 * edge).numpy().ravel() / 8
    steps = (logvar.double() * LOGVAR_STEPS).round().clamp(-12 * LOGVAR_STEPS, 4 * LOGVAR_STEPS).long().numpy().ravel()
    return means, _deviations()[steps + 12 * LOGVAR_STEPS]


@cache
def _deviations() -> Float[np.ndarray, " n_steps"]:
    """σ / GRID for every rounded log σ²."""
    return np.array([math.exp(k / LOGVAR_STEPS / 2) / GRID for k in range(-12 * LOGVAR_STEPS, 4 * LOGVAR_STEPS + 1)])


def bins_of(nets: Networks, z: Int[np.ndarray, "n n_latent"], n_bins: int) -> Int[np.ndarray, " n_pixels"]:
    """The bin of every pixel that the decoder expects of z in units of ``GRID``."""
    expected = nets.expect(torch.from_numpy(z * GRID).double()).double().clamp(-1, 1).numpy().ravel()
    with np.errstate(divide="ignore"):
        logits = np.log1p(expected) - np.log1p(-expected)
    place = (logits.clip(-LARGEST_LOGIT, LARGEST_LOGIT) / LARGEST_LOGIT + 1) / 2 * (n_bins - 1)
    return np.round(place).astype(np.int64)


# ----------------------------------------------------------------------------------------------------- histograms


class Histograms:
    """p(x|z) of the pixels of each bin, from the counts of what was seen."""

    def __init__(self, n_values: int):
        self.n_values = n_values
        self.counts = np.zeros((BINS[n_values], n_values), np.int64)
        self.prior = PRIOR_COUNT * _prior(n_values)

    def add(self, bins: np.ndarray, values: np.ndarray, sign: int = 1) -> None:
        np.add.at(self.counts, (bins, values), sign)

    def model(self, at: int) -> Any:
        """Of one bin, for the entropy coder."""
        weights = self.counts[at] + self.prior[at]
        return constriction().stream.model.Categorical(weights / weights.sum(), perfect=False)


@cache
def _prior(n_values: int) -> Float[np.ndarray, "bin value"]:
    """Of two values the expected one itself; of 256 a logistic about it, and a little of everything."""
    n_bins = BINS[n_values]
    p = [1 / (1 + math.exp(-LARGEST_LOGIT * (2 * k / (n_bins - 1) - 1))) for k in range(n_bins)]
    if n_values == 2:
        return np.array([[1 - one, one] for one in p])
    value = np.arange(n_values)
    distance = np.abs(value[None] - (n_values - 1) * np.array(p)[:, None])
    near = np.array([[math.exp(-one / 12) for one in row] for row in distance])
    return 0.9 * near / near.sum(1, keepdims=True) + 0.1 / n_values


def values_of(images: Pixels) -> int:
    """2 for pictures that are black and white, else 256."""
    return 2 if np.isin(images, (0, 255)).all() else 256


def _symbols(x: Pixels, n_values: int) -> Int[np.ndarray, " n_pixels"]:
    return (x // 255 if n_values == 2 else x).astype(np.int32).ravel()


def _blocks(n: int) -> list[range]:
    return [range(start, min(n, start + BLOCK)) for start in range(0, n, BLOCK)]


def _seen(nets: Networks, x: Pixels, n_bins: int) -> Int[np.ndarray, " n_pixels"]:
    """The bins of a block that is known: of the means of its latents."""
    means, _ = posterior(nets, x)
    return bins_of(nets, np.round(means).astype(np.int64).reshape(len(x), nets.n_latent), n_bins)


# ------------------------------------------------------------------------------------------------- there and back


@torch.no_grad()
def compress(images: Pixels, nets: Networks, progress: Callable[[int], object] = lambda n: None) -> Packed:
    """The pictures as words; ``progress`` is told the number of pictures that are done."""
    stack = _Stack(nets.n_latent)
    table = Histograms(n_values := values_of(images))
    blocks, batches = _blocks(len(images)), list[int]()
    with one_thread():
        seen = [_seen(nets, images[block.start : block.stop], BINS[n_values]) for block in blocks]
        for bins, block in zip(seen, blocks, strict=True):
            table.add(bins, _symbols(images[block.start : block.stop], n_values))
        for bins, block in zip(seen, blocks, strict=True):
            table.add(bins, _symbols(images[block.start : block.stop], n_values), -1)
            at = block.start
            while at < block.stop:
                x = images[at : min(block.stop, at + stack.affords(block.stop - at))]
                stack.push(x, nets, table)
                batches.append(len(x))
                at += len(x)
                progress(len(x))
    return Packed(stack.coder.get_compressed(), batches, stack.n_borrowed)


@torch.no_grad()
def decompress(
    packed: Packed, shape: tuple[int, int, int], n_values: int, nets: Networks,
    progress: Callable[[int], object] = lambda n: None,
) -> Pixels:  # fmt: skip
    """The pictures, (c, h, w) each; ValueError if the words do not fit them."""
    stack = _Stack(nets.n_latent, packed.words)
    table = Histograms(n_values)
    n = sum(packed.batches)
    images = np.zeros((n, *shape), np.uint8)
    left = list(packed.batches)
    with one_thread():
        for block in reversed(_blocks(n)):
            at = block.stop
            while at > block.start:
                size = left.pop()
                images[at - size : at] = stack.pop(size, shape, nets, table)
                at -= size
                progress(size)
            x = images[block.start : block.stop]
            table.add(_seen(nets, x, BINS[n_values]), _symbols(x, n_values))
    if not np.array_equal(stack.coder.get_compressed(), borrowed(packed.n_borrowed)):
        raise ValueError("the borrowed bits did not come back")
    return images


def borrowed(n: int) -> UInt32[np.ndarray, " n"]:
    """The words under the first picture: any will do, as long as they are known."""
    return np.random.Generator(np.random.PCG64(0)).integers(1, 2**32, n, dtype=np.uint32)


class _Stack:
    """The coder, and what pushes and pops batches of pictures."""

    def __init__(self, n_latent: int, words: np.ndarray | None = None):
        package = constriction()
        self.n_latent = n_latent
        self.n_borrowed = 4 + -(-n_latent * 24 // 32)
        self.coder = package.stream.stack.AnsCoder(borrowed(self.n_borrowed) if words is None else words)
        edge = round(EDGE / GRID)
        self.gaussian = package.stream.model.QuantizedGaussian(-edge, edge)
        self.prior = package.stream.model.QuantizedGaussian(-edge, edge, 0.0, 1 / GRID)

    def affords(self, n: int) -> int:
        """How many of n pictures can borrow their latents' bits at once."""
        bits = 32 * (self.coder.num_words() - 2)
        return max(1, min(n, bits // (BORROWED * self.n_latent)))

    def bins(self, z: np.ndarray, nets: Networks, table: Histograms) -> Int[np.ndarray, " n_pixels"]:
        return bins_of(nets, z.reshape(-1, self.n_latent).astype(np.int64), BINS[table.n_values])

    def push(self, x: Pixels, nets: Networks, table: Histograms) -> None:
        means, deviations = posterior(nets, x)
        z = self.coder.decode(self.gaussian, means, deviations)
        bins, symbols = self.bins(z, nets, table), _symbols(x, table.n_values)
        for at in np.unique(bins).tolist():
            self.coder.encode_reverse(symbols[bins == at], table.model(at))
        self.coder.encode_reverse(z, self.prior)

    def pop(self, n: int, shape: tuple[int, int, int], nets: Networks, table: Histograms) -> Pixels:
        z = self.coder.decode(self.prior, n * self.n_latent)
        bins = self.bins(z, nets, table)
        symbols = np.zeros(len(bins), np.int32)
        for at in reversed(np.unique(bins).tolist()):
            chosen = bins == at
            symbols[chosen] = self.coder.decode(table.model(at), int(chosen.sum()))
        x = (symbols * (255 if table.n_values == 2 else 1)).astype(np.uint8).reshape(n, *shape)
        self.coder.encode_reverse(z, self.gaussian, *posterior(nets, x))
        return x


class BitsBack:
    """The codec of a latent-variable model; nothing is lost."""

    lossless = True

    def __init__(self, model: Any):
        self.nets = networks_of(model)

    def pack(self, images: Pixels, progress: Callable[[int], object], quality: float | None = None) -> Coded:
        packed = compress(images, self.nets, progress)
        batches = [(size, len([*group])) for size, group in groupby(packed.batches)]
        return Coded(packed.words, {"values": values_of(images), "batches": batches, "borrowed": packed.n_borrowed})

    def unpack(self, coded: Coded, n: int, shape: tuple[int, int, int], progress: Callable[[int], object]) -> Pixels:
        facts = coded.facts
        batches = [size for size, times in facts["batches"] for _ in range(times)]
        return decompress(Packed(coded.words, batches, facts["borrowed"]), shape, facts["values"], self.nets, progress)
