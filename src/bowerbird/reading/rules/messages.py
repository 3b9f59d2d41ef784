"""What rules say, as data: ``messages.toml`` holds message, evidence and fix of each finding, braces for values."""

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from bowerbird.reading.facts import Fact
from bowerbird.reading.findings import Finding, Severity
from bowerbird.reading.patching import Patch

FIRST = 1
"""Where a finding stands that has no line of its own."""


def placed(line: int | None) -> int:
    """A line as it is, and the first for what has none of its own."""
    return FIRST if line is None else line


@cache
def _messages() -> dict[str, dict[str, str]]:
    text = resources.files(__package__).joinpath("messages.toml").read_text("utf-8")
    return tomllib.loads(text)


def say(
    key: str,
    severity: Severity,
    line: int | None,
    *,
    file: str | None = None,
    facts: tuple[str, ...] | None = None,
    patch: Patch | None = None,
    **values: Any,
) -> Finding:
    """The finding of a key, which is the id of its rule and a letter; one that rests on a ``fact`` is at its file."""
    told = _messages()[key]
    message, evidence, fix = (told.get(part, "").format(**values) for part in ("message", "evidence", "fix"))
    fact = values.get("fact")
    if isinstance(fact, Fact):
        file, facts = fact.file if file is None else file, (fact.id,) if facts is None else facts
    return Finding(key[:3], severity, placed(line), message, evidence, fix, file or "", facts or (), patch)
