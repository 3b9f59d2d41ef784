"""Tables of text: .jsonl, .csv and .tsv as the names of their columns and numbered rows.

A row has the columns that it has; which of them must be there is decided by who reads them.
"""

import csv
import io
import json
from typing import Any

from bowerbird import config
from bowerbird.errors import BowerbirdError

Row = tuple[int, dict[str, Any]]
"""The number of a line and what its columns hold."""
LONGEST_CELL = 1 << 30
"""Characters."""
USUAL = config.Text()


def json_table(text: str, name: str) -> tuple[list[str], list[Row]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "\\u" in line:
                json.dumps(row, ensure_ascii=False).encode()  # an escape can stand for half a character
        except ValueError as error:
            raise BowerbirdError(f"{name}, line {number} is not JSON of valid text ({error}).") from error
        if not isinstance(row, dict):
            raise BowerbirdError(f"{name}, line {number} must be a JSON object.")
        rows.append((number, row))
    return list(rows[0][1]) if rows else [], rows


def csv_table(text: str, name: str) -> tuple[list[str], list[Row]]:
    csv.field_size_limit(LONGEST_CELL)  # of the whole process; the usual 131,072 characters are no long document
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        return header, [(reader.line_num, dict(zip(header, cells, strict=False))) for cells in reader if cells]
    except csv.Error as error:
        raise BowerbirdError(f"{name}, line {reader.line_num} is not CSV: {error}.") from error


def tsv_table(text: str, name: str, columns: config.Text) -> tuple[list[str], list[Row]]:
    """Cells between tabs, without quoting; the first line is a header if it has the columns that are asked for.

    Without a header the first two columns are source and target.
    """
    lines = [(number, line.split("\t")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    usual = (columns.source, columns.target, columns.text) == (USUAL.source, USUAL.target, USUAL.text)
    header = lines[0][1] if lines else []
    if not usual or {columns.source, columns.target} <= set(header) or columns.text in header:
        lines = lines[1:]
    else:
        header = [columns.source, columns.target]
    return header, [(number, dict(zip(header, cells, strict=False))) for number, cells in lines]
