"""A claim: one statement of a model about a program, in a form that can be decided, or a reason in words.

    {"is": "contains", "module": "generator", "part": "BatchNorm1d"}
    {"is": "count", "module": "generator", "type": "Linear", "n": 3}
    {"is": "updates", "optimizer": "optimizer_G", "module": "generator"}
    {"is": "made_of", "name": "optimizer_G", "class": "Adam"}
    {"is": "before", "first": "optimizer.zero_grad()", "second": "loss.backward()"}
    {"is": "called", "module": "generator.fc3"}
    {"is": "line", "line": 12, "code": "loss.backward()"}
    {"is": "fact", "id": "F12"}
    {"is": "finding", "rule": "G06"}
    {"is": "reason", "text": "Detaching saves the pass through the generator."}

``"holds": false`` denies one.  The model writes no sentence about the program: ours are said of what it states.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bowerbird.reading.source import printable

FORMS: dict[str, tuple[str, ...]] = {
    "contains": ("module", "part"), "count": ("type", "n"), "updates": ("optimizer", "module"),
    "made_of": ("name", "class"), "before": ("first", "second"), "called": ("module",), "line": ("line", "code"),
    "fact": ("id",), "finding": ("rule",), "reason": ("text",),
}  # fmt: skip
"""The forms, and what each of them must say."""
MOST_CLAIMS = 60
LONGEST = 1_200


@dataclass(frozen=True)
class Claim:
    """``text`` is the sentence that says it: ours, but of a reason."""

    states: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    lines: tuple[int, int] | None = None
    facts: tuple[str, ...] = ()
    id: int = 0
    withdrawn: bool = False

    @property
    def kind(self) -> str:
        return str(self.states.get("is", "reason"))

    def to_json(self) -> dict[str, Any]:
        lines = list(self.lines) if self.lines else None
        return {"text": self.text, "states": dict(self.states), "lines": lines, "facts": list(self.facts)}


def plain(text: str) -> str:
    """Text without the characters that could steer a terminal or hide words."""
    return printable(text.replace("\t", " ").replace("\n", " ")).replace("\ufffd", "")


class ClaimReader:
    """Reads claims from an answer while it is still being written: each as soon as its last brace has come.

    What stands around the JSON (a greeting, a fence) is passed over.  An object is a claim when it has a form and
    stands in the list of claims, in a list, or alone; objects inside a claim are part of it.
    """

    def __init__(self) -> None:
        self.text = ""
        self._read = 0
        self._open: list[int] = []
        """Where the braces that are open now were opened."""
        self._quoted = False
        self._count = 0

    def feed(self, piece: str) -> Iterator[Claim]:
        self.text += piece
        while self._read < len(self.text):
            character = self.text[self._read]
            if self._quoted and character == "\\":
                if self._read + 1 == len(self.text):
                    return  # what is escaped comes with the next piece
                self._read += 1
            elif character == '"' and self._open:
                self._quoted = not self._quoted
            elif character == "{" and not self._quoted:
                self._open.append(self._read)
            elif character == "}" and not self._quoted and self._open:
                yield from self._closed(self._open.pop(), self._read + 1)
            self._read += 1

    def _closed(self, start: int, end: int) -> Iterator[Claim]:
        inside = self._open and not re.match(r'\{\s*"claims"\s*:', self.text[self._open[-1] :])
        if inside or self._count >= MOST_CLAIMS:
            return
        try:
            found = json.loads(self.text[start:end], strict=False)
        except (ValueError, RecursionError):
            return
        if isinstance(found, dict) and (claim := _claim(found, self._count)) is not None:
            self._count += 1
            yield claim


def _claim(found: dict[str, Any], position: int) -> Claim | None:
    number = found.get("id")
    identity = number if isinstance(number, int) and not isinstance(number, bool) else position
    if found.get("withdraw") is True:
        return Claim(id=identity, withdrawn=True)
    kind = found.get("is", "reason" if isinstance(found.get("text"), str) else None)
    if kind not in FORMS:
        return None
    values = {key: _value(value) for key, value in found.items() if isinstance(value, str | int | float)}
    return Claim({**values, "is": kind}, id=identity)


def _value(value: str | int | float) -> str | int | float:
    return plain(value).strip()[:LONGEST] if isinstance(value, str) else value
