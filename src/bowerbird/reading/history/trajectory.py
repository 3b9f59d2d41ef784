"""Two runs side by side: the first place at which losses, gradients, steps, outputs or weights part.

Rounding differs between equal formulas, and training amplifies it; so what may differ grows with the number of
optimiser steps before an event: 1e-4 of a value at the start, never more than 2 %.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from bowerbird.reading.facts import Fact
from bowerbird.reading.history.version import Version

START, GROWTH, MOST = 1e-4, 2.0, 0.02
UNTRAINED = -5
"""The step of what no training amplifies: one forward pass differs by its own rounding alone."""
STATE_SHARE = 0.15
"""How far apart weights may end, as a share of how far training moved them."""


@dataclass(frozen=True)
class Parting:
    """``kind`` says what parted (loss, gradient, step, order, output, state, table, returned, image), ``n`` when."""

    kind: str
    n: int
    before: Any
    after: Any
    fact_before: Fact | None = None
    fact_after: Fact | None = None
    role: int = -1
    strength: float = math.inf


def partings(a: Version, b: Version) -> list[Parting]:
    """The first difference of each kind; none where the trajectories are one."""
    kinds = (losses, steps, states, tables, outputs, returned, images)
    return [found for kind in kinds if (found := next(kind(a, b), None)) is not None]


def share(step: int) -> float:
    return float(min(START * GROWTH**step, MOST))


def near(x: Any, y: Any, step: int = 0, scale: float = 0.0) -> bool:
    """Whether two numbers are equal up to rounding; ``scale`` is the size of what they were computed from."""
    if not isinstance(x, int | float) or not isinstance(y, int | float):
        return bool(x == y)
    if not (math.isfinite(x) and math.isfinite(y)):
        return str(x) == str(y)
    return abs(x - y) <= share(step) * max(abs(x), abs(y), scale) + 1e-6 * GROWTH ** min(step, 8)


def alike(x: Any, y: Any, step: int) -> bool:
    """Whether two summaries of tensors are equal."""
    if isinstance(x, list) and isinstance(y, list):
        return len(x) == len(y) and all(alike(p, q, step) for p, q in zip(x, y, strict=True))
    if not isinstance(x, dict) or not isinstance(y, dict):
        return near(x, y, step)
    if "shape" not in x:
        return len(x) == len(y) and all(alike(p, q, step) for p, q in zip(x.values(), y.values(), strict=True))
    if x["shape"] != y.get("shape"):
        return False
    scale = max((abs(x[k]) for k in ("min", "max") if isinstance(x.get(k), int | float)), default=0.0)
    return all(near(x.get(k), y.get(k), step, scale) for k in ("min", "max", "mean", "std") if k in x and k in y)


def losses(a: Version, b: Version) -> Iterator[Parting]:
    """Values of the losses, backward pass by backward pass."""
    left, right = a.facts.of("event.backward"), b.facts.of("event.backward")
    for n, (x, y) in enumerate(zip(left, right, strict=False), 1):
        if not near(x["loss"], y["loss"], x["step"] or 0):
            yield Parting("loss", n, x["loss"], y["loss"], x, y)
    if len(left) != len(right):
        longer = left if len(left) > len(right) else right
        extra = longer[min(len(left), len(right))]
        one = (extra, None) if longer is left else (None, extra)
        yield Parting("backwards", min(len(left), len(right)) + 1, len(left), len(right), *one)


def owners(fact: Fact, version: Version) -> tuple[int, ...]:
    return tuple(sorted({version.role(name) for name in fact["owners"] or {}}))


def steps(a: Version, b: Version) -> Iterator[Parting]:
    """Whose weights each step moves, at which rate, with which gradient, how far."""
    left, right = a.facts.of("event.step"), b.facts.of("event.step")
    for n, (x, y) in enumerate(zip_longest(left, right), 1):
        if x is None or y is None:
            yield Parting("steps", n, len(left), len(right), x, y)
            return
        step = x["step"] or 0
        if x["owners"] and y["owners"] and owners(x, a) != owners(y, b):
            yield Parting("order", n, owners(x, a), owners(y, b), x, y)
        elif not _rates(x["lr"], y["lr"]):
            yield Parting("rate", n, x["lr"], y["lr"], x, y)
        elif not near(x["grad_norm"], y["grad_norm"], step):
            yield Parting("gradient", n, x["grad_norm"], y["grad_norm"], x, y)
        elif not near(x["delta"], y["delta"], step + 6):
            yield Parting("step", n, x["delta"], y["delta"], x, y)


def _rates(x: Any, y: Any) -> bool:
    """Rates are settings: they agree to all figures."""
    x, y = x or [], y or []
    if len(x) != len(y):
        x, y = sorted(set(x)), sorted(set(y))
    return len(x) == len(y) and all(
        math.isclose(p, q, rel_tol=1e-5) if isinstance(p, float | int) and isinstance(q, float | int) else p == q
        for p, q in zip(x, y, strict=True)
    )


def calls(version: Version, role: int, part: str = "") -> list[Fact]:
    """The calls of a root module, or of a part of it that is called from outside, in order."""
    found = [f for f in version.facts.of("event.forward") if version.role(f.subject) == role]
    return [f for f in found if version.part(f.subject) == part]


def parts(version: Version, role: int) -> list[str]:
    """The parts of a root module that are called from outside, the root itself first."""
    found = [f for f in version.facts.of("event.forward") if version.role(f.subject) == role]
    return list(dict.fromkeys(["", *(version.part(f.subject) for f in found)]))


def outputs(a: Version, b: Version) -> Iterator[Parting]:
    """What networks give without gradient (sampling, evaluation); with it, where nothing is trained."""
    trains = bool(a.facts.of("event.step")) or bool(b.facts.of("event.step"))
    roles = sorted(set(a.roles.values()) & set(b.roles.values()))
    for role, part in [(r, p) for r in roles for p in parts(a, r) if p in parts(b, r)]:
        left = [f for f in calls(a, role, part) if not trains or not f["grad_enabled"]]
        right = [f for f in calls(b, role, part) if not trains or not f["grad_enabled"]]
        for n, (x, y) in enumerate(zip_longest(left, right), 1):
            if x is None or y is None:
                yield Parting("calls", n, len(left), len(right), x, y, role)
                break
            step = (x["step"] or 0) if trains else UNTRAINED
            if x["training"] != y["training"]:
                yield Parting("mode", n, x["training"], y["training"], x, y, role)
            if not alike(x["in"], y["in"], step + 2):
                yield Parting("input", n, x["in"], y["in"], x, y, role)
            if not alike(x["out"], y["out"], step + 2):
                yield Parting("output", n, x["out"], y["out"], x, y, role)


def movement(root: Fact) -> float:
    """How far training moved the weights of a root module."""
    total = 0.0
    for row in root["parameters"] or []:
        if row["start"] and row["now"]:
            total += sum((p - q) ** 2 for p, q in zip(row["now"][1:], row["start"][1:], strict=True)) / 3
    return math.sqrt(total)


def states(a: Version, b: Version) -> Iterator[Parting]:
    """Weights at the end: their distance against the distance that training moved them."""
    by_role = {b.roles.get(f.subject): f for f in b.roots}
    moved = [(shapes_of(f), movement(f)) for f in a.roots]
    for x in a.roots:
        y = by_role.get(a.roles[x.subject])
        if y is None:
            continue
        left, right = _rows(x), _rows(y)
        if [s for s, _ in left] != [s for s, _ in right]:
            continue
        distance = math.sqrt(sum(_square(p, q) for (_, p), (_, q) in zip(left, right, strict=True)))
        norm = math.sqrt(sum(p[0] ** 2 for _, p in left if p))
        own = movement(x) or max((m for s, m in moved if s == shapes_of(x)), default=0.0)
        strength = distance / (own + 1e-12)
        if distance > STATE_SHARE * own + 1e-5 * norm + 1e-7:
            yield Parting("state", 0, distance, own, x, y, a.roles[x.subject], strength)


def shapes_of(root: Fact) -> list[list[int]]:
    return [row["shape"] for row in root["parameters"] or []]


def _rows(root: Fact) -> list[tuple[list[int], list[float]]]:
    """Shapes and projections of weights, ordered by shape so that the order of registration does not matter."""
    rows = [(row["shape"], row["now"]) for row in root["parameters"] or []]
    return sorted(rows, key=lambda row: row[0])


def _square(p: Sequence[float], q: Sequence[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(p[1:], q[1:], strict=False)) / 3


def tables(a: Version, b: Version) -> Iterator[Parting]:
    """Buffers, and tensors in objects of the program, that both versions know by the same name."""
    left, right = _tables(a), _tables(b)
    for name, (fact, row) in left.items():
        other = right.get(name)
        if other is None:
            continue
        step = _trained(fact)
        if row["shape"] != other[1]["shape"]:
            yield Parting("table", 0, row["shape"], other[1]["shape"], fact, other[0])
        elif row["now"] and not _same(row["now"], other[1]["now"], step):
            yield Parting("table", 0, row["ends"], other[1]["ends"], fact, other[0])


def _trained(fact: Fact) -> int:
    """Buffers of trained modules (running means) carry training's rounding."""
    return 6 if fact["parameters"] else 2


