"""Rules: from the signals of a run to findings, the root first.

A rule is a function of ``Signals`` that returns a ``Verdict`` or None, decorated with what it is called.  ``explains``
names the causes that are mere consequences when this rule has spoken too: a generator that gets images in the wrong
range loses to its critic, and it is the range that has to be named first.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from bowerbird.diagnosis.finding import Evidence, Finding
from bowerbird.diagnosis.signals import Series, Signals


class Verdict(NamedTuple):
    """What a rule says when it has found something."""

    confidence: float
    evidence: list[Evidence]
    advice: list[str]


Judge = Callable[[Signals], Verdict | None]


@dataclass(frozen=True)
class Rule:
    cause: str
    title: str
    reference: str
    explains: frozenset[str]
    judge: Judge


RULES: dict[str, Rule] = {}


def rule(cause: str, title: str, reference: str, explains: tuple[str, ...] = ()) -> Callable[[Judge], Judge]:
    """Registers a function as the rule for ``cause``."""

    def add(judge: Judge) -> Judge:
        RULES[cause] = Rule(cause, title, reference, frozenset(explains), judge)
        return judge

    return add


def observed(series: Series, text: str, value: float | None = None) -> Evidence:
    """Evidence from a series; ``value`` None is its median."""
    first, last = (int(series.steps[0]), int(series.steps[-1])) if len(series) else (0, 0)
    return Evidence(series.name, text, first, last, series.median if value is None else value)


def find(signals: Signals) -> list[Finding]:
    """Every finding, roots before what they explain, surer ones first."""
    found = []
    for entry in RULES.values():
        if verdict := entry.judge(signals):
            confidence = round(min(verdict.confidence, 1.0), 2)
            found.append(
                Finding(
                    entry.cause,
                    entry.title,
                    confidence,
                    tuple(verdict.evidence),
                    tuple(verdict.advice),
                    entry.reference,
                )
            )
    return ranked(found)


def ranked(found: list[Finding]) -> list[Finding]:
    """By confidence, what another finding explains after all that stands by itself.

    Where two explain each other, the surer one is the root.
    """
    by_confidence = sorted(found, key=lambda finding: -finding.confidence)
    linked: list[Finding] = []
    for i, finding in enumerate(by_confidence):
        own = RULES[finding.cause].explains
        roots = [
            other.cause
            for j, other in enumerate(by_confidence)
            if finding.cause in RULES[other.cause].explains and (j < i or other.cause not in own)
        ]
        linked.append(replace(finding, because=roots[0] if roots else ""))
    return sorted(linked, key=lambda finding: bool(finding.because))
