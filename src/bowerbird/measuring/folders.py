"""Measures folders of images, without any model: against another folder, or against a data set.

Against a folder or zip, all images of both sides are used, each in its own size and colour until the extractor resizes
it, so there is no split and no label to get wrong.  Against a data set by name, or with a split, the samples are
brought to the size of its images, as training images would be.
"""

import hashlib
import warnings
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

from bowerbird import config
from bowerbird.data.fetch import cache_folder
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.context import Compared, Context, Sides, with_extractor
from bowerbird.measuring.engine import measure_context
from bowerbird.measuring.extractors import Choice, choose, choose_by_shape, unfit
from bowerbird.measuring.offers import INSTEAD, OF_FEATURES, Offers, picture_offers, protocol_of
from bowerbird.measuring.request import Measuring
from bowerbird.media.image.imageset import open_images
from bowerbird.media.image.loose import LooseImages, open_loose
from bowerbird.media.image.sources import pictures
from bowerbird.metrics.cache import FeatureCache, FeatureSet
from bowerbird.metrics.chosen import subset
from bowerbird.metrics.features import Extractor, Progress
from bowerbird.metrics.measurement import Measurement, Protocol, settings
from bowerbird.metrics.prdc import K_DENSITY
from bowerbird.spec import shape_of_picture

AT_ONCE = 64
"""Files that are decoded at a time."""
THUMBNAIL = 32
"""Side in pixels that loose pictures are brought to for metrics of pixels."""
ALL = "all"
"""The split of a folder that has none."""


def measure_folder(folder: Path | str, request: Measuring, device: str | torch.device = "cpu") -> list[Measurement]:
    """Measures all images of a folder or zip against a folder or zip, or against a split of a data source.

    ``against`` a path without ``split``: all of its images.  ``split`` None of anything else is the test split.
    """
    if request.against is None:
        raise BowerbirdError(f"{folder} is not a run folder; to measure a folder of images say --against DATA.")
    against = Path(request.against).expanduser()
    if request.split in (None, ALL) and against.exists():
        context = _beside_folder(Path(folder).expanduser(), against, request, device)
    else:
        context = _beside_data(folder, request, device)
    return measure_context(context, request.metrics)


def _beside_data(folder: Path | str, request: Measuring, device: str | torch.device) -> Context:
    data = open_images(config.Data(source=str(request.against)))
    split = request.split or "test"
    _, height, width = shape_of_picture(data.spec)
    size = height if height == width else None
    samples = pictures(config.Data(source=str(folder), size=size)).images.tensor()
    protocol = protocol_of(data, split)
    sides: Sides[Tensor] = Sides.of(protocol, samples, subset(data.split(split).images, request.n_reference))
    choice = choose(request.extractor, data)
    extractor = None if choice is None else lambda context: choice.load(device, request.precision)
    offers = picture_offers(lambda context: sides, extractor, data.train.images, data.val.images)
    sizes = len(samples), len(sides.reference), len(data.train), len(data.val)
    offers["sizes"] = lambda context: sizes
    return Context(protocol, offers, f"the images in {folder}", _missing(choice))


def _missing(choice: Choice | None) -> dict[str, str]:
    return {} if choice else dict.fromkeys(OF_FEATURES, unfit(INSTEAD))


def _beside_folder(folder: Path, against: Path, request: Measuring, device: str | torch.device) -> Context:
    samples, reference = open_loose(folder), open_loose(against)
    for one in (samples, reference):
        if one.said:
            warnings.warn(one.summary(), stacklevel=3)
    if request.n_reference is not None and request.n_reference < len(reference):
        raise BowerbirdError(
            f"Against a folder all of its images are used; leave out --n-reference {request.n_reference}, or say "
            "--split."
        )
    choice = choose_by_shape(request.extractor, (*samples.shapes, *reference.shapes))
    fewest = min(len(samples), len(reference))
    if choice and request.metrics is None and fewest <= K_DENSITY:
        warnings.warn(
            f"With {fewest} images on one side there is no precision, recall, density or coverage: they need more than "
            f"{K_DENSITY}.",
            stacklevel=3,
        )
    protocol = Protocol(
        reference=reference.name, split=ALL, fingerprint=reference.fingerprint,
        preprocessing=settings({"resize": "none before the extractor"}),
    )  # fmt: skip
    offers: Offers = {
        "pictures": lambda context: _thumbnails_of_both(protocol, samples, reference),
        "sizes": lambda context: (len(samples), len(reference)),
    }
    if choice:
        offers["features"] = lambda context: _loosely_compared(
            context, choice.load(device, request.precision), samples, reference
        )
    return Context(protocol, offers, f"the images in {folder}", _missing(choice))


def _loosely_compared(context: Context, extractor: Extractor, samples: LooseImages, reference: LooseImages) -> Compared:
    cache = FeatureCache(cache_folder())
    made, real = (loose_features(images, extractor, cache) for images in (samples, reference))
    return Compared(extractor, made, real, with_extractor(context.protocol, extractor))


def _thumbnails_of_both(protocol: Protocol, samples: LooseImages, reference: LooseImages) -> Sides[Tensor]:
    """What metrics of pixels see: all pictures in one size, in colour."""
    resized = replace(protocol, preprocessing=settings({"resize": f"antialiased bilinear to {THUMBNAIL}x{THUMBNAIL}"}))
    return Sides.of(resized, _thumbnails(samples), _thumbnails(reference))


def _thumbnails(images: LooseImages) -> UInt8[Tensor, "n 3 h w"]:
    parts = (images.read(slice(start, start + AT_ONCE)) for start in range(0, len(images), AT_ONCE))
    return torch.stack([_thumbnail(image) for part in parts for image in part])


def _thumbnail(image: np.ndarray) -> UInt8[Tensor, "3 h w"]:
    x = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float()
    x = F.interpolate(x, (THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True)
    return x[0].round().to(torch.uint8).expand(3, -1, -1)


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
