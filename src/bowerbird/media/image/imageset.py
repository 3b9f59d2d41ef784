"""Image data: three splits of uint8 images of one shape, decoded once and kept packed.

Images stay uint8 (n, c, h, w) until a batch of them is on the device, where they become floats in [-1, 1].  Which
image lies in which split is decided by its content (``split``), in which order they are seen by ``order``.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from bowerbird import config
from bowerbird.data import split
from bowerbird.data.files import natural
from bowerbird.data.split import SPLITS
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.media.image import pixels, sources
from bowerbird.media.image.sources import Pictures
from bowerbird.spec import ImageSpec, to_float

DEFAULT_LABELS = ("folder", "label", "class")
"""The label is the first of these columns that sorts the images into classes."""
CHUNK = 4096
"""Images that are binarised at a time."""


@dataclass
class ImageSet:
    """One split: images as stored, with their class numbers."""

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"] | None = None
    flip: bool = False
    """Batches are mirrored from left to right at random."""

    lengths = None
    """All images of a set have the same shape."""

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Int64[Tensor, "b"], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """``x``, the images in [-1, 1], and ``label``, their class numbers if they have any, on the device.

        Images travel there as uint8.  Flips are drawn from torch's global generator on the CPU, so that they are the
        same on every device.
        """
        at = indices.to(self.images.device)
        x = to_float(self.images[at].to(device, non_blocking=True))
        if self.flip:
            mirrored = (torch.rand(len(indices)) < 0.5).to(device)
            x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-1), x)
        if self.labels is None:
            return {"x": x}
        return {"x": x, "label": self.labels[at].to(device, non_blocking=True)}

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same split, stored on a device."""
        return ImageSet(self.images.to(device), None if self.labels is None else self.labels.to(device), self.flip)


@dataclass
class ImageData:
    """All splits of one source, and what was done to its images."""

    name: str
    spec: ImageSpec
    train: ImageSet
    val: ImageSet
    test: ImageSet
    preprocessing: dict[str, str | int]
    """What the protocol of a measurement has to state."""
    skipped: int
    """Files that could not be read."""
    fingerprint: str
    """16 hexadecimal digits of the SHA-256 of every split's images and labels."""
    skipped_why: str = ""
    note: str = ""
    """Something that the user may not expect, in a few words."""

    def split(self, name: str) -> ImageSet:
        """train, val or test, or several joined by "+": ``train+val`` of mnist is its 60,000 training digits."""
        parts = name.split("+")
        for part in parts:
            if part not in SPLITS:
                raise unknown("split", part, SPLITS)
        chosen: list[ImageSet] = [getattr(self, part) for part in parts]
        if len(chosen) == 1:
            return chosen[0]
        labels = [one.labels for one in chosen if one.labels is not None]
        return ImageSet(torch.cat([one.images for one in chosen]), torch.cat(labels) if labels else None)

    def summary(self) -> str:
        """One line: modality, count, size, channels, classes, splits, skipped files."""
        sizes = {name: len(getattr(self, name)) for name in SPLITS}
        colour = "grey" if self.spec.channels == 1 else "colour"
        classes = f"{self.spec.n_classes} classes" if self.spec.classes else "no labels"
        splits = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        skipped = f"skipped {self.skipped} ({self.skipped_why})" if self.skipped else "none skipped"
        return (
            f"{self.name}: {sum(sizes.values()):,} images, {self.spec.width}x{self.spec.height} {colour}, {classes}; "
            f"{splits}; {skipped}" + (f"; {self.note}" if self.note else "")
        )


def open_images(data: config.Data) -> ImageData:
    """The images of a source, decoded, labelled and split; errors say what is wrong with it."""
    found = sources.pictures(data)
    classes, labels = choose_labels(found, data.label)
    where = split.assign(split.digests(found.images), found.split)
    height, width, channels = found.images.shape[1:]
    sets = {}
    for number, name in enumerate(SPLITS):
        chosen = np.flatnonzero(where == name)
        x = torch.from_numpy(np.ascontiguousarray(found.images[chosen].transpose(0, 3, 1, 2)))
        if data.binarize == "static":
            x = binarized(x, seed=number)
        y = torch.from_numpy(labels[chosen]) if classes else None
        sets[name] = ImageSet(x, y, flip=data.flip and name == "train")
    counts = np.bincount(labels[where == "train"], minlength=len(classes)).tolist() if classes else []
    return ImageData(
        name=found.name,
        spec=ImageSpec(channels, height, width, tuple(classes), tuple(counts)),
        preprocessing={
            "width": width,
            "height": height,
            "channels": channels,
            "resize": pixels.RESIZE,
            "binarize": data.binarize,
            "split": split.RULE[split.present(found.split)],
        },
        skipped=found.skipped,
        fingerprint=_fingerprint(sets, classes),
        skipped_why=found.skipped_why,
        note=found.note,
        **sets,
    )


def choose_labels(found: Pictures, column: str | None) -> tuple[list[str], np.ndarray]:
    """Class names in natural order and the class number of each image; no names when nothing tells images apart."""
    if column is not None and column not in found.columns:
        known = ", ".join(found.columns) or "none, for it has neither sub-folders nor metadata.jsonl"
        raise BowerbirdError(f"{found.name} has no label column '{column}'; its columns: {known}.")
    for name in DEFAULT_LABELS if column is None else (column,):
        if name not in found.columns:
            continue
        values, numbers = np.unique(found.columns[name], return_inverse=True)
        if _is_identity(len(values), len(numbers)):
            if column is not None:
                raise BowerbirdError(
                    f"The column '{column}' of {found.name} has {len(values)} values for {len(numbers)} images: "
                    "too many to be classes."
                )
        elif len(values) > 1 or column is not None:
            order = sorted(range(len(values)), key=lambda i: natural(str(values[i])))
            rank = np.empty(len(values), np.int64)
            rank[order] = np.arange(len(values))
            return [str(values[i]) for i in order], rank[numbers]
    return [], np.zeros(len(found.images), np.int64)


def _is_identity(n_values: int, n_images: int) -> bool:
    """Whether a column names images (an identifier, a caption) rather than classes."""
    return n_images >= 20 and n_values > n_images / 2


def binarized(x: UInt8[Tensor, "n c h w"], seed: int) -> UInt8[Tensor, "n c h w"]:
    """Every pixel drawn once: 255 with probability value/255, else 0."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.rand(part.shape, generator=generator) * 255 < part for part in x.split(CHUNK)]
    return torch.cat(drawn).to(torch.uint8) * 255


def _fingerprint(sets: dict[str, ImageSet], classes: list[str]) -> str:
    digest = hashlib.sha256("\0".join(classes).encode())
    for name, one in sets.items():
        digest.update(f"{name} {tuple(one.images.shape)}".encode())
        digest.update(one.images.numpy().data)
        if one.labels is not None:
            digest.update(one.labels.numpy().data)
    return digest.hexdigest()[:16]
