"""Tables of text: JSON, JSON lines, CSV, TSV and Parquet as the names of columns and rows one by one.

What the columns mean is decided by who reads them.  Rows are made while they are asked for, so that a large table is
never held as a whole.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, NamedTuple

from bowerbird.errors import BowerbirdError

Row = tuple[str, dict[str, Any]]
"""Where a row stands, for errors, and what its columns hold."""
Cells = tuple[int, list[str]]
"""The number of a line and its cells."""
LONGEST_CELL = 1 << 30
"""Characters."""
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
TRANSLATION = "translation"
SEPARATOR = re.compile(r"sep=(.)")
LOOKED_AT = 100
"""Rows from which it is concluded whether there is a header."""


@dataclass
class Table:
    columns: list[str]
    rows: Callable[[Sequence[str]], Iterator[Row]]
    """The rows with at least these columns, if they have them; can be called once."""
    notes: list[str] = field(default_factory=list)
    """What the user may not expect."""
    translation: tuple[str, ...] = ()
    """The columns that were found in an object ``translation``, as in {"translation": {"en": "Hi", "de": "Hallo"}}."""
    example: dict[str, str] = field(default_factory=dict)
    """Of a table without a header: the first row."""

    def with_note(self, note: str) -> "Table":
        return replace(self, notes=[*self.notes, note]) if note else self


# ------------------------------------------------------------------------------------------------------- JSON


def json_lines(lines: Iterable[str], name: str) -> Table:
    return _of_objects((where, _parsed(line, where)) for where, line in _numbered(lines, name))


def json_document(text: str, name: str) -> Table:
    """A list of objects, an object with such a list or with a list per column, or an object per line."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{") and "\n" in text.strip() and _is_json(text.lstrip().partition("\n")[0]):
            return json_lines(text.split("\n"), name)
        raise BowerbirdError(f"{name} is not JSON ({error}).") from error
    items, note = _items(whole, name)
    _check_surrogates(whole, text, name)
    return _of_objects((f"{name}, item {number}", item) for number, item in enumerate(items, 1)).with_note(note)


def _items(whole: Any, name: str) -> tuple[list[Any], str]:
    if isinstance(whole, list):
        return whole, ""
    if isinstance(whole, dict) and whole and all(isinstance(column, list) for column in whole.values()):
        lengths = {len(column) for column in whole.values()}
        if len(whole) == 1 and isinstance(next(iter(*whole.values()), None), dict | list):
            return next(iter(whole.values())), f"read from the key '{next(iter(whole))}'"
        if len(lengths) == 1:
            return [dict(zip(whole, row, strict=True)) for row in zip(*whole.values(), strict=True)], ""
    what = f"an object with {_keys(whole)}" if isinstance(whole, dict) else f"a {type(whole).__name__}"
    raise BowerbirdError(
        f'{name} must be a list of objects, such as [{{"text": "…"}}], or an object per line; it is {what}.'
    )


def _keys(value: dict[str, Any]) -> str:
    shown = ", ".join(repr(key[:40]) for key in islice(value, 8))
    return f"the keys {shown}" + (" …" if len(value) > 8 else "") if value else "no keys"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(line: str, where: str) -> Any:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BowerbirdError(
            f"{where} {where_not_json(line, error, 'every line must be an object of its own')}."
        ) from error
    _check_surrogates(value, line, where)
    return value


def where_not_json(line: str, error: Exception, must: str) -> str:
    """What is wrong with a line of a .jsonl: it may be the beginning of a document over several lines."""
    if isinstance(error, json.JSONDecodeError) and error.pos >= len(line.rstrip()):
        return f"is not JSON: it ends within a document; {must}; save a document of several lines as a .json"
    return f"is not JSON ({error}); {must}"


def _check_surrogates(value: Any, text: str, where: str) -> None:
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise BowerbirdError(f"{where} is not valid text: an escape is half of a surrogate pair.") from error


