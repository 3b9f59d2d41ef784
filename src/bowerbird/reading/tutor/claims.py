"""A claim: one sentence of a model about a program, with what it rests on.

The model answers in JSON, {"claims": [{"text", "kind", "lines", "quote", "facts", "predicate"}]}.  Nothing in it is
trusted: ``kind`` says what the model meant, and what is checked follows from the text.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["structure", "number", "shape", "behaviour", "defect", "reason"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
MAX_CLAIMS = 60
MAX_TEXT = 1_200


class NotClaims(ValueError):
    """The model's answer is not the JSON that it was asked for."""


@dataclass(frozen=True)
class Claim:
    text: str
    kind: Kind = "structure"
    lines: tuple[int, int] | None = None
    quote: str = ""
    facts: tuple[str, ...] = ()
    predicate: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0
    withdrawn: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "kind": self.kind,
            "lines": list(self.lines) if self.lines else None,
            "quote": self.quote or None,
            "facts": list(self.facts),
            "predicate": dict(self.predicate) or None,
        }


def plain(text: str) -> str:
    """Text without the characters that could steer a terminal or hide words."""
    return _CONTROL.sub("", text.replace("\t", " "))


def parse_claims(answer: str) -> list[Claim]:
    """The claims of a whole answer; raises NotClaims when there is not a single one."""
    claims = list(ClaimReader().feed(answer))
    if not claims:
        raise NotClaims("the answer holds no claims in JSON")
    return claims


class ClaimReader:
    """Reads claims from an answer while it is still being written: each as soon as its last brace has come.

    What stands around the JSON (a greeting, a fence) is passed over.  An object is a claim when it has a text and
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
        if inside or self._count >= MAX_CLAIMS:
            return
        try:
            found = json.loads(self.text[start:end], strict=False)
        except (ValueError, RecursionError):
            return
        if isinstance(found, dict) and (claim := _claim(found, self._count)) is not None:
            self._count += 1
            yield claim


def _claim(found: dict[str, Any], position: int) -> Claim | None:
    text = found.get("text")
    number = found.get("id")
    identity = number if isinstance(number, int) and not isinstance(number, bool) else position
    if not isinstance(text, str) or not text.strip():
        return Claim("", id=identity, withdrawn=True) if found.get("withdraw") is True else None
    kind = found.get("kind")
    facts = found.get("facts")
    predicate = found.get("predicate")
    quote = found.get("quote")
    return Claim(
        text=plain(text).strip()[:MAX_TEXT],
        kind=kind if kind in KINDS else "structure",
        lines=_lines(found.get("lines")),
        quote=quote if isinstance(quote, str) else "",
        facts=tuple(str(f).strip("[]{} ") for f in facts) if isinstance(facts, list) else (),
        predicate=predicate if isinstance(predicate, dict) else {},
        id=identity,
        withdrawn=found.get("withdraw") is True,
    )


def _lines(given: Any) -> tuple[int, int] | None:
    """[a, b], [a], a, or "a-b"; a citation that cannot be read is one of line 0, which does not exist."""
    if given in (None, [], ""):
        return None
    if isinstance(given, str):
        given = re.findall(r"\d+", given)
    numbers = given if isinstance(given, list) else [given]
    try:
        whole = [int(n) for n in numbers if not isinstance(n, bool)]
    except (TypeError, ValueError, OverflowError):
        return (0, 0)
    return (min(whole), max(whole)) if whole else (0, 0)
