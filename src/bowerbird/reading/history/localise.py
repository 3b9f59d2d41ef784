"""Where two trajectories part first, and what it says: a network, its inputs, a loss, a gradient, a step."""

import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from bowerbird.reading.facts import Fact
from bowerbird.reading.history.change import Change, number, range_of
from bowerbird.reading.history.settings import table, who
from bowerbird.reading.history.trajectory import Parting, alike, calls, near, owners, parts
from bowerbird.reading.history.version import Version

_TRAINING = ("loss", "gradient", "step", "order", "steps", "backwards", "rate")


def localised(a: Version, b: Version, found: list[Parting]) -> Change | None:
    """The change that the first parting shows, in training if there is one, else in what is done without gradient."""
    training = [p for p in found if p.kind in _TRAINING]
    if training:
        return _in_training(a, b, min(training, key=_when))
    return next(filter(None, (_elsewhere(a, b, parting) for parting in found)), None)


def in_training(found: list[Parting]) -> bool:
    """Whether training itself parted, or only what is done with its result."""
    return any(p.kind in (*_TRAINING, "state") for p in found)


def _when(parting: Parting) -> int:
    fact = parting.fact_before or parting.fact_after
    return int(fact["seq"] or 0) if fact is not None else 0


def _in_training(a: Version, b: Version, first: Parting) -> Change | None:
    x, y = first.fact_before, first.fact_after
    if first.kind in ("steps", "backwards"):
        return Change.of(first.kind, first.before, first.after, x, y)
    if x is None or y is None:
        return None
    earlier = next(_forward(a, b, x["seq"], y["seq"]), None)
    if earlier is not None or first.kind not in ("loss", "gradient", "step"):
        return earlier
    told = {"how": _ratio(first)} if first.kind == "loss" else {"who": who(a, owners(x, a))}
    return Change.of(first.kind, first.before, first.after, x, y, n=first.n, **told)


def _ratio(parting: Parting) -> str:
    x, y = parting.before, parting.after
    if not isinstance(x, float) or not isinstance(y, float) or abs(x) < 1e-9:
        return ""
    return " (its sign is turned)" if near(x, -y) else f" (a factor of {number(y / x)})"


def _forward(a: Version, b: Version, before_a: int, before_b: int) -> Iterator[Change]:
    """The first call of a network, before an event, that was given or gave something else."""
    rows = []
    roles = sorted(set(a.roles.values()) & set(b.roles.values()))
    for role, part in [(r, p) for r in roles for p in parts(a, r) if p in parts(b, r)]:
        left = [f for f in calls(a, role, part) if f["grad_enabled"] and f["seq"] < before_a]
        right = [f for f in calls(b, role, part) if f["grad_enabled"] and f["seq"] < before_b]
        rows += [(x["seq"], x, y) for x, y in zip(left, right, strict=False)]
    for _, x, y in sorted(rows, key=lambda row: row[0]):
        step = x["step"] or 0
        same_in, same_out = alike(x["in"], y["in"], step + 2), alike(x["out"], y["out"], step + 2)
        if same_in and not same_out:
            yield _inside(a, b, x, y)
        elif not same_in:
            yield _given(x, y, step)


def _given(x: Fact, y: Fact, step: int) -> Change:
    """A call that was given something else: other tensors, or a plain number that the program computes."""
    before, after = next(_apart(x["in"], y["in"], step + 2), (x["in"], y["in"]))
    if isinstance(before, int | float) and isinstance(after, int | float):
        return Change.of("argument", before, after, x, y, n=x["call"], who=x.subject)
    what = "data" if step == 0 else "noise"
    return Change.of("inputs", range_of(before), range_of(after), x, y, what=what, who=x.subject)


def _apart(x: Any, y: Any, step: int) -> Iterator[tuple[Any, Any]]:
    """The entries of two lists of arguments that differ, in order."""
    if isinstance(x, list) and isinstance(y, list) and len(x) == len(y):
        for p, q in zip(x, y, strict=True):
            yield from _apart(p, q, step)
    elif not alike(x, y, step):
        yield x, y


def _inside(a: Version, b: Version, x: Fact, y: Fact) -> Change:
    """The innermost module with equal inputs and other outputs."""
    root_a, root_b = x.subject.partition(".")[0], y.subject.partition(".")[0]
    left = [f for f in a.facts.of("module.io") if a.role(f.subject) == a.role(root_a)]
    right = [f for f in b.facts.of("module.io") if b.role(f.subject) == b.role(root_b)]
    by_path = {f.subject.removeprefix(root_b): f for f in right}
    pairs = [(p, by_path.get(p.subject.removeprefix(root_a))) for p in left]
    parted = [(p, q) for p, q in pairs if q and alike(p["in"], q["in"], 2) and not alike(p["out"], q["out"], 2)]
    p, q = max(parted, key=lambda pair: pair[0].subject.count("."), default=(x, y))
    return Change.of("forward", range_of(p["out"]), range_of(q["out"]), p, q, who=p.subject)


def _elsewhere(a: Version, b: Version, parting: Parting) -> Change | None:
    """What parted although training did not."""
    x, y, kind = parting.fact_before, parting.fact_after, parting.kind
    one, ends, name = x or y, (parting.before, parting.after), a.named(parting.role)
    ranges = (range_of(parting.before), range_of(parting.after))
    drawn = one is not None and _samples(one, a if x else b)
    own: dict[str, Any] = dict.fromkeys(("what", "phase"), "sampling" if drawn else "evaluation") | {"who": name}
    match kind:
        case "state":
            trained = parting.role in {r for f in a.facts.of("event.step") for r in owners(f, a)}
            return Change.of("state" if trained else "ema", *ends, who=name)
        case "table":
            return table(parting, a)
        case "mode":
            modes = ("evaluation", "training")
            return Change.of("mode", modes[bool(parting.before)], modes[bool(parting.after)], x, y, **own)
        case "calls":
            return Change.of("calls", *ends, x, y, **own)
        case "input":
            words = "sample|rand|noise|temperature|softmax|top_k|multinomial|alpha|eps|x ="
            return Change.of("inputs", *ranges, x, y, **own, words=words)
        case "output" if x is not None and y is not None:
            return _inside(a, b, x, y)
        case "returned" if one is not None:
            return Change.of("returned", *ends, x, y, **{**own, "who": one.subject})
        case "image":
            return Change.of("image", *ranges, x, y)
    return None


def _samples(fact: Fact, version: Version) -> bool:
    """Whether what parted belongs to making samples: it is fed by noise or called so."""
    line = version.source.texts[version.source.main].splitlines()[(fact.line or 1) - 1 : fact.line]
    words = re.compile(r"sampl|generat|noise|decod|fake|gen_|netG|\bz\b|temperature|predict_next|eps", re.I)
    return bool(words.search(" ".join([fact.subject, *line]))) or fact.topic == "image.saved"


def failures(a: Version, b: Version) -> Change | None:
    """One version raises and the other does not, or later."""
    left, right = (v.facts.of("run.exception") for v in (a, b))
    for x, y in zip_longest(left, right):
        if x is None or y is None or x.subject != y.subject:
            one, other = (f"{f.subject}: {f['message'][:80]}" if f else "it goes on" for f in (x, y))
            return Change.of("fails", one, other, x, y)
    return None
