"""The shapes that annotations promise, checked when a function gets arguments of new shapes (see conftest.py).

Functions without a shape in their annotations run as they are: what mypy has proved need not cost time again.
"""

import ast
import hashlib
import marshal
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import jaxtyping
import torch
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception
from jaxtyping import jaxtyped

SOURCE = Path(__file__).parents[1] / "src" / "bowerbird"
KEPT = Path(__file__).parent / "__pycache__" / "shapes"
ARRAY = r"(?:Bool|Complex128|Float|Float64|Int|Int32|Int64|Shaped|UInt8)\["
# As for type checkers, an int is a good float.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with arguments and result checked.

    Unless an annotation cannot be asked of a value: a Protocol without @runtime_checkable, or Self.
    """
    try:
        return _check(function)
    except (BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception):
        return function


_jaxtyped = jaxtyped(typechecker=checked)
seen: set[tuple[object, ...]] = set()
"""Functions and the shapes of arguments that were checked in the present test (see conftest.py)."""


def _form(value: object) -> object:
    """What a check looks at: a sampler's hundredth step has the shapes of its third."""
    return (value.shape, value.dtype) if isinstance(value, torch.Tensor) else type(value)


def shaped(function: Any) -> Any:
    """A function, or the dataclass whose ``__init__`` is meant, with its shapes checked."""
    if isinstance(function, type):
        return _jaxtyped(function)
    name = f"{function.__module__}.{function.__qualname__}"
    wrapped: list[Callable[..., Any]] = []  # made at the first call: most functions of a module are never called

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        call = (name, *map(_form, args), *map(_form, kwargs.values()))
        if call in seen:
            return function(*args, **kwargs)
        if not wrapped:
            wrapped.append(_jaxtyped(function))
        result = wrapped[0](*args, **kwargs)
        seen.add(call)
        return result

    return run


def install() -> None:
    """From now on, modules of bowerbird are imported with their shapes checked."""
    sources = (path.read_text() for path in SOURCE.rglob("*.py"))
    aliases = {name for source in sources for name in re.findall(rf"^(\w+) = {ARRAY}", source, re.M)}
    sys.meta_path.insert(0, _Finder(re.compile(rf"\b(?:{ARRAY}|(?:{'|'.join(sorted(aliases))})\b)")))


class _Finder:
    def __init__(self, shape: re.Pattern[str]) -> None:
        self.shape = shape

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name.startswith("bowerbird.") else None
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        if not self.shape.search(Path(spec.loader.path).read_text()):
            return None
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        spec.loader.shape = self.shape
        return spec


class _Loader(SourceFileLoader):
    shape: re.Pattern[str]

    def get_code(self, fullname: str) -> CodeType:
        """Compiled code is kept apart from the module's own: that is of its unchecked functions."""
        path = self.get_filename(fullname)
        source = self.get_data(path)
        made_of = (source, Path(__file__).read_bytes(), self.shape.pattern.encode(), path.encode())
        kept = KEPT / f"{hashlib.sha256(b'|'.join(made_of)).hexdigest()}.{sys.implementation.cache_tag}"
        if kept.is_file():
            return marshal.loads(kept.read_bytes())  # type: ignore[no-any-return]
        code = self._compiled(source, path)
        self.set_data(str(kept), marshal.dumps(code))  # whole or not at all, also beside other workers
        return code

    def _compiled(self, source: bytes, path: str) -> CodeType:
        tree, lines = ast.parse(source), source.decode().splitlines()
        for node in _definitions(tree):
            if isinstance(node, ast.ClassDef) and any(self._is_field(line, lines) for line in node.body):
                node.decorator_list.insert(0, _decorator(node))  # the last: that of a dataclass makes its __init__
            elif isinstance(node, ast.FunctionDef) and self._in(lines[node.lineno - 1 : node.body[0].lineno]):
                node.decorator_list.append(_decorator(node))  # the first to be applied: others may hide the annotations
        return compile(tree, path, "exec", dont_inherit=True)

    def _in(self, lines: list[str]) -> bool:
        return bool(self.shape.search("\n".join(lines)))

    def _is_field(self, line: ast.stmt, lines: list[str]) -> bool:
        return isinstance(line, ast.AnnAssign) and self._in(lines[line.lineno - 1 : line.end_lineno])


def _definitions(tree: ast.AST) -> Iterator[ast.AST]:
    """Every class and function of a module, but for those inside expressions: there are none."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt):
            yield node
            yield from _definitions(node)


def _decorator(node: ast.stmt) -> ast.expr:
    decorator = ast.parse("__import__('shapes').shaped", mode="eval").body
    for part in ast.walk(decorator):
        ast.copy_location(part, node)
    return decorator
