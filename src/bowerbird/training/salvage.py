"""What can still be read of a run's files when a crash, a disk or an editor has damaged them."""

import json
import tomllib
from pathlib import Path
from typing import Any


def json_object(path: Path) -> dict[str, Any]:
    """The object that a file holds; empty where there is no file, or no object in it."""
    return table(_parsed(text(path)))


def json_rows(path: Path) -> list[dict[str, Any]]:
    """The objects with a step that a file of lines holds; a line that was cut short or damaged is left out."""
    rows = map(_parsed, text(path).split("\n"))
    return [
        row for row in rows if isinstance(row, dict) and type(row.get("step")) is int and 0 <= row["step"] < 1 << 53
    ]


def settings(path: Path) -> dict[str, Any]:
    """What ``run.toml`` says; its tables are tables, empty where something else stands in their place."""
    try:
        found = tomllib.loads(text(path))
    except tomllib.TOMLDecodeError:
        found = {}
    return found | {name: table(found.get(name)) for name in ("model", "data", "train")}


def table(value: Any) -> dict[str, Any]:
    """The table itself; an empty one where something else stands in its place."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none where it is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def text(path: Path) -> str:
    """The text of a file, without a byte order mark; empty where there is no file."""
    return path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
