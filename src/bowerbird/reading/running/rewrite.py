"""Compiles the user's files so that every loop asks before each round whether it may go on.

Line numbers stay as they are.  ``for x in xs`` becomes ``for x in __bowerbird_for__(xs, line)``; ``while test`` becomes
``while may_go_on() and test``.  When a loop is cut short it ends as if it had finished, so that the code after it runs.
A function that trains, measures, or multiplies up a noise schedule hands over its local names when it ends.  Before
every statement stands a mark, ``__bowerbird_lines__[file].add(line)``: so it is known which lines ran.
"""

import ast
from collections.abc import Iterator
from types import CodeType

FOR, WHILE, LEAVE = "__bowerbird_for__", "__bowerbird_while__", "__bowerbird_leave__"
LINES = "__bowerbird_lines__"

_TRAINING = ("backward", "zero_grad")
_SCHEDULES = ("cumprod", "cumsum")
_MEASURING = ("item", "eval", "no_grad")


class _Guarded(ast.NodeTransformer):
    def __init__(self, file: str) -> None:
        self.file = file
        self.count = 0
        self.classes: list[str] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.classes.append(node.name)
        self.generic_visit(node)
        self.classes.pop()
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        """A demand for a GPU is met by none here, and is let pass."""
        return ast.copy_location(ast.Pass(), node) if "cuda.is_available" in ast.unparse(node.test) else node

    def visit_For(self, node: ast.For) -> ast.For:
        self.generic_visit(node)
        node.iter = self._call(FOR, node.iter, node)
        return node

    def visit_While(self, node: ast.While) -> list[ast.stmt]:
        self.generic_visit(node)
        self.count += 1
        name = f"__bowerbird_loop_{self.count}__"
        enter = ast.Assign([ast.Name(name, ast.Store())], self._call(WHILE, None, node))
        go_on = ast.Call(ast.Name(name, ast.Load()), [], [])
        node.test = ast.BoolOp(ast.And(), [ast.copy_location(go_on, node.test), node.test])
        for new in (enter, node.test):
            ast.copy_location(new, node)
        return [ast.fix_missing_locations(enter), ast.fix_missing_locations(node)]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        words = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
        self.generic_visit(node)
        if words.intersection(_TRAINING) or node.name in ("main", "run"):
            node.body = self._leaving(node, node.name)
        elif words.intersection(_SCHEDULES):
            node.body = self._leaving(node, ".".join(["", *self.classes[-1:], node.name]))
        elif words.intersection(_MEASURING) and any(isinstance(n, ast.For) for n in ast.walk(node)):
            node.body = self._leaving(node, f"={node.name}")
        return node

    def _leaving(self, node: ast.FunctionDef, name: str) -> list[ast.stmt]:
        """The body in ``try: … finally:`` that hands over the function's local names."""
        lone = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
        head, body = (node.body[:1], node.body[1:]) if lone else ([], node.body)
        if not body:
            return node.body
        values = ast.Call(ast.Name("locals", ast.Load()), [], [])
        leave = ast.Expr(ast.Call(ast.Name(LEAVE, ast.Load()), [ast.Constant(name), values], []))
        guarded_body = ast.Try(body, [], [], [ast.copy_location(leave, body[-1])])
        return [*head, ast.fix_missing_locations(ast.copy_location(guarded_body, body[0]))]

    def _call(self, name: str, argument: ast.expr | None, node: ast.For | ast.While) -> ast.Call:
        where: list[ast.expr] = [ast.Constant(node.lineno), ast.Constant(self.file)]
        arguments = where if argument is None else [argument, *where]
        call = ast.Call(ast.Name(name, ast.Load()), arguments, [])
        return ast.fix_missing_locations(ast.copy_location(call, argument or node))


def guarded(tree: ast.Module, file: str) -> ast.Module:
    """The tree with its loops guarded and its statements marked; the tree given is consumed."""
    _mark(tree, file)
    return ast.fix_missing_locations(_Guarded(file).visit(tree))


_SILENT = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)


def does_something(node: ast.stmt) -> bool:
    """Whether a statement counts among the lines that can run: no definition, import, docstring or ``__main__``."""
    if isinstance(node, ast.If) and _is_main(node.test):
        return False
    return not isinstance(node, _SILENT) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _mark(tree: ast.Module, file: str) -> None:
    for node in list(ast.walk(tree)):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and node is not tree and not (isinstance(node, ast.If) and _is_main(node.test)):
                setattr(node, field, [part for s in block for part in (*_marks(s, file), s)])


def _marks(node: ast.stmt, file: str) -> list[ast.stmt]:
    if isinstance(node, ast.Global | ast.Nonlocal) or (isinstance(node, ast.If) and _is_main(node.test)):
        return []
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return []
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return []
    lines = ast.Subscript(ast.Name(LINES, ast.Load()), ast.Constant(file), ast.Load())
    add = ast.Call(ast.Attribute(lines, "add", ast.Load()), [ast.Constant(node.lineno)], [])
    return [ast.copy_location(ast.Expr(add), node)]


def compiled(tree: ast.Module, file: str) -> CodeType:
    """One code object of a whole file, for imported modules."""
    whole = guarded(tree, file)
    whole.body = [part for node in whole.body for part in (*_marks(node, file), node)]
    return compile(ast.fix_missing_locations(whole), file, "exec", dont_inherit=True)


def defining(tree: ast.Module) -> ast.Module:
    """What of a file only defines: no loops, no calls for their effect, nothing under ``__main__``."""
    kept = (*_SILENT, ast.Assign, ast.AnnAssign, ast.Try, ast.If)
    main = [n for n in tree.body if isinstance(n, ast.If) and _is_main(n.test)]
    return ast.Module([n for n in tree.body if isinstance(n, kept) and n not in main], tree.type_ignores)


def statements(tree: ast.Module, file: str) -> Iterator[tuple[int, CodeType]]:
    """The statements of the main file, each compiled alone with its line: one that fails does not stop the others.

    The body of ``if __name__ == "__main__":`` counts as statements of the file.
    """
    flags = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    for node in _flat(guarded(tree, file).body):
        body: list[ast.stmt] = [*flags, *_marks(node, file), node] if node not in flags else [node]
        lone = ast.fix_missing_locations(ast.Module(body, []))
        yield node.lineno, compile(lone, file, "exec", dont_inherit=True)


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and _is_main(node.test):
            yield from _flat(node.body)
        else:
            yield node


def _is_main(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and "__name__" in ast.unparse(test) and "__main__" in ast.unparse(test)
