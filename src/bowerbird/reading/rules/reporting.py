"""Rules of metrics and reports: whether the numbers that are printed are what they are called."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import bindings, function_at
from bowerbird.reading.phases import owners_of
from bowerbird.reading.program import Program, Unit, dotted, last_name, names_in, receiver
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run

Total = tuple[str, ast.AugAssign, ast.For]


def totals(unit: Unit) -> Iterator[Total]:
    """Running totals: a name to which a loop over batches adds."""
    for node in unit.all(ast.AugAssign):
        name = dotted(node.target)
        around_it = [loop for loop in unit.loops(node) if isinstance(loop, ast.For)]
        if name is not None and around_it and isinstance(node.op, ast.Add):
            yield name, node, around_it[0]


@rule("M03", "Perplexity is the mean of exponentials", family="reporting")
def mean_of_exponentials(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Perplexity is the exponential of the mean loss; the mean of exponentials is larger."""
    for unit in program:
        for name, node, _ in totals(unit):
            yield from _exponential(unit, facts, node.value, node, name)
        for call in unit.calls("*.append"):
            if unit.loops(call) and call.args:
                yield from _exponential(unit, facts, call.args[0], call, dotted(receiver(call)) or "the list")


def _exponential(
    unit: Unit, facts: FactStore, value: ast.expr, node: ast.AST, name: str
) -> Iterator[Finding]:  # fmt: skip
    for call in (n for n in ast.walk(value) if isinstance(n, ast.Call) and last_name(n) == "exp"):
        given = ast.unparse(call)
        if not re.search(r"loss|nll|\bce\b|cross_entropy|entropy|\bnl\b", given, re.I):
            continue
        function = function_at(unit, call.lineno)
        text = ast.unparse(function) if function is not None else unit.text
        if not re.search(r"ppl|perplex", f"{text}{name}", re.I):
            continue
        seen = facts.of("function.call", "exp", line=call.lineno)
        yield say(
            "M03", "warning", call.lineno, file=unit.file, facts=tuple(f.id for f in seen[:1]), name=name,
            given_2=given[:60], why=f" ({seen[0].id})" if seen else "",
        )  # fmt: skip


_STATISTICAL = ("BatchNorm", "Dropout", "AlphaDropout", "FeatureAlphaDropout", "SyncBatchNorm")
_MEASURES = re.compile(r"incept|fid|lpips|vgg|resnet|extract|feature|metric|eval|judge|classif|percept|clip|scor", re.I)


@rule("M04", "A network that measures runs in training mode", family="reporting")
def measuring(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A network that nobody trains and that is called without gradients must be in evaluation mode."""
    trained = {name for names in owners_of(facts).values() for name in names}
    classes = {f["class"] for f in facts.of("event.forward") if f.subject in trained}
    for tree in facts.of("module.tree"):
        calls = facts.of("event.forward", tree.subject)
        named = _MEASURES.search(f"{tree.subject} {tree['class']}")
        if tree.subject in trained or tree["class"] in classes or not calls or named is None:
            continue
        moving = [r["class"] for r in tree["modules"] or () if r["class"].startswith(_STATISTICAL)]
        wrong = [c for c in calls if c["training"] and not c["grad_enabled"]]
        if not moving or len(wrong) < len(calls):
            continue
        call = wrong[0]
        place = tree if tree.line is not None and tree.file else call
        yield say(
            "M04", "warning", place.line, file=place.file, facts=(call.id, tree.id), tree=tree, moving=moving,
            wrong_2=len(wrong), call=call, moving_2=len(moving),
        )  # fmt: skip


@rule("M05", "The last batch is reported as the epoch", family="reporting")
def last_batch(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The variable of a loop over batches is read after the loop: it holds the last batch alone."""
    for unit in program:
        for loop in unit.training_loops:
            scope = unit.function(loop) or unit.tree
            losses = {
                name for call in unit.all(ast.Call, under=loop) if last_name(call) == "backward"
                for name in names_in(call) if re.search(r"loss|err", name, re.I)
            }  # fmt: skip
            sums = [
                name for name, added, around_it in totals(unit) if around_it is loop and names_in(added.value) & losses
            ]  # fmt: skip
            nodes: Iterator[Any] = unit.all(ast.Return, ast.Call, under=scope)
            for node in nodes:
                if node.lineno <= (loop.end_lineno or 0) or not _follows(unit, loop, node):
                    continue
                read = _reported(node) & losses
                if not read or _rebound(unit, loop, node, read):
                    continue
                name = sorted(read)[0]
                idle = [t for t in sums if not _read_after(unit, scope, t, loop)]
                mean = isinstance(node, ast.Call) and re.search(r"avg|average|mean|平均", ast.unparse(node), re.I)
                strong = isinstance(node, ast.Return) or bool(idle) or bool(mean)
                yield say(
                    "M05", "warning" if strong else "info", node.lineno, file=unit.file, name=name, loop=loop,
                    said=f"; {idle[0]} was added up and is never used." if idle else ".",
                    why=idle[0] if idle else "the average of all batches",
                )  # fmt: skip
                break


def _follows(unit: Unit, loop: ast.AST, node: ast.AST) -> bool:
    """Whether a statement comes after a loop in the same block, or in one around it."""
    statement = unit.statement(node)
    blocks = [unit.parents.get(loop), *unit.ancestors(unit.parents.get(loop, loop))]
    return statement is not None and unit.parents.get(statement) in blocks[:2]


def _reported(node: ast.AST) -> set[str]:
    """The names whose plain values a return, a print or a log shows."""
    if isinstance(node, ast.Call) and last_name(node) not in ("print", "info", "log", "add_scalar", "append", "write"):
        return set()
    values = [node.value] if isinstance(node, ast.Return) else [*getattr(node, "args", ()), *(
        k.value for k in getattr(node, "keywords", ())
    )]  # fmt: skip
    found = set()
    for value in filter(None, values):
        for call in ast.walk(value):
            if isinstance(call, ast.Call) and last_name(call) == "item" and isinstance(receiver(call), ast.Name):
                found |= names_in(call)
    return found


def _rebound(unit: Unit, loop: ast.AST, node: ast.AST, names: set[str]) -> bool:
    """Whether another statement binds a name between the loop and its reading."""
    end = getattr(loop, "end_lineno", 0) or 0
    return any(end < line < getattr(node, "lineno", 0) for name in names for line, _ in bindings(unit, name))


def _read_after(unit: Unit, scope: ast.AST, name: str, loop: ast.AST) -> bool:
    end = getattr(loop, "end_lineno", 0) or 0
    return any(n.id == name and n.lineno > end for n in unit.all(ast.Name, under=scope) if isinstance(n.ctx, ast.Load))