def _numbered(lines: Iterable[str], name: str) -> Iterator[tuple[str, str]]:
    return ((f"{name}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip())


def _of_objects(items: Iterator[tuple[str, Any]]) -> Table:
    rows = ((where, _object(item, where)) for where, item in items)
    first = next(rows, None)
    if first is None:
        return Table([], lambda _: rows)
    nested = first[1].get(TRANSLATION)
    return Table(
        list(first[1]), lambda _: chain([first], rows), translation=tuple(nested) if isinstance(nested, dict) else ()
    )


def _object(item: Any, where: str) -> dict[str, Any]:
    """A string by itself is a text, a list of objects the messages of a chat."""
    if isinstance(item, str):
        return {"text": item}
    if isinstance(item, list) and item and all(isinstance(one, dict) for one in item):
        return {"messages": item}
    if not isinstance(item, dict):
        raise BowerbirdError(f"{where} must be a JSON object.")
    nested = item.get(TRANSLATION)
    return item | nested if isinstance(nested, dict) else item


# ------------------------------------------------------------------------------------------------ CSV and TSV


def csv_cells(lines: Iterable[str], name: str) -> tuple[Iterator[Cells], str]:
    """The cells of every row, and what stands between them if it is no comma."""
    lines = iter(lines)
    begin = list(islice(lines, 1))
    if stated := SEPARATOR.fullmatch("".join(begin)):  # Excel's; the line counts, but holds nothing
        return _csv(chain([""], lines), name, stated[1]), DELIMITERS.get(stated[1], f"'{stated[1]}'")
    delimiter = next((one for one in DELIMITERS if begin and one in begin[0]), ",")
    return _csv(chain(begin, lines), name, delimiter), "" if delimiter == "," else DELIMITERS[delimiter]


def tsv_cells(lines: Sequence[str], name: str) -> tuple[Iterator[Cells], bool]:
    """The cells of every row, and whether quotation marks enclose them: if every mark of the file fits that."""
    if is_quoted(lines):
        return _csv(lines, name, "\t"), True
    return ((number, line.split("\t")) for number, line in enumerate(lines, 1) if line), False


def _csv(lines: Iterable[str], name: str, delimiter: str) -> Iterator[Cells]:
    csv.field_size_limit(LONGEST_CELL)  # of the whole process; the usual 131,072 characters are no long document
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
    n_read = 0
    try:
        for cells in reader:
            n_read = reader.line_num
            if cells:
                yield n_read, cells
    except csv.Error as error:
        raise BowerbirdError(f"{name}, {where_not_csv(n_read, reader.line_num, error)}") from error


def where_not_csv(n_read: int, line: int, error: csv.Error) -> str:
    """Where a table ceases to be CSV, and why: a quotation mark that never closes is found long after it opens."""
    if n_read + 1 == line and "unexpected end" not in str(error):
        return f"line {line} is not CSV: {error}."
    return (
        f"line {n_read + 1} is not CSV: a quotation mark opens in this row and is not closed properly by line {line} "
        f'({error}); close it, or double each mark that belongs to the text ("").'
    )


QUOTED = r'"(?:[^"]++|"")*+"'
QUOTED_CELL = re.compile(QUOTED)
QUOTED_ROW = re.compile(rf'(?:{QUOTED}|[^"\t]*+)(?:\t(?:{QUOTED}|[^"\t]*+))*+')


def is_quoted(lines: Iterable[str]) -> bool:
    """Whether marks enclose cells as Excel writes them: none stands anywhere else, and marks inside are doubled."""
    found, begun = False, list[str]()
    n_marks = 0
    for line in lines:
        n_marks += line.count('"')
        if n_marks or begun:
            begun.append(line)
        if begun and n_marks % 2 == 0:
            if not _is_quoted_row("\n".join(begun)):
                return False
            found, n_marks = True, 0
            begun.clear()
    return found and not begun


def _is_quoted_row(row: str) -> bool:
    """A cell with both a tab and an end of line is no cell, but several lines of which two happen to have a mark."""
    fits = QUOTED_ROW.fullmatch(row)
    return bool(fits) and not any("\t" in cell and "\n" in cell for cell in QUOTED_CELL.findall(row))


class Header(NamedTuple):
    columns: list[str]
    is_first_row: bool
    note: str = ""


def of_cells(rows: Iterator[Cells], name: str, header: Callable[[list[list[str]]], Header]) -> Table:
    """A table of rows of cells, of which ``header`` sees the first to name the columns."""
    looked_at = list(islice(rows, LOOKED_AT))
    if not looked_at:
        return Table([], lambda _: iter(()))
    columns, is_first_row, note = header([cells for _, cells in looked_at])
    first = {} if is_first_row else dict(zip(columns, looked_at[0][1], strict=False))
    kept = chain(looked_at[is_first_row:], rows)
    fitted = _fitted(kept, name, columns, "header" if is_first_row else "first line")
    return Table(columns, lambda _: fitted, example=first).with_note(note)


def _fitted(rows: Iterator[Cells], name: str, columns: list[str], what: str) -> Iterator[Row]:
    """The rows, which must have as many cells as there are columns; empty ones at the end are none."""
    width = len(columns)
    for number, cells in rows:
        if len(cells) > width and not any(cells[width:]):
            cells = cells[:width]
        if len(cells) != width:
            n_cells = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
            hint = "quote texts that contain commas" if name.lower().count(".csv") else "a text cannot contain a tab"
            raise BowerbirdError(
                f"{name}: line {number} has {n_cells}, the {what} {width}"
                + (f"; {hint}." if len(cells) > width else "; every line must have all of them.")
            )
        yield f"{name}, line {number}", dict(zip(columns, cells, strict=True))


# ---------------------------------------------------------------------------------------------------- Parquet


def parquet(file: Any, name: str, take: Callable[[int, str], None]) -> Table:
    """A table of Parquet; ``take`` hears of the bytes that rows need."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise BowerbirdError(f"Reading {name} needs pyarrow: pip install pyarrow.") from error

    try:
        opened = ParquetFile(file)
    except (ArrowException, OSError, ValueError) as error:
        raise _no_parquet(name, error) from error
    nested = _names_within(opened.schema_arrow)

    def rows(columns: Sequence[str]) -> Iterator[Row]:
        needed = {TRANSLATION if column in nested else column for column in columns}
        try:
            number = 0
            for batch in opened.iter_batches(1024, columns=[one for one in opened.schema_arrow.names if one in needed]):
                take(batch.nbytes, name)
                for row in batch.to_pylist():
                    number += 1
                    yield f"{name}, row {number}", _object(row, name)
        except (ArrowException, OSError, ValueError) as error:
            raise _no_parquet(name, error) from error

    return Table([*opened.schema_arrow.names, *nested], rows, translation=nested)


def _names_within(schema: Any) -> tuple[str, ...]:
    if TRANSLATION not in schema.names:
        return ()
    inner = schema.field(TRANSLATION).type
    return tuple(inner.field(i).name for i in range(inner.num_fields))


def _no_parquet(name: str, error: Exception) -> BowerbirdError:
    return BowerbirdError(f"{name} cannot be read as Parquet ({' '.join(str(error).split())}); write it again.")
