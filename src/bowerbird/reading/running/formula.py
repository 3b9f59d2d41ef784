"""Formulas of the user's source as functions of chosen names: a probe binds them to grids and looks at the values.

``Formulas.expand`` replaces names by what they were last assigned in the same function, until only parameters, results
of calls and the names asked for remain; ``evaluate`` computes such an expression with the program's own namespace.
"""

import ast
import copy
import linecache
from collections.abc import Callable, Iterator
from typing import Any

from bowerbird.reading.program import Function, Unit, last_name, names_in, targets_of

MOST_DEPTH = 10
Keep = Callable[[str], bool]


class Formulas:
    """The expressions of one file; ``keep`` says which names are variables of a formula."""

    def __init__(self, unit: Unit, keep: Keep) -> None:
        self.unit, self.keep = unit, keep

    def statements(self) -> Iterator[tuple[ast.stmt, ast.expr]]:
        """Statements that give a value, with that value, in the order of the file."""
        for statement in self.unit.all(ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Expr):
            value = statement.value
            if value is not None and not isinstance(value, ast.Constant):
                yield statement, value

    def expand(self, expression: ast.expr, at: ast.stmt, depth: int = MOST_DEPTH) -> ast.expr:
        """The expression over variables and names that were not assigned in the function around it."""
        values = self._assigned(self.unit.function(at), at.lineno)
        formulas = self

        class Inline(ast.NodeTransformer):
            def visit_Call(self, node: ast.Call) -> ast.AST:
                if isinstance(node.func, ast.Attribute):
                    node.func.value = self.visit(node.func.value)
                node.args = [self.visit(a) for a in node.args]
                node.keywords = [self.visit(k) for k in node.keywords]
                return node

            def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
                if formulas.keep(node.attr) and isinstance(node.value, ast.Name):
                    return ast.copy_location(ast.Name(node.attr, ast.Load()), node)
                return self.generic_visit(node)

            def visit_Name(self, node: ast.Name) -> ast.AST:
                found = values.get(node.id)
                if found is None or depth == 0:
                    return node
                inner = formulas.expand(found[0], found[1], depth - 1)
                if formulas.keep(node.id) and not any(map(formulas.keep, names_in(inner))):
                    return node
                return inner

        return Inline().visit(copy.deepcopy(expression))

    def _assigned(self, function: Function | None, before: int) -> dict[str, tuple[ast.expr, ast.stmt]]:
        """The last plain assignment of each name before a line, in one function (or at module level)."""
        found: dict[str, tuple[ast.expr, ast.stmt]] = {}
        for statement in self.unit.all(ast.Assign, ast.AnnAssign, ast.For, ast.With):
            if statement.lineno >= before or self.unit.function(statement) is not function:
                continue
            for target in targets_of(statement):
                if not isinstance(target, ast.Name):
                    continue
                whole = isinstance(statement, ast.Assign | ast.AnnAssign) and (
                    isinstance(statement, ast.AnnAssign) or target in statement.targets
                )
                if whole and statement.value is not None and target.id not in names_in(statement.value):
                    found[target.id] = (statement.value, statement)
                elif target.id not in found or not whole:
                    found.pop(target.id, None)
        return found


def batch_sizes(expression: ast.expr, keep: Keep) -> ast.expr:
    """The expression with ``x.size(0)``, ``x.shape[0]`` and ``len(x)`` of names that are no variables as ``batch``."""

    class Sizes(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            if isinstance(node.func, ast.Name) and node.func.id == "len" and len(node.args) == 1:
                return self.counted(node, node.args[0])
            if isinstance(node.func, ast.Attribute) and node.func.attr == "size" and _zero(node.args):
                return self.counted(node, node.func.value)
            return self.generic_visit(node)

        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            if isinstance(node.value, ast.Attribute) and node.value.attr == "shape" and _zero([node.slice]):
                return self.counted(node, node.value.value)
            return self.generic_visit(node)

        def counted(self, node: ast.expr, of: ast.expr) -> ast.AST:
            if any(map(keep, words_in(of))):
                return self.generic_visit(node)
            return ast.copy_location(ast.Name("batch", ast.Load()), node)

    changed: ast.expr = Sizes().visit(expression)
    return changed


def _zero(arguments: list[ast.expr]) -> bool:
    return len(arguments) == 1 and isinstance(arguments[0], ast.Constant) and arguments[0].value == 0


def terms(expression: ast.expr, wanted: Keep) -> Iterator[ast.expr]:
    """The summands that hold wanted names, taken out of sums with summands that hold none."""
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.Add | ast.Sub):
        sides = expression.left, expression.right
        has = [any(map(wanted, words_in(side))) for side in sides]
        plain = [not isinstance(side, ast.Constant) and bool(names_in(side)) for side in sides]
        if has[0] != has[1] and plain[has.index(False)]:
            yield from terms(sides[has.index(True)], wanted)
            return
    if isinstance(expression, ast.Tuple):
        for element in expression.elts:
            yield from terms(element, wanted)
        return
    if any(map(wanted, words_in(expression))):
        yield expression


def words_in(node: ast.AST) -> set[str]:
    """Names, and the last words of attributes that are values (``model.logstd``) and not methods that are called."""
    called = {id(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
    values = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and id(n) not in called}
    return names_in(node) | values


def evaluate(expression: ast.expr, namespace: dict[str, Any], values: dict[str, Any]) -> Any:
    """The value of an expression with some names bound; raises what it raises."""
    tree = ast.fix_missing_locations(ast.Expression(copy.deepcopy(expression)))
    return eval(compile(tree, "<formula>", "eval"), {**namespace, **values})


def calls_in(expression: ast.AST) -> set[str]:
    """The last words of everything that is called below a node."""
    return {last_name(node) for node in ast.walk(expression) if isinstance(node, ast.Call)}


def units(files: set[str]) -> list[Unit]:
    """The user's files as static models, as they are being run."""
    found = []
    for file in sorted(files):
        text = "".join(linecache.getlines(file))
        try:
            found.append(Unit(file, text, ast.parse(text)))
        except SyntaxError:
            continue
    return found


def coefficient(expression: ast.expr, marker: str, number: Callable[[ast.expr], float | None]) -> float | None:
    """By how much the marked name is multiplied in an expression that is linear in it; None where that is not known."""
    if isinstance(expression, ast.Name):
        return 1.0 if expression.id == marker else None
    if isinstance(expression, ast.UnaryOp):
        inner = coefficient(expression.operand, marker, number)
        return None if inner is None else -inner if isinstance(expression.op, ast.USub) else inner
    if isinstance(expression, ast.Call):
        if last_name(expression) in ("neg", "neg_", "negative", "mul", "mul_", "div", "sub"):
            return None
        inside = [expression.func.value] if isinstance(expression.func, ast.Attribute) else []
        return next(
            (coefficient(part, marker, number) for part in (*inside, *expression.args) if marker in names_in(part)),
            None,
        )
    if not isinstance(expression, ast.BinOp):
        return None
    left, right = (marker in names_in(side) for side in (expression.left, expression.right))
    if left == right:
        return None
    inner = coefficient(expression.left if left else expression.right, marker, number)
    if inner is None:
        return None
    if isinstance(expression.op, ast.Add):
        return inner
    if isinstance(expression.op, ast.Sub):
        return inner if left else -inner
    other = number(expression.right if left else expression.left)
    if isinstance(expression.op, ast.Mult) and other is not None:
        return inner * other
    if isinstance(expression.op, ast.Div) and left and other:
        return inner / other
    return None
