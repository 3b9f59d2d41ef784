"""Likelihoods of sequences on scales that compare: nats summed over documents, divided by what is counted in them.

Nats per token compare only between runs that share a tokeniser, since a larger vocabulary makes fewer and harder
tokens.  Per byte or character the same nats compare across tokenisers: the text is one and the same.

    bits per byte = Σ nll / (Σ bytes · ln 2),        perplexity = exp(Σ nll / Σ tokens)

Standard errors are over documents (or pieces), taken to be independent; segments of one running text are less so.
"""

import math

import numpy as np
from jaxtyping import Float, Shaped

from bowerbird.metrics.averages import Average, ratio


def bits_per(nll: float, count: float) -> float:
    """Bits per byte or character, nll / (count · ln 2), of ``nll`` nats over text of ``count`` ≥ 1 of them."""
    return nll / (count * math.log(2))


def perplexity(nll: float, tokens: float) -> float:
    """exp(nll / tokens) of ``nll`` nats over ``tokens`` ≥ 1; ∞ where it exceeds what a float holds."""
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return math.inf


def nats_per(
    nll: Float[np.ndarray, " n"], count: Shaped[np.ndarray, " n"] | int, tokens: Shaped[np.ndarray, " n"] | None = None
) -> Average:
    """Nats of n documents over what is counted in them, with the standard error over documents.

    ``count`` is the total where it is known of all documents alone; the error is then, relative to the value, that of
    the loss per token, or unknown without ``tokens``.
    """
    if isinstance(count, np.ndarray):
        return ratio(nll, count)
    value = float(nll.sum()) / count
    if tokens is None:
        return value, None
    _, stderr = ratio(nll, tokens)
    return value, None if stderr is None else stderr * float(tokens.sum()) / count
