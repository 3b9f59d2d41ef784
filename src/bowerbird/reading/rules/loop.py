"""Rules of the optimisation loop, of every family: what is cleared, what is stepped, and in which order."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import around, at, calls_at, loss_line
from bowerbird.reading.patching import Edit, Patch, insert_before, replace_line
from bowerbird.reading.phases import contributions, did_nothing, owners_of, steps_of
from bowerbird.reading.program import Program, Unit, dotted, last_name, names_in, receiver
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import unit_of
from bowerbird.reading.running.run import Run


@rule("L01", "Gradients are never cleared between steps", family="loop")
def zero_grad_missing(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A step that uses gradients from before the optimiser's last step, time after time, was never cleared."""
    for identity, owners in owners_of(facts).items():
        steps = steps_of(facts, identity)
        for owner in owners:
            if len(steps) < 2:
                continue
            used = [contributions(facts, step, owner) for step in steps[1:]]
            stale = [u for u, before in zip(used, steps, strict=False) if u and u[0].position < before.position]
            if not used[0] or len(stale) < len([u for u in used if u]):
                continue
            own = [b for b in used[0] if b.position > steps[0].position] or used[0]
            yield _never_cleared(program, owner, steps, own[-1])


def _never_cleared(program: Program, owner: str, steps: list[Fact], backward: Fact) -> Finding:
    before = backward["grads"][owner]["norm_before"]
    line, name = backward.line or 1, steps[0].subject
    unit = unit_of(program, backward)
    known = name.isidentifier() and name in unit.text
    return say(
        "L01", "error", line, file=unit.file, facts=(backward.id, steps[0].id, steps[1].id),
        patch=(
            insert_before(unit.file, line, f"{name}.zero_grad()", unit.lines, label="L01: zero_grad")
            if known else None
        ),
        owner=owner, before=before, backward=backward, steps=steps, name=name,
    )  # fmt: skip


@rule("L02", "Gradients are cleared before the step that needs them", family="loop", exact=True)
def cleared_too_early(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """backward, zero_grad, step: the step finds nothing."""
    seen: set[int] = set()
    for step in facts.of("event.step"):
        if not did_nothing(step) or step["identity"] in seen:
            continue
        for owner in step["owners"] or {}:
            earlier = [b for b in facts.of("event.backward") if b.position < step.position]
            reached = [b for b in earlier if ((b["grads"] or {}).get(owner) or {}).get("norm", 0) > 0]
            if not reached:
                continue
            clears = [
                f for f in facts.of("event.zero_grad")
                if reached[-1].position < f.position < step.position and owner in (f["owners"] or ())
            ]  # fmt: skip
            others = [s for s in facts.of("event.step") if reached[-1].position < s.position < step.position]
            if clears and earlier[-1].position > clears[0].position:
                continue
            if not clears or any(owner in (s["owners"] or {}) for s in others):
                continue
            seen.add(step["identity"])
            norm = reached[-1]["grads"][owner]["norm"]
            yield say(
                "L02", "error", clears[0].line or 1, file=clears[0].file, facts=(reached[-1].id, clears[0].id, step.id),
                owner=owner, step=step, norm=norm, id=reached[-1].id, clears=clears,
            )  # fmt: skip


_OPTIMIZER_METHODS = (
    "step",
    "zero_grads",
    "zero_gradient",
    "param_groups",
    "clear_grad",
    "add_param_group",
    "minimize",
)


@rule("L04", "A method of an optimiser is called on a network", family="loop")
def step_on_module(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``discriminator.step()``: modules have no such method."""
    raised = {
        (f.file, f.line): f for f in facts.of("run.exception", "AttributeError")
        if f["phase"] == "program" and re.search(r"no attribute '(" + "|".join(_OPTIMIZER_METHODS) + ")'", f["message"])
    }  # fmt: skip
    for unit in program:
        own = {
            method for name in set(unit.modules.values()) if name in unit.classes
            for method in unit.classes[name].methods
        }  # fmt: skip
        for call in unit.all(ast.Call):
            word, name = last_name(call), dotted(receiver(call))
            if (
                word not in _OPTIMIZER_METHODS
                or word in own
                or name not in unit.modules
                or unit.is_optimizer(receiver(call))
            ):
                continue
            fact = raised.get((unit.file, call.lineno))
            owner = next((s.name for s in unit.optimizers if name in s.modules), "")
            yield say(
                "L04" if fact else "L04b", "error" if fact else "warning", call.lineno, file=unit.file,
                facts=(fact.id,) if fact else (),
                patch=replace_line(
                    unit.file, call.lineno, f"{name}.{word}(",
                    f"{owner}.{'zero_grad' if 'zero' in word else word}(", unit.lines, label=f"L04: {owner}",
                ) if owner else None,
                name=name, modules=unit.modules[name], word=word, fact=fact,
                message=fact["message"][:120] if fact else "",
                owner_2=owner or "the optimiser", why="zero_grad" if "zero" in word else word,
            )  # fmt: skip


@rule("L05", "Accumulated gradients are not divided", family="loop")
def accumulated(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Several backward passes of one line before each step, of a loss that is the mean of a batch."""
    for identity, owners in owners_of(facts).items():
        steps = steps_of(facts, identity)
        for owner in sorted(owners)[:1]:
            for place, step in enumerate(steps[:3]):
                used = contributions(facts, step, owner)
                stale = bool(used) and place > 0 and used[0].position < steps[place - 1].position
                if len(used) >= 2 and len({b.line for b in used}) == 1 and not stale:
                    yield from _sum_of_batches(program, facts, used, step)
                    break


def _sum_of_batches(program: Program, facts: FactStore, used: list[Fact], step: Fact) -> Iterator[Finding]:
    unit, backward = unit_of(program, used[-1]), used[1]
    losses = [f for f in facts.of("loss.call") if used[0].position < f.position < backward.position]
    if _divides(unit, backward.line) or any(f["reduction"] == "sum" for f in losses):
        return
    whole = [f for f in losses if f["value"] is not None and backward["loss"] is not None]
    same = next((f for f in whole if abs(f["value"] - backward["loss"]) <= 1e-5 * abs(f["value"])), None)
    yield say(
        "L05", "warning", (loss_line(unit, backward.line) if same else backward.line) or 1, file=unit.file,
        facts=(used[0].id, used[-1].id, step.id), used_2=len(used), backward=backward, used=used, id=used[-1].id,
        step=step, said=f"; the loss that is propagated is the whole mean ({same.id})." if same else ".",
    )  # fmt: skip


def _divides(unit: Unit, line: int | None) -> bool:
    """Whether what is propagated is divided, anywhere on its way within the function."""
    function = around(unit, line)
    calls = [c for c in calls_at(unit, line) if last_name(c) == "backward"]
    names = {n for c in calls for n in names_in(c)}
    for _ in range(3):
        statements: Iterator[Any] = unit.all(ast.Assign, ast.AugAssign, under=function)
        for node in statements:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if dotted(target) in names:
                names |= names_in(node.value)
                division = isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Div)
                if division or _has_division(node.value):
                    return True
    return any(_has_division(c) for c in calls)


def _has_division(node: ast.AST) -> bool:
    divides = any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div) for n in ast.walk(node))
    return divides or any(isinstance(n, ast.Call) and last_name(n) in ("div", "true_divide") for n in ast.walk(node))


