"""From the name or path of a source to ``Pictures``: pixels of one shape, and what is known about each image."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

from bowerbird import config
from bowerbird.data import builtin, catalogue, fetch, files, packs
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.media.image import pixels
from bowerbird.media.image import published as fetched

LARGEST_DEFAULT_SIZE = 64
"""Pixels: larger images are reduced to this unless a size is asked for."""
SIZE_STEP = 8
"""A size that we choose is a multiple of this, so that networks can halve it three times."""

T = TypeVar("T")


@dataclass
class Pictures:
    """A source after decoding, before labels and splits are chosen."""

    name: str
    images: np.ndarray
    """uint8 (n, h, w, c)."""
    columns: dict[str, np.ndarray]
    """What is known about each image, as strings (n,)."""
    split: np.ndarray
    """The official split of each image, "" where there is none."""
    names: list[str] = field(default_factory=list)
    """Files, where the images come from files."""
    skipped: int = 0
    skipped_why: str = ""
    note: str = ""


def pictures(data: config.Data) -> Pictures:
    """The images of ``data.source`` in the wanted size and colour; errors say what is wrong with the source."""
    if data.size is not None and data.size < 1:
        raise BowerbirdError(f"data.size = {data.size} must be at least 1 pixel.")
    known = {record.name: record for record in catalogue.RECORDS if record.kind == "data"}
    if data.source in known:
        record = known[data.source]
        return _reshaped(_packed(record) if record.built_in else _fetched(record.name), data)
    path = Path(data.source).expanduser()
    if path.exists():
        return _from_files(path, data)
    if path.name == data.source and not path.suffix:
        raise unknown("data set, folder or zip", data.source, known)
    raise BowerbirdError(f"The data {data.source} do not exist; give a folder, a zip or one of: {', '.join(known)}.")


# ------------------------------------------------------------------------------------- arrays that exist already


def _packed(record: catalogue.Record) -> Pictures:
    """What ships in the package, or the whole of it if that has been built; a note says which."""
    path = fetch.needed(record.name)
    pack = packs.read(path)
    note = ""
    if record.packages:
        part = f"the part that ships (bowerbird data get {record.name} builds the whole)"
        note = part if path.parent == builtin.FOLDER else "the whole set, from the cache"
    return Pictures(record.name, pack.pop("images"), split=pack.pop("split"), columns=pack, note=note)


def _fetched(name: str) -> Pictures:
    folder = fetch.needed(name)
    parts = fetched.READERS[name](folder)
    return Pictures(
        name,
        np.concatenate([images for _, images, _ in parts]),
        {"label": np.concatenate([labels for _, _, labels in parts])},
        np.concatenate([np.full(len(images), split) for split, images, _ in parts]),
    )


def _reshaped(found: Pictures, data: config.Data) -> Pictures:
    if data.size is not None:
        found.images = pixels.fit_array(found.images, data.size, data.size)
    n_channels = {"auto": found.images.shape[-1], "grey": 1, "rgb": 3}[data.channels]
    if n_channels != found.images.shape[-1]:
        found.images = pixels.with_channels(found.images, n_channels)
    return found


# ---------------------------------------------------------------------------------------------- folders and zips


def _from_files(path: Path, data: config.Data) -> Pictures:
    source = files.open_files(path)
    names = files.image_names(source)
    if not names:
        raise BowerbirdError(f"{path} holds no images ({', '.join(files.SUFFIXES)}).")

    def opening(read: Callable[[BufferedIOBase], T]) -> Callable[[str], T]:
        def from_name(name: str) -> T:
            with source.open(name) as file:
                return read(file)

        return from_name

    problems: dict[str, str] = {}
    beside = 1 if data.halves == "none" else 2
    if data.size is None:
        sizes, problems = pixels.each_readable(names, opening(pixels.upright_size))
        height, width = default_size([(h, w // beside) for h, w in sizes.values()]) if sizes else (1, 1)
    else:
        height = width = data.size
    width *= beside
    remaining = [name for name in names if name not in problems]
    decoded, more = pixels.each_readable(remaining, opening(lambda file: pixels.decode(file, height, width)))
    problems |= more
    if not decoded:
        raise BowerbirdError(f"None of the {len(names)} images in {path} can be read: {reasons(problems)}.")
    readable = list(decoded)
    n_channels, note = _colour(list(decoded.values()), data.channels)
    return Pictures(
        path.resolve().name,
        pixels.with_channels(decoded.values(), n_channels),
        files.columns(source, readable),
        files.official_splits(readable),
        readable,
        len(problems),
        reasons(problems),
        note,
    )


def default_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """(height, width): as stored when all agree and the longer side is at most 64, else a square.

    The square's side is the median of the shorter sides, at most 64, rounded down to a multiple of 8.
    """
    if len(set(sizes)) == 1 and max(sizes[0]) <= LARGEST_DEFAULT_SIZE:
        return sizes[0]
    side = min(LARGEST_DEFAULT_SIZE, int(median(min(size) for size in sizes)))
    side = side - side % SIZE_STEP or side
    return side, side


def _colour(images: list[np.ndarray], wanted: str) -> tuple[int, str]:
    """The number of channels, and a note where that gives up somebody's colour.

    A few colour pictures among many grey ones do not make the set colourful: the majority decides.
    """
    in_colour = sum(image.shape[-1] == 3 for image in images)
    n_channels = {"auto": 3 if 2 * in_colour > len(images) else 1, "grey": 1, "rgb": 3}[wanted]
    if wanted == "auto" and n_channels == 1 and in_colour:
        return 1, f'{in_colour} of the images are in colour and become grey (channels = "rgb" keeps it)'
    return n_channels, ""


def reasons(problems: dict[str, str]) -> str:
    """How many files have which problem, and the name of the first."""
    if not problems:
        return ""
    counts = ", ".join(f"{count} {reason}" for reason, count in Counter(problems.values()).most_common())
    return f"{counts}; first: {next(iter(problems))}"
