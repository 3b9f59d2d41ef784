"""Rules of vector quantisation: which way the gradients of codebook and encoder go."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Function, Program, Unit, dotted, last_name, names_in, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.divergences import PER_PIXEL
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import unit_of
from bowerbird.reading.running.run import Run


@rule("V11", "Gradients of the quantiser go the wrong way", family="vae")
def quantiser(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """From the output straight to the input; from the loss to the codebook."""
    for fact in facts.of("probe.quantiser"):
        unit = unit_of(program, fact)
        holder = unit.classes.get(str(fact["class"]))
        node: ast.AST = holder.node if holder is not None else unit.tree
        if fact["out_to_input"] is not None and fact["out_to_input"] == 0:
            sums = [
                s
                for s in unit.all(ast.Assign, ast.Return, under=node)
                if s.value is not None
                and isinstance(s.value, ast.BinOp)
                and "detach" in ast.unparse(s.value)
                and not re.search("loss", ast.unparse(s).partition("=")[0], re.I)
            ]
            learns = fact["out_to_codebook"] or 0
            yield say(
                "V11", "error", sums[0].lineno if sums else fact.line or 1,
                why=" and to the codebook " + format(learns, ".3g") if learns else "", fact=fact,
            )  # fmt: skip
        elif fact["codebook_learns"] and fact["loss_to_codebook"] == 0:
            losses = [
                s
                for s in unit.all(ast.Assign, ast.Return, under=node)
                if s.value is not None
                and "detach" in ast.unparse(s.value)
                and any(last_name(c) in (*PER_PIXEL, "mean", "pow") for c in unit.all(ast.Call, under=s.value))
            ]
            named = [
                s for s in losses if re.search(r"q_|codebook|embed|vq|dict", ast.unparse(s).partition("=")[0], re.I)
            ]
            yield say("V11b", "error", (named or losses or [node])[0].lineno, fact=fact)


_AVERAGES = re.compile(r"(^|_)(avg|average|ema|moving)", re.I)
_BEGINNINGS = re.compile(r"init|replace|reset|expire|load", re.I)


@rule("V13", "A running average is read and never updated", family="vae")
def average_never_updated(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A buffer of sums from which the codebook is computed, and which nothing changes."""
    for unit in program:
        for info in unit.classes.values():
            for name in _buffers(unit, info.node) if info.is_module else ():
                reads = [
                    n for n in unit.all(ast.Attribute, under=info.node)
                    if dotted(n) == f"self.{name}" and isinstance(n.ctx, ast.Load)
                ]  # fmt: skip
                reads = [n for n in reads if not _begins(unit, n)]
                if not reads or _written(unit, info.node, name) or any(_may_write(unit, n) for n in reads):
                    continue
                function = unit.function(reads[0])
                idle = _idle(unit, function) if function is not None else None
                yield say(
                    "V13", "warning", idle.lineno if idle is not None else reads[0].lineno, file=unit.file, info=info,
                    name=name, reads=reads,
                    said=f", and {ast.unparse(idle.targets[0])}, computed here, enters nothing." if idle else ".",
                )  # fmt: skip


def _buffers(unit: Unit, node: ast.ClassDef) -> list[str]:
    """The averages that a class registers as buffers."""
    names = [c.args[0].value for c in unit.calls("register_buffer", under=node) if isinstance(c.args[0], ast.Constant)]
    return [str(name) for name in names if _AVERAGES.search(str(name))]


def _begins(unit: Unit, node: ast.AST) -> bool:
    """Whether a node stands in a method that sets things up, or sets dead codes anew."""
    function = unit.function(node)
    return function is not None and bool(_BEGINNINGS.search(function.name))


def _written(unit: Unit, node: ast.ClassDef, name: str) -> bool:
    """Whether a class assigns an attribute outside its constructor's registration."""
    for statement in unit.all(ast.Assign, ast.AugAssign, under=node):
        for target in targets_of(statement) if not _begins(unit, statement) else ():
            base = target.value if isinstance(target, ast.Subscript) else target
            if (dotted(base) or "").removesuffix(".data") == f"self.{name}":
                return True
    return False


def _may_write(unit: Unit, read: ast.Attribute) -> bool:
    """Whether a read is of a method that works in place, or hands the buffer to a function."""
    node: ast.AST = read
    holder = unit.parents.get(node)
    while isinstance(holder, ast.Attribute):
        if holder.attr.endswith("_"):
            return True
        node, holder = holder, unit.parents.get(holder)
    return isinstance(holder, ast.Call) and node in holder.args and not (dotted(holder.func) or "").startswith("torch.")


def _idle(unit: Unit, function: Function) -> ast.Assign | None:
    """A sum that a function computes and only hands, alone, to calls of which nothing is kept."""
    for statement in unit.all(ast.Assign, under=function):
        name = dotted(statement.targets[0])
        reads = [
            n for n in unit.all(ast.Name, under=function)
            if n.id == name and isinstance(n.ctx, ast.Load) and n.lineno > statement.lineno
        ]  # fmt: skip
        homes = [unit.statement(n) for n in reads]
        if reads and all(isinstance(h, ast.Expr) and names_in(h) <= {name, "self"} for h in homes):
            return statement
    return None
