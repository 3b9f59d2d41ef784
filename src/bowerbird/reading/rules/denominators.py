"""Rules of averages: whether a sum is divided by what it was summed over."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import at, bindings
from bowerbird.reading.program import Program, Unit, dotted, last_name, names_in
from bowerbird.reading.rules import rule
from bowerbird.reading.running.run import Run

Total = tuple[str, ast.AugAssign, ast.For]


def totals(unit: Unit) -> Iterator[Total]:
    """Running totals: a name to which a loop over batches adds."""
    for node in unit.all(ast.AugAssign):
        name = dotted(node.target)
        around_it = [loop for loop in unit.loops(node) if isinstance(loop, ast.For)]
        if name is not None and around_it and isinstance(node.op, ast.Add):
            yield name, node, around_it[0]


def _divisions(unit: Unit, name: str, after: ast.AugAssign) -> Iterator[tuple[int, str]]:
    """Where a total is divided in the same function, and by what (as source text)."""
    scope = unit.function(after) or unit.tree
    nodes: Iterator[Any] = unit.all(ast.BinOp, ast.AugAssign, under=scope)
    for node in nodes:
        if not isinstance(node.op, ast.Div) or node.lineno <= after.lineno:
            continue
        left, right = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
        if dotted(left) == name:
            yield right.lineno, ast.unparse(right)


@rule("M01", "A loss is averaged by the wrong number", family="reporting")
def wrong_denominator(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Sums over samples belong over the number of samples, means of batches over the number of batches."""
    for unit in program:
        yield from _interval_for_count(unit)
        yield from _chunks_for_length(unit)
        for name, node, _ in totals(unit):
            kind = _reduction(unit, facts, node)
            weighted = _weighted(node.value)
            for line, divisor in _divisions(unit, name, node):
                samples = bool(
                    re.search(r"\.dataset\)|len\((train|test|val\w*)_?(set|data|dataset|ds)\)|n_samples", divisor)
                )
                batches = bool(re.fullmatch(r"len\(\w*(loader|dl|batches|iter)\w*\)", divisor, re.I))
                if kind is None or not (samples or batches):
                    continue
                per_sample = kind == "sum" or weighted
                if per_sample == samples:
                    yield Finding(
                        "M01", "ok", line, f"{name} is divided by what it was summed over.",
                        f"It adds {'sums over samples' if per_sample else 'means of batches'}.", "", unit.file,
                    )  # fmt: skip
                    continue
                right = "the number of samples" if per_sample else "the number of batches"
                yield Finding(
                    "M01", "warning", line,
                    f"{name} is divided by {divisor}, but it adds "
                    f"{'sums over samples' if per_sample else 'the means of batches'}: the printed average is "
                    "off by the "
                    "batch size.",
                    f"Line {node.lineno} adds {ast.unparse(node.value)[:60]}; its loss reduces by {kind}.",
                    f"Divide by {right}.", unit.file,
                )  # fmt: skip


def _interval_for_count(unit: Unit) -> Iterator[Finding]:
    """A total over a loader's batches that is divided by how often something is printed, not by the batches."""
    for name, node, loop in totals(unit):
        over = re.search(r"\b\w*(loader|_dl|batches)\b", ast.unparse(loop.iter), re.I)
        sometimes = [n for n in unit.all(ast.If, under=loop) if any(inner is node for inner in ast.walk(n))]
        if over is None or sometimes or any(isinstance(n, ast.Break) for n in ast.walk(loop)):
            continue
        for line, divisor in _divisions(unit, name, node):
            if re.fullmatch(r"(\w+\.)*\w*(log|eval|print|save|display)\w*_?(rate|interval|every|freq|steps?)", divisor):
                yield Finding(
                    "M01", "warning", line,
                    f"{name} adds up all batches of {over.group()} and is divided by {divisor}: the average is off.",
                    f"Line {loop.lineno} loops over {ast.unparse(loop.iter)[:40]}.",
                    f"Divide by len({over.group()}).", file=unit.file,
                )  # fmt: skip


def _chunks_for_length(unit: Unit) -> Iterator[Finding]:
    """Means of chunks (``range(0, n, size)``) that are added without their length and divided by all positions."""
    for name, node, loop in totals(unit):
        step = loop.iter.args[2:] if isinstance(loop.iter, ast.Call) and last_name(loop.iter) == "range" else []
        loss = re.search(r"criterion|loss|entropy", ast.unparse(node.value), re.I)
        if not step or isinstance(step[0], ast.Constant) or not loss or _weighted(node.value):
            continue
        for line, divisor in _divisions(unit, name, node):
            if re.search(r"len\((?!\w*(loader|batches))|\.size\(0\)|shape\[0\]", divisor):
                yield Finding(
                    "M01", "warning", node.lineno,
                    f"{name} adds the mean loss of each chunk, whatever its length, and is divided by {divisor}.",
                    f"Line {loop.lineno} loops over {ast.unparse(loop.iter)[:60]}; line {line} divides.",
                    "Multiply each chunk's loss by its length, or divide by the number of chunks.", file=unit.file,
                )  # fmt: skip


def _weighted(value: ast.expr) -> bool:
    """Whether a batch's mean is multiplied by the size of the batch."""
    return any(
        isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mult)
        and re.search(r"size\(|shape\[|len\(|numel|batch_?size|\bn\b|\bbs\b", ast.unparse(n)) for n in ast.walk(value)
    )  # fmt: skip


def _reduction(unit: Unit, facts: FactStore, node: ast.AugAssign) -> str | None:
    """How the loss that is added was reduced: "sum" or "mean" where all that was seen agrees, else None."""
    lines = _computing(unit, node)
    if any(_divided(unit, line) for line in lines):
        return None
    seen = {f["reduction"] for f in facts.of("loss.call") if f.line in lines and f.file == unit.file}
    if len(seen) == 1:
        (kind,) = seen
        return kind if kind in ("sum", "mean") else None
    return None


def _divided(unit: Unit, line: int) -> bool:
    statement = at(unit, line)
    return statement is not None and any(
        isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div) for n in ast.walk(statement)
    ) and not isinstance(statement, ast.FunctionDef | ast.For | ast.With)  # fmt: skip


def _computing(unit: Unit, node: ast.AugAssign) -> set[int]:
    """The lines that compute what is added: its own, those that bind its names, and those of functions called there."""
    scope = unit.function(node) or unit.tree
    lines, names, seen = {node.lineno}, names_in(node.value), set[str]()
    values: list[ast.AST] = [node.value]
    for _ in range(2):
        for name in names - seen:
            seen.add(name)
            for line, bound in bindings(unit, name, scope):
                if line <= node.lineno and re.search(r"loss|bce|kl|mse|nll|ce\b|recon", name, re.I):
                    lines.add(line)
                    values.append(bound)
    for value in values:
        for call in (n for n in ast.walk(value) if isinstance(n, ast.Call)):
            word = last_name(call)
            for key, function in unit.functions.items():
                if key == word or key.endswith(f".{word}"):
                    lines |= set(range(function.lineno + 1, (function.end_lineno or function.lineno) + 1))
    return lines
