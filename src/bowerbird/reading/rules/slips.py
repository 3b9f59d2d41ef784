"""Rules of slips that read well: a conditional that gives a function, an attribute in the place of an argument."""

import ast
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Function, Program, Unit, dotted
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run


@rule("X16", "A conditional in a lambda gives a function", family="general")
def lambda_of_lambda(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``lambda x: f(x) if c else lambda x: x`` is one lambda whose other branch is a function, not two lambdas."""
    for unit in program:
        for node in unit.all(ast.Lambda):
            choice = node.body
            if not isinstance(choice, ast.IfExp) or isinstance(choice.body, ast.Lambda):
                continue
            if isinstance(choice.orelse, ast.Lambda):
                yield say(
                    "X16", "warning", node.lineno, file=unit.file, node_2=ast.unparse(node)[:100],
                    orelse=ast.unparse(choice.orelse)[:40], test=ast.unparse(choice.test)[:40],
                )  # fmt: skip


@rule("X15", "An attribute is called in the place of the argument", family="general")
def attribute_for_argument(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A method that is given ``model`` and calls ``self.model``: what the caller passes has no effect there."""
    for unit in program:
        for function in unit.functions.values():
            for name, call in _instead(unit, function):
                yield say(
                    "X15", "warning", call.lineno, file=unit.file, function=function, name=name, call=call,
                    func=ast.unparse(call.func),
                )  # fmt: skip


def _instead(unit: Unit, function: Function) -> Iterator[tuple[str, ast.Call]]:
    """Calls of ``self.x`` in a method with an argument ``x``, or one that chose its own ``x`` among attributes."""
    arguments = [a.arg for a in (*function.args.args, *function.args.kwonlyargs)]
    if not arguments or arguments[0] != "self" or function.name == "__init__":
        return
    chosen = {
        name for statement in unit.all(ast.Assign, under=function) if isinstance(statement.value, ast.IfExp)
        for target in statement.targets if (name := dotted(target)) and f"self.{name}" in _words(statement.value)
    }  # fmt: skip
    for name in (*(n for n in arguments[1:] if not _either(unit, function, n)), *sorted(chosen)):
        called = {dotted(c.func): c for c in unit.all(ast.Call, under=function)}
        read = any(n.id == name and isinstance(n.ctx, ast.Load) for n in unit.all(ast.Name, under=function))
        if f"self.{name}" in called and (name in called or not read):
            yield name, called[f"self.{name}"]


def _words(node: ast.AST) -> set[str | None]:
    return {dotted(n) for n in ast.walk(node) if isinstance(n, ast.Attribute | ast.Name)}


def _either(unit: Unit, function: Function, name: str) -> bool:
    """Whether the argument replaces the attribute, defaults to it, or decides between the two: then both are meant."""
    for node in unit.all(ast.Assign, ast.If, ast.IfExp, ast.BoolOp, ast.Compare, under=function):
        if isinstance(node, ast.Assign):
            if {name, f"self.{name}"} & {dotted(t) for t in node.targets}:
                return True
        elif name in _words(node.test if isinstance(node, ast.If) else node):
            return True
    return False
