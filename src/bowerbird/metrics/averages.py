"""Averages over examples that are taken to be independent, with their standard errors."""

import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Shaped

T = TypeVar("T")

Average = tuple[float, float | None]
"""A value and its standard error, None where one example alone cannot tell."""


def mean(values: Sequence[float] | Shaped[np.ndarray, " n"]) -> Average:
    """The mean of n values and s/√n; not a number for n = 0."""
    x = np.asarray(values, dtype=np.float64)
    if not len(x):
        return float("nan"), None
    return float(x.mean()), float(x.std(ddof=1) / len(x) ** 0.5) if len(x) > 1 else None


def ratio(
    numerators: Shaped[np.ndarray, " n"] | Sequence[float], denominators: Shaped[np.ndarray, " n"] | Sequence[float]
) -> Average:
    """Σ a / Σ b over n examples, such as nats and tokens of documents; not a number where Σ b = 0.

    Its standard error to first order (delta method): √(n/(n-1) Σ (a - ratio·b)²) / Σ b.
    """
    a, b = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    total = b.sum()
    if total == 0:
        return float("nan"), None
    value = a.sum() / total
    if len(a) < 2:
        return float(value), None
    return float(value), float(np.sqrt(len(a) / (len(a) - 1) * np.square(a - value * b).sum()) / total)


def overlap(a: Shaped[np.ndarray, "*n bins"], b: Shaped[np.ndarray, " bins"]) -> Float[np.ndarray, "*n"]:
    """The area that histograms share once each sums to 1: Σ min(a, b), from 0 (nothing in common) to 1 (equal)."""
    a_share = a / np.maximum(a.sum(-1, keepdims=True), 1)
    return np.asarray(np.minimum(a_share, b / max(b.sum(), 1)).sum(-1))


def subset(items: Sequence[T], n: int) -> list[T]:
    """n items chosen at random, always the same ones, in their order; all when there are not more."""
    if n >= len(items):
        return list(items)
    return [items[i] for i in sorted(random.Random(0).sample(range(len(items)), n))]
