"""Checks of the exercises on measuring."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F

from bowerbird.reading.learn.checks import Observation, checks, seen


@checks("perplexity")
def perplexity(answer: Any) -> Iterator[Observation]:
    vocab = 20
    logits, targets = torch.randn(12, 7, vocab) * 2, torch.randint(0, vocab, (12, 7))
    targets[3:, 5:] = -100
    targets[9:, 1:] = -100
    counted = targets != -100
    exact = F.cross_entropy(logits[counted], targets[counted]).exp().item()
    for sizes in ((12,), (9, 3), (1, 5, 6)):
        batches = list(zip(logits.split(sizes), targets.split(sizes), strict=True))
        got = float(answer.perplexity(batches))
        yield seen(abs(got / exact - 1) < 1e-4, "batches", sizes=sizes, got=got, exact=exact)
    uniform = float(answer.perplexity([(torch.zeros(2, 5, vocab), torch.zeros(2, 5, dtype=torch.long))]))
    yield seen(abs(uniform - vocab) < 1e-3, "uniform", vocab=vocab, uniform=uniform)


@checks("frechet-distance")
def frechet_distance(answer: Any) -> Iterator[Observation]:
    rng = np.random.default_rng(0)
    d = 5

    def covariance(rank: int) -> np.ndarray:
        factor = rng.normal(size=(d, rank))
        return factor @ factor.T

    m = rng.normal(size=d)
    one, other, thin = covariance(d), covariance(d), covariance(2)
    diagonal = [np.diag(rng.uniform(0.5, 3, d)) for _ in range(2)]
    commuting = ((np.sqrt(np.diag(diagonal[0])) - np.sqrt(np.diag(diagonal[1]))) ** 2).sum()
    exact = np.trace(one + other - 2 * scipy.linalg.sqrtm(one @ other).real)
    cases = (
        ("itself", (m, one, m, one), 0.0),
        ("moved", (m, one, m + 2 / np.sqrt(d), one), 4.0),
        ("diagonal", (m, diagonal[0], m, diagonal[1]), commuting),
        ("general", (m, one, m, other), exact),
        ("singular", (m, thin, m, thin), 0.0),
    )
    for case, arguments, wanted in cases:
        got = answer.frechet_distance(*arguments)
        value = float(np.real(got))
        yield seen(abs(value - wanted) < 1e-5 * (1 + np.trace(one)), case, value=value, wanted=wanted)
