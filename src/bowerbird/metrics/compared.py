"""Metrics of features: what two sets of images are like to an extractor, wherever the images came from.

Fréchet and kernel distances use all images given.  Precision, recall, density and coverage use equally many samples
and reference images (their values depend on both numbers), at most ``NEIGHBOURS``, and memorisation at most
``NEIGHBOURS`` samples and held-out images.  Wherever fewer images than given enter, they are chosen at random with a
fixed seed, and the protocol has their number.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.metrics.cache import FeatureSet
from bowerbird.metrics.chosen import subset
from bowerbird.metrics.features import Extractor
from bowerbird.metrics.frechet import frechet_distance, too_few
from bowerbird.metrics.infinity import frechet_infinity
from bowerbird.metrics.kid import kid, kid_of_subsets
from bowerbird.metrics.measurement import Measurement, Protocol, measured, settings, with_data
from bowerbird.metrics.neighbours import copies, memorisation, wilson
from bowerbird.metrics.prdc import prdc
from bowerbird.metrics.progress import progress_bar
from bowerbird.metrics.scores import diversity, inception_score

NEIGHBOURS = 10_000
"""Most images that enter metrics whose cost grows with their square."""
K_MANIFOLD, K_DENSITY = 3, 5
"""Neighbours of precision and recall; of density and coverage."""
N_SUBSETS, SUBSET_SIZE = 100, 1000
"""Of the kernel distance as papers print it."""
FEW_NEIGHBOURS = 1000
"""Below this many images, shares of images inside neighbourhoods say little."""

PRDC_METRICS = ("precision", "recall", "density", "coverage")
KID_SUBSET_METRICS = ("kid_subset_mean", "kid_subset_std")
MEMORISATION_METRICS = ("memorisation_ratio", "closer_to_training", "copied_fraction")
FEATURE_METRICS = (
    "frechet_distance",
    "frechet_distance_infinity",
    "kid",
    *KID_SUBSET_METRICS,
    *PRDC_METRICS,
    "inception_score",
    "diversity",
    *MEMORISATION_METRICS,
)


@dataclass(frozen=True)
class Compared:
    """Features of samples and of what they are compared with, and the protocol that all metrics of them share."""

    extractor: Extractor
    samples: FeatureSet
    reference: FeatureSet
    common: Protocol
    training: FeatureSet | None = None
    held_out: FeatureSet | None = None

    def all(self, name: str) -> Tensor:
        """Every feature of one of the four sets."""
        chosen: FeatureSet | None = getattr(self, name)
        if chosen is None:
            raise BowerbirdError("Memorisation needs the training images and held-out images of the same source.")
        with progress_bar(f"features of {name.replace('_', ' ')}", chosen.n) as progress:
            return chosen.all(progress)

    @property
    def protocol(self) -> Protocol:
        """Of metrics that use all samples and all of the reference."""
        return replace(self.common, n_generated=self.samples.n, n_reference=self.reference.n)


def measure_features(sets: Compared, metrics: Sequence[str]) -> list[Measurement]:
    """The chosen ``FEATURE_METRICS``, those that are cheap together computed together."""
    found: list[Measurement] = []
    for names, measure in _MEASURES:
        if set(names) & set(metrics):
            found += [m for m in measure(sets, metrics) if m.name in metrics]
    return found


def _frechet(sets: Compared, metrics: Sequence[str]) -> list[Measurement]:
    if warning := too_few(min(sets.samples.n, sets.reference.n), sets.extractor.dimension):
        warnings.warn(warning, stacklevel=2)
    needs_all = set(metrics) - {"frechet_distance"}
    if needs_all & set(FEATURE_METRICS):
        sets.all("samples")
    with progress_bar("features of samples", sets.samples.n) as progress:
        made = sets.samples.gaussian(progress)
    with progress_bar("features of reference", sets.reference.n) as progress:
        real = sets.reference.gaussian(progress)
    found = [measured("frechet_distance", frechet_distance(made, real), sets.protocol)]
    if "frechet_distance_infinity" in metrics:
        found.append(_infinity(sets))
    return found


def _infinity(sets: Compared) -> Measurement:
    if sets.samples.n < 2 * sets.extractor.dimension:
        warnings.warn(
            f"{sets.samples.n} samples are too few to extrapolate in {sets.extractor.dimension} feature dimensions: at "
            "half of them the Fréchet distance no longer lies on a line in 1/n.",
            stacklevel=2,
        )
    found = frechet_infinity(samples=sets.all("samples"), reference=sets.reference.gaussian())
    interval = (found.low, found.high)
    return measured("frechet_distance_infinity", found.value, sets.protocol, found.stderr, interval)


def _kid(sets: Compared, metrics: Sequence[str]) -> list[Measurement]:
    samples, reference = sets.all("samples"), sets.all("reference")
    found = []
    if "kid" in metrics:
        x, y = subset(samples, NEIGHBOURS), subset(reference, NEIGHBOURS)
        value, stderr = kid(samples=x, reference=y)
        protocol = replace(sets.common, n_generated=len(x), n_reference=len(y))
        found.append(measured("kid", value, protocol, stderr))
    if set(KID_SUBSET_METRICS) & set(metrics):
        size = min(SUBSET_SIZE, len(samples), len(reference))
        over = kid_of_subsets(samples=samples, reference=reference, n_subsets=N_SUBSETS, subset_size=size)
        protocol = replace(sets.protocol, parameters=settings({"subsets": N_SUBSETS, "subset_size": size}))
        found += [measured(name, value, protocol) for name, value in zip(KID_SUBSET_METRICS, over, strict=True)]
    return found


def _prdc(sets: Compared, metrics: Sequence[str]) -> list[Measurement]:
    n = min(sets.samples.n, sets.reference.n, NEIGHBOURS)
    if n <= K_DENSITY:
        raise BowerbirdError(
            f"Precision, recall, density and coverage need more than {K_DENSITY} images on each side; there are {n}."
        )
    if n < FEW_NEIGHBOURS:
        warnings.warn(
            f"{n} images are few for precision, recall, density and coverage: they compare only with values of exactly "
            f"{n} images on each side.",
            stacklevel=2,
        )
    samples, reference = subset(sets.all("samples"), n), subset(sets.all("reference"), n)
    found = prdc(samples=samples, reference=reference, k_manifold=K_MANIFOLD, k_density=K_DENSITY)
    neighbours = {"precision": K_MANIFOLD, "recall": K_MANIFOLD, "density": K_DENSITY, "coverage": K_DENSITY}
    return [
        measured(
            name,
            getattr(found, name),
            replace(sets.common, n_generated=n, n_reference=n, parameters=settings({"k": neighbours[name]})),
            stderr=getattr(found, f"{name}_stderr"),
        )
        for name in PRDC_METRICS
    ]


def _inception_score(sets: Compared, metrics: Sequence[str]) -> list[Measurement]:
    """Its protocol has no reference: it looks at the samples alone."""
    protocol = Protocol(
        n_generated=sets.samples.n, extractor=sets.common.extractor, extractor_sha256=sets.common.extractor_sha256,
        resizer=sets.common.resizer, dtype=sets.common.dtype,
    )  # fmt: skip
    value, stderr = inception_score(sets.extractor.log_probabilities(sets.all("samples")))
    return [measured("inception_score", value, protocol, stderr)]


def _diversity(sets: Compared, metrics: Sequence[str]) -> list[Measurement]:
    value, stderr = diversity(samples=sets.all("samples"), reference=sets.all("reference"))
    return [measured("diversity", value, sets.protocol, stderr)]


def _memorisation(sets: Compared, metrics: Sequence[str]) -> list[Measurement]:
    samples, known = subset(sets.all("samples"), NEIGHBOURS), sets.all("training")
    unseen = subset(sets.all("held_out"), NEIGHBOURS)
    found = memorisation(samples=samples, training=known, held_out=unseen)
    counts = {"n_training": len(known), "n_held_out": len(unseen)}
    protocol = replace(
        sets.common, split="train and held out", n_generated=len(samples), n_reference=len(known) + len(unseen),
        parameters=settings(counts),
    )  # fmt: skip
    with_chance = replace(protocol, parameters=settings({**counts, "chance": found.chance}))
    results = [
        measured("memorisation_ratio", found.ratio, protocol, found.ratio_stderr),
        measured("closer_to_training", found.closer, with_chance, found.closer_stderr),
    ]
    if "copied_fraction" in metrics:
        copied = copies(samples=samples, training=known)
        baseline = float(copies(samples=unseen, training=known).double().mean())
        share, n = float(copied.double().mean()), len(copied)
        stderr, interval = (share * (1 - share) / n) ** 0.5, wilson(int(copied.sum()), n)
        results.append(measured("copied_fraction", share, with_data(protocol, baseline), stderr, interval))
    return results


_Measure = Callable[[Compared, Sequence[str]], list[Measurement]]
_MEASURES: tuple[tuple[tuple[str, ...], _Measure], ...] = (
    (("frechet_distance", "frechet_distance_infinity"), _frechet),
    (("kid", *KID_SUBSET_METRICS), _kid),
    (PRDC_METRICS, _prdc),
    (("inception_score",), _inception_score),
    (("diversity",), _diversity),
    (MEMORISATION_METRICS, _memorisation),
)
