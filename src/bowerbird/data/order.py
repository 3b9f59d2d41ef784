"""The order of examples: a pure function of (seed, epoch, position), so that resuming repeats it exactly.

The infinite sequence is one permutation of 0…n−1 after another, epoch e being positions e·n … (e+1)·n − 1.  Nothing
is stored between calls but a cache.

Examples of unequal length are padded to the longest of their batch.  Given ``lengths``, the same permutation is sorted
by length within windows of ``WINDOW`` batches, cut into batches, and the batches are shuffled: every epoch still sees
each example once, and most of the padding is gone.
"""

import hashlib
from functools import lru_cache

import torch
from jaxtyping import Int64
from torch import Tensor


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    # Hashing makes (seed, epoch) and (seed + 1, epoch − 1) unrelated, which a sum would not.
    mixed = int.from_bytes(hashlib.sha256(f"order {seed} {epoch}".encode()).digest()[:8], "little") >> 1
    return torch.randperm(n, generator=torch.Generator().manual_seed(mixed))


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
        order = _permutation(n, seed, epoch) if lengths is None else _by_length(lengths, seed, epoch, count)
        pieces.append(order[offset:stop])
        position += stop - offset
    return torch.cat(pieces)
