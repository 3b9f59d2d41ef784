"""What a run takes, as the controls of a form; and the form's values, as what ``generate`` takes.

Controls follow from ``spec.given`` and the fields of the family's ``Options``, so a new family has a playground too.
"""

import ast
import dataclasses
import inspect
import itertools
import math
import textwrap
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union

from bowerbird.ranges import FINITE, Range
from bowerbird.spec import Classes, Field, Spec, Tensors
from bowerbird.studio.language import Refusal

MOST = {"image": 64, "text": 16, "music": 4, "speech": 8, "video": 6}
"""Samples of one request."""
Kind = Literal["choice", "text", "picture", "number", "whole", "switch"]


@dataclass(frozen=True)
class Control:
    """One control: ``name`` is "given.label", "options.steps" …"""

    name: str
    kind: Kind
    help: str = ""
    """In English."""
    helped_by: str = ""
    """The class whose field it is, under which the catalogue has the help in Chinese."""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    default: Any = None

    @property
    def short(self) -> str:
        return self.name.partition(".")[2]


def given_controls(inputs: Mapping[str, Field]) -> list[Control]:
    """A menu for classes, a line for texts, a picture for pictures; a mask is a picture too."""
    return [_given(name, field) for name, field in inputs.items()]


def _given(name: str, field: Field) -> Control:
    if isinstance(field, Classes):
        return Control(f"given.{name}", "choice", choices=field.names)
    return Control(f"given.{name}", "picture" if isinstance(field, Tensors) else "text")


def option_controls(options: type) -> list[Control]:
    """A control for each option that is one choice, number, or switch."""
    hints, helps = typing.get_type_hints(options, include_extras=True), documented(options)
    found = [_option(one, hints[one.name]) for one in dataclasses.fields(options)]
    return [
        dataclasses.replace(control, help=helps.get(control.short, ""), helped_by=_owner(options, control.short))
        for control in found
        if control is not None
    ]


def _owner(options: type, name: str) -> str:
    """The class in which a field was written last."""
    return next(kind.__name__ for kind in options.__mro__ if name in inspect.get_annotations(kind))


def _option(field: Any, hint: Any) -> Control | None:
    allowed, kind = _bare(hint)
    name, default = f"options.{field.name}", field.default
    if typing.get_origin(kind) is Literal:
        return Control(name, "choice", choices=tuple(map(str, typing.get_args(kind))), default=default)
    if kind is bool:
        return Control(name, "switch", default=default)
    if kind in (int, float):
        low, high = (value if math.isfinite(value) else None for value in (allowed.low, allowed.high))
        return Control(name, "whole" if kind is int else "number", least=low, most=high, default=default)
    return None


def _bare(hint: Any, allowed: Range = FINITE) -> tuple[Range, Any]:
    """The type inside Optional and Annotated, and its range."""
    if typing.get_origin(hint) is Annotated:
        inner, *notes = typing.get_args(hint)
        return _bare(inner, next((note for note in notes if isinstance(note, Range)), allowed))
    if typing.get_origin(hint) in (Union, types.UnionType):
        return _bare(next(part for part in typing.get_args(hint) if part is not type(None)), allowed)
    return allowed, hint


@cache
def documented(cls: type) -> dict[str, str]:
    """The docstring under each field of a dataclass and of those that it extends."""
    found: dict[str, str] = {}
    for kind in filter(inspect.get_annotations, reversed(cls.__mro__[:-1])):
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
        for field, after in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(field.target, ast.Name):
                found[field.target.id] = " ".join(str(getattr(after.value, "value", "")).split())
    return found


# --------------------------------------------------------------------------------------------------- what was asked for


@dataclass(frozen=True)
class Asked:
    """A form's values."""

    n: int | None
    seed: int
    given: dict[str, Any]
    options: dict[str, Any]


def asked(form: Mapping[str, Any], spec: Spec, options: type) -> Asked:
    """The values of a form that are not empty; Refusal for what is no number, or too much."""
    most = MOST.get(spec.medium, 4)
    n, seed = _whole(form, "n"), seed_of(form)
    if n is not None and not 1 <= n <= most:
        raise Refusal("refused.n", most=most, n=n)
    given = {name: value for name, value in part(form, "given").items() if value != ""}
    kinds = {control.short: control for control in option_controls(options)}
    chosen = {name: _typed(name, value, kinds) for name, value in part(form, "options").items() if value != ""}
    return Asked(n, seed, given, {name: value for name, value in chosen.items() if value is not None})


def seed_of(form: Mapping[str, Any]) -> int:
    """The seed, 0 where there is none."""
    seed = _whole(form, "seed") or 0
    if not 0 <= seed < 1 << 63:
        raise Refusal("refused.seed")
    return seed


def part(form: Mapping[str, Any], first: str) -> dict[str, Any]:
    """The values whose names begin with ``first`` and a dot, without it."""
    return {name.partition(".")[2]: value for name, value in form.items() if name.startswith(f"{first}.")}


def _whole(form: Mapping[str, Any], name: str) -> int | None:
    return None if form.get(name) in (None, "") else int(number(name, form[name]))


def number(name: str, value: Any) -> float:
    """A finite number; Refusal for anything else."""
    try:
        read = float(value)
    except (TypeError, ValueError):
        read = math.nan
    if not math.isfinite(read):
        raise Refusal("refused.number", name=name, value=str(value)[:40])
    return read


def _typed(name: str, value: Any, kinds: Mapping[str, Control]) -> Any:
    """A value as its option's type; unknown names are refused by the model itself."""
    kind = kinds[name].kind if name in kinds else "text"
    if kind == "switch":
        return value in (True, "true", "on")
    if kind in ("whole", "number"):
        read = number(name, value)
        if kind == "whole" and read != int(read):
            raise Refusal("refused.whole", name=name, value=value)
        return int(read) if kind == "whole" else read
    return str(value)
