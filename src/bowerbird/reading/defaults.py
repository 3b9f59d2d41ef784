"""The settings of a project as it sets them itself: defaults of its command lines, its configuration classes and files.

What a class reads from a configuration that nobody makes is looked up here, so that it is built with the sizes and
choices that its authors use.  Nothing is run; the nearest file wins.
"""

import ast
import contextlib
import importlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bowerbird.errors import BowerbirdError
from bowerbird.reading.drivers import Project
from bowerbird.reading.source import Source, parse

MOST_FILES = 60
MOST_SETTINGS = 500
LARGEST_BYTES = 20_000
HOLDERS = frozenset("config cfg conf args arg opt opts hparams hps hp h c C params options settings flags".split())
"""Names under which programs keep their settings."""
_MAKERS = ("hparams", "namespace", "config", "attrdict", "dict", "edict", "configdict", "params", "options")
_CLASSES = ("config", "hparam", "args", "param", "setting", "option")
_FLAGS = re.compile(r"--([A-Za-z][\w-]*)[= ]+([^\s$-][^\s]*)")
Settings = dict[str, Any]


def found(source: Source) -> Settings:
    """Names and values, nested as the project nests them; those of a section also by their names alone."""
    if source.project == Path():  # a recipe of ours: it stands in no project
        return {}
    project, settings = Project(source.project.resolve()), Settings()
    main = Path(source.main).resolve()
    texts = sorted((f for f in project.files if f.suffix == ".py"), key=lambda file: _distance(file, main))
    for file in texts[:MOST_FILES]:
        try:
            _merge(settings, _of_tree(parse(project.text(file), file.name)))
        except BowerbirdError:
            continue
    for file in sorted(_files(project), key=lambda file: _distance(file, main))[:MOST_FILES]:
        _merge(settings, _of_file(file))
    for command in project.commands(main):
        told = ((m.group(1).replace("-", "_"), m.group(2).strip("'\"`")) for m in _FLAGS.finditer(command))
        _merge(settings, {name: _value(word) for name, word in told})
    for name in _sections(source):
        settings.setdefault(name, {})
    for section in [value for value in settings.values() if isinstance(value, dict)]:
        _merge(settings, section)
    return dict(list(settings.items())[:MOST_SETTINGS])


def _value(word: str) -> Any:
    """A word of a command line as the number that it is, else as it stands."""
    with contextlib.suppress(ValueError, SyntaxError):
        return _plain(ast.literal_eval(word))
    return word


def _distance(file: Path, main: Path) -> tuple[int, str]:
    """How many folders lie between two files."""
    shared = len(Path(os.path.commonpath([file, main])).parts) if file != main else len(main.parts) + 1
    return len(file.parts) + len(main.parts) - 2 * shared, str(file)


def _merge(settings: Settings, more: Settings) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(settings.get(name), dict):
            _merge(settings[name], value)
        elif settings.get(name) in (None, "", {}):
            settings[name] = value


def _files(project: Project) -> Iterator[Path]:
    for folder, below, names in os.walk(project.folder):
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(folder, name) for name in names if name.endswith((".yaml", ".yml", ".json")))


def _of_file(file: Path) -> Settings:
    """The settings of a file of JSON, or of YAML where PyYAML is installed; empty where it holds something else."""
    try:
        if file.stat().st_size > LARGEST_BYTES:
            return {}
        text = file.read_text(encoding="utf-8")
        told = json.loads(text) if file.suffix == ".json" else importlib.import_module("yaml").safe_load(text)
    except (OSError, ValueError, RecursionError, ImportError):
        return {}
    except Exception as error:  # the YAML package has errors of its own
        if type(error).__module__.startswith("yaml"):
            return {}
        raise
    return _plain(told) if isinstance(told, dict) else {}


def _plain(value: Any, depth: int = 4) -> Any:
    """A value of JSON: what is nothing of that is left out."""
    if isinstance(value, dict):
        return {str(key): _plain(entry, depth - 1) for key, entry in value.items()} if depth else {}
    if isinstance(value, list | tuple):
        return [_plain(entry, depth - 1) for entry in value[:32]] if depth else []
    return value if isinstance(value, bool | int | float | str | None) else None


def _of_tree(tree: ast.Module) -> Settings:
    settings = Settings()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            _merge(settings, _of_call(node))
        elif isinstance(node, ast.ClassDef) and any(word in node.name.lower() for word in _CLASSES):
            _merge(settings, _of_class(node))
        elif isinstance(node, ast.Assign | ast.Return) and isinstance(node.value, ast.Dict):
            _merge(settings, _of_dict(node.value))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            _merge(settings, _of_attribute(node.targets[0], node.value))
    return settings


def _of_call(call: ast.Call) -> Settings:
    """``add_argument("--lr", default=1e-3)``, or a call such as ``HParams(lr=1e-3, …)``."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = {k.arg: k.value for k in call.keywords if k.arg}
    if name == "add_argument":
        flags = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if not flags:
            return {}
        action = _literal(given.get("action"))
        default = _literal(given.get("default"))
        default = False if action == "store_true" and default is None else default
        return {max(flags, key=len).lstrip("-").replace("-", "_"): default}
    if len(given) < 3 or not name.lower().endswith(_MAKERS):
        return {}
    return {name: value for name, node in given.items() if (value := _literal(node)) is not None}


def _of_class(node: ast.ClassDef) -> Settings:
    found = Settings()
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            found[part.target.id] = _literal(part.value)
        elif isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Name):
            found[part.targets[0].id] = _literal(part.value)
    return {name: value for name, value in found.items() if value is not None}


def _of_dict(node: ast.Dict) -> Settings:
    pairs = [(_literal(k), v) for k, v in zip(node.keys, node.values, strict=True) if k is not None]
    named = {key: _literal(value) for key, value in pairs if isinstance(key, str) and key.isidentifier()}
    return {key: value for key, value in named.items() if value is not None} if len(named) > 2 else {}


def _of_attribute(target: ast.Attribute, value: ast.expr) -> Settings:
    """``config.model.width = 64``: the setting ``width`` in the section ``model``."""
    way, base = [target.attr], target.value
    while isinstance(base, ast.Attribute):
        way, base = [base.attr, *way], base.value
    if not isinstance(base, ast.Name) or base.id not in HOLDERS or (plain := _literal(value)) is None:
        return {}
    for name in reversed(way[1:]):
        plain = {name: plain}
    return {way[0]: plain}


def _literal(node: ast.expr | None) -> Any:
    """The value of a literal, a product of two numbers included; None of anything else."""
    if node is None:
        return None
    if isinstance(node, ast.Dict):
        return _of_dict(node) or None
    try:
        return _plain(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _sections(source: Source) -> Iterator[str]:
    """Settings that have settings themselves: ``model`` of ``config.model.width``."""
    plain = set(dir(str)) | set(dir(list)) | set(dir(dict)) | set(dir(int))
    for tree in source.trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.attr not in plain:
                base = node.value.value
                name = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
                if name in HOLDERS and name not in ("c", "C", "h"):
                    yield node.value.attr
