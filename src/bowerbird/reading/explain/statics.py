"""What the source alone says, as facts: files, definitions, settings, what is printed."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.explain.study import Study
from bowerbird.reading.program import OPTIMIZERS, Unit, dotted, last_name

MOST_SETTINGS = 40
_LOADERS = ("DataLoader",)
_TUNED = {
    "lr",
    "betas",
    "eps",
    "weight_decay",
    "momentum",
    "alpha",
    "batch_size",
    "shuffle",
    "num_workers",
    "drop_last",
}
_SETTERS = OPTIMIZERS | set(_LOADERS)


def note(study: Study) -> None:
    """Adds the static facts of every file that is read."""
    for file in study.files:
        unit = study.program.units[file]
        _file(study, unit)
        _definitions(study, unit)
        _prints(study, unit)
    for row in settings(study):
        where = row.pop("file"), row.pop("line")
        study.add("setting.value", row.pop("name"), row, file=where[0], line=where[1])


def _file(study: Study, unit: Unit) -> None:
    modules = [name for name, info in unit.classes.items() if info.is_module]
    value = {
        "name": study.short(unit.file), "lines": len(unit.lines), "classes": len(unit.classes), "modules": len(modules),
        "functions": sum("." not in name for name in unit.functions), "docstring": _first(ast.get_docstring(unit.tree)),
        "cells": len(study.source.cells),
    }  # fmt: skip
    study.add("source.file", study.short(unit.file), value, file=unit.file, line=1)


def _first(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0]


def _definitions(study: Study, unit: Unit) -> None:
    for name, info in unit.classes.items():
        value = {
            "bases": list(info.bases), "module": info.is_module, "first": info.node.lineno,
            "last": info.node.end_lineno,
            "methods": list(info.methods), "docstring": _first(ast.get_docstring(info.node)),
        }  # fmt: skip
        study.add("define.class", name, value, file=unit.file, line=info.node.lineno)
    for name, node in unit.functions.items():
        value = {
            "arguments": [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)],
            "first": node.lineno, "last": node.end_lineno, "docstring": _first(ast.get_docstring(node)),
        }  # fmt: skip
        study.add("define.function", name, value, file=unit.file, line=node.lineno)


def _prints(study: Study, unit: Unit) -> None:
    """What each print shows beside its words: expressions, and where their name was last assigned before."""
    for call in unit.calls("print"):
        shown = []
        for expression in _printed(call):
            root = next((n.id for n in ast.walk(expression) if isinstance(n, ast.Name)), "")
            places = [s.lineno for _, s in unit.assignments.get(root, []) if s.lineno <= call.lineno]
            around = unit.loops(call)
            again = around[-1].end_lineno or 0 if around else 0  # a round later what follows comes before
            added = [
                s.lineno for s in unit.all(ast.AugAssign)
                if dotted(s.target) == root and s.lineno <= max(call.lineno, again)
            ]  # fmt: skip
            places = added or places
            shown.append({"expression": ast.unparse(expression), "name": root, "set": max(places, default=None)})
        if shown:
            value = {"shown": shown[:10], "words": _words(call)}
            study.add("output.print", f"line {call.lineno}", value, file=unit.file, line=call.lineno)


def _printed(call: ast.Call) -> Iterator[ast.expr]:
    for argument in call.args:
        if isinstance(argument, ast.JoinedStr):
            yield from (part.value for part in argument.values if isinstance(part, ast.FormattedValue))
        elif isinstance(argument, ast.BinOp) and isinstance(argument.op, ast.Mod):
            right = argument.right
            yield from right.elts if isinstance(right, ast.Tuple) else [right]
        elif isinstance(argument, ast.Call) and last_name(argument) == "format":
            yield from argument.args
        elif not isinstance(argument, ast.Constant):
            yield argument


def _words(call: ast.Call) -> str:
    """The longest words that a call prints whatever its values are: by them its output is known."""
    texts = [n.value for n in ast.walk(call) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    pieces = [piece.strip() for text in texts for piece in re.split(r"%[-+ #0-9.]*[a-zA-Z%]|\{[^}]*\}|\n", text)]
    return max(pieces, key=len, default="")


# ---------------------------------------------------------------------------------------------------------- settings


def settings(study: Study) -> list[dict[str, Any]]:
    """Every value that somebody chose: constants, options, fields, defaults, arguments of optimisers and loaders."""
    rows: list[dict[str, Any]] = []
    for file in study.files:
        unit = study.program.units[file]
        for row in _rows(unit):
            rows.append({**row, "file": file, "uses": _uses(unit, row)})
    chosen = {(row["file"], row["line"], row["name"]): row for row in rows}
    return list(chosen.values())[: 3 * MOST_SETTINGS]


def _rows(unit: Unit) -> Iterator[dict[str, Any]]:
    for find in (_constants, _options, _entries, _fields, _defaults, _arguments):
        yield from find(unit)


def _constant(node: ast.AST | None) -> Any:
    """A literal number, word, truth value or tuple of those; None for what is computed."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _constant(node.operand)
        return -inner if isinstance(inner, int | float) else None
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
        return node.value
    if isinstance(node, ast.Tuple | ast.List) and node.elts:
        values = [_constant(entry) for entry in node.elts]
        return None if None in values else values
    return None


