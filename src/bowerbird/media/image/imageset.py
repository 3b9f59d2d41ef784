"""Image data: three splits of uint8 images of one shape, decoded once and kept packed.

Images stay uint8 (n, c, h, w) until a batch of them is on the device, where they become floats in [-1, 1].  Which
image lies in which split is decided by its content (``split``), in which order they are seen by ``order``.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from bowerbird import config
from bowerbird.data import packing, split
from bowerbird.data.columns import LABEL, given_columns, label_origin
from bowerbird.data.packing import Packed
from bowerbird.data.split import SPLITS
from bowerbird.eightbit import to_float
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.media.image import pixels, sources
from bowerbird.media.image.pairing import with_sources
from bowerbird.spec import Classes, Field, Spec, Tensors, Tokens

SOURCE = "source"
"""Name of what is given where pictures are made from pictures."""
NAMED = 5
"""Most classes that a summary names."""
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
    wordings: dict[str, Tensor] = field(default_factory=dict)
    """Captions in several wordings, tokens int64 (n, wording, length): each batch draws one for each image."""

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
        floats = {name: to_float(one[rows[name]].to(device)) for name, one in pictures.items()}
        if self.flip:
            mirrored = (torch.rand(len(indices)) < 0.5).to(device).view(-1, 1, 1, 1)
            floats = {name: torch.where(mirrored, one.flip(-1), one) for name, one in floats.items()}
        numbers = {name: one[at].to(device) for name, one in self.given.items() if name not in floats}
        for name, ways in self.wordings.items():
            chosen = torch.randint(ways.shape[1], (len(at),)).to(at.device)
            numbers[name] = ways[at, chosen].to(device)
        x = floats.pop("")
        return {"x": x, "given": {name: (floats | numbers)[name] for name in self.given}}

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same split, stored on a device."""
        given, wordings = ({name: one.to(device) for name, one in d.items()} for d in (self.given, self.wordings))
        return replace(self, images=self.images.to(device), given=given, wordings=wordings)


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
    not_used: str = ""
    """Everything that was seen and left out, with reasons and examples; empty when nothing was."""
    label_from: str = ""
    """What the classes were taken from, such as "folders"."""
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
        """One line: modality, count, size, channels, classes and their origin, splits, everything that was not used."""
        sizes = {name: len(getattr(self, name)) for name in SPLITS}
        channels, height, width = self.train.images.shape[1:]
        colour = "grey" if channels == 1 else "colour"
        made_from = ", ".join(map(self._given, self.spec.given)) or "no labels"
        if self.train.unpaired:
            made_from += f" of {len(self.train.given[SOURCE]):,} that belong to none of them"
        splits = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        skipped = f"not used: {self.not_used}" if self.not_used else "none skipped"
        return (
            f"{self.name}: {sum(sizes.values()):,} images, {width}x{height} {colour}, {made_from}; "
            f"{splits}; {skipped}" + (f"; {self.note}" if self.note else "")
        )

    def _given(self, name: str) -> str:
        """What each image comes with, in words."""
        match self.spec.given[name]:
            case Classes(names) if name == LABEL and self.label_from:
                few = ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")
                return f"{len(names):,} classes {few} (from {self.label_from})"
            case Classes(names):
                return f"{len(names):,} classes" if name == LABEL else f"{name} ({len(names):,} values)"
            case Tokens():
                return f"{name} (texts)"
        return f"each from a {name}"


