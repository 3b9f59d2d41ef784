"""Which files of a source are images, and the splits that their folders name."""

import posixpath
import re
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from bowerbird.data.files import Files
from bowerbird.data.kinds import BEGINNINGS, OTHERS, SUFFIXES, not_read
from bowerbird.data.names import base, is_hidden, is_of_a_system, naturally, suffix
from bowerbird.data.unused import Unused

_IMAGES = frozenset(SUFFIXES)
METADATA = "metadata.jsonl"
CAPTIONS = (".txt", ".caption")
TABLES_OF_METADATA = (METADATA, "metadata.csv", "metadata.tsv", "metadata.parquet")
LABELS = "dataset.json"
"""Names and labels of images in the archives that StyleGAN's tool writes."""
SHEETS = ("sheet.png", "strip.png", "film.gif", "film.webp")
"""Beside ``METADATA``: pictures of examples, not examples."""
BESIDE = re.compile(
    r"(?:readme|licen[cs]e|copying|notice|changelog|authors|citation|attribution)(?:[.-][\w.-]*)?"
    r"|.*\.aigc\.json|thumbs\.db|desktop\.ini|icon\r|"
    + "|".join(map(re.escape, (*TABLES_OF_METADATA, LABELS, *SHEETS))),
    re.IGNORECASE,
)
"""Files that lie beside images as a matter of course."""
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Top folders that name a split."""


class Listing(NamedTuple):
    """The image files of a source."""

    names: list[str]
    """In natural order."""
    captions: dict[str, str]
    """Text files that lie beside images under the same name, by the name of the image."""
    unused: Unused
    """Everything else, but for what lies beside images as a matter of course."""


def image_files(source: Files) -> Listing:
    """All image files, without the sheets and films of folders that ``sample`` and ``edit`` wrote."""
    names = source.names()
    unused = Unused() + source.unused
    sampled = {posixpath.dirname(name) for name in names if base(name) == METADATA}
    found: list[str] = []
    others: list[str] = []
    for name in names:
        is_image = suffix(name) in _IMAGES
        if is_hidden(name):
            if is_image and not is_of_a_system(name):
                unused.add("hidden image{s}", name)
        elif is_image and not (base(name) in SHEETS and posixpath.dirname(name) in sampled):
            found.append(name)
        elif not BESIDE.fullmatch(base(name)):
            (found if begins_as_image(source, name) else others).append(name)
    captions = _captions(found, others)
    for name in set(others) - set(captions.values()):
        unused.add(not_read(name, "file{s} of unknown kind"), name)
    return Listing(naturally(found), captions, unused)


def _captions(images: list[str], others: list[str]) -> dict[str, str]:
    texts = {posixpath.splitext(name)[0]: name for name in others if suffix(name) in CAPTIONS}
    stems = ((name, posixpath.splitext(name)[0]) for name in images) if texts else ()
    return {name: texts[stem] for name, stem in stems if stem in texts}


def begins_as_image(source: Files, name: str) -> bool:
    """Whether a file is an image by its first bytes; files of text are not looked into."""
    if suffix(name) in OTHERS:
        return False
    try:
        with source.open(name) as file:
            return BEGINNINGS.match(file.read(16)) is not None
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def official_splits(names: list[str]) -> np.ndarray:
    """The split that each file's top folder names: train, val or test; "" unless all do and one is for training."""
    depth = n_common_folders(names)
    tops = {folder: [*folder.split("/"), *[""] * (depth + 1)][depth].lower() for folder in _folders(names)}
    splits = {folder: SPLITS.get(top, "") for folder, top in tops.items()}
    if not all(splits.values()) or "train" not in splits.values():
        return np.full(len(names), "")
    return np.array([splits[posixpath.dirname(name)] for name in names])


def n_common_folders(names: list[str]) -> int:
    """How many folders, from the top, hold all files."""
    folders = [folder.split("/") if folder else [] for folder in _folders(names)]
    first, last = min(folders), max(folders)  # what these two share, all share
    return next((i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))


def _folders(names: list[str]) -> set[str]:
    return {name[: max(0, name.rfind("/"))] for name in names}
