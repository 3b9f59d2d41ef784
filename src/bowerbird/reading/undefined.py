"""Names that a program reads and nowhere binds: what a fragment expects from its surroundings, or a slip."""

import ast
import builtins
import symtable
from collections.abc import Iterator

_IMPLICIT = frozenset(
    "__name__ __file__ __doc__ __builtins__ __package__ __spec__ __loader__ __annotations__ __class__ __path__ "
    "get_ipython display In Out".split()
)


def undefined_names(text: str, tree: ast.Module, file: str = "<program>") -> dict[str, int]:
    """Every such name with the line where it is first read; empty where ``import *`` may bind anything."""
    if any(isinstance(n, ast.ImportFrom) and any(a.name == "*" for a in n.names) for n in ast.walk(tree)):
        return {}
    try:
        top = symtable.symtable(text, file, "exec")
    except (SyntaxError, ValueError, RecursionError):
        return {}
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    bound |= {
        s.get_name()
        for table in _tables(top)
        for s in table.get_symbols()
        if s.is_declared_global() and s.is_assigned()
    }
    missing = {
        s.get_name()
        for table in _tables(top)
        for s in table.get_symbols()
        if s.is_referenced() and (s.is_global() or table is top) and s.get_name() not in bound
    }
    missing -= set(dir(builtins)) | _IMPLICIT
    lines: dict[str, int] = {}
    for name, line in _reads(tree, frozenset()):
        if name in missing:
            lines[name] = min(line, lines.get(name, line))
    return dict(sorted(lines.items(), key=lambda item: item[1]))


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _reads(node: ast.AST, bound: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Names that are read where no function around binds them, with their lines."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name):
            if isinstance(child.ctx, ast.Load) and child.id not in bound:
                yield child.id, child.lineno
        elif isinstance(child, _SCOPES):
            yield from _reads(child, bound | _bound_by(child))
        else:
            yield from _reads(child, bound)


def _bound_by(function: ast.AST) -> frozenset[str]:
    """The names that a function's arguments and assignments bind."""
    arguments = {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}
    stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    return frozenset(arguments | stored)


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)
