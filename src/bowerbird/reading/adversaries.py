"""Who plays against whom: the generator and the discriminator of a program, told apart by what was observed of them.

A discriminator is called on the outputs of another network and on data; its own outputs feed no network; something
trains it, or its name says what it is.  Feature networks that nobody trains and the networks of a cycle are not meant.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from bowerbird.reading.facts import Fact, FactStore, first_shape
from bowerbird.reading.phases import Phase, forwards, owners_of, phases

_JUDGES = re.compile(r"(disc|critic|^d$|^d_|_d$|netd|dnet|^d[A-Z]|judge|adversary)", re.I)


@dataclass(frozen=True)
class Pair:
    """Two root modules by name."""

    generator: str
    discriminator: str


@dataclass(frozen=True)
class Score:
    """One call of a discriminator that a loss went through, and what the loss wants of it.

    ``wish`` is -1…1: how unanimously larger scores would lower the loss; ``goal`` is the constant that a loss function
    compares the scores with, where there is one, and ``loss`` the fact of that comparison.
    """

    call: Fact
    backward: Fact
    fake: bool
    wish: float
    goal: float | None
    loss: Fact | None


def pairs(facts: FactStore) -> list[Pair]:
    """Every pair of adversaries."""
    calls = forwards(facts)
    edges = [(calls[n].subject, f.subject) for f in calls.values() for n in f["from"] or () if n in calls]
    fed = {source for source, target in edges if source != target}
    trained = {name for names in owners_of(facts).values() for name in names}
    found = []
    for judge in dict.fromkeys(f.subject for f in calls.values()):
        own = [f for f in calls.values() if f.subject == judge]
        made: dict[str, int] = {}
        for call in own:
            for name in {calls[n].subject for n in call["from"] or () if n in calls}:
                made[name] = made.get(name, 0) + 1
        makers = [name for name in made if name != judge]
        named = bool(_JUDGES.search(judge.rpartition(".")[2]) or _JUDGES.search(str(own[0]["class"])))
        judges = len(own) > sum(bool(f["from"]) for f in own) and judge not in fed
        if not makers or not (named or (judges and judge in trained and _narrows(own[0]))):
            continue
        found += [Pair(maker, judge) for maker in makers if not _JUDGES.search(maker)]
    return found


def _narrows(call: Fact) -> bool:
    """Whether a network says much less than it is told."""
    given, said = (first_shape(call[side] if isinstance(call[side], list) else [call[side]]) for side in ("in", "out"))
    return given is not None and said is not None and 0 < math.prod(said) * 8 <= math.prod(given)


def first_tensor(value: Any) -> dict[str, Any]:
    """The summary of the first tensor in a fact's input or output."""
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, dict) and "shape" in value else {}


def scores(facts: FactStore, pair: Pair, phase: Phase) -> list[Score]:
    """What the losses of one phase want of the discriminator's scores."""
    calls = forwards(facts)
    found = []
    for backward in phase.backwards:
        for row in backward["pulls"] or ():
            call = calls.get(row["call"])
            if row["module"] != pair.discriminator or call is None or row["abs"] == 0:
                continue
            sources = {calls[n].subject for n in call["from"] or () if n in calls}
            wish = -row["mean"] / row["abs"]
            loss = _comparison(facts, call, backward)
            goal = loss["target"]["mean"] if loss is not None and _constant(loss["target"]) else None
            found.append(Score(call, backward, pair.generator in sources, wish, goal, loss))
    penalised = [s for s in found if _leaf(s.call)]
    real = [s for s in found if not s.fake and s not in penalised]
    return [s for s in found if s not in penalised or (not real and abs(_pull(s)) > LEAST)]


LEAST = 1e-3
"""What a loss must change with the mean score of a call at least, for the call to count as scored by it."""


def _leaf(call: Fact) -> bool:
    """Whether a call's input was made to require a gradient, as gradient penalties do."""
    return not call["from"] and bool(first_tensor(call["in"]).get("requires_grad"))


def _pull(score: Score) -> float:
    rows = score.backward["pulls"] or ()
    return float(next((r["mean"] * r["of"] for r in rows if r["call"] == score.call["call"]), 0.0))


def _comparison(facts: FactStore, call: Fact, backward: Fact) -> Fact | None:
    """The loss function that was given what a call returned."""
    out = first_tensor(call["out"])
    for loss in facts.of("loss.call"):
        given = loss["input"]
        if call.position < loss.position < backward.position and isinstance(given, dict):
            if all(given.get(k) == out.get(k) and out.get(k) is not None for k in ("min", "max", "mean")):
                return loss
    return None


def _constant(target: Any) -> bool:
    return isinstance(target, dict) and target.get("min") is not None and target["max"] - target["min"] < 0.35


def games(facts: FactStore, pair: Pair) -> tuple[list[list[Score]], list[list[Score]]]:
    """The scores of the discriminator's turns and of the generator's.

    Where both are stepped together, a loss that scores data or does not reach the generator is the discriminator's.
    """
    theirs: list[list[Score]] = []
    ours: list[list[Score]] = []
    for phase in phases(facts):
        judge, maker = pair.discriminator in phase.owners, pair.generator in phase.owners
        found = scores(facts, pair, phase) if judge or maker else []
        if judge and maker:
            if len(phase.steps) < 2 or len(phase.backwards) < 2:
                continue
            data = {s.backward.id for s in found if not s.fake}
            judged = [s for s in found if s.backward.id in data or pair.generator not in (s.backward["grads"] or {})]
            made = [s for s in found if s not in judged]
        else:
            judged, made = (found, []) if judge else ([], found)
        theirs += [judged] if judged else []
        ours += [made] if made else []
    return theirs, ours
