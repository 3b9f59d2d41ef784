"""What of two texts differs: statements without comments, docstrings, annotations and log lines, aligned one by one."""

import ast
import copy
import difflib
import re
from dataclasses import dataclass
from typing import Any

_LOGGING = re.compile(
    r"^(print|pprint|logging\.|logger\.|log\.|tqdm\.write|wandb\.|writer\.add_|pbar\.|progress\.|bar\.set_|plt\.|"
    r"console\.|warnings\.)"
)


@dataclass(frozen=True)
class Statement:
    """A simple statement, or the head of a compound one; ``text`` is its normal form."""

    text: str
    first: int
    last: int


@dataclass(frozen=True)
class Hunk:
    """Statements of the first version and those of the second that stand in their place."""

    before: tuple[Statement, ...]
    after: tuple[Statement, ...]

    def holds(self, line: int | None, *, after: bool = False) -> bool:
        statements = self.after if after else self.before
        return line is not None and any(s.first <= line <= s.last for s in statements)

    @property
    def text(self) -> str:
        return "\n".join(s.text for s in (*self.before, *self.after))


class _Bare(ast.NodeTransformer):
    """Takes away what does not act: annotations of functions and names, docstrings."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg,
                         node.args.kwarg]:  # fmt: skip
            if argument is not None:
                argument.annotation = None
        node.body = [self._unannotated(inner) for inner in node.body]
        self.generic_visit(node)
        return node

    def _unannotated(self, node: ast.stmt) -> ast.stmt:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            return ast.copy_location(ast.Assign([node.target], node.value), node)
        return node


def statements(tree: ast.Module) -> list[Statement]:
    """The statements of a file in order, in normal form."""
    found: list[Statement] = []
    _collect(_Bare().visit(copy.deepcopy(tree)).body, 0, found)
    return found


def _collect(body: list[Any], depth: int, found: list[Statement]) -> None:
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Expr) and _LOGGING.match(ast.unparse(node)) and "(" in ast.unparse(node):
            continue
        if isinstance(node, ast.Pass | ast.Import | ast.ImportFrom):
            continue
        inner = [part for name in ("body", "handlers", "orelse", "finalbody") for part in getattr(node, name, [])]
        if not inner:
            found.append(Statement("  " * depth + ast.unparse(node), node.lineno, node.end_lineno or node.lineno))
            continue
        head = copy.copy(node)
        for name in ("body", "handlers", "orelse", "finalbody"):
            if hasattr(head, name):
                setattr(head, name, [ast.Pass()] if name == "body" else [])
        text = ast.unparse(head).removesuffix("pass").rstrip() if not isinstance(node, ast.Try) else "try:"
        last = max(node.lineno, min(getattr(part, "lineno", node.lineno) for part in inner) - 1)
        found.append(Statement("  " * depth + text, node.lineno, last))
        for name in ("body", "handlers", "orelse", "finalbody"):
            _collect(getattr(node, name, []), depth + 1, found)


def hunks(before: ast.Module, after: ast.Module) -> list[Hunk]:
    """Where the normal forms differ, mere renamings left out."""
    old, new = statements(before), statements(after)
    names = _names(old), _names(new)
    matcher = difflib.SequenceMatcher(None, [s.text for s in old], [s.text for s in new], autojunk=False)
    found = []
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            continue
        hunk = Hunk(tuple(old[i:j]), tuple(new[k:m]))
        if not _renamed(hunk, *names):
            found.append(hunk)
    return found


_WORD = re.compile(r"[A-Za-z_]\w*")


def _names(found: list[Statement]) -> set[str]:
    return {word for s in found for word in _WORD.findall(s.text)}


def _renamed(hunk: Hunk, old: set[str], new: set[str]) -> bool:
    """Whether names alone differ, each of which is gone from one version and new in the other, one to one."""
    if len(hunk.before) != len(hunk.after):
        return False
    pairs: dict[str, str] = {}
    for a, b in zip(hunk.before, hunk.after, strict=True):
        if _WORD.sub("N", a.text) != _WORD.sub("N", b.text):
            return False
        for x, y in zip(_WORD.findall(a.text), _WORD.findall(b.text), strict=True):
            if x != y and (x in new or y in old or pairs.setdefault(x, y) != y):
                return False
    return len(set(pairs.values())) == len(pairs)


def place(found: list[Hunk], line_before: int | None, line_after: int | None, words: str) -> Hunk | None:
    """The changed statements that a cause belongs to: those at its line, those that speak of it, else the first."""
    for hunk in found:
        if hunk.holds(line_before) or hunk.holds(line_after, after=True):
            return hunk
    pattern = re.compile(words, re.I)
    scored = [(len(pattern.findall(hunk.text)), hunk) for hunk in found]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None
