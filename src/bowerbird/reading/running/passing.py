"""Brings a function to its end though statements of it fail: what raises is passed over, and told.

The function runs in a second form in which each of its own statements stands in ``try``; what it calls runs as it
stands.  A name that a failed statement would have bound keeps its value, or gets one by its name and its uses.
"""

import ast
import builtins
import contextlib
import inspect
import linecache
import sys
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from bowerbird.reading.running.observe.functions import FunctionWatch
from bowerbird.reading.running.observe.training import TrainingWatch
from bowerbird.reading.running.rewrite import compiled
from bowerbird.reading.running.shrinking import shrink
from bowerbird.reading.running.uses import Use, within

PASSED = "__bowerbird_passed__"
MOST_PASSED = 60
Place = tuple[str, int, str]
Guess = Callable[[str, Use], Any]
_KEPT = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Raise, ast.Global, ast.Nonlocal, ast.Import, ast.Pass,
    ast.ImportFrom, ast.Break, ast.Continue,
)  # fmt: skip


@dataclass
class Passing:
    """``reached`` are the lines that have run; those of statements that raised are taken out again."""

    reached: MutableMapping[str, set[int]]
    watches: tuple[TrainingWatch, FunctionWatch]
    smaller: bool
    passed: dict[int, str] = field(default_factory=dict)
    """What was raised where in the call that is going on, or in the last one."""
    _texts: dict[str, str] = field(default_factory=dict)
    _codes: dict[Place, CodeType] = field(default_factory=dict)
    _nodes: dict[Place, ast.FunctionDef] = field(default_factory=dict)

    @contextlib.contextmanager
    def over(self, function: Callable[..., Any], guess: Guess) -> Iterator[bool]:
        """Within, calls of the function pass over what fails, and neither training nor what becomes of values is
        watched; False where it has no second form."""
        plain: Any = inspect.unwrap(getattr(function, "__func__", function))
        code: CodeType = plain.__code__
        other = self._second(code)
        if other is None or other.co_freevars != code.co_freevars:
            yield False
            return
        before, quiet = set(self.reached[code.co_filename]), [watch.quiet for watch in self.watches]
        self.passed = {}

        def passed(line: int, name: str = "", values: dict[str, Any] | None = None) -> Any:
            error = sys.exception()
            if len(self.passed) >= MOST_PASSED and error is not None:
                raise error
            self.passed.setdefault(line, f"{type(error).__name__}: {error}")
            if line not in before:
                self.reached[code.co_filename].discard(line)
            if not name:
                return None
            return values[name] if values and name in values else guess(name, self._use(code, name))

        setattr(builtins, PASSED, passed)
        plain.__code__ = other
        for watch in self.watches:
            watch.quiet = True
        try:
            yield True
        finally:
            plain.__code__ = code
            self.watches[0].quiet, self.watches[1].quiet = quiet

    def _second(self, code: CodeType) -> CodeType | None:
        file, text = code.co_filename, "".join(linecache.getlines(code.co_filename))
        if self._texts.get(file) != text:
            self._texts[file], tree = text, ast.parse(text)
            if self.smaller:
                shrink(tree)
            functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
            for node in functions:
                line = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                self._nodes[file, line, node.name] = node
                node.body = [_tried(s) for s in node.body]
            self._codes |= {(file, c.co_firstlineno, c.co_name): c for c in _inner(compiled(tree, file))}
        return self._codes.get((file, code.co_firstlineno, code.co_name))

    def _use(self, code: CodeType, name: str) -> Use:
        node = self._nodes.get((code.co_filename, code.co_firstlineno, code.co_name))
        return within(node, (name,))[name] if node is not None else Use()


def _inner(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _inner(constant)


def _tried(node: ast.stmt) -> ast.stmt:
    """A statement in ``try``, its blocks likewise; what has handlers of its own is tried as a whole."""
    if isinstance(node, _KEPT) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        return node
    if not isinstance(node, ast.Try):
        for block in ("body", "orelse"):
            if isinstance(inner := getattr(node, block, None), list):
                setattr(node, block, [_tried(s) for s in inner])
    bound = [t for target in _targets(node) for t in ast.walk(target) if isinstance(t, ast.Name)]
    names = dict.fromkeys(t.id for t in bound if isinstance(t.ctx, ast.Store))
    local: ast.expr = ast.Call(ast.Name("locals", ast.Load()), [], [])
    handler: list[ast.stmt] = [
        ast.Assign([ast.Name(name, ast.Store())], _call(node, ast.Constant(name), local)) for name in names
    ] or [ast.Return(_call(node)) if isinstance(node, ast.Return) else ast.Expr(_call(node))]
    tried = ast.Try([node], [ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, handler)], [], [])
    return ast.fix_missing_locations(ast.copy_location(tried, node))


def _targets(node: ast.stmt) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


def _call(node: ast.stmt, *more: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(PASSED, ast.Load()), [ast.Constant(node.lineno), *more], [])