@rule("L07", "Gradients are clipped after the step", family="loop")
def clipped_late(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Clipping acts on gradients: after the step that used them, before they are cleared, it does nothing."""
    seen = set()
    for clip in facts.of("event.clip"):
        for owner in clip["owners"] or {}:
            steps = [s for s in facts.of("event.step") if s.position < clip.position and owner in (s["owners"] or {})]
            backwards = [
                b for b in facts.of("event.backward")
                if b.position < clip.position and (b["grads"] is None or owner in b["grads"])
            ]  # fmt: skip
            late = steps and backwards and steps[-1].position > backwards[-1].position
            if not late or clip.line in seen:
                continue
            seen.add(clip.line)
            yield say(
                "L07", "error", clip.line or 1, file=clip.file, facts=(backwards[-1].id, steps[-1].id, clip.id),
                patch=_earlier(unit_of(program, clip), clip.line, steps[-1].line), owner=owner, id=backwards[-1].id,
                subject=steps[-1].subject, id_2=steps[-1].id, clip=clip,
            )  # fmt: skip
    yield from _scaled_clipping(program)


def _earlier(unit: Unit, line: int | None, before: int | None) -> Patch | None:
    """The patch that moves a one-line statement up in front of another of the same block."""
    statement, other = at(unit, line), at(unit, before)
    if (
        not (isinstance(statement, ast.Expr) and isinstance(other, ast.Expr))
        or statement.lineno != statement.end_lineno
    ):
        return None
    if unit.parents[statement] is not unit.parents[other] or statement.lineno < other.lineno:
        return None
    moved = unit.lines[statement.lineno - 1]
    return Patch("L07: clip before step", (
        Edit(unit.file, other.lineno, other.lineno - 1, (moved,)),
        Edit(unit.file, statement.lineno, statement.lineno, ()),
    ))  # fmt: skip


def _scaled_clipping(program: Program) -> Iterator[Finding]:
    """With a gradient scaler the gradients must be unscaled before they are clipped."""
    for unit in program:
        for loop in unit.training_loops:
            calls = list(unit.all(ast.Call, under=loop))
            scaled = [c for c in calls if last_name(c) == "backward" and last_name(receiver(c)) == "scale"]
            unscaled = [c for c in calls if last_name(c) == "unscale_"]
            for clip in (c for c in calls if last_name(c).startswith("clip_grad_")):
                if scaled and scaled[0].lineno < clip.lineno and not any(u.lineno < clip.lineno for u in unscaled):
                    yield say("L07b", "warning", clip.lineno, file=unit.file, scaled=scaled)
