"""Image data: three splits of uint8 images of one shape, decoded once and kept packed.

Images stay uint8 (n, c, h, w) until a batch of them is on the device, where they become floats in [-1, 1].  Which
image lies in which split is decided by its content (``split``), in which order they are seen by ``order``.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from bowerbird import config
from bowerbird.data import split
from bowerbird.data.files import natural
from bowerbird.data.split import SPLITS
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.media.image import pixels, sources
from bowerbird.media.image.sources import Pictures
from bowerbird.spec import Classes, Spec, Tensors

DEFAULT_LABELS = ("folder", "label", "class")
"""The label is the first of these columns that sorts the images into classes."""
LABEL, SOURCE = "label", "source"
"""Names of what is given: a class, and a picture to translate."""
CHUNK = 4096
"""Images that are binarised at a time."""


@dataclass
class ImageSet:
    """One split: images as stored, with their class numbers."""

    images: UInt8[Tensor, "n c h w"]
    given: dict[str, Tensor] = field(default_factory=dict)
    """What each image is made from, by the names of the spec: numbers of classes int64 (n,), tokens int64 (n, length),
    pictures as stored."""
    flip: bool = False
    """Batches are mirrored from left to right at random, with the pictures that they are made from."""
    unpaired: bool = False
    """The pictures of ``source`` belong to no image: each batch draws its own, as many as it has images."""

    lengths = None
    """All images of a set have the same shape."""

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Int64[Tensor, "b"], device: torch.device | str = "cpu") -> dict[str, Any]:
        """``x``, the images in [-1, 1], and what is ``given`` with them, on the device.

        Images travel there as uint8.  Flips are drawn from torch's global generator on the CPU, so that they are the
        same on every device.
        """
        at = indices.to(self.images.device)
        pictures = {"": self.images} | {name: one for name, one in self.given.items() if one.dtype == torch.uint8}
        rows = dict.fromkeys(pictures, at)
        if self.unpaired:
            rows[SOURCE] = torch.randint(len(self.given[SOURCE]), (len(at),), device=at.device)
        floats = {name: to_float(one[rows[name]].to(device, non_blocking=True)) for name, one in pictures.items()}
        if self.flip:
            mirrored = (torch.rand(len(indices)) < 0.5).to(device).view(-1, 1, 1, 1)
            floats = {name: torch.where(mirrored, one.flip(-1), one) for name, one in floats.items()}
        numbers = {
            name: one[at].to(device, non_blocking=True) for name, one in self.given.items() if name not in floats
        }
        x = floats.pop("")
        return {"x": x, "given": {name: (floats | numbers)[name] for name in self.given}}

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same split, stored on a device."""
        given = {name: one.to(device) for name, one in self.given.items()}
        return replace(self, images=self.images.to(device), given=given)


@dataclass
class ImageData:
    """All splits of one source, and what was done to its images."""

    name: str
    spec: Spec
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

    @property
    def dims(self) -> int:
        """Numbers per image."""
        return self.train.images[0].numel()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels; empty when there are none."""
        label = self.spec.given.get(LABEL)
        return label.names if isinstance(label, Classes) else ()

    def split(self, name: str) -> ImageSet:
        """train, val or test, or several joined by "+": ``train+val`` of mnist is its 60,000 training digits."""
        parts = name.split("+")
        for part in parts:
            if part not in SPLITS:
                raise unknown("split", part, SPLITS)
        chosen: list[ImageSet] = [getattr(self, part) for part in parts]
        if len(chosen) == 1:
            return chosen[0]
        given = {name: torch.cat([one.given[name] for one in chosen]) for name in chosen[0].given}
        return ImageSet(torch.cat([one.images for one in chosen]), given)

    def summary(self) -> str:
        """One line: modality, count, size, channels, classes, splits, skipped files."""
        sizes = {name: len(getattr(self, name)) for name in SPLITS}
        channels, height, width = self.train.images.shape[1:]
        colour = "grey" if channels == 1 else "colour"
        classes = f"{len(self.classes)} classes" if self.classes else "no labels"
        splits = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        skipped = f"skipped {self.skipped} ({self.skipped_why})" if self.skipped else "none skipped"
        return (
            f"{self.name}: {sum(sizes.values()):,} images, {width}x{height} {colour}, {classes}; "
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
        given = {LABEL: torch.from_numpy(labels[chosen])} if classes else {}
        sets[name] = ImageSet(x, given, flip=data.flip and name == "train")
    counts = np.bincount(labels[where == "train"], minlength=len(classes)).tolist() if classes else []
    return ImageData(
        name=found.name,
        spec=Spec(
            "image",
            Tensors((channels, height, width)),
            {LABEL: Classes(tuple(classes), tuple(counts))} if classes else {},
        ),
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


def to_float(x: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0…255 to [-1, 1]."""
    return x.float() / 127.5 - 1


def to_uint8(x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """[-1, 1] to 0…255, rounded to nearest, clamped: the inverse of ``to_float``."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


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
        for values in one.given.values():
            digest.update(values.numpy().data)
    return digest.hexdigest()[:16]
