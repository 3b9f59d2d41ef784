"""Paired timing: two pieces of work in turn, A B A B …, and the median of the ratios of their CPU times.

A pair runs within moments on the same processor, so a machine that slows down slows both, and the ratio holds.
"""

import statistics
import time
from collections.abc import Callable


def compare(name: str, ours: Callable[[], object], peer: Callable[[], object], peer_name: str, pairs: int = 5) -> float:
    """Prints and returns how many times faster ``ours`` is than ``peer``."""
    ours(), peer()
    times = [(_seconds(ours), _seconds(peer)) for _ in range(pairs)]
    ratios = [b / a for a, b in times]
    ratio = statistics.median(ratios)
    print(
        f"{name}: {statistics.median(a for a, _ in times) * 1e3:.1f} ms, "
        f"{ratio:.2f} times as fast as {peer_name} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    return ratio


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
