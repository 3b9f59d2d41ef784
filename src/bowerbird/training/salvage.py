"""What can still be read of a run's JSON files when a crash, a disk or an editor has damaged them."""

import json
from pathlib import Path
from typing import Any


def json_object(path: Path) -> dict[str, Any]:
    """The object that a file holds; empty where there is no file, or no object in it."""
    found = _parsed(_text(path))
    return found if isinstance(found, dict) else {}


def json_rows(path: Path) -> list[dict[str, Any]]:
    """The objects with a step that a file of lines holds; a line that was cut short or damaged is left out."""
    rows = map(_parsed, _text(path).split("\n"))
    return [
        row for row in rows if isinstance(row, dict) and type(row.get("step")) is int and 0 <= row["step"] < 1 << 53
    ]


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none where it is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
