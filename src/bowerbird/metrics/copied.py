"""Copied spans: how much of a sequence stands, symbol by symbol, in the training sequences.

The *match* of a position is the length of the longest span that begins there and occurs anywhere in training (its
matching statistics).  It is exact for any length, and no span runs over the end of a sequence.

Method.  Windows of ``w`` symbols are packed into one integer each; sorted, they stand as in a dictionary.  A position
whose window is not in training has its match from the two nearest training windows in that order.  The others are
sorted by doubling, as suffix arrays are built (Larsson and Sadakane 2007, Theoretical Computer Science 387): those
equal in the first h symbols are told apart by the rank of what follows, so each round doubles h.  Only classes that
hold training *and* query positions go on to the next round; in texts these soon are few.  At the end the best match of
a position stands next to it in the order, and its length is read off the ranks of all rounds: equal ranks in the round
of h symbols mean that h symbols agree.

Time: sorting N integers and about log2(longest match / w) ever shorter rounds: seconds for 10 million symbols.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

Symbols = Int[np.ndarray, "_"]
"""One sequence; of a list each has a length of its own."""

TRAINING_END, QUERY_END, UNKNOWN = 0, 1, 2
"""Symbols after each training sequence and after each query, and in training for all that no query contains."""


def matches(queries: Sequence[Symbols], training: Sequence[Symbols]) -> list[Symbols]:
    """For every position of every query, the length in symbols of the longest span from there that is in training.

    Symbols are integers ≥ 0, best not above a few millions (a table of that size is made).
    """
    known, asked = _joined(training, TRAINING_END), _joined(queries, QUERY_END)
    symbols, width = _renumbered(known, asked)
    n = len(known)
    w = 62 // width
    packed = _packed(symbols, width, w)
    length = _short_matches(packed[:n], packed[n:], width, w)
    if (length == w).any():
        long = np.flatnonzero(length == w)
        length[long] = _long_matches(packed, n, long, width, w)
    ends = np.cumsum([len(query) + 1 for query in queries])
    return [part[:-1] for part in np.split(length, ends[:-1])]


def covered(match: Int[np.ndarray, " length"], span: int) -> int:
    """How many positions lie in a copied span of at least ``span`` ≥ 1 symbols, from the ``matches`` of a sequence."""
    reach = np.where(match >= span, match + np.arange(len(match)), 0)
    return int((np.maximum.accumulate(reach) > np.arange(len(match))).sum()) if len(match) else 0


def longest(match: Int[np.ndarray, " length"]) -> int:
    """The longest copied span of a sequence, from its ``matches``."""
    return int(match.max(initial=0))


def _joined(sequences: Sequence[Symbols], end: int) -> Int[np.ndarray, " total"]:
    """All sequences, each symbol raised by 2 to make room for ``end``, which follows every one of them."""
    parts = [part for sequence in sequences for part in (sequence.astype(np.int64) + 2, np.array([end]))]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _renumbered(
    known: Int[np.ndarray, " n"], asked: Int[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " total"], int]:  # fmt: skip
    """Both, one after the other, with small numbers for the symbols of ``asked``, and the bits that these need."""
    used = np.zeros(max(int(known.max(initial=0)), int(asked.max(initial=0)), 2) + 1, dtype=bool)
    used[asked] = True
    used[:2] = False
    number = np.where(used, UNKNOWN + np.cumsum(used), UNKNOWN)
    number[TRAINING_END], number[QUERY_END] = TRAINING_END, QUERY_END
    return number[np.concatenate([known, asked])], int(number.max()).bit_length()


def _packed(symbols: Int[np.ndarray, " total"], width: int, w: int) -> Int[np.ndarray, " total"]:
    """The w symbols from each position on as one integer of w·width bits, the first one on top; 0 after the end."""
    padded = np.concatenate([symbols, np.zeros(w, np.int64)])
    packed = np.zeros(len(symbols), np.int64)
    for i in range(w):
        packed = packed << width | padded[i : i + len(symbols)]
    return packed


def _short_matches(
    known: Int[np.ndarray, " n"], asked: Int[np.ndarray, " m"], width: int, w: int
) -> Int[np.ndarray, " m"]:
    """Matches up to w symbols: the longer of those with the nearest training windows below and above."""
    length = np.zeros(len(asked), np.int64)
    if not len(known):
        return length
    ordered = np.sort(known)
    above = np.searchsorted(ordered, asked).clip(max=len(known) - 1)
    for neighbour in (ordered[above], ordered[(above - 1).clip(min=0)]):
        np.maximum(length, _agreeing(asked, neighbour, width, w), out=length)
    return length


def _agreeing(
    a: Int[np.ndarray, " m"], b: Int[np.ndarray, " m"], width: int, w: int
) -> Int[np.ndarray, " m"]:  # fmt: skip
    """In how many symbols from the first one on two packed windows agree."""
    return sum((a >> width * i == b >> width * i for i in range(w)), start=np.zeros(len(a), np.int64))


def _long_matches(
    packed: Int[np.ndarray, " total"], n: int, queries: Int[np.ndarray, " q"], width: int, w: int
) -> Int[np.ndarray, " q"]:
    """Matches of the query positions (counted from n) whose window of w symbols occurs in training."""
    rounds = _ranks_by_doubling(packed, n, w)
    final = rounds[-1]
    holder = np.full(len(packed), -1)  # of each final rank that training has, one of its positions
    holder[final[:n]] = np.arange(n)
    slots, last = np.arange(len(packed)), len(packed) - 1
    below = np.maximum.accumulate(np.where(holder >= 0, slots, 0))
    above = np.minimum.accumulate(np.where(holder >= 0, slots, last)[::-1])[::-1]
    position = n + queries
    best = np.zeros(len(queries), np.int64)
    for nearest in (holder[below[final[position]]], holder[above[final[position]]]):
        neighbour = nearest.clip(min=0)  # where there is none on this side, any training position does no harm
        length = np.zeros(len(queries), np.int64)
        for i, rank in reversed(list(enumerate(rounds))):
            length += (w << i) * (rank[position + length] == rank[neighbour + length])
        length += _agreeing(packed[position + length], packed[neighbour + length], width, w)
        np.maximum(best, length, out=best)
    return best


def _ranks_by_doubling(packed: Int[np.ndarray, " total"], n: int, w: int) -> list[Int[np.ndarray, " total"]]:
    """Ranks by the first w, 2w, 4w … symbols; a training and a query position share one exactly if these are equal.

    A class's rank is the number of positions before it.  Classes of training alone, or of queries alone, are not
    refined any further.  The first of these hold all training windows between two windows of queries; what follows is
    therefore sorted by its window too, so that all members of a class agree with a query in equally many symbols.
    """
    windows = np.unique(packed[n:])
    slot = np.searchsorted(windows, packed)
    coarse = 2 * slot + (windows[slot.clip(max=len(windows) - 1)] == packed)  # odd: a window that queries have
    size = np.bincount(coarse)
    rank = (np.cumsum(size) - size)[coarse]
    mixed = np.bincount(coarse[:n], minlength=len(size)) > 0
    mixed[::2] = False
    active = np.flatnonzero(mixed[coarse])
    rounds, h = [rank.astype(np.int32 if len(rank) < 2**31 else np.int64)], w
    while len(active):
        key, window = rank[active] * len(rank) + rank[active + h], packed[active + h]
        order = np.lexsort((window, key))
        active, key, window = active[order], key[order], window[order]
        starts = np.flatnonzero((np.diff(key, prepend=-1) != 0) | (np.diff(window, prepend=-1) != 0))
        group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(key)))
        old = rank[active]
        old_start = np.searchsorted(old, old[starts])
        rank[active] = old + (starts - old_start)[group]
        trained = np.add.reduceat(active < n, starts, dtype=np.int64)
        mixed = (trained > 0) & (trained < np.diff(starts, append=len(key)))
        active = active[mixed[group]]
        rounds.append(rank.astype(rounds[0].dtype))
        h *= 2
    return rounds
