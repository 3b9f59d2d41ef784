"""Image metrics: everything that can be said of generated images beside real ones.

Fréchet distances use all images given.  Precision, recall, density and coverage use equally many samples and reference
images (their values depend on both numbers), at most ``NEIGHBOURS``, and memorisation at most ``NEIGHBOURS`` samples
and held-out images.  Wherever fewer images than given enter, they are chosen at random with a fixed seed, and the
protocol has their number.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType

import torch
from jaxtyping import Int, UInt8
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from bowerbird.errors import BowerbirdError, unknown
from bowerbird.metrics.cache import FeatureCache
from bowerbird.metrics.features import Digits, Extractor
from bowerbird.metrics.frechet import fit_gaussian, frechet_distance, too_few
from bowerbird.metrics.measurement import METRICS, Measurement, Protocol, measured, settings
from bowerbird.metrics.neighbours import memorisation
from bowerbird.metrics.prdc import prdc

NEIGHBOURS = 10_000
"""Most images that enter metrics whose cost grows with their square."""
K_MANIFOLD, K_DENSITY = 3, 5
"""Neighbours of precision and recall; of density and coverage."""

PRDC_METRICS = ("precision", "recall", "density", "coverage")
MEMORISATION_METRICS = ("memorisation_ratio", "closer_to_training")
IMAGE_METRICS = ("frechet_distance", *PRDC_METRICS, *MEMORISATION_METRICS, "class_accuracy")


def measure_images(
    samples: UInt8[Tensor, "n c h w"],
    reference: UInt8[Tensor, "m c2 h2 w2"],
    *,
    reference_name: str,
    split: str,
    fingerprint: str,
    extractor: Extractor,
    metrics: Sequence[str],
    preprocessing: Mapping[str, int | float | str] = MappingProxyType({}),
    training: UInt8[Tensor, "M c2 h2 w2"] | None = None,
    held_out: UInt8[Tensor, "k c2 h2 w2"] | None = None,
    digits: Int[Tensor, " n"] | None = None,
    cache: FeatureCache,
) -> list[Measurement]:
    """The chosen ``IMAGE_METRICS`` of ``samples`` against ``reference``, in the order of ``METRICS``.

    ``training`` and ``held_out`` are needed for memorisation, ``digits`` (what each sample was asked to show) for class
    accuracy, which the shipped classifier judges whatever the extractor.  Features of reference, training and held-out
    images are read from ``cache`` or added to it.
    """
    check_names(metrics, IMAGE_METRICS)
    if not metrics:
        return []
    common = Protocol(
        reference=reference_name, split=split, fingerprint=fingerprint, preprocessing=settings(preprocessing),
        extractor=extractor.name, extractor_sha256=extractor.sha256, resizer=extractor.resizer, dtype=extractor.dtype,
    )  # fmt: skip
    with progress_bar("features of samples", len(samples)) as progress:
        features = extractor.features(samples, progress=progress)
    results = []
    if "frechet_distance" in metrics:
        if warning := too_few(min(len(samples), len(reference)), extractor.dimension):
            warnings.warn(warning, stacklevel=2)
        with progress_bar("features of reference", len(reference)) as progress:
            against = cache.gaussian(extractor, reference, progress=progress)
        protocol = replace(common, n_generated=len(samples), n_reference=len(reference))
        results.append(measured("frechet_distance", frechet_distance(fit_gaussian(features), against), protocol))
    if set(metrics) & set(PRDC_METRICS):
        with progress_bar("features of reference", len(reference)) as progress:
            results += _prdc(features, cache.features(extractor, reference, progress=progress), common)
    if set(metrics) & set(MEMORISATION_METRICS):
        results += _memorisation(features, training, held_out, extractor, cache, common)
    if "class_accuracy" in metrics:
        results.append(_class_accuracy(samples, digits))
    order = list(METRICS)
    return sorted((m for m in results if m.name in metrics), key=lambda m: order.index(m.name))


def _prdc(samples: Tensor, reference: Tensor, common: Protocol) -> list[Measurement]:
    n = min(len(samples), len(reference), NEIGHBOURS)
    found = prdc(samples=subset(samples, n), reference=subset(reference, n), k_manifold=K_MANIFOLD, k_density=K_DENSITY)
    neighbours = {"precision": K_MANIFOLD, "recall": K_MANIFOLD, "density": K_DENSITY, "coverage": K_DENSITY}
    return [
        measured(
            name,
            getattr(found, name),
            replace(common, n_generated=n, n_reference=n, parameters=settings({"k": neighbours[name]})),
            stderr=getattr(found, f"{name}_stderr"),
        )
        for name in PRDC_METRICS
    ]


def _memorisation(
    samples: Tensor, training: Tensor | None, held_out: Tensor | None, extractor: Extractor, cache: FeatureCache,
    common: Protocol,
) -> list[Measurement]:  # fmt: skip
    if training is None or held_out is None:
        raise BowerbirdError("Memorisation needs the training images and held-out images of the same source.")
    with progress_bar("features of training images", len(training) + len(held_out)) as progress:
        known = cache.features(extractor, training, progress=progress)
        unseen = cache.features(extractor, held_out, progress=progress)
    samples, unseen = subset(samples, NEIGHBOURS), subset(unseen, NEIGHBOURS)
    found = memorisation(samples=samples, training=known, held_out=unseen)
    counts = {"n_training": len(known), "n_held_out": len(unseen)}
    protocol = replace(
        common, split="train and held out", n_generated=len(samples), n_reference=len(known) + len(unseen),
        parameters=settings(counts),
    )  # fmt: skip
    with_chance = replace(protocol, parameters=settings({**counts, "chance": found.chance}))
    return [
        measured("memorisation_ratio", found.ratio, protocol, found.ratio_stderr),
        measured("closer_to_training", found.closer, with_chance, found.closer_stderr),
    ]


def _class_accuracy(samples: Tensor, digits: Tensor | None) -> Measurement:
    if digits is None:
        raise BowerbirdError("Class accuracy needs samples drawn with labels that are digits.")
    judge = Digits(torch.device("cpu"))
    right = (judge.classify(samples) == digits.cpu()).double()
    protocol = Protocol(
        n_generated=len(samples), extractor=judge.name, extractor_sha256=judge.sha256, resizer=judge.resizer,
        dtype=judge.dtype,
    )  # fmt: skip
    return measured("class_accuracy", float(right.mean()), protocol, float(right.std() / len(right) ** 0.5))


def subset(x: Tensor, n: int | None) -> Tensor:
    """n rows chosen at random, always the same ones, in their order; all rows when n is None or not fewer."""
    if n is None or n >= len(x):
        return x
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:n].sort().values]


def check_names(metrics: Sequence[str], known: Sequence[str]) -> None:
    """Refuses names that are not among the known, with the nearest that is."""
    for name in metrics:
        if name not in known:
            raise unknown("metric here", name, known)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error while it is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)
