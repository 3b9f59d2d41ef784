"""The order of examples: a pure function of (seed, epoch, position), so that resuming repeats it exactly.

The infinite sequence is one permutation of 0…n−1 after another, epoch e being positions e·n … (e+1)·n − 1.  Nothing
is stored between calls but a cache.
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


def indices(n: int, seed: int, start: int, count: int) -> Int64[Tensor, "count"]:
    """Which of n examples stand at positions start … start + count − 1.  Every epoch sees each example once."""
    if n < 1 or start < 0 or count < 0:
        raise ValueError(f"indices needs n >= 1, start >= 0 and count >= 0, not n={n}, start={start}, count={count}.")
    pieces = [torch.empty(0, dtype=torch.int64)]
    position, end = start, start + count
    while position < end:
        epoch, offset = divmod(position, n)
        stop = min(n, offset + end - position)
        pieces.append(_permutation(n, seed, epoch)[offset:stop])
        position += stop - offset
    return torch.cat(pieces)
