"""A fact: one thing that is known of a program, where it was seen, and how it is known.

``static`` facts were read in the source, ``observed`` facts were recorded while the program ran, ``probed`` facts were
found by an experiment on its live objects.  Everything that rules, readings and tutors say rests on facts and cites
their ids.  The order of a store is the order in which its facts were recorded: events can be compared by position.
"""

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["static", "observed", "probed"]


@dataclass(frozen=True)
class Fact:
    """What is known of ``subject`` under ``topic``; ``value`` is a number, a string, a list or a dict (JSON)."""

    id: str
    kind: Kind
    topic: str
    subject: str
    value: Any
    file: str = ""
    line: int | None = None
    run: str | None = None

    def __getitem__(self, key: str) -> Any:
        """An entry of a dict value, None where it is absent: facts of stopped programs may be incomplete."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    @property
    def position(self) -> int:
        """The place in the order of recording."""
        return int(self.id[1:])


class FactStore:
    """Facts in the order in which they were recorded, found by topic and subject."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self._facts = list(facts)
        self._by_topic: dict[str, list[Fact]] = {}
        for fact in self._facts:
            self._by_topic.setdefault(fact.topic, []).append(fact)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def add(
        self, kind: Kind, topic: str, subject: str, value: Any, *, file: str = "", line: int | None = None,
        run: str | None = None,
    ) -> Fact:  # fmt: skip
        """Records one more fact and returns it with its id."""
        fact = Fact(f"F{len(self._facts) + 1}", kind, topic, subject, value, file, line, run)
        self._facts.append(fact)
        self._by_topic.setdefault(topic, []).append(fact)
        return fact

    def of(self, topic: str, subject: str | None = None, *, line: int | None = None) -> list[Fact]:
        """Facts of a topic (or of all below it: ``event.*``), of one subject (or a pattern: ``G.*``), at one line."""
        if "*" in topic:
            found = [fact for fact in self._facts if fnmatch.fnmatchcase(fact.topic, topic)]
        else:
            found = self._by_topic.get(topic, [])
        if subject is not None:
            exact = "*" not in subject
            found = [f for f in found if (f.subject == subject if exact else fnmatch.fnmatchcase(f.subject, subject))]
        return [fact for fact in found if line is None or fact.line == line]

    def first(self, topic: str, subject: str | None = None, *, line: int | None = None) -> Fact | None:
        """The first such fact, or None."""
        return next(iter(self.of(topic, subject, line=line)), None)

    def last(self, topic: str, subject: str | None = None, *, line: int | None = None) -> Fact | None:
        """The last such fact, or None."""
        return next(reversed(self.of(topic, subject, line=line)), None)

    def get(self, identity: str) -> Fact | None:
        """The fact with this id, or None."""
        place = int(identity[1:]) - 1 if identity[:1] == "F" and identity[1:].isdigit() else -1
        return self._facts[place] if 0 <= place < len(self._facts) else None

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(fact) for fact in self._facts]

    @classmethod
    def from_json(cls, rows: Iterable[dict[str, Any]]) -> "FactStore":
        return cls(Fact(**row) for row in rows)


def shape_of(summary: Any) -> list[int] | None:
    """The shape of a summary, or of the first of several."""
    if isinstance(summary, dict):
        if "shape" in summary:
            shape = summary["shape"]
            return shape if isinstance(shape, list) else None
        summary = list(summary.values())
    return first_shape(summary)


def first_shape(summaries: Any) -> list[int] | None:
    """The shape of the first tensor among summaries."""
    if not isinstance(summaries, list):
        return None
    return next((found for entry in summaries if (found := shape_of(entry)) is not None), None)
