"""Loose images: every image file of a folder or zip in its own size and colour, read when it is needed.

For measuring: an extractor brings each image to its own size, so nothing is cut or resized before.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bowerbird.data import files
from bowerbird.errors import BowerbirdError
from bowerbird.media.image import pixels
from bowerbird.media.image.pixels import reasons


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
    skipped: str = ""
    """What was left out, in words; empty when nothing was."""

    def __len__(self) -> int:
        return len(self.names)

    def read(self, rows: slice) -> list[np.ndarray]:
        """Images as uint8 (h, w, c)."""
        images, problems = pixels.each_readable(list(self.names[rows]), _reading(self.source, pixels.as_stored))
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
        return f"{self.name}: {len(self):,} images, {size}, {colour}" + (f"; {self.skipped}" if self.skipped else "")


def open_loose(path: Path) -> LooseImages:
    """Reads every image once, so that what cannot be read is known and counted before anything is measured."""
    if not path.exists():
        raise BowerbirdError(f"{path} does not exist; give a folder or a zip of images.")
    source = files.open_files(path)
    names = files.image_names(source)
    if not names:
        raise BowerbirdError(f"{path} holds no images ({', '.join(files.SUFFIXES)}).")
    seen, problems = pixels.each_readable(names, _reading(source, _fingerprinted))
    if not seen:
        raise BowerbirdError(f"None of the {len(names)} images in {path} can be read: {reasons(problems)}.")
    digest = hashlib.sha256("".join(digest for digest, _ in seen.values()).encode())
    others = [name for name in files.visible(source.names()) if not name.lower().endswith(files.SUFFIXES)]
    skipped = [f"{len(others)} other files skipped (first: {sorted(others)[0]})"] if others else []
    skipped += [f"{len(problems)} images skipped ({reasons(problems)})"] if problems else []
    return LooseImages(
        path.resolve().name, source, tuple(seen), digest.hexdigest()[:16], tuple(shape for _, shape in seen.values()),
        "; ".join(skipped),
    )  # fmt: skip


def _reading(source: files.Files, read: Callable[[bytes], Any]) -> Callable[[str], Any]:
    def from_name(name: str) -> Any:
        with source.open(name) as file:
            return read(file.read())

    return from_name


def _fingerprinted(content: bytes) -> tuple[str, tuple[int, ...]]:
    return hashlib.sha256(content).hexdigest(), pixels.as_stored(content).shape
