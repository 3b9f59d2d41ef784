"""Checks of the exercises on measuring."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F

from bowerbird.reading.learn.checks import Observation, checks


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
        yield Observation(
            abs(got / exact - 1) < 1e-4,
            f"In batches of {sizes} rows the perplexity is {got:.4f}; of all tokens at once it is {exact:.4f}.",
            f"按每批 {sizes} 行计算，困惑度是 {got:.4f}；所有词元一起算是 {exact:.4f}。",
        )
    uniform = float(answer.perplexity([(torch.zeros(2, 5, vocab), torch.zeros(2, 5, dtype=torch.long))]))
    yield Observation(
        abs(uniform - vocab) < 1e-3,
        f"A model that knows nothing of {vocab} tokens has perplexity {uniform:.4g}; it should be {vocab}.",
        f"对 {vocab} 个词元一无所知的模型，困惑度是 {uniform:.4g}；应为 {vocab}。",
    )


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
        ("a Gaussian and itself", "一个高斯与自己", (m, one, m, one), 0.0),
        ("one moved by a vector of length 2", "平移长度为 2 的向量", (m, one, m + 2 / np.sqrt(d), one), 4.0),
        ("diagonal covariances", "对角协方差", (m, diagonal[0], m, diagonal[1]), commuting),
        ("covariances that do not commute", "不可交换的协方差", (m, one, m, other), exact),
        ("a singular covariance and itself", "奇异协方差与自己", (m, thin, m, thin), 0.0),
    )
    for en, zh, arguments, wanted in cases:
        got = answer.frechet_distance(*arguments)
        value = float(np.real(got))
        yield Observation(
            abs(value - wanted) < 1e-5 * (1 + np.trace(one)),
            f"For {en} the distance is {value:.5g}; it should be {wanted:.5g}.",
            f"{zh}：距离是 {value:.5g}；应为 {wanted:.5g}。",
        )