def open_images(data: config.Data) -> ImageData:
    """The images of a source, decoded and split, with what each is made from; errors say what is wrong with it."""
    found, from_pictures = with_sources(sources.pictures(data), data)
    where, rule = _splits(found, data)
    columns = given_columns(found, data, where == "train")
    fields, values = columns.fields, columns.values
    pictures: dict[str, Field] = {}
    if from_pictures is not None:
        height, width, channels = from_pictures.images.shape[1:]
        pictures = {SOURCE: Tensors((channels, height, width))}
    sets = {}
    packed: dict[str, dict[str, Packed]] = {}
    for number, name in enumerate(SPLITS):
        chosen = np.flatnonzero(where == name)
        packed[name] = {"": found.images[chosen]}
        unpaired = from_pictures is not None and not from_pictures.paired
        if from_pictures is not None:
            rows = np.flatnonzero(from_pictures.split == name) if unpaired else chosen
            packed[name][SOURCE] = from_pictures.images[rows]
        pictures_of = {key: one.tensor() for key, one in packed[name].items()}
        x = pictures_of.pop("")
        if data.binarize == "static":
            x = binarized(x, seed=number)
        given = {key: torch.from_numpy(value[chosen]) for key, value in values.items()} | pictures_of
        sets[name] = ImageSet(x, given, flip=data.flip and name == "train", unpaired=unpaired)
        if name == "train":
            sets[name].wordings = {key: torch.from_numpy(ways[chosen]) for key, ways in columns.wordings.items()}
    height, width, channels = found.images.shape[1:]
    return ImageData(
        name=found.name,
        spec=Spec("image", Tensors((channels, height, width)), fields | pictures, columns.codec),
        preprocessing={
            "width": width,
            "height": height,
            "channels": channels,
            "resize": pixels.RESIZE,
            "binarize": data.binarize,
            "split": rule,
        },
        skipped=found.skipped,
        fingerprint=_fingerprint(sets, fields, packed, data.binarize),
        not_used=str(found.unused),
        label_from=label_origin(found, data),
        note="; ".join(filter(None, [found.note, unseen_classes(fields)])),
        **sets,
    )


def _splits(found: sources.Pictures, data: config.Data) -> tuple[np.ndarray, str]:
    """The split of each image, and the rule in words."""
    if not data.held_out:
        return split.assign(found.images.digests, found.split), split.RULE[split.present(found.split)]
    if len(data.held_out) == 1:
        raise BowerbirdError("--data.held-out takes two columns or more: what is held out are their combinations.")
    rule = f"combinations of {' and '.join(data.held_out)}: 1/20 val, 2/20 test, each {data.held_out[0]} in train"
    return split.by_combination(*(found.column(name) for name in data.held_out)), rule


def unseen_classes(fields: Mapping[str, Field]) -> str:
    """The classes that no training image has, in words; empty if there are none."""
    classes = [one for one in fields.values() if isinstance(one, Classes)]
    unseen = [name for one in classes for name, count in zip(one.names, one.counts, strict=True) if not count]
    more = f" and {len(unseen) - 5} more" if len(unseen) > 5 else ""
    return f"no training image of {', '.join(unseen[:5])}{more}" if unseen else ""


def binarized(x: UInt8[Tensor, "n c h w"], seed: int) -> UInt8[Tensor, "n c h w"]:
    """Every pixel drawn once: 255 with probability value/255, else 0."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.rand(part.shape, generator=generator) * 255 < part for part in x.split(CHUNK)]
    return torch.cat(drawn).to(torch.uint8) * 255


def _fingerprint(
    sets: dict[str, ImageSet], fields: Mapping[str, Field], packed: dict[str, dict[str, Packed]], binarize: str
) -> str:
    """Read from beside the pack, if the same pictures were once hashed with the same labels."""
    classes = [name for field in fields.values() if isinstance(field, Classes) for name in field.names]
    start = hashlib.sha256("\0".join(classes).encode())

    def of_content() -> str:
        digest = start.copy()
        for name, one in sets.items():
            digest.update(f"{name} {tuple(one.images.shape)}".encode())
            for part in packed[name][""].chunks() if binarize == "none" else (one.images.numpy(),):
                digest.update(part.data)
            for key, values in one.given.items():
                for part in packed[name][key].chunks() if key in packed[name] else (values.numpy(),):
                    digest.update(part.data)
            for ways in one.wordings.values():
                digest.update(ways.numpy().data)
        return digest.hexdigest()[:16]

    known = start.copy()
    for name, one in sets.items():
        known.update(f"{name} {binarize} {[(key, part.identity) for key, part in packed[name].items()]}".encode())
        for key, values in [*one.given.items(), *one.wordings.items()]:
            if key not in packed[name]:
                known.update(f"{key} {tuple(values.shape)}".encode() + values.numpy().tobytes())
    return packing.remembered(packed["train"][""].folder, f"fingerprint-{known.hexdigest()[:32]}", of_content)
