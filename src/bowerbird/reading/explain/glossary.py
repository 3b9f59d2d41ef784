"""What the settings of generative models mean, by name: general knowledge, not observed in a program."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bowerbird.reading.explain.cards import Language

FILE = Path(__file__).with_name("glossary.toml")
_SWITCHES = ("shuffle", "drop-last", "device")
Perturb = Literal["double", "half", "zero", "first-beta", ""]


@dataclass(frozen=True)
class Entry:
    id: str
    names: tuple[str, ...]
    rank: int
    meaning: dict[Language, str]
    why: dict[Language, str]
    change: dict[Language, str]
    cards: tuple[str, ...] = ()
    perturb: Perturb = ""

    def matches(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in self.names)


@cache
def entries() -> tuple[Entry, ...]:
    """All entries in their order."""
    rows: list[dict[str, Any]] = tomllib.loads(FILE.read_text(encoding="utf-8"))["entry"]
    return tuple(Entry(**{**row, "names": tuple(row["names"]), "cards": tuple(row.get("cards", ()))}) for row in rows)


def fitting(name: str, value: Any) -> Entry | None:
    """The entry of a name, where the value is of its kind: no truth value is a number of something."""
    entry = find(name)
    return None if entry is not None and isinstance(value, bool) and entry.id not in _SWITCHES else entry


def find(name: str) -> Entry | None:
    """The entry that explains a setting of this name, or None."""
    word = name.rpartition(".")[2]
    return next((entry for entry in entries() if entry.matches(word)), None)
