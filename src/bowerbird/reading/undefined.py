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
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in missing:
            lines[node.id] = min(node.lineno, lines.get(node.id, node.lineno))
    return dict(sorted(lines.items(), key=lambda item: item[1]))


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)
