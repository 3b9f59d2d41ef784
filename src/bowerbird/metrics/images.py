"""Image metrics: everything that can be said of generated images beside real ones, from their features and pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.metrics.cache import FeatureCache, FeatureSet
from bowerbird.metrics.chosen import check_names, subset
from bowerbird.metrics.compared import FEATURE_METRICS, MEMORISATION_METRICS, NEIGHBOURS, Compared, measure_features
from bowerbird.metrics.features import Digits, Extractor
from bowerbird.metrics.measurement import METRICS, Measurement, Protocol, measured, settings
from bowerbird.metrics.pixelwise import PROJECTIONS, WINDOW, psnr, sliced_wasserstein, ssim

IMAGE_METRICS = (*FEATURE_METRICS, "sliced_wasserstein", "class_accuracy")


def common_protocol(
    extractor: Extractor,
    *,
    reference_name: str,
    split: str,
    fingerprint: str,
    preprocessing: Mapping[str, int | float | str] = MappingProxyType({}),
) -> Protocol:
    """What all metrics of one extractor's features state."""
    return Protocol(
        reference=reference_name, split=split, fingerprint=fingerprint, preprocessing=settings(preprocessing),
        extractor=extractor.name, extractor_sha256=extractor.sha256, resizer=extractor.resizer, dtype=extractor.dtype,
    )  # fmt: skip


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
    common = common_protocol(
        extractor, reference_name=reference_name, split=split, fingerprint=fingerprint, preprocessing=preprocessing
    )
    results = []
    if set(metrics) & set(FEATURE_METRICS):
        known, unseen = (training, held_out) if set(metrics) & set(MEMORISATION_METRICS) else (None, None)
        sets = Compared(
            extractor,
            FeatureSet.of(extractor, samples),
            cache.of(extractor, reference),
            common,
            None if known is None else cache.of(extractor, known),
            None if unseen is None else cache.of(extractor, unseen),
        )
        results += measure_features(sets, metrics)
    if "sliced_wasserstein" in metrics:
        results.append(_sliced_wasserstein(samples, reference, common))
    if "class_accuracy" in metrics:
        results.append(_class_accuracy(samples, digits))
    return in_order(results)


def in_order(measurements: list[Measurement]) -> list[Measurement]:
    """Sorted as ``METRICS`` lists them."""
    order = list(METRICS)
    return sorted(measurements, key=lambda m: order.index(m.name))


def measure_reconstructions(
    originals: UInt8[Tensor, "n c h w"], reconstructions: UInt8[Tensor, "n c h w"], protocol: Protocol
) -> list[Measurement]:
    """PSNR of all images together and, where they are large enough, SSIM."""
    decibels, error = psnr(originals, reconstructions)
    found = [measured("psnr", decibels, protocol, error)]
    if min(originals.shape[2:]) >= WINDOW:
        likeness = ssim(originals, reconstructions)
        found.append(measured("ssim", float(likeness.mean()), protocol, float(likeness.std() / len(likeness) ** 0.5)))
    return found


def _sliced_wasserstein(samples: Tensor, reference: Tensor, common: Protocol) -> Measurement:
    n = min(len(samples), len(reference), NEIGHBOURS)
    value, stderr = sliced_wasserstein(samples=subset(samples, n), reference=subset(reference, n))
    protocol = replace(
        common, n_generated=n, n_reference=n, extractor="", extractor_sha256="", resizer="", dtype="float32",
        parameters=settings({"projections": PROJECTIONS}),
    )  # fmt: skip
    return measured("sliced_wasserstein", value, protocol, stderr)


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
