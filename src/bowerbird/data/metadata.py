"""What a folder or zip says about its images or recordings: folders, tables of metadata, and texts beside the files.

All of it becomes *columns* of strings, one value for each file: ``folder``, every column of the tables, ``caption``.
A table names files relative to its own folder.  Names are matched as they are, else without regard to backslashes and
to the form of Unicode, else without regard to case, each only where one file can be meant.
"""

import csv
import io
import json
import posixpath
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from bowerbird.data import files
from bowerbird.data.levels import folder_labels
from bowerbird.data.listing import LABELS, METADATA, Listing
from bowerbird.data.names import base, naturally, visible
from bowerbird.data.tables import DELIMITERS, where_not_csv, where_not_json
from bowerbird.data.unused import Unused
from bowerbird.errors import BowerbirdError

LARGEST_BYTES = 1 << 28
"""A zip can hold a file that unpacks without end."""
MISSING = "none"
"""The value of a column for a file that the metadata do not mention."""
FOLDER, LABEL, CAPTION, FILE_NAME = "folder", "label", "caption", "file_name"
Row = dict[str, Any]


@dataclass
class Described:
    """Columns of strings (n,), where each comes from, and what was left out of them."""

    thing: str = "image"
    """What each file is, in a word."""
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unused: Unused = field(default_factory=Unused)

    def add(self, name: str, values: Iterable[str], origin: str) -> None:
        self.columns[name], self.origins[name] = np.array([composed(value) for value in values]), origin


def described(
    source: files.Files,
    listing: Listing,
    names: list[str],
    splits: np.ndarray,
    captions: bool,
    thing: str = "image",
) -> Described:
    """What is said about the files ``names``, of all that are listed; the texts beside them if ``captions``."""
    found = Described(thing)
    tables = _Tables(source, listing.names, found)
    if not tables.are_of_stylegan:
        _add_folders(found, names, splits)
    tables.add_columns(found, names)
    if captions and CAPTION not in found.columns and listing.captions:
        texts = (_text(source, listing.captions[name]) if name in listing.captions else "" for name in names)
        found.add(CAPTION, map(str.strip, texts), f"texts beside the {thing}s")
        if alone := [name for name in names if name not in listing.captions]:
            found.notes.append(
                f"no text lies beside {len(alone):,} of the {thing}s ({alone[0]} …), so their caption is empty"
            )
    elif listing.captions:
        reason = f"text{{s}} beside {thing}s, which --data.given {CAPTION} reads"
        found.unused.add(reason, min(listing.captions.values()), len(listing.captions))
    return found


def composed(text: str) -> str:
    """Letters with marks as one character each, as they are typed; macOS stores them as two."""
    return unicodedata.normalize("NFC", text)


def _add_folders(found: Described, names: list[str], splits: np.ndarray) -> None:
    if labels := folder_labels(names, splits):
        found.add(FOLDER, labels, "folders")
    elif 0 < len(outside := [name for name in names if "/" not in name]) < len(names):
        found.notes.append(
            f"folders are not labels, because {len(outside):,} {found.thing}s lie outside them ({outside[0]} …)"
        )


# ------------------------------------------------------------------------------------------------------- tables


