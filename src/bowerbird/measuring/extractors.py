"""Which network features come from: by name, by file, or by what the pictures are and which weights are present.

``auto`` takes the shipped classifier of digits where it reads the labels of real pictures, else the first of
``FETCHED`` whose weights are present.  Without any, small grey pictures are seen as strokes of digits would be, which
is said; for all others there is no extractor, and what needs features is left out with the sentence of ``unfit``.
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from bowerbird.data.columns import LABEL
from bowerbird.data.fetch import locate
from bowerbird.errors import unknown
from bowerbird.media.image.imageset import ImageData
from bowerbird.metrics.digits import SIDE
from bowerbird.metrics.features import EXTRACTORS, Digits, Extractor, Precision, extractor
from bowerbird.spec import shape_of_picture

FETCHED = ("inception-2015", "efficientnet-lite0")
"""Extractors whose weights `data get` fetches, the preferred one first."""
JUDGED = 200
"""Labelled pictures that the classifier of digits is tried on."""
READ = 0.7
"""Share of them that it must read for the data to count as digits."""
OFFER = f"bowerbird data get {FETCHED[0]} (or {FETCHED[1]}, which is smaller)"
SMALL = SIDE + 4
"""Longest side of pictures, in pixels, that may pass for digits."""


class Choice(NamedTuple):
    """Which extractor, and what is to be kept in mind of its features."""

    name: str
    caveat: str = ""

    def load(self, device: str | torch.device = "cpu", precision: Precision = "fp32") -> Extractor:
        if self.caveat:
            warnings.warn(self.caveat, stacklevel=2)
        return find_extractor(self.name, device, precision)


def require_known(name: str) -> None:
    """BowerbirdError for a name that no extractor has, whether or not a metric will look at features."""
    if name.partition(":")[0] not in ("auto", *EXTRACTORS):
        raise unknown("extractor", name, ("auto", *EXTRACTORS))


def find_extractor(name: str, device: str | torch.device = "cpu", precision: Precision = "fp32") -> Extractor:
    """The extractor of that name, or ``name:FILE`` with the file of its weights."""
    name, _, file = name.partition(":")
    weights = Path(file).expanduser() if file else locate(name) if name in FETCHED else None
    return extractor(name, weights=weights, device=device, precision=precision)


def choose(name: str, data: ImageData) -> Choice | None:
    """The extractor of that name; for ``auto`` the one that suits these pictures best, None where none does."""
    if name == "auto" and holds_digits(data):
        return Choice("digits")
    channels, height, width = shape_of_picture(data.spec)
    return choose_by_shape(name, [(height, width, channels)])


def choose_by_shape(name: str, shapes: Iterable[tuple[int, ...]]) -> Choice | None:
    """The same for pictures of which only the shapes (h, w, c) are known."""
    if name != "auto":
        return Choice(name)
    for weighted in FETCHED:
        if locate(weighted) is not None:
            return Choice(weighted)
    if any(channels > 1 or max(height, width) > SMALL for height, width, channels in shapes):
        return None
    return Choice(
        "digits",
        "The features come from the shipped classifier of handwritten digits, which sees little else; for other "
        f"images run: {OFFER}",
    )


def unfit(instead: str = "") -> str:
    """Why there are no features, what is measured ``instead``, and what helps; without a full stop."""
    return (
        "No extractor on this machine suits these images (the shipped one knows only handwritten digits), so "
        f"feature metrics are left out{instead}; for features run: {OFFER}"
    )


def holds_digits(data: ImageData) -> bool:
    """Whether the labels are digits, and the shipped classifier reads them from real pictures."""
    digit_of = as_digits(data.classes)
    if digit_of is None or shape_of_picture(data.spec)[0] not in (1, 3):
        return False
    images, labels = data.train.images[:JUDGED], data.train.given[LABEL][:JUDGED]
    read = Digits(torch.device("cpu")).classify(images.cpu()) == digit_of[labels.cpu()]
    return bool(read.double().mean() >= READ)


def as_digits(classes: Sequence[str]) -> Int[Tensor, " k"] | None:
    """The digit that each class stands for, or None when the classes are not digits."""
    if not classes or any(name not in "0123456789" or len(name) != 1 for name in classes):
        return None
    return torch.tensor([int(name) for name in classes])
