"""What the source alone says, as facts: files, definitions, settings, what is printed."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.explain.glossary import find
from bowerbird.reading.explain.study import Study
from bowerbird.reading.program import OPTIMIZERS, Unit, dotted, keyword, last_name

MOST_SETTINGS = 120
_TUNED = frozenset("lr betas eps weight_decay momentum alpha batch_size shuffle num_workers drop_last".split())
_SETTERS = OPTIMIZERS | {"DataLoader"}
Row = dict[str, Any]


def note(study: Study) -> None:
    """Adds the static facts of every file that is read."""
    chosen: dict[tuple[str, int, str], Row] = {}
    for file in study.files:
        unit = study.program.units[file]
        _file(study, unit)
        _definitions(study, unit)
        _prints(study, unit)
        for row in _settings(unit):
            chosen[file, row["line"], row["name"]] = {**row, "uses": _uses(unit, row)}
    for (file, line, name), row in list(chosen.items())[:MOST_SETTINGS]:
        study.add("setting.value", name, {k: v for k, v in row.items() if k not in ("name", "line")},
                  file=file, line=line)  # fmt: skip


def _file(study: Study, unit: Unit) -> None:
    value = {
        "name": study.short(unit.file), "lines": len(unit.lines), "classes": len(unit.classes),
        "modules": sum(info.is_module for info in unit.classes.values()),
        "functions": sum("." not in name for name in unit.functions), "docstring": _first(unit.tree),
        "cells": len(study.source.cells),
    }  # fmt: skip
    study.add("source.file", study.short(unit.file), value, file=unit.file, line=1)


def _first(node: Any) -> str:
    """The first line of a docstring."""
    return (ast.get_docstring(node) or "").strip().partition("\n")[0]


def _definitions(study: Study, unit: Unit) -> None:
    for name, info in unit.classes.items():
        more = {"bases": list(info.bases), "module": info.is_module, "methods": list(info.methods)}
        study.add("define.class", name, _span(info.node) | more, file=unit.file, line=info.node.lineno)
    for name, node in unit.functions.items():
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        study.add("define.function", name, _span(node) | {"arguments": names}, file=unit.file, line=node.lineno)


def _span(node: ast.stmt) -> Row:
    return {"first": node.lineno, "last": node.end_lineno, "docstring": _first(node)}


def _prints(study: Study, unit: Unit) -> None:
    """What each print shows beside its words: expressions, and where their name was last assigned before."""
    for call in unit.calls("print"):
        shown = []
        for expression in _printed(call):
            root = next((n.id for n in ast.walk(expression) if isinstance(n, ast.Name)), "")
            shown.append({"expression": ast.unparse(expression), "name": root, "set": _set_at(unit, call, root)})
        if shown:
            value = {"shown": shown[:10], "words": _words(call)}
            study.add("output.print", f"line {call.lineno}", value, file=unit.file, line=call.lineno)


def _set_at(unit: Unit, call: ast.Call, name: str) -> int | None:
    """The line that a name got its value at before a call: where it was added to, else assigned."""
    around = unit.loops(call)
    again = around[-1].end_lineno or 0 if around else 0  # a round later what follows comes before
    added = [s.lineno for s in unit.all(ast.AugAssign) if dotted(s.target) == name]
    added = [line for line in added if line <= max(call.lineno, again)]
    assigned = [s.lineno for _, s in unit.assignments.get(name, []) if s.lineno <= call.lineno]
    return max(added or assigned, default=None)


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


def _settings(unit: Unit) -> Iterator[Row]:
    """Every value that somebody chose: constants, options, fields, defaults, arguments of optimisers and loaders."""
    for read in (_constants, _options, _entries, _fields, _defaults, _arguments, _rounds):
        for name, node, kind, more in read(unit):
            row = _row(name, node, kind, more)
            if row is not None:
                yield row


Found = Iterator[tuple[str, ast.expr, str, Row]]
"""Name, value, kind and what more is known of a setting."""


def _row(name: str, node: ast.expr, kind: str, more: Row) -> Row | None:
    value = _constant(node)
    if value is None or (isinstance(value, str) and (len(value) > 60 or kind == "default")):
        return None
    place = {"from": node.col_offset, "to": node.end_col_offset} if node.lineno == node.end_lineno else {}
    return {"name": name, "value": value, "text": ast.unparse(node), "kind": kind, "line": node.lineno, **more, **place}


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


def _constants(unit: Unit) -> Found:
    """Names that are assigned once: of the module, and those of functions that mean something."""
    for name, [(expression, statement), *others] in unit.assignments.items():
        if "." in name or name.startswith("_") or others or unit.loops(statement):
            continue
        scope = unit.scope(statement)
        if scope is unit.tree:
            yield name, expression, "constant", {}
        elif isinstance(scope, ast.FunctionDef) and find(name) is not None:
            yield name, expression, "local", {"of": scope.name}


def _options(unit: Unit) -> Found:
    for call in unit.calls("add_argument"):
        flags = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        default, said = keyword(call, "default"), keyword(call, "help")
        if flags and default is not None:
            words = said.value if isinstance(said, ast.Constant) and isinstance(said.value, str) else ""
            yield max(flags, key=len).lstrip("-").replace("-", "_"), default, "option", {"help": words}


def _entries(unit: Unit) -> Found:
    """Entries of tables such as ``config = {"lr": 1e-3, "latent_dim": 64}``."""
    for table in unit.all(ast.Dict):
        for key, node in zip(table.keys, table.values, strict=True):
            named = isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.isidentifier()
            if named and isinstance(node, ast.Constant | ast.UnaryOp | ast.Tuple | ast.List):
                yield ast.literal_eval(key), node, "entry", {}  # type: ignore[arg-type]


def _fields(unit: Unit) -> Found:
    for info in unit.classes.values():
        for statement, after in zip(info.node.body, [*info.node.body[1:], None], strict=True):
            annotated = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
            if annotated and isinstance(statement, ast.AnnAssign) and statement.value is not None:
                more = {"of": info.name, "help": _docline(after)}
                yield last_name(statement.target), statement.value, "field", more


def _docline(statement: ast.stmt | None) -> str:
    """The string that stands below a field and documents it."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(statement.value.value.split()) if isinstance(statement.value.value, str) else ""
    return ""


