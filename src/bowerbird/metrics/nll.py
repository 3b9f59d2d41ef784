"""Likelihoods of sequences on scales that compare: nats summed over documents, divided by what is counted in them.

Nats per token compare only between runs that share a tokeniser, since a larger vocabulary makes fewer and harder
tokens.  Per byte or character the same nats compare across tokenisers: the text is one and the same.

    bits per byte = Σ nll / (Σ bytes · ln 2),        perplexity = exp(Σ nll / Σ tokens)

Standard errors are over documents (or pieces), taken to be independent; segments of one running text are less so.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Shaped

from bowerbird.errors import BowerbirdError, unknown
from bowerbird.metrics.averages import Average, ratio
from bowerbird.metrics.measurement import Measurement, Protocol, measured

PER = ("token", "byte", "character", "frame", "note")


def bits_per(nll: float, count: float) -> float:
    """Bits per byte or character, nll / (count · ln 2), of ``nll`` nats over text of ``count`` ≥ 1 of them."""
    return nll / (count * math.log(2))


def perplexity(nll: float, tokens: float) -> float:
    """exp(nll / tokens) of ``nll`` nats over ``tokens`` ≥ 1; ∞ where it exceeds what a float holds."""
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return math.inf


def measure_nll(
    nll: Float[np.ndarray, " n"],
    counts: Mapping[str, Shaped[np.ndarray, " n"] | int],
    *,
    bigram: Float[np.ndarray, " n"] | None = None,
    protocol: Protocol = Protocol(),
) -> list[Measurement]:
    """The loss of n documents in every unit for which ``counts`` has their numbers.

    ``nll`` has the nats of each document over all its predicted tokens; ``counts`` its numbers of ``PER``: token (only
    predicted ones), byte (UTF-8), character, frame, note; or the total of all documents, where only that is known (the
    standard error is then, relative to the value, that of the loss per token).  ``bigram`` has the nats of the bigram
    baseline for the same tokens.  ``protocol`` says of which data, and how they were read.
    """
    if not len(nll):
        raise BowerbirdError("There are no sequences whose likelihood could be measured.")
    protocol = replace(protocol, n_reference=len(nll))
    found = []
    for unit, count in counts.items():
        if unit not in PER:
            raise unknown("unit of a loss", unit, PER)
        value, stderr = _per(nll, count, counts.get("token"))
        if unit in ("byte", "character"):
            bits = None if stderr is None else bits_per(stderr, 1)
            found.append(measured(f"bits_per_{unit}", bits_per(value, 1), protocol, bits))
            continue
        found.append(measured(f"nll_per_{unit}", value, protocol, stderr))
        if unit == "token":
            spread = None if stderr is None else stderr * perplexity(value, 1)
            found.append(measured("perplexity", perplexity(value, 1), protocol, spread))
        if bigram is not None:
            value, stderr = _per(bigram, count, counts.get("token"))
            found.append(measured(f"bigram_nll_per_{unit}", value, protocol, stderr))
    return found


def _per(
    nll: Float[np.ndarray, " n"], count: Shaped[np.ndarray, " n"] | int, tokens: Shaped[np.ndarray, " n"] | int | None
) -> Average:
    if isinstance(count, np.ndarray):
        return ratio(nll, count)
    value = float(nll.sum()) / count
    if not isinstance(tokens, np.ndarray):
        return value, None
    _, stderr = ratio(nll, tokens)
    return value, None if stderr is None else stderr * float(tokens.sum()) / count