class _Tables:
    """The rows of all tables of metadata, by the name of their file."""

    def __init__(self, source: files.Files, listed: list[str], found: Described):
        self._rows: dict[str, Row] = {}
        self._origins: dict[str, str] = {}
        self._found = found
        self.are_of_stylegan = False
        names = visible([name for name in source.names() if base(name) in READERS])
        place = Index(listed) if names else None
        for name in naturally(names):
            rows = READERS[posixpath.basename(name)](source, name)
            self.are_of_stylegan |= posixpath.basename(name) == LABELS and rows is not None
            if rows and f"{LABEL}0" in rows[0]:
                found.notes.append(f"the labels of {name} are vectors, not classes: columns {LABEL}0, {LABEL}1 …")
            self._match(name, rows, place)

    def _match(self, table: str, rows: list[Row] | None, place: "Index | None") -> None:
        if not rows or place is None:
            reason = "file{s} of unknown kind" if rows is None else "metadata table{s} without a row"
            return self._found.unused.add(reason, table)
        strangers = []
        for row in rows:
            image = place.find(posixpath.dirname(table), row[FILE_NAME])
            if image is None:
                strangers.append(row[FILE_NAME])
            else:
                self._take(table, image, row)
        if len(strangers) == len(rows):
            raise BowerbirdError(
                f"None of the {len(rows):,} {FILE_NAME} entries of {table} names {_a(self._found.thing)}; the first is "
                f"{strangers[0]}. Write them relative to the folder of {posixpath.basename(table)}."
            )
        if strangers:
            self._found.unused.add(
                f"row{{s}} of {table} that name no {self._found.thing}", strangers[0], len(strangers)
            )

    def _take(self, table: str, image: str, row: Row) -> None:
        if image in self._rows:
            self._found.unused.add(f"earlier row{{s}} of {table} about the same {self._found.thing}", image)
        kept = self._rows.setdefault(image, {})
        for key, value in row.items():
            if isinstance(value, str | int | float) and key != FILE_NAME:
                kept[key] = str(value)
                self._origins.setdefault(key, posixpath.basename(table))
            elif value is not None and key != FILE_NAME:
                self._found.unused.add(f"list{{s}} or object{{s}} in the column {key}", image)

    def add_columns(self, found: Described, names: list[str]) -> None:
        mentioned = [self._rows.get(name, {}) for name in names]
        for key in sorted({key for row in mentioned for key in row}):
            found.add(key, (row.get(key, MISSING) for row in mentioned), self._origins[key])
        alone = [name for name in names if name not in self._rows]
        if self._rows and alone:
            found.notes.append(f"the metadata do not mention {len(alone):,} of the {found.thing}s ({alone[0]} …)")


def _a(thing: str) -> str:
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


class Index:
    """Finds files by names that were written by hand or on another system."""

    def __init__(self, images: list[str]):
        self._exact = set(images)
        self._images: dict[str, dict[str, str]] = {}
        for form in (composed, _folded):
            by_form: dict[str, str] = {}
            for image in images:
                by_form[form(image)] = image if form(image) not in by_form else ""
            self._images[form.__name__] = by_form

    def find(self, folder: str, wanted: str) -> str | None:
        """The image that is called so in a folder; None if there is none, or more than one."""
        exact = posixpath.normpath(posixpath.join(folder, wanted))
        if exact in self._exact:
            return exact
        other = posixpath.normpath(posixpath.join(folder, wanted.strip().replace("\\", "/")))
        hits = (self._images[form.__name__].get(form(other)) for form in (composed, _folded))
        return next((hit for hit in hits if hit), None)


def _folded(name: str) -> str:
    return composed(name).casefold()


def _text(source: files.Files, name: str) -> str:
    with source.open(name) as file:
        raw = file.read(LARGEST_BYTES + 1)
    if len(raw) > LARGEST_BYTES:
        raise BowerbirdError(f"{name} is larger than {LARGEST_BYTES >> 20} MB; is it really metadata?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BowerbirdError(
            f"{name} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}; save it as UTF-8."
        ) from error


