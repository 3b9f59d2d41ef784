"""Names that a program reads and nowhere binds: what a fragment expects from its surroundings, or a slip."""

import ast
import builtins
import dis
import warnings
from collections.abc import Iterator
from types import CodeType

_IMPLICIT = frozenset(
    "__name__ __file__ __doc__ __builtins__ __package__ __spec__ __loader__ __annotations__ __path__ "
    "get_ipython display In Out".split()
)


def undefined_names(text: str, tree: ast.Module, file: str = "<program>") -> dict[str, int]:
    """Every such name with the line where it is first read; empty where ``import *`` may bind anything.

    Python's own compiler tells which reads look among the names of the module.
    """
    if any(isinstance(n, ast.ImportFrom) and any(a.name == "*" for a in n.names) for n in ast.walk(tree)):
        return {}
    bound, reads = set(dir(builtins)) | _IMPLICIT, []
    for place, code in enumerate(compiled(text, file)):
        steps = list(dis.get_instructions(code))
        own = {step.argval for step in steps if step.opname == "STORE_NAME"}
        bound |= {step.argval for step in steps if step.opname == "STORE_GLOBAL"} | (own if place == 0 else set())
        reads += [
            (step.positions.lineno, step.argval)
            for step in steps
            if step.opname in ("LOAD_NAME", "LOAD_GLOBAL") and step.argval not in own
            if step.positions is not None and step.positions.lineno is not None
        ]
    lines: dict[str, int] = {}
    for line, name in sorted(reads):
        if name not in bound:
            lines.setdefault(name, line)
    return lines


def compiled(text: str, file: str) -> list[CodeType]:
    """The code of a file and of all that it defines, the file's own first; empty where Python cannot compile it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            top = compile(text, file, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return []
    return list(_codes(top))


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A piece of code, and all that are defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
