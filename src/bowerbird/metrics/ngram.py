"""The bigram baseline: how well the one previous token predicts the next.

    p(b | a) = (c(a, b) + k p(b)) / (c(a) + k),        p(b) = (c(b) + 1) / (N + vocab_size)

c counts pairs and tokens in training, N is the number of predicted tokens, and p(b) weighs as much as k tokens: the
more, the rarer a is.  (MacKay and Peto 1995, *A hierarchical Dirichlet language model*, Natural Language Engineering 1,
with one k for all a.)  k is the one of ``STRENGTHS`` with the lowest loss on validation sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from bowerbird.errors import BowerbirdError

Tokens = Int[np.ndarray, "_"]

STRENGTHS = tuple(float(k) for k in 2.0 ** np.arange(-4, 13))
"""Values of k that are tried."""


@dataclass(frozen=True)
class Bigram:
    """Counts of training and the k that was chosen."""

    vocab_size: int
    pairs: Int[np.ndarray, " kinds"]
    """The pairs a · vocab_size + b that occur, ascending."""
    pair_counts: Int[np.ndarray, " kinds"]
    before: Int[np.ndarray, " vocab_size"]
    """c(a): how often a token is followed by another."""
    unigram: Float[np.ndarray, " vocab_size"]
    """p(b)."""
    k: float

    def nll(self, tokens: Tokens) -> Float[np.ndarray, " predicted"]:
        """Nats of each token but the first, which is given."""
        a, b = tokens[:-1], tokens[1:]
        return -np.log((self._count(a, b) + self.k * self.unigram[b]) / (self.before[a] + self.k))

    def _count(self, a: Tokens, b: Tokens) -> Int[np.ndarray, " n"]:
        """c(a, b)."""
        if not len(self.pairs):
            return np.zeros(len(a), np.int64)
        pair = a.astype(np.int64) * self.vocab_size + b
        slot = np.searchsorted(self.pairs, pair).clip(max=len(self.pairs) - 1)
        return np.where(self.pairs[slot] == pair, self.pair_counts[slot], 0)


def fit_bigram(training: Sequence[Tokens], validation: Sequence[Tokens], vocab_size: int) -> Bigram:
    """The bigram model of the training sequences; every sequence begins with a token that is given, such as bos."""
    if not any(len(tokens) > 1 for tokens in training) or not any(len(tokens) > 1 for tokens in validation):
        raise BowerbirdError("A bigram needs training and validation sequences of at least two tokens.")
    if max(int(tokens.max(initial=0)) for tokens in (*training, *validation)) >= vocab_size:
        raise BowerbirdError(f"The sequences have tokens beyond the vocabulary of {vocab_size}.")
    a = np.concatenate([tokens[:-1] for tokens in training]).astype(np.int64)
    b = np.concatenate([tokens[1:] for tokens in training]).astype(np.int64)
    pairs, counts = np.unique(a * vocab_size + b, return_counts=True)
    unigram = (np.bincount(b, minlength=vocab_size) + 1) / (len(b) + vocab_size)
    before = np.bincount(a, minlength=vocab_size)
    models = [Bigram(vocab_size, pairs, counts, before, unigram, k) for k in STRENGTHS]
    return min(models, key=lambda model: sum(float(model.nll(tokens).sum()) for tokens in validation))
