"""Rules of graphs: what is kept of them from batch to batch, and what changes under them."""

import ast
import itertools
import re
from collections.abc import Iterator

from bowerbird.reading.adversaries import pairs
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import Patch, replace_line
from bowerbird.reading.program import Program, Unit, dotted, last_name, names_in, receiver
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import unit_of
from bowerbird.reading.running.run import Run


@rule("L13", "Weights are changed in place while gradients are recorded", family="loop", exact=True)
def leaf_in_place(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``p.add_(…)`` of a parameter: PyTorch refuses it outside ``no_grad``."""
    for error in facts.of("run.exception", "RuntimeError"):
        if "a leaf Variable that requires grad" in error["message"] and error["phase"] == "program" and error.line:
            yield say(
                "L13", "error", error.line, file=error.file, facts=(error.id,), message=error["message"][:110],
                error=error,
            )  # fmt: skip


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


@rule("L11", "A graph is retained", family="loop", exact=True)
def retained(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``retain_graph=True``: an error where the graph grows from batch to batch, else a thing to look at."""
    lines = {b.line for b in facts.of("event.backward") if b["retain_graph"] and not b["create_graph"]}
    for line in sorted(filter(None, lines)):
        own = [b for b in facts.of("event.backward", line=line) if b["retain_graph"]]
        sizes = [b["nodes"] for b in own]
        grown = _growth(own)
        unit = unit_of(program, own[0])
        if grown:
            yield say(
                "L11b", "error", line, file=unit.file, facts=(grown[0].id, grown[-1].id), grown=grown,
                nodes=grown[-1]["nodes"], grown_2=len(grown) - 1, id=grown[-1].id,
            )  # fmt: skip
            continue
        yield say("L11", "info", line, file=unit.file, facts=(own[0].id,), sizes=sizes, own=own)


def _growth(passes: list[Fact]) -> list[Fact]:
    """The first run of three passes or more whose graphs contain that of the pass before and a newer batch."""
    run = passes[:1]
    for before, after in itertools.pairwise(passes):
        old = {row["call"] for row in before["through"] or ()}
        new = {row["call"] for row in after["through"] or ()}
        if after["nodes"] > before["nodes"] and old and old < new:
            run.append(after)
        elif len(run) >= 3:
            break
        else:
            run = [after]
    return run if len(run) >= 3 else []


@rule("L12", "Weights change between the forward and the backward pass", family="loop", exact=True)
def stepped_between(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The backward pass needs the weights that the forward pass used; a step in between has changed them."""
    for error in facts.of("run.exception", "RuntimeError"):
        if "modified by an inplace operation" not in error["message"]:
            continue
        backwards = [b for b in facts.of("event.backward") if b.position < error.position]
        start = backwards[-1].position if backwards else 0
        steps = [s for s in facts.of("event.step") if start < s.position < error.position]
        if not steps:
            continue
        step = steps[-1]
        reused = [
            f for f in facts.of("event.forward")
            if f.position < error.position and f["from"] and f["graph"] and not f["detached"]
        ]  # fmt: skip
        where = f" The graph is entered again at line {reused[-1].line} ({reused[-1].id})." if reused else ""
        roles = pairs(facts)
        said = (
            "Detach the generator's output where the discriminator is trained" if roles else "Step after the backward"
        )
        evidence = f"The backward pass of line {error.line} then stopped: {error['message'][:150]} ({error.id}).{where}"
        fix = f"{said}, or compute the forward pass again after the step."
        known = (step.id, error.id)
        message = "This step changes weights in place that a later backward pass still needs."
        yield Finding("L12", "error", step.line or 1, message, evidence, fix, step.file, known)
        place = reused[-1].line if reused else error.line
        if place is not None and abs(place - (step.line or 1)) > 2:
            message = f"This uses a graph whose weights {step.subject}.step() (line {step.line}) has changed."
            yield Finding("L12", "error", place, message, evidence, fix, error.file, known)
