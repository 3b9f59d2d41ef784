"""Where image files are: a folder or a zip, listed and read in place.  Nothing of a zip is ever written to disk.

A file is named by its path inside the source, with forward slashes.  What the source says about each file is a set
of *columns* of strings: ``folder`` (the last folder that holds the file), and every column of ``metadata.jsonl``
files, whose ``file_name`` is relative to their own folder.
"""

import json
import os
import posixpath
import re
import zipfile
from io import BufferedIOBase
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from bowerbird.errors import BowerbirdError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".pgm", ".ppm", ".pbm", ".pnm", ".tif", ".tiff")
"""What counts as an image file; everything else beside them is ignored."""
METADATA = "metadata.jsonl"
SHEET = "sheet.png"
"""Beside ``METADATA``: a picture of examples, not one."""
LARGEST_METADATA_BYTES = 1 << 28
"""A zip can hold a file that unpacks without end."""
MISSING = "none"
"""The value of a column for a file whose metadata do not mention it."""
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Top folders that name a split."""


BRACES = re.compile(r"(?P<before>.*)\{(?P<source>[^{},]+),(?P<target>[^{},]+)\}(?P<after>[^{}]*)")
"""Two parallel files as one path."""


class Files(Protocol):
    """A folder or a zip."""

    def names(self) -> list[str]: ...
    def open(self, name: str) -> BufferedIOBase: ...
    def stamp(self, name: str) -> tuple[int, ...]:
        """Bytes, time of the last change in ns (0: unknown), and what else tells that a file has changed."""
        ...


class Folder:
    def __init__(self, path: Path):
        self.path = path

    def names(self) -> list[str]:
        found = ((Path(root) / name for name in names) for root, _, names in os.walk(self.path))
        return [path.relative_to(self.path).as_posix() for paths in found for path in paths]

    def open(self, name: str) -> BufferedIOBase:
        return (self.path / name).open("rb")

    def stamp(self, name: str) -> tuple[int, ...]:
        try:
            about = os.stat(f"{self.path}/{name}")
        except OSError:  # a link to nothing
            return 0, 0
        return about.st_size, about.st_ctime_ns, about.st_mtime_ns


class Zip:
    def __init__(self, path: Path):
        try:
            self.archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise BowerbirdError(f"{path} is not a readable zip file ({error}); make it again.") from error

    def names(self) -> list[str]:
        return sorted({info.filename for info in self.archive.infolist() if not info.is_dir()})

    def open(self, name: str) -> BufferedIOBase:
        return cast(BufferedIOBase, self.archive.open(name))

    def stamp(self, name: str) -> tuple[int, ...]:
        info = self.archive.getinfo(name)
        return info.file_size, 0, info.CRC


def open_files(path: Path) -> Files:
    """The folder or zip at a path."""
    if path.is_dir():
        return Folder(path)
    if zipfile.is_zipfile(path) or path.suffix.lower() == ".zip":
        return Zip(path)
    raise BowerbirdError(f"{path} is neither a folder nor a zip of images.")


def natural(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key by which s2 comes before s10."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], text


def visible(names: list[str]) -> list[str]:
    """Without hidden files and the resource forks that macOS puts into zips."""
    return [n for n in names if not any(part.startswith(".") or part == "__MACOSX" for part in n.split("/"))]


def image_names(files: Files) -> list[str]:
    """All image files in natural order, without the contact sheets of folders that ``bowerbird sample`` wrote."""
    names = visible(files.names())
    sampled = {posixpath.dirname(name) for name in names if posixpath.basename(name) == METADATA}
    sheets = {posixpath.join(folder, SHEET) for folder in sampled}
    return sorted((n for n in names if n.lower().endswith(SUFFIXES) and n not in sheets), key=natural)


def columns(files: Files, names: list[str]) -> dict[str, np.ndarray]:
    """What is known about each file, as strings (n,)."""
    known: dict[str, list[str]] = {}
    if folders := _folder_labels(names):
        known["folder"] = folders
    rows = _metadata(files)
    if any(name in rows for name in names):
        mentioned = [rows.get(name, {}) for name in names]
        for key in sorted({key for row in mentioned for key in row}):
            known[key] = [row.get(key, MISSING) for row in mentioned]
    return {key: np.array(values) for key, values in known.items()}


def official_splits(names: list[str]) -> np.ndarray:
    """The split that each file's top folder names: train, val or test; "" unless all do and one is for training."""
    folders = [name.split("/")[:-1] for name in names]
    first, last = min(folders), max(folders)  # what these two share, all share
    depth = next((i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    splits = [SPLITS.get(parts[depth].lower(), "") if len(parts) > depth else "" for parts in folders]
    return np.array(splits if all(splits) and "train" in splits else [""] * len(names))


def _folder_labels(names: list[str]) -> list[str]:
    """The last folder of each file, unless files lie outside of folders or all in one, or folders are just splits."""
    folders = [posixpath.basename(posixpath.dirname(name)) for name in names]
    distinct = set(folders)
    if "" in distinct or len(distinct) < 2 or distinct <= SPLITS.keys():
        return []
    return folders


def _metadata(files: Files) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for name in visible(files.names()):
        if posixpath.basename(name) != METADATA:
            continue
        with files.open(name) as file:
            text = file.read(LARGEST_METADATA_BYTES + 1)
        if len(text) > LARGEST_METADATA_BYTES:
            raise BowerbirdError(f"{name} is larger than {LARGEST_METADATA_BYTES >> 20} MB; is it really metadata?")
        lines = text.decode("utf-8-sig", errors="replace").split("\n")
        for number, line in enumerate(lines, 1):
            if line.strip():
                row = _row(line, f"{name}, line {number}")
                target = posixpath.normpath(posixpath.join(posixpath.dirname(name), row.pop("file_name")))
                rows[target] = row
    return rows


def _row(line: str, where: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BowerbirdError(
            f"{where} is not JSON ({error}); every line must be an object such as "
            '{"file_name": "1.png", "label": "cat"}.'
        ) from error
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise BowerbirdError(f"{where} must be a JSON object with a file_name.")
    return {key: str(value) for key, value in row.items() if isinstance(value, str | int | float)}
