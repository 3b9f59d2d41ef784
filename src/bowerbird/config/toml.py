"""TOML: read with Python's own parser, written by hand, since that parser writes none."""

import tomllib
from pathlib import Path
from typing import Any

from bowerbird.config.fields import Run
from bowerbird.config.tables import dotted, to_table
from bowerbird.errors import BowerbirdError


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise BowerbirdError(f"{path} is no recipe: its arrays or tables are nested too deeply.") from error
    except ValueError as error:  # of TOML, of UTF-8, or of a number with thousands of digits
        raise BowerbirdError(f"{path} is not valid TOML: {error}.") from error


def dumps(run: Run) -> str:
    """The run as TOML that ``load`` reads back to an equal run."""
    return _toml_table(to_table(run), "")


def _toml_table(table: dict[str, Any], prefix: str) -> str:
    scalars, tables = [], []
    for key, value in table.items():
        name = dotted(prefix, key)
        if isinstance(value, dict):
            tables.append(f"\n[{name}]\n{_toml_table(value, name)}")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            tables.extend(f"\n[[{name}]]\n{_toml_table(item, name)}" for item in value)
        else:
            scalars.append(f"{key} = {_toml_scalar(value)}\n")
    return "".join(scalars + tables)


def _toml_scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c for c in value.translate(_ESCAPES))
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml_scalar(item) for item in value) + "]"
    if isinstance(value, int | float):
        return repr(value)
    raise TypeError(f"{value!r} has no TOML form here.")


_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"'})
