"""The quick self-test: closed forms and identities that every metric must reproduce before a number is printed.

It runs in a fraction of a second, needs no data and no weights but the shipped ones, and is independent of the tests
of this package: it checks the installation that is about to report something.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from bowerbird.metrics.bits import bits_per_dim
from bowerbird.metrics.features import Extractor
from bowerbird.metrics.frechet import Gaussian, Moments, fit_gaussian, frechet_distance
from bowerbird.metrics.kid import kernel, kid
from bowerbird.metrics.neighbours import memorisation, wilson
from bowerbird.metrics.pixelwise import psnr, sliced_wasserstein, ssim
from bowerbird.metrics.prdc import prdc
from bowerbird.metrics.scores import diversity, inception_score

BATCH_TOLERANCE = 1e-4
"""Largest relative change of a feature with the batch size."""


class Check(NamedTuple):
    """One thing that was recomputed."""

    name: str
    expected: float
    found: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return abs(self.found - self.expected) <= self.tolerance

    def to_json(self) -> dict[str, object]:
        return {**self._asdict(), "passed": self.passed}


def quick_checks(extractor: Extractor) -> list[Check]:
    """Every closed form, identity and symmetry; ``extractor`` is tried with two batch sizes."""
    return [*_frechet(), *_kernel(), *_neighbours(), *_scores(), *_pixels(), batch_invariance(extractor)]


def _normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def _frechet() -> Iterator[Check]:
    std_a, std_b = torch.arange(1.0, 5).double(), torch.tensor([2.0, 2, 1, 3]).double()
    a = Gaussian(100, torch.zeros(4).double(), full=std_a.square().diag())
    b = Gaussian(100, torch.tensor([1.0, 0, -2, 0]).double(), full=std_b.square().diag())
    yield Check("Fréchet distance of two Gaussians with a closed form", 5 + 1 + 4 + 1, frechet_distance(a, b), 1e-9)
    x, y = _normal(300, 6, 0), 1.5 * _normal(200, 6, 1) + 0.2
    fitted, other = fit_gaussian(x), fit_gaussian(y)
    yield Check("Fréchet distance of a set and itself", 0, frechet_distance(fitted, fitted), 1e-9)
    there, back = frechet_distance(fitted, other), frechet_distance(other, fitted)
    yield Check("Fréchet distance, the two sets swapped", there, back, 1e-9)
    moments = Moments(6)
    for part in y.split(37):
        moments.update(part)
    yield Check("Fréchet distance from streamed batches", there, frechet_distance(fitted, moments.gaussian()), 1e-9)
    few = fit_gaussian(_normal(5, 6, 2))
    dense = Gaussian(5, few.mean, full=few.covariance)
    yield Check(
        "Fréchet distance of fewer images than dimensions", frechet_distance(dense, fitted),
        frechet_distance(few, fitted), 1e-6,
    )  # fmt: skip


def _kernel() -> Iterator[Check]:
    x, y = _normal(9, 3, 3).double(), _normal(7, 3, 4).double() + 1
    within = [
        sum((float(u @ v) / 3 + 1) ** 3 for i, u in enumerate(z) for j, v in enumerate(z) if i != j) for z in (x, y)
    ]
    direct = within[0] / (9 * 8) + within[1] / (7 * 6) - 2 * float(kernel(x, y).mean())
    yield Check("KID, pair by pair", direct, kid(samples=x, reference=y).value, 1e-9)
    yield Check("KID, the two sets swapped", direct, kid(samples=y, reference=x).value, 1e-9)


def _neighbours() -> Iterator[Check]:
    reference, samples = torch.tensor([[0.0], [1], [2], [10]]), torch.tensor([[0.5], [1.0], [30]])
    line = prdc(samples=samples, reference=reference, k_manifold=1, k_density=1)
    for name, expected in (("precision", 2 / 3), ("recall", 1), ("density", 5 / 3), ("coverage", 3 / 4)):
        yield Check(f"{name} of points on a line", expected, getattr(line, name), 1e-12)
    x, y = _normal(60, 2, 5), 0.5 * _normal(50, 2, 6)
    found, swapped = prdc(samples=x, reference=y), prdc(samples=y, reference=x)
    yield Check("precision is the recall of the swapped sets", swapped.recall, found.precision, 0)
    yield Check("recall is the precision of the swapped sets", swapped.precision, found.recall, 0)
    yield Check("coverage of a set by itself", 1, prdc(samples=x, reference=x).coverage, 0)
    copied = memorisation(samples=x[:30], training=x, held_out=y)
    yield Check("memorisation ratio of copies", 0, copied.ratio, 1e-6)
    yield Check("upper end of the interval of 0 in 10", 0.27754, wilson(0, 10)[1], 1e-4)


def _scores() -> Iterator[Check]:
    sure = torch.eye(5).repeat(4, 1).log()
    yield Check("inception score of 5 sure classes", 5, inception_score(sure)[0], 1e-9)
    yield Check(
        "inception score of a classifier that knows nothing",
        1,
        inception_score(torch.full((9, 4), 0.25).log())[0],
        1e-9,
    )
    x = _normal(40, 3, 7)
    yield Check("diversity of a set and itself", 1, diversity(samples=x, reference=x)[0], 1e-9)
    yield Check("diversity of twice as wide a set", 2, diversity(samples=2 * x, reference=x)[0], 1e-6)
    yield Check("bits per dimension of 256 equally likely values", 8, bits_per_dim(100 * math.log(256), 100), 1e-12)


def _pixels() -> Iterator[Check]:
    x = torch.randint(0, 200, (20, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(8))
    yield Check("sliced Wasserstein of a set and itself", 0, sliced_wasserstein(samples=x, reference=x)[0], 1e-9)
    shifted, error = sliced_wasserstein(samples=x + 10, reference=x)
    yield Check("sliced Wasserstein of images 10 grey levels brighter", 10, shifted, 5 * error)
    yield Check("PSNR of an error of 10 grey levels", 20 * math.log10(25.5), psnr(x, x + 10)[0], 1e-9)
    yield Check("SSIM of equal images", 1, float(ssim(x, x).min()), 1e-9)


def batch_invariance(extractor: Extractor) -> Check:
    """The largest change of a feature when 12 images pass 5 at a time instead of together, over the largest feature."""
    images = torch.randint(0, 256, (12, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    whole, parts = extractor.features(images, batch_size=12), extractor.features(images, batch_size=5)
    change = float((whole - parts).abs().max() / whole.abs().max())
    return Check(f"features of {extractor.name} in other batches", 0, change, BATCH_TOLERANCE)
