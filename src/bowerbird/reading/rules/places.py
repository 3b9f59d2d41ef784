"""Where to point: lines of the user's source that rules of several families look for."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from bowerbird.reading.facts import Fact
from bowerbird.reading.patching import Patch, replace_line
from bowerbird.reading.program import Program, Unit, dotted, targets_of, words_in


def unit_of(program: Program, fact: Fact) -> Unit:
    """The file that a fact is about, read from the disk where it is one that the program imports."""
    return program.units.get(fact.file) or _read(fact.file) or program.main


@functools.lru_cache(maxsize=32)
def _read(file: str) -> Unit | None:
    try:
        text = Path(file).read_text(encoding="utf-8") if file.endswith(".py") else ""
        return Unit(file, text, ast.parse(text)) if text else None
    except (OSError, SyntaxError, ValueError):
        return None


def class_at(unit: Unit, line: int | None) -> ast.ClassDef | None:
    """The innermost class that holds a line."""
    around = [
        c.node for c in unit.classes.values() if line is not None and c.node.lineno <= line <= (c.node.end_lineno or 0)
    ]
    return max(around, key=lambda c: c.lineno, default=None)


def statements_in(unit: Unit, node: ast.AST) -> Iterator[ast.stmt]:
    """The statements below a node, in order."""
    yield from (s for s in unit.all(ast.stmt, under=node) if s is not node)


def lines_where(unit: Unit, under: ast.AST | None, pattern: str, *kinds: type[ast.AST]) -> list[int]:
    """The lines of statements (assignments, without kinds) below a node whose text matches; none without a node."""
    found = unit.all(*(kinds or (ast.Assign,)), under=under) if under is not None else ()
    return [s.lineno for s in found if s is not under and re.search(pattern, ast.unparse(s))]


def first(lines: list[int], otherwise: int | None) -> int | None:
    """The first of some lines, or another where there is none."""
    return lines[0] if lines else otherwise


def assigned_in(
    unit: Unit, pattern: str, under: ast.AST | None = None
) -> Iterator[ast.Assign | ast.AnnAssign | ast.AugAssign]:
    """Assignments to names (their last words) that match."""
    for statement in unit.all(ast.Assign, ast.AnnAssign, ast.AugAssign, under=under):
        words = [(dotted(t) or "").rpartition(".")[2] for t in targets_of(statement)]
        if any(re.search(pattern, word, re.I) for word in words):
            yield statement


def swap(program: Program, fact_file: str, line: int | None, old: str, new: str, label: str) -> Patch | None:
    """The patch that writes ``new`` for the only ``old`` at a line of one of the program's files."""
    unit = program.units.get(fact_file)
    return replace_line(fact_file, line, old, new, unit.lines, label=label) if unit and line else None


def mentions(node: ast.AST, pattern: str) -> bool:
    """Whether a name or attribute below a node matches."""
    words = words_in(node)
    return any(re.search(pattern, word, re.I) for word in words)
