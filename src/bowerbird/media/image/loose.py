"""Loose images: every image file of a folder or zip in its own size and colour, read when it is needed.

For measuring: an extractor brings each image to its own size, so nothing is cut or resized before.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from io import BufferedIOBase, BytesIO
from pathlib import Path

import numpy as np

from bowerbird.data import files
from bowerbird.data.files import opener
from bowerbird.data.listing import image_files
from bowerbird.data.unused import not_used
from bowerbird.errors import BowerbirdError
from bowerbird.media.image import pixels
from bowerbird.media.image.sources import no_images


@dataclass(frozen=True)
class LooseImages:
    """The readable image files of one place, in natural order of their names."""

    name: str
    source: files.Files
    names: tuple[str, ...]
    fingerprint: str
    """16 hexadecimal digits of the SHA-256 of all files."""
    shapes: tuple[tuple[int, ...], ...]
    """(h, w, c) of each image; c is 1 where the pixels are grey."""
    said: str = ""
    """What was not used, and what a user may not expect, in words; empty when there is nothing."""
    ranges: Mapping[str, pixels.Range] = field(default_factory=dict)
    """The values of black and white in files of more than 8 bits."""

    def __len__(self) -> int:
        return len(self.names)

    def read(self, rows: slice) -> list[np.ndarray]:
        """Images as uint8 (h, w, c)."""
        read = partial(pixels.as_stored, ranges=self.ranges)
        images, problems = pixels.each_readable(list(self.names[rows]), opener(self.source, read))
        if problems:
            raise BowerbirdError(f"{next(iter(problems))} in {self.name} has changed while it was being measured.")
        return list(images.values())

    def summary(self) -> str:
        """How many, of what size and colour."""
        sizes = {shape[:2] for shape in self.shapes}
        height, width = next(iter(sizes))
        size = f"{width}x{height}" if len(sizes) == 1 else f"{len(sizes)} different sizes"
        grey = sum(shape[2] == 1 for shape in self.shapes)
        colour = {0: "colour", len(self): "grey"}.get(grey, f"{grey:,} of them grey")
        return f"{self.name}: {len(self):,} images, {size}, {colour}" + (f"; {self.said}" if self.said else "")


def open_loose(path: Path, names: str = "auto") -> LooseImages:
    """Reads every image once, so that what cannot be read is known and counted before anything is measured.

    ``names``: the encoding of the names in a zip, as in ``config.Data``.
    """
    if not path.exists():
        raise BowerbirdError(f"{path} does not exist; give a folder or a zip of images.")
    source = files.open_files(path, names)
    listing = image_files(source)
    if not listing.names:
        raise no_images(path, listing.unused)
    ranges = pixels.Ranges(listing.names, partial(opener, source))
    seen, problems = pixels.each_readable(listing.names, opener(source, partial(_fingerprinted, ranges=ranges)))
    if not seen:
        raise BowerbirdError(f"None of the {len(listing.names)} images in {path} can be read: {not_used(problems)}.")
    digest = hashlib.sha256("".join(digest for digest, _, _ in seen.values()).encode())
    unused = listing.unused + not_used(problems)
    notes = [f"not used: {unused}" if unused else "", source.note]
    notes += pixels.described(ranges, {name: header for name, (_, _, header) in seen.items()})
    shapes = tuple(shape for _, shape, _ in seen.values())
    said = "; ".join(filter(None, notes))
    return LooseImages(path.resolve().name, source, tuple(seen), digest.hexdigest()[:16], shapes, said, ranges)


def _fingerprinted(
    file: BufferedIOBase, ranges: Mapping[str, pixels.Range]
) -> tuple[str, tuple[int, ...], pixels.Header]:
    content = file.read()
    shape = pixels.as_stored(BytesIO(content), ranges).shape
    return hashlib.sha256(content).hexdigest(), shape, pixels.header(BytesIO(content))
