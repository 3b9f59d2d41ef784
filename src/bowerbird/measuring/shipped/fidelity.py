"""Whether samples look real and whether all of the variety is there, in an extractor's features.

Precision, recall, density and coverage use equally many samples and reference images (their values depend on both
numbers), at most ``MOST``.
"""

import warnings
from dataclasses import replace
from typing import NamedTuple

from bowerbird import registry
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.context import Compared, Context, with_extractor
from bowerbird.measuring.metric import Metric
from bowerbird.metrics.chosen import subset
from bowerbird.metrics.measurement import Measurement, Protocol, settings
from bowerbird.metrics.prdc import K_DENSITY, K_MANIFOLD, PRDC, prdc
from bowerbird.metrics.scores import diversity, inception_score

MOST = 10_000
"""Most images of each side."""
FEW = 1000
"""Below this many images, shares of images inside neighbourhoods say little."""


class _Shares(NamedTuple):
    n: int
    found: PRDC


def _shares(context: Context) -> _Shares:
    sets: Compared = context["features"]
    n = min(sets.samples.n, sets.reference.n, MOST)
    if n <= K_DENSITY:
        raise BowerbirdError(
            f"Precision, recall, density and coverage need more than {K_DENSITY} images on each side; there are {n}."
        )
    if n < FEW:
        warnings.warn(
            f"{n} images are few for precision, recall, density and coverage: they compare only with values of exactly "
            f"{n} images on each side.",
            stacklevel=2,
        )
    samples, reference = subset(sets.all("samples"), n), subset(sets.all("reference"), n)
    return _Shares(n, prdc(samples=samples, reference=reference))


def enough(context: Context) -> bool:
    """Whether every side has the neighbours that shares of images inside neighbourhoods need."""
    return min(context["sizes"]) > K_DENSITY if context.has("sizes") else False


class _Share(Metric):
    better = "higher"
    needs = ("features",)
    fewest = 50
    k: int

    def by_default(self, context: Context) -> bool:
        return enough(context)

    def compute(self, context: Context) -> list[Measurement]:
        n, found = context.once(_shares)
        common = context["features"].common
        protocol = replace(common, n_generated=n, n_reference=n, parameters=settings({"k": self.k}))
        return [self.measurement(getattr(found, self.name), protocol, getattr(found, f"{self.name}_stderr"))]


@registry.metrics.register("precision")
class Precision(_Share):
    title, k = "precision", K_MANIFOLD
    reading = "share of samples that lie among the real images (do they look real?)"


@registry.metrics.register("recall")
class Recall(_Share):
    title, k = "recall", K_MANIFOLD
    reading = "share of real images that lie among the samples (is all of the variety there?)"


@registry.metrics.register("density")
class Density(_Share):
    title, k = "density", K_DENSITY
    reading = "like precision but robust to outliers: real neighbourhoods around each sample, 1 for real data"


@registry.metrics.register("coverage")
class Coverage(_Share):
    title, k = "coverage", K_DENSITY
    reading = "share of real images with a sample in their neighbourhood; about 0.97 for real data"


@registry.metrics.register("inception_score")
class InceptionScore(Metric):
    """Its protocol has no reference: it looks at the samples alone."""

    also = ("is",)
    better, title = "higher", "inception score"
    reading = (
        "how sure a classifier is of each sample and how many classes occur; sees no real images, at most the number "
        "of classes"
    )
    needs = ("features",)

    def compute(self, context: Context) -> list[Measurement]:
        sets: Compared = context["features"]
        protocol = with_extractor(Protocol(n_generated=sets.samples.n), sets.extractor)
        value, stderr = inception_score(sets.extractor.log_probabilities(sets.all("samples")))
        return [self.measurement(value, protocol, stderr)]


@registry.metrics.register("diversity")
class Diversity(Metric):
    title = "diversity"
    reading = (
        "mean distance between two samples over that between two real images: below 1 too uniform, above 1 too wild"
    )
    needs = ("features",)
    fewest = 10

    def by_default(self, context: Context) -> bool:
        """Where nothing is known of training images, between two folders, memorisation has no say."""
        return not context.has("training_features")

    def compute(self, context: Context) -> list[Measurement]:
        sets: Compared = context["features"]
        value, stderr = diversity(samples=sets.all("samples"), reference=sets.all("reference"))
        return [self.measurement(value, sets.protocol, stderr)]
