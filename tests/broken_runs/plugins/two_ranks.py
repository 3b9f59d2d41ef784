"""Two processes that share their first weights and average nothing: each sees examples of its own.

The second process writes what it sees into signals-rank1.jsonl beside the first one's signals.
"""

import os

from torch import Tensor

from bowerbird.data import order
from bowerbird.diagnosis import watch

RANK = int(os.environ.get("RANK", "0"))
_indices = order.indices


def indices(n: int, seed: int, start: int, count: int, lengths: Tensor | None = None) -> Tensor:
    return _indices(n, seed + RANK, start, count, lengths)


order.indices = indices
if RANK:
    watch.FILE = f"signals-rank{RANK}.jsonl"