def _tables(version: Version) -> dict[str, tuple[Fact, dict[str, Any]]]:
    found = {}
    for fact in version.roots:
        for row in fact["buffers"] or []:
            found[f"{version.roles[fact.subject]}:{row['name']}"] = (fact, row)
    for fact in version.facts.of("history.table"):
        if "." in fact.subject or "[" in fact.subject:
            found[fact.subject] = (fact, fact.value)
    return found


def _same(x: Sequence[float], y: Sequence[float], step: int) -> bool:
    return len(x) == len(y) and all(near(p, q, step, abs(x[0])) for p, q in zip(x, y, strict=True))


def returned(a: Version, b: Version) -> Iterator[Parting]:
    """What samplers and evaluations gave back: each version has something that the other never gives."""
    left, right = a.facts.of("history.returned"), b.facts.of("history.returned")
    lost = [x for x in left if not any(_same_given(x, y) for y in right)]
    new = [y for y in right if not any(_same_given(x, y) for x in left)]
    if lost and new:
        x, y = lost[0], new[0]
        yield Parting("returned", 0, x["tensors"][0]["ends"], y["tensors"][0]["ends"], x, y)


def _same_given(x: Fact, y: Fact) -> bool:
    p, q = x["tensors"] or [], y["tensors"] or []
    return len(p) == len(q) and all(
        one["shape"] == other["shape"] and _same(one["told"], other["told"], (x["step"] or 0) + 2)
        for one, other in zip(p, q, strict=True)
    )


def images(a: Version, b: Version) -> Iterator[Parting]:
    """Pictures that were saved or shown."""
    left, right = a.facts.of("image.saved"), b.facts.of("image.saved")
    for n, (x, y) in enumerate(zip(left, right, strict=False), 1):
        if not alike(x["input"], y["input"], (x["step"] or 0) + 2):
            yield Parting("image", n, x["input"], y["input"], x, y)
