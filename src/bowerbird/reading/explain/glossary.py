"""What the settings of generative models mean, by name: general knowledge, not observed in a program."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bowerbird.reading.wording import Both, table

_SWITCHES = ("shuffle", "drop-last", "device")
Perturb = Literal["double", "half", "zero", "first-beta", ""]


@dataclass(frozen=True)
class Entry:
    """``families`` are those in which a name means this; empty: all."""

    id: str
    names: tuple[str, ...]
    rank: int
    meaning: Both
    why: Both
    change: Both
    cards: tuple[str, ...] = ()
    perturb: Perturb = ""
    families: tuple[str, ...] = ()

    def matches(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in self.names)


@cache
def entries() -> tuple[Entry, ...]:
    """All entries in their order."""
    return tuple(Entry(**row) for row in table(Path(__file__).with_name("glossary.toml"))["entry"])


def fitting(name: str, value: Any, family: str) -> Entry | None:
    """The entry of a name, where the value is of its kind: no truth value is a number of something."""
    entry = find(name, family)
    return None if entry is not None and isinstance(value, bool) and entry.id not in _SWITCHES else entry


def find(name: str, family: str = "") -> Entry | None:
    """The entry that explains a setting of this name in a family, or None."""
    word = name.rpartition(".")[2]
    return next((e for e in entries() if e.matches(word) and (not e.families or family in e.families)), None)
