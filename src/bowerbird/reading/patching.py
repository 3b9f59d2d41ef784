"""A patch: lines of the user's files that are replaced by others, as small as the remedy.

A patch is text, so it can be shown as a diff, applied to the file (``--fix``) and, above all, run: the patched program
runs under the same observation and the same seed, and what differs is the proof (or the refutation) of a finding.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Edit:
    """Lines ``first``…``last`` (1-based, inclusive) become ``new``; ``last = first - 1`` inserts before ``first``."""

    file: str
    first: int
    last: int
    new: tuple[str, ...]


@dataclass(frozen=True)
class Patch:
    """Edits that belong together, under a short label such as ``"G02: detach"``."""

    label: str
    edits: tuple[Edit, ...]

    def apply(self, texts: Mapping[str, str]) -> dict[str, str]:
        """The texts of the files after the edits; one that is not among them, since the program only imports it, is
        read from the disk."""
        changed = dict(texts)
        for file in {edit.file for edit in self.edits}:
            text = changed[file] if file in changed else Path(file).read_text(encoding="utf-8")
            lines = text.splitlines()
            for edit in sorted((e for e in self.edits if e.file == file), key=lambda e: -e.first):
                lines[edit.first - 1 : edit.last] = edit.new
            changed[file] = "\n".join(lines) + "\n"
        return changed

    def diff(self, texts: Mapping[str, str]) -> str:
        """The patch as a unified diff."""
        after = self.apply(texts)
        return "\n".join(
            line
            for file in sorted({edit.file for edit in self.edits})
            for line in difflib.unified_diff(
                texts[file].splitlines(), after[file].splitlines(), file, file, lineterm="", n=1
            )
        )

    def to_json(self) -> list[dict[str, Any]]:
        return [{"file": e.file, "first": e.first, "last": e.last, "new": list(e.new)} for e in self.edits]


def replace_line(file: str, line: int, old: str, new: str, lines: list[str], *, label: str) -> Patch | None:
    """The patch that writes ``new`` for the only ``old`` of a line, or None if ``old`` is not there exactly once."""
    text = lines[line - 1]
    if text.count(old) != 1:
        return None
    return Patch(label, (Edit(file, line, line, (text.replace(old, new),)),))


def insert_before(file: str, line: int, new: str, lines: list[str], *, label: str) -> Patch:
    """The patch that inserts one statement before a line, indented alike."""
    text = lines[line - 1]
    return Patch(label, (Edit(file, line, line - 1, (text[: len(text) - len(text.lstrip())] + new,)),))


def combine(label: str, patches: Iterable[Patch]) -> Patch:
    """One patch of several; their edits must not overlap."""
    return Patch(label, tuple(edit for patch in patches for edit in patch.edits))