def _json_lines(source: files.Files, name: str) -> list[Row]:
    lines = _text(source, name).split("\n")
    return [_row(line, f"{name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        must = 'every line must be an object such as {"file_name": "1.png", "label": "cat"}'
        raise BowerbirdError(f"{where} {where_not_json(line, error, must)}.") from error
    if not isinstance(row, dict) or not isinstance(row.get(FILE_NAME), str):
        raise BowerbirdError(f"{where} must be a JSON object with a {FILE_NAME}.")
    return row


def _cells(source: files.Files, name: str, delimiter: str) -> list[Row]:
    """Rows of a table whose first row names the columns; an empty cell says nothing.

    Cells are separated as the first row separates ``file_name`` from others: spreadsheets write semicolons where a
    comma is the decimal point.
    """
    text = _text(source, name)
    titles = text.partition("\n")[0].strip()
    delimiter = next((one for one in (delimiter, *DELIMITERS) if FILE_NAME in _titles(titles, one)), delimiter)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    n_read = 0
    try:
        header = [title.strip() for title in next(reader, [])]
        if FILE_NAME not in header and "|" in "".join(header[:1]):
            return _ljspeech(source, name)
        if FILE_NAME not in header:
            raise BowerbirdError(f"{name} has no column {FILE_NAME}; its first row is: {', '.join(header)}.")
        n_read = reader.line_num
        for cells in filter(None, reader):
            n_read = reader.line_num
            if len(cells) != len(header):
                raise BowerbirdError(
                    f"{name}, line {reader.line_num} has {len(cells)} cells, but the first row names {len(header)} "
                    "columns; put quotes around cells that contain the separator."
                )
            rows.append({key: cell for key, cell in zip(header, cells, strict=True) if cell or key == FILE_NAME})
    except csv.Error as error:
        raise BowerbirdError(f"{name}, {where_not_csv(n_read, reader.line_num, error)}") from error
    return rows


def _titles(row: str, delimiter: str) -> list[str]:
    return [title.strip().strip('"') for title in row.split(delimiter)]


def _ljspeech(source: files.Files, name: str) -> list[Row]:
    """``ID|text`` or ``ID|text|text with numbers in words`` in every line, about ``wavs/ID.wav``; no header."""
    rows: list[Row] = []
    for number, line in enumerate(_text(source, name).splitlines(), 1):
        file, *texts = line.split("|")
        if not file.strip() or not texts:
            raise BowerbirdError(f"{name}, line {number} is not ID|text, as LJSpeech has it; its first lines are.")
        rows.append({FILE_NAME: f"wavs/{file.strip()}.wav", "text": texts[-1].strip()})
    return rows


def _parquet(source: files.Files, name: str) -> list[Row]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise BowerbirdError(f"To read {name}: pip install pyarrow, or save it as metadata.csv.") from error
    with source.open(name) as file:
        raw = file.read()
    try:
        rows: list[Row] = parquet.read_table(io.BytesIO(raw)).to_pylist()
    except Exception as error:  # pyarrow's exceptions have no other common base
        raise BowerbirdError(f"{name} is not a readable Parquet file ({error}).") from error
    if not all(isinstance(row.get(FILE_NAME), str) for row in rows):
        raise BowerbirdError(f"{name} needs a column {FILE_NAME} with a name in every row.")
    return rows


def _stylegan(source: files.Files, name: str) -> list[Row] | None:
    """``{"labels": [["00000/img.png", 3], …]}``, or null for none; None if the file is something else.

    Labels can be lists of numbers: classes if each has one 1 and zeros, else a column ``label0`` … for each number.
    """
    try:
        content = json.loads(_text(source, name))
    except (json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(content, dict) or "labels" not in content:
        return None
    pairs = content["labels"] or []
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise BowerbirdError(f'The labels of {name} must be pairs such as ["00000/img00000000.png", 3].')
    vectors = [label for _, label in pairs if isinstance(label, list)]
    classes = all(_is_one_hot(vector) for vector in vectors)
    return [{FILE_NAME: image, **_label(label, classes)} for image, label in pairs]


def _is_one_hot(vector: list[Any]) -> bool:
    return vector.count(1) == 1 and vector.count(0) == len(vector) - 1


def _label(label: Any, classes: bool) -> Row:
    if not isinstance(label, list):
        return {LABEL: label}
    if classes:
        return {LABEL: label.index(1)}
    return {f"{LABEL}{number}": value for number, value in enumerate(label)}


READERS: dict[str, Callable[[files.Files, str], list[Row] | None]] = {
    METADATA: _json_lines,
    "metadata.csv": partial(_cells, delimiter=","),
    "metadata.tsv": partial(_cells, delimiter="\t"),
    "metadata.parquet": _parquet,
    LABELS: _stylegan,
}
"""The tables of metadata, by name."""
