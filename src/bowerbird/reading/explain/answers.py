"""What a loss judges: which network's answer to what, written as the program's own names: ``netD(netG(z))``."""

from typing import Any

from bowerbird.reading.explain.study import Study
from bowerbird.reading.facts import Fact, first_shape

DEEPEST = 3
"""Networks that are named within one another."""


def output(study: Study, call: Fact, backward: Fact) -> str:
    """What a loss judges, from the inside outwards: ``netD(netG(z))``, also where ``netG(z)`` was detached."""
    calls = {f["call"]: f for f in study.facts.of("event.forward") if f["call"] is not None}
    judged = _judged(call, [calls[row["call"]] for row in backward["through"] or [] if row["call"] in calls])
    if judged is None:
        return "f(x)"
    if first_shape(judged["out"]) == []:  # it returns the loss: what was judged is a network inside it
        return f"{_inside(study, call, judged)}(x)"
    return answer(study, judged)


def answer(study: Study, forward: Fact) -> str:
    """A call of a network with where its input came from: ``netD(netG(z))``."""
    calls = {f["call"]: f for f in study.facts.of("event.forward") if f["call"] is not None}
    chain = [forward]
    while len(chain) < DEEPEST:
        before = [calls[c] for c in chain[-1]["from"] or [] if c in calls and calls[c].subject != chain[-1].subject]
        if not before:
            break
        chain.append(before[0])
    word = _source(study, chain[-1], alone=len(chain) == 1)
    for call in reversed(chain):
        word = f"{call.subject}({word})"
    return word


def _judged(call: Fact, forwards: list[Fact]) -> Fact | None:
    """The call of a network whose output a loss was given: the same numbers, else the last one before it."""
    given = [call[key] for key in ("input", "target") if isinstance(call[key], dict)]
    for forward in reversed(forwards):
        out = forward["out"] if isinstance(forward["out"], list) else [forward["out"]]
        if any(isinstance(o, dict) and o.get("mean") is not None and _same(o, g) for o in out for g in given):
            return forward
    earlier = [f for f in forwards if (f["seq"] or 0) < (call["seq"] or 0)]
    return earlier[-1] if earlier else forwards[-1] if forwards else None


def _inside(study: Study, call: Fact, judged: Fact) -> str:
    """The outermost module in a network whose output is what a loss was given; without one the network."""
    given = [call[key] for key in ("input", "target") if isinstance(call[key], dict)]
    rows = study.facts.of("module.io", f"{judged.subject}.*")
    found = [f.subject for f in rows for o in f["out"] or [] for g in given if isinstance(o, dict) and _same(o, g)]
    return min(found, key=len, default=judged.subject)


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two summaries are of the same numbers, in whatever shape."""
    return all(a.get(key) == b.get(key) for key in ("min", "max", "mean", "std"))


def _source(study: Study, forward: Fact, *, alone: bool) -> str:
    """The letter of what goes in: z for a draw that is no batch of the data and that another network judges."""
    given = first_shape(forward["in"])
    data = [
        part.get("shape") for f in study.facts.of("data.batch") for part in f["parts"] or [] if isinstance(part, dict)
    ]
    drawn = [f["shape"] for f in study.facts.of("random.draw")]
    return "z" if given in drawn and given not in data and not alone else "x"
