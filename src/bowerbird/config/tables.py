"""Nested tables to dataclasses and back; every wrong key, type or value is refused by its name."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from bowerbird import registry
from bowerbird.config.fields import ModelConfig, NetworkConfig, Run
from bowerbird.errors import BowerbirdError, unknown

T = TypeVar("T")


def with_settings(run: Run, settings: Mapping[str, Any]) -> Run:
    """The run with other values under dotted names such as ``train.lr`` or ``model.net.channels``."""
    table = to_table(run)
    for name, value in settings.items():
        *path, last = name.split(".")
        place = table
        for part in path:
            place = place.setdefault(part, {})
        place[last] = _to_value(value)
    return run_from(table, "settings")


def run_from(table: dict[str, Any], where: str) -> Run:
    """Checks every key and type of a nested table and builds the run; ``where`` names the file in errors."""
    table = dict(table)
    if plugin := _convert(str, table.get("plugin", ""), where, "plugin"):
        registry.load_plugin(Path(plugin), named_by=where)
    model = dict(_table(table.get("model", {}), where, "model"))
    if model.get("family") == "autoregressive" and (start := model.pop("start", "")):  # where version 0.1 had it
        table["train"] = {"start": start} | _table(table.get("train", {}), where, "train")
    if "family" not in model:
        raise BowerbirdError(f"{where}: [model] needs family = one of {', '.join(registry.families.names())}.")
    table["model"] = model_from(model, where)
    return build(Run, table, where, "")


def _table(value: Any, where: str, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BowerbirdError(f"{where}: {key} = {value!r} must be a table.")
    return value


def model_from(table: dict[str, Any], where: str, prefix: str = "model") -> ModelConfig:
    if "family" not in table:
        raise BowerbirdError(f"{where}: [{prefix}] needs family = one of {', '.join(registry.families.names())}.")
    family = registry.families.get(_convert(str, table["family"], where, f"{prefix}.family"))
    rest = {key: value for key, value in table.items() if key != "family"}
    return build(family, rest, where, prefix)


def _net_from(table: dict[str, Any], where: str, prefix: str) -> NetworkConfig:
    if "name" not in table:
        raise BowerbirdError(f"{where}: [{prefix}] needs name = one of {', '.join(registry.nets.names())}.")
    rest = {key: value for key, value in table.items() if key != "name"}
    return build(registry.nets.get(_convert(str, table["name"], where, f"{prefix}.name")), rest, where, prefix)


def build(cls: type[T], table: dict[str, Any], where: str, prefix: str = "") -> T:
    """A dataclass from a table of its fields; BowerbirdError that names ``where`` for a wrong key, type or value."""
    hints = typing.get_type_hints(cls)
    names = {_key(f.name): f.name for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    values = {}
    for key, value in table.items():
        if key not in names:
            raise BowerbirdError(f"{where}: {unknown('key', dotted(prefix, key), [dotted(prefix, n) for n in names])}")
        values[names[key]] = _convert(hints[names[key]], value, where, dotted(prefix, key))
    missing = [
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.init
        and f.name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise BowerbirdError(f"{where}: the key '{dotted(prefix, missing[0])}' is missing.")
    try:
        return cls(**values)
    except ValueError as error:
        raise BowerbirdError(f"{where}: {error}") from error


def _key(field_name: str) -> str:
    """A field as TOML and the command line write it: ``from`` is a word of Python's."""
    return field_name.rstrip("_")


def dotted(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    """``value`` from TOML as the type ``hint``, or an error that says what was expected."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = [a for a in arguments if a is not type(None)]
        return _convert(hint, value, where, key)
    if origin is Literal:
        if value not in arguments:
            raise BowerbirdError(f"{where}: {key}: {unknown('choice', str(value), map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise BowerbirdError(f"{where}: {key} = {value!r} must be a list.")
        items = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(items) != len(value):
            raise BowerbirdError(f"{where}: {key} = {value!r} must have {len(items)} entries.")
        return tuple(_convert(a, v, where, f"{key}[{i}]") for i, (a, v) in enumerate(zip(items, value, strict=True)))
    if origin is dict:
        return {k: _convert(arguments[1], v, where, f"{key}.{k}") for k, v in _table(value, where, key).items()}
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        table = _table(value, where, key)
        if issubclass(hint, NetworkConfig):  # type: ignore[arg-type]
            return _net_from(table, where, key)
        if hint is ModelConfig:
            return model_from(table, where, key)
        return build(hint, table, where, key)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 10**300 else math.inf
    if isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        return value
    raise BowerbirdError(f"{where}: {key} = {value!r} must be of type {hint.__name__}.")


def to_table(run: Run) -> dict[str, Any]:
    """The run as nested tables, ready for TOML or JSON; fields that are None are left out."""
    table = _to_value(run)
    assert isinstance(table, dict)
    return table


def _to_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        table: dict[str, Any] = {}
        if isinstance(value, ModelConfig):
            table["family"] = registry.families.name_of(type(value))
        if isinstance(value, NetworkConfig):
            table["name"] = registry.nets.name_of(type(value))
        for f in dataclasses.fields(value):
            if (item := getattr(value, f.name)) is not None:
                table[_key(f.name)] = _to_value(item)
        return table
    if isinstance(value, list | tuple):
        return [_to_value(item) for item in value]
    if isinstance(value, dict):
        return {key: _to_value(item) for key, item in value.items()}
    return value


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table with dotted keys instead."""
    leaves: dict[str, Any] = {}
    for key, value in table.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves
