"""Words as data: TOML files whose every key holds one sentence in English and in Chinese, beside one another."""

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
Both = dict[Language, str]


@cache
def table(file: Path) -> dict[str, Any]:
    """What a TOML file holds."""
    return tomllib.loads(file.read_text(encoding="utf-8"))


@cache
def sentences(file: Path) -> dict[str, Both]:
    """Every sentence of a file by its dotted key."""
    return dict(_flat(table(file), ""))


def _flat(rows: dict[str, Any], prefix: str) -> Iterator[tuple[str, Both]]:
    for key, row in rows.items():
        if isinstance(row, dict) and row.keys() == {"en", "zh"}:
            yield f"{prefix}{key}", row
        elif isinstance(row, dict):
            yield from _flat(row, f"{prefix}{key}.")


def joined_lines(text: str, lang: Language) -> str:
    """A text that was broken into lines, whole: joined with spaces in English, without in Chinese."""
    return (" " if lang == "en" else "").join(text.strip().split("\n"))


def language_of(text: str) -> Language:
    """Chinese if a text has Chinese characters, else English."""
    return "zh" if re.search(r"[\u4e00-\u9fff]", text) else "en"
