"""Sheets that can be compared at a glance: equally many images, made from the same inputs, in the same places.

With up to ``MOST_CLASSES`` labels each column is one class.  A picture that was made from another is placed to
the right of it, and the true picture, if known, to the right of both; a picture of a caption is placed beside the true.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from bowerbird.eightbit import to_uint8
from bowerbird.media.image.imageset import ImageSet
from bowerbird.media.image.pictures import sheet
from bowerbird.spec import Classes, Spec, Tensors

ROWS = 8
MOST_CLASSES = 12
TRUTH = "truth"
"""Name under which ``samples_sheet`` finds the true pictures."""


def label_field(spec: Spec) -> Classes | None:
    """The labels of a spec, if it has any."""
    field = spec.given.get("label")
    return field if isinstance(field, Classes) else None


def column_per_class(spec: Spec) -> bool:
    field = label_field(spec)
    return field is not None and 2 <= len(field.names) <= MOST_CLASSES


def sheet_labels(spec: Spec) -> Int64[Tensor, " n"] | None:
    """The labels of a sheet with a column per class, row by row; None for other sheets."""
    field = label_field(spec)
    return torch.arange(len(field.names)).repeat(ROWS) if field is not None and column_per_class(spec) else None


def samples_sheet(x: Tensor, given: Mapping[str, Any], spec: Spec) -> Image.Image:
    """The samples in their order: each beside the picture that it was made from, if any, or a column per class."""
    sources = [given[name] for name, field in spec.given.items() if isinstance(field, Tensors) and name in given]
    if not sources and TRUTH not in given:
        in_columns = (labels := sheet_labels(spec)) is not None and torch.equal(labels, _as_labels(given))
        return sheet(to_uint8(x).cpu(), len(label_field(spec).names) if in_columns else None)  # type: ignore[union-attr]
    beside = [*sources, x, *([given[TRUTH]] if TRUTH in given else [])]
    channels = max(part.shape[1] for part in beside)
    parts = [part.cpu().expand(-1, channels, -1, -1) for part in beside]
    columns = len(parts) * max(1, ROWS // len(parts))
    return sheet(to_uint8(torch.stack(parts, 1).flatten(0, 1)), columns)


def _as_labels(given: Mapping[str, Any]) -> Tensor:
    return torch.as_tensor(given.get("label", [])).cpu()


def real_sheet(images: ImageSet, spec: Spec) -> Image.Image:
    """A sheet of real images in the order of their split: the first of each class, repeated if there are too few."""
    labels, n = sheet_labels(spec), ROWS**2
    own = images.given.get("label")
    everywhere = torch.arange(len(images))
    if labels is None or own is None:
        return sheet(images.images[everywhere.repeat(n)[:n]], ROWS)
    chosen = torch.empty_like(labels)
    for label in labels.unique():
        places = (labels == label).nonzero().flatten()
        of_class = (own.cpu() == label).nonzero().flatten()
        of_class = of_class if len(of_class) else everywhere
        chosen[places] = of_class[torch.arange(len(places)) % len(of_class)]
    return sheet(images.images[chosen], len(labels) // ROWS)
