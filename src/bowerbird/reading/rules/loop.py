"""Rules of the optimisation loop, of every family: what is cleared, stepped and kept, and in which order."""

import ast
import math
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.adversaries import pairs
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import at, calls_at, function_at, loss_line
from bowerbird.reading.patching import Edit, Patch, insert_before, replace_line
from bowerbird.reading.phases import contributions, did_nothing, owners_of, steps_of
from bowerbird.reading.program import (
    Program,
    Unit,
    dotted,
    last_name,
    names_in,
    receiver,
)
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import placed, say
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
    line, name = placed(backward.line), steps[0].subject
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
                "L02", "error", clears[0].line, file=clears[0].file, facts=(reached[-1].id, clears[0].id, step.id),
                owner=owner, step=step, norm=norm, id=reached[-1].id, clears=clears,
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
        "L05", "warning", (loss_line(unit, backward.line) if same else backward.line), file=unit.file,
        facts=(used[0].id, used[-1].id, step.id), used_2=len(used), backward=backward, used=used, id=used[-1].id,
        step=step, said=f"; the loss that is propagated is the whole mean ({same.id})." if same else ".",
    )  # fmt: skip


def _divides(unit: Unit, line: int | None) -> bool:
    """Whether what is propagated is divided, anywhere on its way within the function."""
    function = function_at(unit, line)
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
                "L07", "error", clip.line, file=clip.file, facts=(backwards[-1].id, steps[-1].id, clip.id),
                patch=_earlier(unit_of(program, clip), clip.line, steps[-1].line), owner=owner, id=backwards[-1].id,
                subject=steps[-1].subject, id_2=steps[-1].id, clip=clip,
            )  # fmt: skip


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


# ---------- graphs: what is kept of them from batch to batch, and what changes under them


@rule("L09", "A running total keeps the graph of every batch", family="loop")
def total_keeps_graph(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``total += loss`` where ``loss`` still has its graph: memory grows from batch to batch."""
    for unit in program:
        for loop in unit.training_loops:
            calls = list(unit.all(ast.Call, under=loop))
            trained = {dotted(receiver(c)) for c in calls if last_name(c) == "backward"} - {None}
            for line, name, total in _kept(unit, loop):
                if name not in trained or total in trained or _used_in_loss(unit, loop, total, trained):
                    continue
                seen = [f for f in facts.of("function.call", line=line) if f["direct"] and "add" in f.subject]
                yield say(
                    "L09" if seen else "L09b", "warning", line, file=unit.file, facts=tuple(f.id for f in seen[:1]),
                    patch=_itemised(unit, line, name), total=total, name=name, seen=seen,
                )  # fmt: skip


def _kept(unit: Unit, loop: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Lines of a loop that add a bare name to a running total or a list."""
    for node in unit.all(ast.AugAssign, ast.Assign, ast.Call, under=loop):
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            value = node.value
            while isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult | ast.Div):
                value = value.left if isinstance(value.left, ast.Name) else value.right
                if not isinstance(value, ast.Name | ast.BinOp):
                    break
            if isinstance(value, ast.Name) and dotted(node.target):
                yield node.lineno, value.id, str(dotted(node.target))
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.Add):
            left, right = dotted(node.value.left), dotted(node.value.right)
            target = dotted(node.targets[0])
            if target is not None and target == left and right and "." not in right:
                yield node.lineno, right, target
        elif isinstance(node, ast.Call) and last_name(node) == "append" and len(node.args) == 1:
            if isinstance(node.args[0], ast.Name):
                yield node.lineno, node.args[0].id, dotted(receiver(node)) or "the list"


def _used_in_loss(unit: Unit, loop: ast.AST, total: str, trained: set[str | None]) -> bool:
    """Whether the total itself becomes part of what backward() is called on."""
    return any(
        total in names_in(node.value) and any(dotted(t) in trained for t in node.targets)
        for node in unit.all(ast.Assign)
    )  # fmt: skip


def _itemised(unit: Unit, line: int, name: str) -> Patch | None:
    text = unit.lines[line - 1]
    found = list(re.finditer(rf"\b{re.escape(name)}\b(?!\.)", text))
    if not found:
        return None
    last = found[-1]
    new = f"{text[: last.end()]}.item(){text[last.end() :]}"
    return replace_line(unit.file, line, text, new, unit.lines, label="L09: item")


@rule("L12", "Weights change between the forward and the backward pass", family="loop", exact=True)
def stepped_between(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The backward pass needs the weights that the forward pass used; a step in between has changed them."""
    for error in facts.of("run.exception", "RuntimeError"):
        step = _step_that_wrote(facts, error)
        if step is None or step.line is None or error.line is None:
            continue  # what a driver does is not the program's to blame
        reused = [
            f for f in facts.of("event.forward")
            if f.position < error.position and f["from"] and f["graph"] and not f["detached"]
        ]  # fmt: skip
        where = f" The graph is entered again at line {reused[-1].line} ({reused[-1].id})." if reused else ""
        yield say(
            "L12" if pairs(facts) else "L12b", "error", step.line, file=step.file, facts=(step.id, error.id),
            error=error, message=error["message"][:150], said=where,
        )  # fmt: skip


_WRITTEN = re.compile(
    r"modified by an inplace operation: \[[\w.]+ \[([\d, ]*)\]\].* is at version (\d+); expected version (\d+)"
)


def _step_that_wrote(facts: FactStore, error: Fact) -> Fact | None:
    """The step that changed the very tensor that a backward pass missed, by its size and by how often it was written:
    what the program itself writes in place, in sampling as in training, is no step's doing."""
    told = _WRITTEN.search(error["message"])
    if told is None:
        return None
    elements, (found, expected) = math.prod(map(int, filter(None, told[1].split(", ")))), map(int, told.groups()[1:])
    steps = [s for s in facts.of("event.step") if s.position < error.position]
    rows = [(step, before, after) for step in steps for n, before, after in step["versions"] or () if n == elements]
    if not rows or rows[-1][2] > found:
        return None
    return next((step for step, before, _ in reversed(rows) if before == expected), None)
