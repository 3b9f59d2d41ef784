"""Distances between distributions, in an extractor's features.  Fréchet and kernel distances use all images given.

Wherever fewer images than given enter, they are chosen at random with a fixed seed, and the protocol has their number.
"""

import warnings
from dataclasses import replace

from bowerbird import registry
from bowerbird.measuring.context import Compared, Context
from bowerbird.measuring.metric import Metric
from bowerbird.metrics.chosen import subset
from bowerbird.metrics.frechet import Gaussian, frechet_distance, too_few
from bowerbird.metrics.infinity import frechet_infinity
from bowerbird.metrics.kid import KID, kid, kid_of_subsets
from bowerbird.metrics.measurement import Measurement, settings
from bowerbird.metrics.progress_bar import progress_bar

FEWEST = 50
"""Fewest reference images of a Fréchet distance: a covariance of fewer says nothing, whatever the features."""
MOST = 10_000
"""Most images that enter metrics whose cost grows with their square."""
N_SUBSETS, SUBSET_SIZE = 100, 1000
"""Of the kernel distance as papers print it."""


def _gaussians(context: Context) -> tuple[Gaussian, Gaussian]:
    """Of samples and reference; features of samples are kept where another metric needs them too."""
    sets: Compared = context["features"]
    if warning := too_few(min(sets.samples.n, sets.reference.n), sets.extractor.dimension):
        warnings.warn(warning, stacklevel=2)
    if any("features" in metric.needs for metric in context.chosen if not isinstance(metric, FrechetDistance)):
        sets.all("samples")
    with progress_bar("features of samples", sets.samples.n) as progress:
        made = sets.samples.gaussian(progress)
    with progress_bar("features of reference", sets.reference.n) as progress:
        return made, sets.reference.gaussian(progress)


@registry.metrics.register("frechet_distance")
class FrechetDistance(Metric):
    also = (
        "fid",
        "fd",
    )
    better, title = "lower", "Fréchet distance"
    reading = (
        "squared distance between two Gaussians fitted to the features of samples and of real images; 0 is identical; "
        "it falls with the number of images, so only equal numbers compare"
    )
    needs = ("features",)
    fewest = FEWEST
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        return [self.measurement(frechet_distance(*context.once(_gaussians)), context["features"].protocol)]


@registry.metrics.register("frechet_distance_infinity")
class FrechetDistanceInfinity(Metric):
    also = ("fid_infinity",)
    better, title = "lower", "Fréchet distance, n → ∞"
    reading = (
        "extrapolated to endlessly many samples, so that its bias no longer depends on the model; the reference keeps "
        "its size"
    )
    needs = ("features",)
    fewest = FEWEST

    def compute(self, context: Context) -> list[Measurement]:
        sets: Compared = context["features"]
        if sets.samples.n < 2 * sets.extractor.dimension:
            warnings.warn(
                f"{sets.samples.n} samples are too few to extrapolate in {sets.extractor.dimension} feature "
                "dimensions: at half of them the Fréchet distance no longer lies on a line in 1/n.",
                stacklevel=2,
            )
        _, real = context.once(_gaussians)
        found = frechet_infinity(samples=sets.all("samples"), reference=real)
        return [self.measurement(found.value, sets.protocol, found.stderr, (found.low, found.high))]


@registry.metrics.register("kid")
class KernelDistance(Metric):
    better, title = "lower", "kernel distance (KID)"
    reading = (
        "squared kernel distance between features, without bias: 0 within its error for equal distributions, and "
        "comparable across numbers of samples as far as its error allows"
    )
    needs = ("features",)
    fewest = 10
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        sets: Compared = context["features"]
        x, y = subset(sets.all("samples"), MOST), subset(sets.all("reference"), MOST)
        value, stderr = kid(samples=x, reference=y)
        return [self.measurement(value, replace(sets.common, n_generated=len(x), n_reference=len(y)), stderr)]


def _over_subsets(context: Context) -> KID:
    sets: Compared = context["features"]
    samples, reference = sets.all("samples"), sets.all("reference")
    return kid_of_subsets(samples=samples, reference=reference, n_subsets=N_SUBSETS, subset_size=_size(sets))


def _size(sets: Compared) -> int:
    return min(SUBSET_SIZE, sets.samples.n, sets.reference.n)


class _OverSubsets(Metric):
    needs = ("features",)
    fewest = 10
    part: str

    def compute(self, context: Context) -> list[Measurement]:
        sets: Compared = context["features"]
        parameters = settings({"subsets": N_SUBSETS, "subset_size": _size(sets)})
        value = getattr(context.once(_over_subsets), self.part)
        return [self.measurement(value, replace(sets.protocol, parameters=parameters))]


@registry.metrics.register("kid_subset_mean")
class MeanOverSubsets(_OverSubsets):
    better, title, part = "lower", "KID, mean over subsets", "value"
    reading = "the same as papers print it: the mean over random subsets"


@registry.metrics.register("kid_subset_std")
class SpreadOverSubsets(_OverSubsets):
    title, part = "KID, spread over subsets", "spread"
    reading = "standard deviation over the subsets, which is no error of their mean"
