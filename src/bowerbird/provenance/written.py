"""Labels in JSON: three keys of an object, or of each object of JSON lines.  The content is the object without them."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from bowerbird.provenance.rasters import Text
from bowerbird.provenance.record import AIGC, OWN, SOURCE_TYPE, Record, canonical

KEYS = (AIGC, SOURCE_TYPE, OWN)
Make = Callable[[bytes], Record]
"""The content → its label."""


def content(row: dict[str, Any]) -> bytes:
    return canonical({key: value for key, value in row.items() if key not in KEYS})


def labelled_row(row: dict[str, Any], make: Make) -> dict[str, Any]:
    bare = {key: value for key, value in row.items() if key not in KEYS}
    return bare | make(content(row))


def insert_json(data: bytes, make: Make) -> bytes | None:
    """The object with its label; None where the file is no JSON object."""
    row = parsed(data)
    if not isinstance(row, dict):
        return None
    indent = 2 if b"\n" in data.strip() else None
    return (json.dumps(labelled_row(row, make), ensure_ascii=False, indent=indent) + "\n").encode()


def insert_jsonl(data: bytes, make: Make) -> bytes | None:
    """Every object with its label; None where a line is no JSON object."""
    rows = [parsed(line) for line in data.splitlines() if line.strip()]
    if not rows or not all(isinstance(row, dict) for row in rows):
        return None
    lines = (json.dumps(labelled_row(row, make), ensure_ascii=False) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def rows(data: bytes) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON, or of JSON lines; none of any other file."""
    whole = parsed(data)
    if whole is None:
        found = [parsed(line) for line in data.splitlines() if line.strip()]
        whole = found if all(isinstance(row, dict) for row in found) else []
    for row in whole if isinstance(whole, list) else [whole]:
        if isinstance(row, dict):
            yield row


def parsed(data: bytes) -> Any:
    """The value; None where it is no JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def labelled_in(text: Text) -> dict[str, Any]:
    """The label in a text that is JSON, under its own key or as the value of the key AIGC."""
    value = parsed(text.text.encode()) if text.text.lstrip().startswith("{") else None
    if not isinstance(value, dict):
        return {}
    if isinstance(value.get(AIGC), dict):
        return {key: value[key] for key in KEYS if key in value}
    return {AIGC: value} if text.where == AIGC or {"Label", "ContentProducer"} <= value.keys() else {}
