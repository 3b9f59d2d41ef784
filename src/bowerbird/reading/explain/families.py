"""Which family a program belongs to, by what it does and what its text says; every reason is kept.

What is known of each family (``families.toml``): the words that speak for it, what it is, its one trick, what to watch
out for, and the standing questions of its training and of its output.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bowerbird.reading.facts import Fact
from bowerbird.reading.wording import Both, table

if TYPE_CHECKING:
    from bowerbird.reading.explain.study import Study

_LEAST, _BEHAVIOUR = 3, 4
OTHER = "other"


@dataclass(frozen=True)
class Family:
    """``like`` is the family whose cards and advice serve this one as well."""

    id: str
    name: Both
    like: str = ""
    trick: Both | None = None
    watch: tuple[Both, ...] = ()
    words: tuple[tuple[str, int], ...] = ()
    """Patterns of the text and how much they say."""
    training: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    """Cards of the steps on training and on output."""


@cache
def families() -> dict[str, Family]:
    """All families in the order in which they are preferred."""
    rows: dict[str, dict[str, Any]] = table(Path(__file__).with_name("families.toml"))
    return {id: Family(id, **{"like": id, **row}) for id, row in rows.items()}


def known(family: str) -> bool:
    return family in families()


def note(study: "Study") -> Fact:
    """Adds ``program.family``: the family with most behind it, ``other`` where little speaks for any."""
    text = "\n".join(study.source.texts[file] for file in study.files)
    scores: Counter[str] = Counter()
    reasons: dict[str, list[str]] = defaultdict(list)
    for family in families().values():
        for pattern, weight in family.words:
            if found := re.search(pattern, text, re.IGNORECASE):
                scores[family.id] += weight
                reasons[family.id].append(found[0])
    for name in _behaviour(study):
        scores[name] += _BEHAVIOUR
    order = list(families())
    best = max(scores, key=lambda f: (scores[f], -order.index(f)), default=OTHER)
    best = best if scores[best] >= _LEAST else OTHER
    return study.add("program.family", best, {"scores": dict(scores), "reasons": reasons[best][:6]}, file=study.file)


def _behaviour(study: "Study") -> Iterator[str]:
    """Families that alone do what the run showed."""
    owners = [set(f["owners"] or {}) for f in study.facts.of("optimizer.created")]
    apart = any(a and b and not a & b for i, a in enumerate(owners) for b in owners[i + 1 :])
    crossed = any(len({row["module"] for row in f["through"] or []}) > 1 for f in study.facts.of("event.backward"))
    if apart and crossed:
        yield "gan"
    if study.facts.first("probe.schedule") is not None:
        yield "diffusion"
