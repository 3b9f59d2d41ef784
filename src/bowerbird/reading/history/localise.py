"""Where two trajectories part first, and what it says: a network, its inputs, a loss, a gradient, a step."""

import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from bowerbird.reading.facts import Fact
from bowerbird.reading.history.change import Change
from bowerbird.reading.history.settings import table, who
from bowerbird.reading.history.trajectory import Parting, alike, calls, near, owners, parts
from bowerbird.reading.history.version import Version
from bowerbird.reading.history.wording import number, range_of

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
    lines: dict[str, Any] = {"line_before": x.line if x else None, "line_after": y.line if y else None}
    if first.kind in ("steps", "backwards"):
        return Change.of("update order", first.kind, first.before, first.after, words="step|backward|for|if", **lines)
    if x is None or y is None:
        return None
    earlier = next(_forward(a, b, x["seq"], y["seq"]), None)
    if earlier is not None:
        return earlier
    if first.kind == "loss":
        return Change.of("loss", "loss", first.before, first.after, n=first.n, how=_ratio(first), **lines,
                         words=r"loss|criterion|return|\bmean|\bsum|kl|bce")  # fmt: skip
    told = who(a, owners(x, a))
    if first.kind == "gradient":
        return Change.of("gradients", "gradient", first.before, first.after, n=first.n, who=told,
                         words="backward|detach|grad|clip|zero_grad|step", **lines)  # fmt: skip
    if first.kind == "step":
        return Change.of("optimiser", "step", first.before, first.after, n=first.n, who=told, words="optim|step|lr",
                         **lines)  # fmt: skip
    return None


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
    lines: dict[str, Any] = {"who": x.subject, "line_before": x.line, "line_after": y.line}
    if isinstance(before, int | float) and isinstance(after, int | float):
        return Change.of("schedule", "argument", before, after, n=x["call"], **lines,
                         words="warm|anneal|schedul|ramp|step|beta|weight|epoch")  # fmt: skip
    return Change.of("data" if step == 0 else "noise", "inputs", range_of(before), range_of(after), **lines,
                     words="rand|noise|data|transform|input|alpha|beta|sqrt|x_t")  # fmt: skip


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
    found: tuple[Fact, Fact] = (x, y)
    by_path = {f.subject.removeprefix(root_b): f for f in right}
    parted = [
        (p, q)
        for p in left
        if (q := by_path.get(p.subject.removeprefix(root_a))) is not None
        and alike(p["in"], q["in"], 2)
        and not alike(p["out"], q["out"], 2)
    ]
    if parted:
        found = max(parted, key=lambda pair: pair[0].subject.count("."))
    p, q = found
    return Change.of(
        "architecture", "forward", range_of(p["out"]), range_of(q["out"]), who=p.subject, phase="model",
        line_before=p.line, line_after=q.line, words="return|self|F\\.|torch",
    )  # fmt: skip


def _elsewhere(a: Version, b: Version, parting: Parting) -> Change | None:
    """What parted although training did not."""
    x, y = parting.fact_before, parting.fact_after
    one = x or y
    lines: dict[str, Any] = {"line_before": x.line if x else None, "line_after": y.line if y else None}
    name = a.named(parting.role)
    drawn = one is not None and _samples(one, a if x else b)
    phase = "sampling" if drawn else "evaluation"
    match parting.kind:
        case "state":
            trained = parting.role in {r for f in a.facts.of("event.step") for r in owners(f, a)}
            what = "optimiser" if trained else "EMA"
            return Change.of(what, "state" if trained else "ema", parting.before, parting.after, who=name,
                             words="ema|decay|beta|tau|lerp")  # fmt: skip
        case "table":
            return table(parting, a)
        case "mode":
            modes = ["training" if mode else "evaluation" for mode in (parting.before, parting.after)]
            return Change.of(phase, "mode", *modes, who=name, phase=phase, words=r"eval|train\(", **lines)
        case "calls":
            return Change.of(phase, "calls", parting.before, parting.after, who=name, phase=phase, **lines,
                             words="sample|eval|generate|for")  # fmt: skip
        case "input":
            words = "sample|rand|noise|temperature|softmax|top_k|multinomial|alpha|eps|x ="
            return Change.of(phase, "inputs", range_of(parting.before), range_of(parting.after), who=name, phase=phase,
                             words=words, **lines)  # fmt: skip
        case "output" if x is not None and y is not None:
            return _inside(a, b, x, y)
        case "returned" if one is not None:
            return Change.of(phase, "returned", parting.before, parting.after, who=one.subject, phase=phase, **lines,
                             words="return|sample|clamp|temperature")  # fmt: skip
        case "image":
            return Change.of("sampling", "image", range_of(parting.before), range_of(parting.after), phase="sampling",
                             words="save_image|imshow|make_grid|clamp|normalize", **lines)  # fmt: skip
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
            told = [f"{f.subject}: {f['message'][:80]}" if f else "it goes on" for f in (x, y)]
            return Change.of("failure", "fails", *told, line_before=x.line if x else None, decisive=True,
                             line_after=y.line if y else None, words=".")  # fmt: skip
    return None
