"""Rules of learning rates: schedules stepped at the wrong place, warm-ups that start at zero."""

import ast
import math
import re
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, Unit, dotted, keyword, last_name, receiver
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run

_PER_EPOCH = frozenset("StepLR MultiStepLR ExponentialLR CosineAnnealingLR".split())
_SPENT = 1e-3


@rule("L06", "The schedule is stepped at the wrong place", family="loop")
def scheduled(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A schedule that counts epochs and is stepped for every batch is over long before training is."""
    yield from _order(program, facts)
    for unit in program:
        for name, kind, call in _schedulers(unit):
            for step in unit.all(ast.Call):
                if last_name(step) != "step" or dotted(receiver(step)) != name or not unit.loops(step):
                    continue
                inner = unit.loops(step)[0]
                per_batch = inner in unit.training_loops
                if per_batch and kind in _PER_EPOCH:
                    yield from _too_often(unit, facts, name, kind, call, step)
                elif not per_batch and kind == "OneCycleLR" and _mentions(call, "len(", "steps"):
                    yield say(
                        "L06c", "warning", step.lineno, file=unit.file, name=name, kind=kind, call=call,
                        call_2=ast.unparse(call)[:120],
                    )  # fmt: skip


def _order(program: Program, facts: FactStore) -> Iterator[Finding]:
    for warning in facts.of("run.warning"):
        if "lr_scheduler.step()` before `optimizer.step()" in warning["message"] and warning.line:
            yield say(
                "L06b", "warning", warning.line, file=warning.file, facts=(warning.id,),
                message=warning["message"][:120], warning=warning,
            )  # fmt: skip


def _schedulers(unit: Unit) -> Iterator[tuple[str, str, ast.Call]]:
    for name, values in unit.assignments.items():
        for value, _ in values:
            kind = last_name(value)
            if isinstance(value, ast.Call) and (kind.endswith("LR") or "Schedul" in kind or "OneCycle" in kind):
                yield name, kind, value


def _mentions(call: ast.Call, *words: str) -> bool:
    text = ast.unparse(call)
    return any(word in text for word in words)


def _too_often(
    unit: Unit, facts: FactStore, name: str, kind: str, call: ast.Call, step: ast.Call
) -> Iterator[Finding]:  # fmt: skip
    """The schedule's span is that of the epochs, or the rate would have vanished long before the end."""
    loops = unit.loops(step)
    span = keyword(call, {"CosineAnnealingLR": "T_max", "StepLR": "step_size"}.get(kind, "milestones"), 1)
    epochs = _rounds(unit, facts, loops[1]) if len(loops) > 1 else _callers(unit, facts, step)
    batches = _rounds(unit, facts, loops[0]) or 1
    counts = True
    if span is not None and kind != "ExponentialLR" and re.search(r"epoch", ast.unparse(span), re.I):
        why = f"{kind} is told to span {ast.unparse(span)}, which counts epochs"
    elif kind == "CosineAnnealingLR" and epochs and unit.constant(span) == epochs:
        why = f"T_max is {epochs}, the number of epochs"
    else:
        counts = False
        left = _left(unit, kind, call, span, batches * (epochs or 1))
        if left is None or left > _SPENT:
            return
        why = (
            f"after {batches * (epochs or 1)} batches (at least {batches} in each of {epochs or 1} epochs) the rate is "
            f"{left:.1g} of its start"
        )
    seen = facts.of("event.scheduler", kind, line=step.lineno)
    rates = (
        f"; it went from {seen[0]['lr'][0]:.3g} to {seen[-1]['lr'][0]:.3g} in {len(seen)} steps"
        if len(seen) > 1
        else ""
    )
    yield say(
        "L06", "error" if len(seen) > 1 and counts else "warning", step.lineno, file=unit.file,
        facts=tuple(f.id for f in seen[:1]), name=name, why=why, rates=rates,
        why_2=f" ({seen[0].id}, {seen[-1].id})" if seen else "",
    )  # fmt: skip


def _rounds(unit: Unit, facts: FactStore, loop: ast.AST) -> int | None:
    """How many rounds a loop has: of the data set behind the loader where that is known, else those that were seen."""
    seen = facts.first("run.loop", line=getattr(loop, "lineno", None))
    if seen is None:
        return None
    wanted = ast.unparse(loop.iter) if isinstance(loop, ast.For) else ""
    whole = [
        math.ceil(f["len"] / f["batch_size"]) for f in facts.of("data.loader")
        if f["len"] and isinstance(f["batch_size"], int) and f["shuffle"]
    ]  # fmt: skip
    if "load" in wanted and whole:
        return max(whole)
    return max(seen["of"] or 0, seen["iterations"])


def _callers(unit: Unit, facts: FactStore, step: ast.Call) -> int | None:
    """The rounds of the loop that calls the function around a step."""
    function = unit.function(step)
    if function is None:
        return None
    for call in unit.all(ast.Call):
        if last_name(call) == function.name and unit.loops(call):
            return _rounds(unit, facts, unit.loops(call)[0])
    return None


def _left(unit: Unit, kind: str, call: ast.Call, span: ast.expr | None, steps: int) -> float | None:
    """The part of the learning rate that is left after so many steps of a decaying schedule."""
    gamma = unit.constant(keyword(call, "gamma", 1 if kind == "ExponentialLR" else 2))
    gamma = 0.1 if gamma is None and kind != "ExponentialLR" else gamma
    if not isinstance(gamma, int | float) or not 0 < gamma < 1:
        return None
    size = unit.constant(span)
    if kind == "ExponentialLR":
        return float(gamma**steps)
    if kind == "StepLR" and isinstance(size, int) and size > 0:
        return float(gamma ** (steps // size))
    return None


@rule("L08", "The first learning rate is zero", family="loop")
def warmup_from_zero(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A warm-up that is ``it / warmup`` gives nothing at the first step."""
    said: set[tuple[str, int]] = set()
    for first in facts.of("event.step"):
        rates = first["lr"] or []
        if first["n"] != 1 or not rates or any(not isinstance(r, int | float) or r != 0 for r in rates):
            continue
        later = [s for s in facts.of("event.step") if s["identity"] == first["identity"] and any(s["lr"] or ())]
        unit, line = _warmup(program) or (program.units.get(first.file, program.main), first.line or 1)
        if not later or (unit.file, line) in said:
            continue
        said.add((unit.file, line))
        yield say(
            "L08", "warning", line, file=unit.file, facts=(first.id, later[0].id), first=first, rates=rates,
            later=later,
        )  # fmt: skip

    for fact in facts.of("probe.rate"):
        found = _warmup(program)
        if said or fact["first"] != 0 or not 0 < fact["second"] <= fact["later"] or found is None:
            continue
        unit, line = found
        said.add((unit.file, line))
        yield say("L08b", "warning", line, file=unit.file, fact=fact)


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
