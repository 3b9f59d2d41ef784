"""Rules of optimisers: which parameters each holds, and its learning rate: schedules and warm-ups."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.adversaries import pairs
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import (
    Program,
    Unit,
    last_name,
)
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import placed, say
from bowerbird.reading.running.run import Run

# ---------- ownership: which parameters each optimiser holds, and which are in none


def name_of(facts: FactStore, optimizer: Fact) -> str:
    """The user's name for an optimiser."""
    steps = facts.first("optimizer.steps", optimizer.subject)
    seen = next((s for s in facts.of("event.step") if s["identity"] == optimizer["identity"]), None)
    return str(steps["name"] if steps is not None else seen.subject if seen is not None else optimizer["class"])


def steps_taken(facts: FactStore, optimizer: Fact) -> int:
    """How often an optimiser was stepped; where the run ended early, how often that was seen."""
    seen = sum(s["identity"] == optimizer["identity"] for s in facts.of("event.step"))
    steps = facts.first("optimizer.steps", optimizer.subject)
    return max(seen, int(steps["steps"]) if steps is not None else 0)


def forsaken(facts: FactStore) -> Iterator[Fact]:
    """Modules that were called for training and reached by gradients, but that no optimiser holds."""
    if any(s.subject == "by hand" for s in facts.of("event.step")):
        return
    for moved in facts.of("module.moved"):
        lost = set(moved["unowned"] or ()) & set(moved["reached"] or ())
        calls = facts.of("event.forward", moved.subject)
        trains = any(c["training"] and c["grad_enabled"] for c in calls)
        if lost and trains and len(lost) == len(moved["reached"]) and not moved["moved"]:
            yield moved


@rule("L03", "The optimiser holds other parameters than those that are trained", family="loop", exact=True)
def wrong_parameters(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """What the loss reaches is in no optimiser; an optimiser holds what nobody calls any more."""
    optimizers = facts.of("optimizer.created")
    if not facts.of("event.step"):
        return
    for moved in forsaken(facts):
        called = {c.subject for c in facts.of("event.forward")}
        idle = [o for o in optimizers if o["owners"] and not _called(o["owners"], called) and steps_taken(facts, o)]
        lost = [o for o in optimizers if not o["owners"] and o["tensors"] and steps_taken(facts, o)]
        twice = doubled(facts)
        blamed = (idle or lost or [o for pair in twice for o in pair] or optimizers[-1:])[-1:]
        if not blamed or (twice and not idle and pairs(facts)):
            continue
        proved = bool(idle or lost)
        optimizer = blamed[0]
        held = ", ".join(optimizer["owners"]) or "parameters of no module that is in use"
        yield say(
            "L03", "error" if proved else "warning", optimizer.line, file=optimizer.file,
            facts=(moved.id, optimizer.id), moved=moved,
            said=f", and {name_of(facts, optimizer)} holds those of a module that is never called." if proved else ".",
            reached=len(moved["reached"]), name_of_2=name_of(facts, optimizer), held=held, optimizer=optimizer,
        )  # fmt: skip


def _called(owners: dict[str, object], called: set[str]) -> bool:
    """Whether any of these modules, or a part of one, was called."""
    return any(name == owner or name.startswith(f"{owner}.") for owner in owners for name in called)


def doubled(facts: FactStore) -> list[tuple[Fact, Fact]]:
    """Optimisers that were given the same parameters."""
    made = [o for o in facts.of("optimizer.created") if o["owners"]]
    return [
        (a, b) for i, a in enumerate(made) for b in made[i + 1 :]
        if {k: v["tensors"] for k, v in a["owners"].items()} == {k: v["tensors"] for k, v in b["owners"].items()}
    ]  # fmt: skip


# ---------- learning rates: warm-ups that start at zero


def _schedulers(unit: Unit) -> Iterator[tuple[str, str, ast.Call]]:
    for name, values in unit.assignments.items():
        for value, _ in values:
            kind = last_name(value)
            if isinstance(value, ast.Call) and (kind.endswith("LR") or "Schedul" in kind or "OneCycle" in kind):
                yield name, kind, value


@rule("L08", "The first learning rate is zero", family="loop")
def warmup_from_zero(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A warm-up that is ``it / warmup`` gives nothing at the first step."""
    said: set[tuple[str, int]] = set()
    for first in facts.of("event.step"):
        rates = first["lr"] or []
        if first["n"] != 1 or not rates or any(not isinstance(r, int | float) or r != 0 for r in rates):
            continue
        later = [s for s in facts.of("event.step") if s["identity"] == first["identity"] and any(s["lr"] or ())]
        unit, line = _warmup(program) or (program.units.get(first.file, program.main), placed(first.line))
        if not later or (unit.file, line) in said:
            continue
        said.add((unit.file, line))
        yield say(
            "L08", "warning", line, file=unit.file, facts=(first.id, later[0].id), first=first, rates=rates,
            later=later,
        )  # fmt: skip


def _warmup(program: Program) -> tuple[Unit, int] | None:
    """The division by the length of the warm-up, or what makes the schedule."""
    for unit in program:
        for node in unit.all(ast.BinOp):
            if isinstance(node.op, ast.Div) and re.search(r"warm", ast.unparse(node.right), re.I):
                return unit, node.lineno
        for name, kind, call in _schedulers(unit):
            if kind == "LambdaLR" or "warm" in ast.unparse(call).lower() or "warm" in name.lower():
                return unit, call.lineno
    return None