def _row(name: str, node: ast.expr, kind: str, unit: Unit, **more: Any) -> dict[str, Any] | None:
    value = _constant(node)
    if value is None or (isinstance(value, str) and len(value) > 60):
        return None
    text = ast.unparse(node)
    row = {"name": name, "value": value, "text": text, "kind": kind, "line": node.lineno, **more}
    if node.lineno == node.end_lineno:
        row |= {"from": node.col_offset, "to": node.end_col_offset}
    return row


def _constants(unit: Unit) -> Iterator[dict[str, Any]]:
    for name, values in unit.assignments.items():
        expression, statement = values[0]
        plain = "." not in name and not name.startswith("_") and len(values) == 1
        if plain and unit.scope(statement) is unit.tree and not unit.loops(statement):
            row = _row(name, expression, "constant", unit)
            if row is not None:
                yield row


def _options(unit: Unit) -> Iterator[dict[str, Any]]:
    for call in unit.calls("add_argument"):
        flags = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        given = {k.arg: k.value for k in call.keywords}
        if flags and "default" in given:
            name = max(flags, key=len).lstrip("-").replace("-", "_")
            said = given.get("help")
            words = said.value if isinstance(said, ast.Constant) and isinstance(said.value, str) else ""
            row = _row(name, given["default"], "option", unit, help=words)
            if row is not None:
                yield row


def _entries(unit: Unit) -> Iterator[dict[str, Any]]:
    """Entries of tables such as ``config = {"lr": 1e-3, "latent_dim": 64}``."""
    for table in unit.all(ast.Dict):
        for key, node in zip(table.keys, table.values, strict=True):
            named = isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.isidentifier()
            if named and isinstance(node, ast.Constant | ast.UnaryOp | ast.Tuple | ast.List):
                assert isinstance(key, ast.Constant)
                row = _row(str(key.value), node, "entry", unit)
                if row is not None:
                    yield row


def _fields(unit: Unit) -> Iterator[dict[str, Any]]:
    for info in unit.classes.values():
        body = info.node.body
        for place, statement in enumerate(body):
            if (
                isinstance(statement, ast.AnnAssign)
                and statement.value is not None
                and isinstance(statement.target, ast.Name)
            ):
                after = body[place + 1] if place + 1 < len(body) else None
                words = _docline(after)
                row = _row(statement.target.id, statement.value, "field", unit, of=info.name, help=words)
                if row is not None:
                    yield row


def _docline(statement: ast.stmt | None) -> str:
    """The string that stands below a field and documents it."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(statement.value.value.split()) if isinstance(statement.value.value, str) else ""
    return ""


def _defaults(unit: Unit) -> Iterator[dict[str, Any]]:
    for name, node in unit.functions.items():
        arguments = [*node.args.posonlyargs, *node.args.args]
        pairs = list(zip(arguments[len(arguments) - len(node.args.defaults) :], node.args.defaults, strict=True))
        pairs += [(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
        for argument, default in pairs:
            row = _row(argument.arg, default, "default", unit, of=name)
            if row is not None and not isinstance(row["value"], str):
                yield row


def _arguments(unit: Unit) -> Iterator[dict[str, Any]]:
    """Literal arguments of optimisers, loaders, dropout and clipping, and the rounds of training loops."""
    for call in unit.all(ast.Call):
        word = last_name(call)
        if word in _SETTERS:
            given = {k.arg: k.value for k in call.keywords if k.arg in _TUNED}
            if word in OPTIMIZERS and len(call.args) > 1:
                given.setdefault("lr", call.args[1])
        elif word in ("clip_grad_norm_", "clip_grad_value_") and len(call.args) > 1:
            given = {"max_norm": call.args[1]}
        elif word in ("clip_grad_norm_", "clip_grad_value_"):
            given = {k.arg: k.value for k in call.keywords if k.arg in ("max_norm", "clip_value")}
        elif word.startswith("Dropout") and call.args:
            given = {"dropout": call.args[0]}
        else:
            continue
        for name, node in given.items():
            row = _row(str(name), node, "argument", unit, of=dotted(call.func) or word)
            if row is not None and (word != "Dropout" or isinstance(row["value"], float)):
                yield row
    for loop in unit.all(ast.For):
        rounds = loop.iter
        if (
            isinstance(rounds, ast.Call)
            and last_name(rounds) == "range"
            and rounds.args
            and any(unit.calls("backward", loop))
        ):
            row = _row(
                f"range of {ast.unparse(loop.target)}", rounds.args[-1], "rounds", unit, of=ast.unparse(loop.target)
            )
            if row is not None:
                yield row


def _uses(unit: Unit, row: dict[str, Any]) -> list[int]:
    """Lines that read a setting: its name, an attribute or an entry of that name; not the line that sets it."""
    name, kind, line = row["name"], row["kind"], row["line"]
    if kind in ("argument", "rounds"):
        return []
    lines: set[int] = set()
    if kind == "entry":
        keys = [n for n in unit.all(ast.Subscript) if isinstance(n.slice, ast.Constant) and n.slice.value == name]
        lines |= {n.lineno for n in keys}
    else:
        lines |= {n.lineno for n in unit.all(ast.Name) if n.id == name and isinstance(n.ctx, ast.Load)}
    lines |= {n.lineno for n in unit.all(ast.Attribute) if n.attr == name and isinstance(n.ctx, ast.Load)}
    return sorted(lines - {line})[:12]
