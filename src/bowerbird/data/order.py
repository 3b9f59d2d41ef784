"""The order of examples: a pure function of (seed, epoch, position), so that resuming repeats it exactly.

The infinite sequence is one permutation of 0…n−1 after another, epoch e being positions e·n … (e+1)·n − 1.  Up to
``LARGEST_SHUFFLED`` examples a permutation is shuffled whole and cached; above, position i is computed on its own, and
nothing is stored (``keyed``).

Examples of unequal length are padded to the longest of their batch.  Given ``lengths``, the same permutation is sorted
by length within windows of ``WINDOW`` batches, cut into batches, and the batches are shuffled: every epoch still sees
each example once, and most of the padding is gone.
"""

import hashlib
import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

LARGEST_SHUFFLED = 1 << 22
"""Examples.  Four cached permutations of this size take 134 MB; runs of smaller sets keep the order they always had."""
ROUNDS = 8


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    # Hashing makes (seed, epoch) and (seed + 1, epoch − 1) unrelated, which a sum would not.
    mixed = int.from_bytes(hashlib.sha256(f"order {seed} {epoch}".encode()).digest()[:8], "little") >> 1
    return torch.randperm(n, generator=torch.Generator().manual_seed(mixed))


def keyed(positions: Int64[np.ndarray, "b"], n: int, seed: int, epoch: int) -> Int64[np.ndarray, "b"]:
    """π(positions) for a permutation π of 0…n−1 that (seed, epoch) choose, without storing it.

    A number below a·b ≥ n is written as a pair (l, r), l < a, r < b, and its halves take turns (a Feistel network on
    residues, Black and Rogaway 2002):  l ← l + F₁(r) mod a,  r ← r + F₂(l) mod b,  …  Each round can be undone, so the
    whole is a permutation of 0…a·b−1.  What falls on n or above walks on along its cycle until it falls below.
    """
    digest = hashlib.sha512(f"order {seed} {epoch}".encode()).digest()
    a = math.isqrt(n - 1) + 1
    sides = (a, -(-n // a))
    x = positions.astype(np.uint64)
    outside = np.arange(len(x))
    while len(outside):
        x[outside] = _rounds(x[outside], sides, np.frombuffer(digest, "<u8", ROUNDS))
        outside = outside[x[outside] >= n]
    return x.astype(np.int64)


def _rounds(x: np.ndarray, sides: tuple[int, int], keys: np.ndarray) -> np.ndarray:
    halves = list(np.divmod(x, np.uint64(sides[1])))
    for number, key in enumerate(keys):
        side, mixed = number % 2, _mixed(halves[1 - number % 2] ^ key)
        size = np.uint64(sides[side])
        halves[side] += (mixed >> np.uint64(32)) * size >> np.uint64(32)  # a fraction in [0, 1) times the size
        halves[side] -= size * (halves[side] >= size)
    return halves[0] * np.uint64(sides[1]) + halves[1]


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of 64 depends on every other."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


WINDOW = 50
"""Batches within which examples are sorted: enough to find neighbours of equal length, too few to repeat company."""


@lru_cache(maxsize=4)
def _by_length(lengths: Tensor, seed: int, epoch: int, batch: int) -> Tensor:
    """The permutation of an epoch in which batches that lie wholly inside it hold examples of similar length."""
    order = _permutation(len(lengths), seed, epoch)
    lead = -epoch * len(lengths) % batch  # positions before the first batch that begins in this epoch
    whole = max(0, len(order) - lead) // batch * batch
    body = order[lead : lead + whole]
    if not len(body):
        return order
    batches = torch.cat([part[lengths[part].argsort(stable=True)] for part in body.split(WINDOW * batch)])
    shuffled = _permutation(whole // batch, seed, ~epoch)
    return torch.cat([order[:lead], batches.view(-1, batch)[shuffled].flatten(), order[lead + whole :]])


def indices(
    n: int, seed: int, start: int, count: int, lengths: Int64[Tensor, " n"] | None = None
) -> Int64[Tensor, "count"]:
    """Which of n examples stand at positions start … start + count − 1.  Every epoch sees each example once.

    ``lengths`` of the examples makes batches of similar ones; ``count`` is then the size of a batch, and ``start`` a
    multiple of it.
    """
    if n < 1 or start < 0 or count < 0:
        raise ValueError(f"indices needs n >= 1, start >= 0 and count >= 0, not n={n}, start={start}, count={count}.")
    pieces = [torch.empty(0, dtype=torch.int64)]
    position, end = start, start + count
    while position < end:
        epoch, offset = divmod(position, n)
        stop = min(n, offset + end - position)
        if lengths is not None:
            pieces.append(_by_length(lengths, seed, epoch, count)[offset:stop])
        elif n > LARGEST_SHUFFLED:
            pieces.append(torch.from_numpy(keyed(np.arange(offset, stop), n, seed, epoch)))
        else:
            pieces.append(_permutation(n, seed, epoch)[offset:stop])
        position += stop - offset
    return torch.cat(pieces)