def _defaults(unit: Unit) -> Found:
    for name, node in unit.functions.items():
        plain, given = [*node.args.posonlyargs, *node.args.args], node.args.defaults
        pairs = [*zip(plain[len(plain) - len(given) :], given, strict=True),
                 *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]  # fmt: skip
        for argument, default in pairs:
            if default is not None:
                yield argument.arg, default, "default", {"of": name}


def _arguments(unit: Unit) -> Found:
    """Literal arguments of optimisers, loaders, dropout and clipping."""
    for call in unit.all(ast.Call):
        for name, node in _tuned(call):
            if node is not None and (last_name(call) != "Dropout" or isinstance(_constant(node), float)):
                yield name, node, "argument", {"of": dotted(call.func) or last_name(call)}


def _tuned(call: ast.Call) -> Iterator[tuple[str, ast.expr | None]]:
    word = last_name(call)
    if word in _SETTERS:
        yield from ((str(k.arg), k.value) for k in call.keywords if k.arg in _TUNED)
        if word in OPTIMIZERS and keyword(call, "lr") is None:
            yield "lr", keyword(call, "lr", 1)
    elif word == "clip_grad_norm_":
        yield "max_norm", keyword(call, "max_norm", 1)
    elif word == "clip_grad_value_":
        yield "clip_value", keyword(call, "clip_value", 1)
    elif word.startswith("Dropout"):
        yield "dropout", keyword(call, "", 0)


def _rounds(unit: Unit) -> Found:
    """How often training loops go round."""
    for loop in unit.all(ast.For):
        rounds, over = loop.iter, ast.unparse(loop.target)
        if last_name(rounds) == "range" and isinstance(rounds, ast.Call) and rounds.args:
            if any(unit.calls("backward", loop)):
                yield f"range of {over}", rounds.args[-1], "rounds", {"of": over}


def _uses(unit: Unit, row: Row) -> list[int]:
    """Lines that read a setting: its name, an attribute or an entry of that name; not the line that sets it."""
    name, kind, line = row["name"], row["kind"], row["line"]
    if kind in ("argument", "rounds"):
        return []
    lines = {n.lineno for n in unit.all(ast.Attribute) if n.attr == name and isinstance(n.ctx, ast.Load)}
    if kind == "entry":
        keys = [n for n in unit.all(ast.Subscript) if isinstance(n.slice, ast.Constant) and n.slice.value == name]
        lines |= {n.lineno for n in keys}
    else:
        lines |= {n.lineno for n in unit.all(ast.Name) if n.id == name and isinstance(n.ctx, ast.Load)}
    return sorted(lines - {line})[:12]
