"""Rules of options, data and the terms of a loss: what is given, and what is left out."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import Patch, replace_line
from bowerbird.reading.program import Program, Unit, dotted, keyword, last_name, names_in, receiver, targets_of
from bowerbird.reading.rules import rule
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
                yield Finding(
                    "X06", "warning", call.lineno, f"{flag} False means True: type=bool takes any text for true.",
                    "bool('False') is True.",
                    "Use action=argparse.BooleanOptionalAction." if yes else "Use action='store_true'.", unit.file,
                    patch=None if yes else _store_true(unit, kind.lineno, default),
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
                        yield Finding(
                            "X07", "warning", value.lineno,
                            f"{name} is never shuffled: every epoch has the same batches.",
                            f"{ast.unparse(value)[:100]}", "Use shuffle=True for training.", unit.file,
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
                yield Finding(
                    "X07", "warning", held[0][1],
                    f"{held[0][0]} reads {source}, the data that {others[0]} trains on.",
                    f"Both loaders are given {source}.", "Give it the data that were held out.", unit.file,
                )  # fmt: skip


_TERMS = re.compile(r"loss|penalty|kld?|_reg|reg_|regul|^reg$|^gp$|div$|divergence|commit|err(?:or)?_?[A-Z]", re.I)


@rule("X08", "A term of the loss is computed and left out", family="general")
def left_out(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """What is called a loss or a penalty and enters nothing that backward() is called on."""
    for unit in program:
        for steps in (*unit.training_loops, *_single_steps(unit)):
            scope = unit.function(steps) or unit.tree
            under = scope if isinstance(scope, ast.FunctionDef) else steps
            used = _entering(unit, under)
            if not used:
                continue
            for node in unit.all(ast.Assign, under=steps):
                name = dotted(node.targets[0]) if len(node.targets) == 1 else None
                if (
                    name is None
                    or name in used
                    or not _TERMS.search(name)
                    or not isinstance(node.value, ast.Call | ast.BinOp)
                ):
                    continue
                if _sums_up(node.value, used) or _MEASURED.search(name) or not _differentiable(unit, node.value):
                    continue
                if _consumed(unit, under, name, node):
                    continue
                yield Finding(
                    "X08", "warning", node.lineno,
                    f"{name} is computed and enters no loss: nothing is trained by it.",
                    f"backward() reaches {', '.join(sorted(used & _named(unit, under))) or 'other values'}.",
                    f"Add {name} to the loss, or compute it under no_grad.", unit.file,
                )  # fmt: skip


def _single_steps(unit: Unit) -> list[ast.FunctionDef]:
    """Functions that take one training step, called from a loop elsewhere."""
    return [
        f for f in unit.functions.values()
        if isinstance(f, ast.FunctionDef)
        and any(last_name(c) == "backward" for c in unit.all(ast.Call, under=f))
        and not any(unit.all(ast.For, ast.While, under=f))
    ]  # fmt: skip


def _entering(unit: Unit, under: ast.AST) -> set[str]:
    """Every name that what backward() is called on depends on."""
    used = {n for c in unit.all(ast.Call, under=under) if last_name(c) == "backward" for n in names_in(c)}
    used |= {dotted(receiver(c)) or "" for c in unit.all(ast.Call, under=under) if last_name(c) == "backward"}
    for _ in range(6):
        size = len(used)
        statements: Iterator[Any] = unit.all(ast.Assign, ast.AugAssign, under=under)
        for node in statements:
            if any(dotted(t) in used for t in targets_of(node)):
                used |= names_in(node.value)
        if len(used) == size:
            break
    return used - {""}


def _named(unit: Unit, under: ast.AST) -> set[str]:
    return {
        dotted(t) or ""
        for node in unit.all(ast.Assign, under=under)
        for t in targets_of(node)
        if _TERMS.search(dotted(t) or "")
    }


_MEASURED = re.compile(r"val|test|eval|avg|mean|total|epoch|best|last|prev|running|losses|curr", re.I)


def _sums_up(value: ast.expr, used: set[str]) -> bool:
    """Whether a value only puts terms together that are trained by themselves: for a report."""
    return not any(isinstance(n, ast.Call) for n in ast.walk(value)) and bool(names_in(value) & used)


def _differentiable(unit: Unit, value: ast.expr) -> bool:
    """Whether a value may carry gradients, as far as its text and that of a function it calls say."""
    text = ast.unparse(value)
    own = unit.functions.get(last_name(value)) if isinstance(value, ast.Call) else None
    text += ast.unparse(own) if own is not None and "no_grad" in ast.unparse(own) else ""
    return not re.search(
        r"\.(item|detach|cpu|numpy|tolist)\(\)$|\.data$|no_grad|^float\(|^np\.|^sum\([\w\[\]:-]*loss", text
    )


def _consumed(unit: Unit, under: ast.AST, name: str, node: ast.Assign) -> bool:
    """Whether a term is read by anything but reports: returned, passed on, or part of another value that is."""
    if any(isinstance(a, ast.With) and "no_grad" in ast.unparse(a.items[0]) for a in unit.ancestors(node)):
        return True
    reads: Iterator[Any] = unit.all(ast.Name, ast.Attribute, under=under)
    for read in reads:
        if dotted(read) != name or not isinstance(read.ctx, ast.Load):
            continue
        statement = unit.statement(read)
        if isinstance(statement, ast.Return | ast.For | ast.While | ast.If):
            return True
        shown = any(
            isinstance(a, ast.Call) and (last_name(a) in _REPORTS or _under_a_name(a))
            for a in unit.ancestors(read) if not isinstance(a, ast.stmt)
        )  # fmt: skip
        if isinstance(statement, ast.Assign | ast.AugAssign) and not shown:
            holder = unit.parents.get(read)
            item = isinstance(holder, ast.Attribute) and holder.attr in ("item", "detach", "data", "cpu")
            if not item and not isinstance(statement, ast.AugAssign):
                return True
        elif not shown and isinstance(statement, ast.Expr):
            return True
    return False


def _under_a_name(call: ast.Call) -> bool:
    """Whether a call files its arguments under a name that is given as text: ``tracker.add("loss", loss)``."""
    first = call.args[0] if len(call.args) > 1 else None
    return isinstance(first, ast.Constant) and isinstance(first.value, str)


_REPORTS = frozenset(
    "print item append format info log add_scalar update set_postfix set_description write debug".split()
)


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
                    yield Finding(
                        "X14", "warning", statement.lineno,
                        f"{name} is composed and given to nothing: no data go through it.",
                        f"No line reads {name}.", f"Give it to the data set: transform={name}.", unit.file,
                    )  # fmt: skip


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
                yield Finding(
                    "X13", "warning", node.lineno,
                    f"Only {second} is divided by two: {first} counts twice as much.",
                    f"{ast.unparse(node)} is {first} + ({ast.unparse(right)}).", f"Write ({first} + {second}) / 2.",
                    unit.file,
                )  # fmt: skip


_REAL_FAKE = re.compile(r"real|fake|gen|true|_[ab]$|[AB]$", re.I)
