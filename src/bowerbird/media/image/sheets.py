"""Sheets that can be compared at a glance: the same number of images with the same labels in the same places.

With up to ``MOST_CLASSES`` classes each column is one class, else the labels are drawn once, with a fixed seed.
"""

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from bowerbird.media.image.imageset import ImageSet
from bowerbird.media.image.pictures import sheet
from bowerbird.models.base import GenerativeModel
from bowerbird.spec import ImageSpec, to_uint8

ROWS = 8
MOST_CLASSES = 12


def labels_of(spec: ImageSpec) -> tuple[Int64[Tensor, " n"] | None, int]:
    """The labels of a sheet's images, row by row (None without classes), and its number of columns."""
    if column_per_class(spec):
        return torch.arange(spec.n_classes).repeat(ROWS), spec.n_classes
    labels = spec.draw_labels(ROWS**2, torch.Generator().manual_seed(0)) if spec.n_classes else None
    return labels, ROWS


def column_per_class(spec: ImageSpec) -> bool:
    return 2 <= spec.n_classes <= MOST_CLASSES


@torch.no_grad()
def sampled_sheet(model: GenerativeModel, spec: ImageSpec, seed: int = 0) -> Image.Image:
    """A sheet of the model's samples, as they come; of a model without labels, in no order."""
    labels, columns = labels_of(spec)
    cond = labels.to(model.device) if labels is not None and model.n_classes else None
    x = model.sample(ROWS * columns, cond=cond, generator=torch.Generator().manual_seed(seed))
    return sheet(to_uint8(x).cpu(), columns)


def real_sheet(images: ImageSet, spec: ImageSpec) -> Image.Image:
    """A sheet of real images in the order of their split: the first ones of each class, again if there are too few."""
    labels, columns = labels_of(spec)
    everywhere = torch.arange(len(images))
    if labels is None or images.labels is None:
        return sheet(images.images[everywhere.repeat(ROWS**2)[: ROWS * columns]], columns)
    chosen = torch.empty_like(labels)
    for label in labels.unique():
        places = (labels == label).nonzero().flatten()
        of_class = (images.labels.cpu() == label).nonzero().flatten()
        of_class = of_class if len(of_class) else everywhere
        chosen[places] = of_class[torch.arange(len(places)) % len(of_class)]
    return sheet(images.images[chosen], columns)
