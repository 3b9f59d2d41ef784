"""Measures folders of images, without any model: against another folder, or against a data set.

Against a folder or zip, all images of both sides are used, each in its own size and colour until the extractor resizes
it, so there is no split and no label to get wrong.  Against a data set by name, or with a split, the samples are
brought to the size of its images, as training images would be.
"""

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bowerbird import config
from bowerbird.data.fetch import cache_folder
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.images import default_metrics, find_extractor
from bowerbird.media.image.imageset import open_images
from bowerbird.media.image.loose import LooseImages, open_loose
from bowerbird.media.image.sources import pictures
from bowerbird.metrics.cache import FeatureCache, FeatureSet
from bowerbird.metrics.chosen import check_names, subset
from bowerbird.metrics.compared import (
    FEATURE_METRICS,
    K_DENSITY,
    MEMORISATION_METRICS,
    PRDC_METRICS,
    Compared,
    measure_features,
)
from bowerbird.metrics.features import Extractor, Precision, Progress
from bowerbird.metrics.images import common_protocol, in_order, measure_images
from bowerbird.metrics.measurement import Measurement
from bowerbird.spec import shape_of_picture

AT_ONCE = 64
"""Files that are decoded at a time."""
ALL = "all"
"""The split of a folder that has none."""


def measure_folder(
    folder: Path | str,
    against: config.Data | str,
    *,
    split: str | None = None,
    n_reference: int | None = None,
    extractor: str | Extractor = "auto",
    precision: Precision = "fp32",
    metrics: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
) -> list[Measurement]:
    """Measures all images of a folder or zip against a folder or zip, or against a split of a data source.

    ``against`` a path without ``split``: all of its images.  ``split`` None of anything else is the test split.
    """
    if isinstance(against, str) and split in (None, ALL) and Path(against).expanduser().exists():
        return _against_folder(folder, Path(against).expanduser(), n_reference, extractor, precision, metrics, device)
    data = open_images(against if isinstance(against, config.Data) else config.Data(source=against))
    if isinstance(extractor, str):
        extractor = find_extractor(extractor, data.classes, device, precision)
    split = split or "test"
    _, height, width = shape_of_picture(data.spec)
    size = height if height == width else None
    made = pictures(config.Data(source=str(folder), size=size)).images
    samples = torch.from_numpy(made.transpose(0, 3, 1, 2).copy())
    if metrics is None:
        metrics = default_metrics(extractor, data, len(samples), digits=False)
    return measure_images(
        samples, subset(data.split(split).images, n_reference),
        reference_name=data.name, split=split, fingerprint=data.fingerprint, preprocessing=data.preprocessing,
        extractor=extractor, metrics=metrics, training=data.train.images, held_out=data.val.images,
        cache=FeatureCache(cache_folder()),
    )  # fmt: skip


def _against_folder(
    folder: Path | str, against: Path, n_reference: int | None, extractor: str | Extractor, precision: Precision,
    metrics: Sequence[str] | None, device: str | torch.device,
) -> list[Measurement]:  # fmt: skip
    samples, reference = open_loose(Path(folder).expanduser()), open_loose(against)
    for one in (samples, reference):
        if one.skipped:
            warnings.warn(one.summary(), stacklevel=3)
    if isinstance(extractor, str):
        by_itself = extractor == "auto"
        extractor = find_extractor(extractor, device=device, precision=precision)
        if by_itself and extractor.name == "digits":
            warnings.warn(
                "The features are those of the shipped classifier of handwritten digits, which sees little else; for "
                "other images run: bowerbird data get inception-2015",
                stacklevel=3,
            )
    if metrics is None:
        enough = min(len(samples), len(reference)) > K_DENSITY
        metrics = ("frechet_distance", "kid", *(PRDC_METRICS if enough else ()), "diversity")
        if not enough:
            warnings.warn(
                f"With {min(len(samples), len(reference))} images on one side there is no precision, recall, density "
                f"or coverage: they need more than {K_DENSITY}.",
                stacklevel=3,
            )
    check_names(metrics, [name for name in FEATURE_METRICS if name not in MEMORISATION_METRICS])
    cache = FeatureCache(cache_folder())
    real = loose_features(reference, extractor, cache)
    if n_reference is not None and n_reference < real.n:
        raise BowerbirdError(
            f"Against a folder all of its images are used; leave out --n-reference {n_reference}, or say --split."
        )
    common = common_protocol(
        extractor, reference_name=reference.name, split=ALL, fingerprint=reference.fingerprint,
        preprocessing={"resize": "none before the extractor"},
    )  # fmt: skip
    sets = Compared(extractor, loose_features(samples, extractor, cache), real, common)
    return in_order(measure_features(sets, metrics))


def loose_features(images: LooseImages, extractor: Extractor, cache: FeatureCache) -> FeatureSet:
    """Features of files as they are, kept under the fingerprint of all files."""

    def compute(rows: slice, progress: Progress) -> Tensor:
        parts = [
            _features(images.read(slice(start, min(start + AT_ONCE, rows.stop))), extractor, progress)
            for start in range(rows.start, rows.stop, AT_ONCE)
        ]
        return torch.cat(parts)

    key = hashlib.sha256(f"{extractor.signature}files {images.fingerprint} {len(images)}".encode()).hexdigest()[:40]
    return FeatureSet(len(images), extractor.dimension, compute, cache.place(extractor, key))


def _features(pixels: list[np.ndarray], extractor: Extractor, progress: Progress) -> Tensor:
    """Features of images of any shapes, those of one shape together, in the order of the images."""
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, image in enumerate(pixels):
        alike[image.shape].append(i)
    out = torch.empty(len(pixels), extractor.dimension)
    for places in alike.values():
        batch = torch.from_numpy(np.stack([pixels[i] for i in places]).transpose(0, 3, 1, 2).copy())
        out[places] = extractor.features(batch, progress=progress)
    return out
