"""What lies beside a program: the code of its project that imports it or that it imports, its pages, its settings.

Only what has to do with the program is taken, and of long files only the parts that name what is defined here or used
here.  Nothing of it is run.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from bowerbird.errors import BowerbirdError
from bowerbird.reading.drivers import Project, mentions
from bowerbird.reading.program import Program, words_in
from bowerbird.reading.running.guards import is_secret
from bowerbird.reading.source import parse
from bowerbird.reading.tutor.endpoint import tokens

MOST_CALLERS = 4
MOST_IMPORTED = 8
MOST_SETTINGS = 3
LARGEST_SETTINGS = 20_000
LEAST_ROOM = 80
"""Fewer tokens than these are not worth an excerpt."""
_KEYS = re.compile(r"secret|credential|passw|api_?key", re.I)
_SETTINGS = (".yaml", ".yml", ".json", ".toml", ".gin")
_SHARES = ((0.4, 0.5), (0.35, 0.4), (0.1, 0.25), (0.15, 0.4))
"""Of callers, imported files, pages, settings: the share of the room of all, and of one."""


def beside(program: Program, room: int) -> str:
    """Excerpts under the names of their files, within ``room`` tokens; empty where the program stands alone."""
    project, main = Project(program.source.project.resolve()), Path(program.source.main).resolve()
    kinds = (_callers, _imported, _pages, _settings)
    said, spent = [], 0
    for (share, most), kind in zip(_SHARES, kinds, strict=True):
        left = int(room * share)
        for path, names in kind(project, main, program):
            text = excerpt(project.text(path) or _raw(path), names, min(left, int(room * share * 2 * most)))
            cost = tokens(text) + 12
            if text and cost <= left and spent + cost <= room:
                said.append(f"--- {project.named(path)}\n{text}")
                left, spent = left - cost, spent + cost
    return "\n".join(said)


Found = Iterator[tuple[Path, set[str]]]


def _defined(program: Program) -> set[str]:
    tree = program.main.tree
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)} or {Path(program.file).stem}


def _callers(project: Project, main: Path, program: Program) -> Found:
    names = _defined(program)
    users = [user for user in project.users(main, names) if user.path != main and user.path.name != "__init__.py"]
    yield from ((user.path, user.names) for user in users[:MOST_CALLERS])


def _imported(project: Project, main: Path, program: Program) -> Found:
    tree = program.main.tree
    named = words_in(tree)
    files = [path for path in dict.fromkeys(project.imported(tree, main)) if path != main]
    yield from ((path, named) for path in files[:MOST_IMPORTED] if project.text(path).strip())


def _pages(project: Project, main: Path, program: Program) -> Found:
    names = {main.stem, *_defined(program)}
    yield from ((path, names) for path in project.pages[:3] if mentions(project.text(path), names))


def _settings(project: Project, main: Path, program: Program) -> Found:
    """Files of settings that the program, a caller or a page names, or that lie in a folder of settings."""
    texts = [program.main.text, *(project.text(p) for p, _ in chain(_callers(project, main, program)))]
    texts += [project.text(path) for path in project.pages[:1]]
    found = [path for path in project.folder.rglob("*") if path.suffix in _SETTINGS and not _hidden(path, project)]
    found = [path for path in found if any(path.name in text for text in texts) or "conf" in path.parent.name]
    found.sort(
        key=lambda path: (not any(path.name in text for text in texts), main.stem not in path.stem, len(str(path)))
    )
    yield from ((path, set[str]()) for path in found[:MOST_SETTINGS])


def _hidden(path: Path, project: Project) -> bool:
    inside = path.relative_to(project.folder).parts
    hidden = any(part.startswith(".") for part in inside) or is_secret(str(path)) or _KEYS.search(path.name)
    return bool(hidden) or not path.is_file() or path.stat().st_size > LARGEST_SETTINGS


def _raw(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.suffix in _SETTINGS else ""
    except (OSError, UnicodeDecodeError):
        return ""


def excerpt(text: str, names: Iterable[str], room: int) -> str:
    """A text, or of a long one the lines that matter to ``names``, with an ellipsis for what is left out."""
    if room < LEAST_ROOM:
        return ""
    if tokens(text) <= room:
        return text.rstrip()
    lines, kept = text.splitlines(), set[int]()
    for first, last in _stretches(text, set(names)):
        new = set(range(first, min(last, len(lines)) + 1)) - kept
        while new and tokens("\n".join(lines[n - 1] for n in sorted(kept | new))) > room:
            new = set(sorted(new)[: len(new) // 2])
        kept |= new
    rows: list[str] = []
    for number in sorted(kept):
        rows += [lines[number - 1]] if number - 1 in kept or not rows else ["…", lines[number - 1]]
    return "\n".join(rows)


def _stretches(text: str, names: set[str]) -> list[tuple[int, int]]:
    """Which lines of a text matter most: definitions of the names, functions that use them, other uses, options."""
    try:
        tree = parse(text, "")
    except BowerbirdError:
        rows = [number for number, line in enumerate(text.splitlines(), 1) if mentions(line, names)]
        return [(max(1, row - 2), row + 8) for row in rows[:12]] or [(1, 40)]
    found: list[tuple[int, tuple[int, int]]] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt):
            continue
        place = (node.lineno, node.end_lineno or node.lineno)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inside = not isinstance(node, ast.ClassDef) and mentions(ast.unparse(node), names)
            found += [(0, place)] if node.name in names else [(1, place)] if inside else []
        elif node in tree.body and mentions(ast.unparse(node), names):
            found.append((2, place))
        elif isinstance(node, ast.Expr) and "add_argument(" in ast.unparse(node):
            found.append((3, place))
    return [place for _, place in sorted(found)]
