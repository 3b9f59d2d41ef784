"""Rules of options, data and the terms of a loss: what is given, and what is left out."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import Patch, replace_line
from bowerbird.reading.program import Program, Unit, dotted, keyword, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run


@rule("X06", "A flag of type bool is true whatever is given", family="general")
def bool_flag(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``type=bool`` turns every text that is not empty into True."""
    for unit in program:
        for call in unit.calls("add_argument"):
            kind = keyword(call, "type")
            if isinstance(kind, ast.Name) and kind.id == "bool":
                flag = next((str(a.value) for a in call.args if isinstance(a, ast.Constant)), "the flag")
                default = keyword(call, "default")
                yes = isinstance(default, ast.Constant) and default.value is True
                yield say(
                    "X06" if yes else "X06b", "warning", call.lineno, file=unit.file,
                    patch=None if yes else _store_true(unit, kind.lineno, default), flag=flag,
                )  # fmt: skip


def _store_true(unit: Unit, line: int, default: ast.expr | None) -> Patch | None:
    """The patch that makes a flag of an option; its default goes with its type."""
    given = f", default={ast.unparse(default)}" if default is not None else ""
    old = f"type=bool{given}" if f"type=bool{given}" in unit.lines[line - 1] else "type=bool"
    return replace_line(unit.file, line, old, 'action="store_true"', unit.lines, label="X06: store_true")


_HELD_OUT = re.compile(r"(^|_|\b)(val|valid|validation|test|eval|dev)", re.I)
_TRAINED_ON = re.compile(r"(^|_|\b)(train|trn)", re.I)


@rule("X07", "Training data are used for validation, or are never shuffled", family="general")
def same_data(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Two loaders of one data set, one of them called validation; a training loader with shuffle=False."""
    for unit in program:
        given: dict[str, list[tuple[str, int]]] = {}
        for name, values in unit.assignments.items():
            for value, _ in values:
                if isinstance(value, ast.Call) and last_name(value) == "DataLoader":
                    data = keyword(value, "dataset", 0)
                    if data is not None and keyword(value, "sampler") is None:
                        given.setdefault(ast.unparse(data), []).append((name, value.lineno))
                    shuffle = keyword(value, "shuffle", 2)
                    if isinstance(shuffle, ast.Constant) and shuffle.value is False and _TRAINED_ON.search(name):
                        yield say(
                            "X07b", "warning", value.lineno, file=unit.file, name=name,
                            value_2=ast.unparse(value)[:100],
                        )  # fmt: skip
                elif isinstance(value, ast.Call) and _HELD_OUT.search(name) and not _TRAINED_ON.search(name):
                    train = keyword(value, "train")
                    if isinstance(train, ast.Constant) and train.value is True:
                        yield Finding(
                            "X07", "warning", value.lineno, f"{name} holds the training split (train=True).",
                            f"{ast.unparse(value)[:100]}", "Use train=False.", unit.file,
                        )  # fmt: skip
        for source, loaders in given.items():
            held = [(n, line) for n, line in loaders if _HELD_OUT.search(n) and not _TRAINED_ON.search(n)]
            others = [n for n, _ in loaders if n not in {h[0] for h in held}]
            if held and others:
                yield say("X07", "warning", held[0][1], file=unit.file, held=held, source=source, others=others)


@rule("X14", "A transform is composed and never applied", family="general")
def transform_unused(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A pipeline of transforms that no data set is given: the data stay as they are."""
    for unit in program:
        for name, values in unit.assignments.items():
            for value, statement in values:
                if not isinstance(value, ast.Call) or last_name(value) != "Compose" or "." in name:
                    continue
                scope = unit.function(statement) or unit.tree
                reads = [n for n in unit.all(ast.Name, under=scope) if n.id == name and isinstance(n.ctx, ast.Load)]
                if not reads and not (scope is unit.tree and _imported_elsewhere(program, unit, name)):
                    yield say("X14", "warning", statement.lineno, file=unit.file, name=name)


def _imported_elsewhere(program: Program, unit: Unit, name: str) -> bool:
    return any(re.search(rf"\b{re.escape(name)}\b", other.text) for other in program if other is not unit)


@rule("X13", "Only one of two terms is divided", family="general")
def half_of_one(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``real_loss + fake_loss / 2`` divides the second alone."""
    for unit in program:
        for node in unit.all(ast.BinOp):
            left, right = node.left, node.right
            if (
                not isinstance(node.op, ast.Add)
                or not isinstance(right, ast.BinOp)
                or not isinstance(right.op, ast.Div)
            ):
                continue
            first, second = dotted(left) or "", dotted(right.left) or ""
            plain = isinstance(right.right, ast.Constant) and right.right.value in (2, 2.0)
            if plain and _REAL_FAKE.search(first) and _REAL_FAKE.search(second) and first != second:
                yield say(
                    "X13", "warning", node.lineno, file=unit.file, second=second, first=first, node_2=ast.unparse(node),
                    right_2=ast.unparse(right),
                )  # fmt: skip


_REAL_FAKE = re.compile(r"real|fake|gen|true|_[ab]$|[AB]$", re.I)
