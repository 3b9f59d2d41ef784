"""Ranges of numbers, stated where a field's type stands: ``lr: Positive``.

``check`` refuses a dataclass whose numbers lie outside.  Infinity and NaN lie outside every range, and an unannotated
number must be finite as well.  Imports no torch.
"""

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any


@dataclass(frozen=True)
class Range:
    """An interval of numbers; ``open_low`` and ``open_high`` leave out its ends."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        if isinstance(value, int) and abs(value) > LARGEST:
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        """What a number must do, after its name and value."""
        if math.isinf(self.high):
            if math.isinf(self.low):
                return "must be a finite number"
            return f"must be {'above' if self.open_low else 'at least'} {self.low:g}"
        return f"must lie in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


LARGEST = 2**63 - 1
"""The largest whole number that fits into a tensor; a larger one lies outside every range."""
FINITE = Range()

Count = Annotated[int, Range(1)]
"""At least one."""
Whole = Annotated[int, Range(0)]
"""At least zero."""
Positive = Annotated[float, Range(0, open_low=True)]
NonNegative = Annotated[float, Range(0)]
Finite = Annotated[float, FINITE]
Share = Annotated[float, Range(0, 1)]
"""A part of a whole, both ends included."""
Decay = Annotated[float, Range(0, 1, open_high=True)]
"""At least 0 and below 1: decay rates, dropout, smoothing."""


def check(config: Any, where: str) -> None:
    """ValueError for the first number of a dataclass that lies outside its range; ``where`` stands before its name."""
    kind: Any = type(config)
    for name, hint in _numbers(kind):
        for key, value, allowed in _values(name.rstrip("_"), hint, getattr(config, name)):
            if value not in allowed:
                raise ValueError(f"{where}{key} = {_refusal(value, allowed)}.")


def _refusal(value: float, allowed: Range) -> str:
    if isinstance(value, int) and abs(value) > LARGEST:
        digits = str(value) if abs(value) < 10**30 else "a number of more than 30 digits"
        return f"{digits} must lie within ±{LARGEST}"
    return f"{value:g} {allowed if math.isfinite(value) else FINITE}"


@cache
def _numbers(cls: Any) -> list[tuple[str, Any]]:
    """The fields that are numbers, or hold some, with their annotations."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = [(field.name, hints[field.name]) for field in dataclasses.fields(cls)]
    return [(name, hint) for name, hint in fields if _holds_numbers(hint)]


def _holds_numbers(hint: Any) -> bool:
    return hint in (int, float) or any(_holds_numbers(part) for part in typing.get_args(hint))


def _values(key: str, hint: Any, value: Any, allowed: Range = FINITE) -> Iterator[tuple[str, float, Range]]:
    """Every number in a field's value, with its name and range."""
    if typing.get_origin(hint) is Annotated:
        hint, *notes = typing.get_args(hint)
        allowed = next((note for note in notes if isinstance(note, Range)), allowed)
    parts = [part for part in typing.get_args(hint) if _holds_numbers(part)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        within = [part for part in parts if typing.get_origin(part) is Annotated]
        if within:  # of an Optional
            yield from _values(key, within[0], value)
        else:
            yield key, (float(value) if hint is float and abs(value) < 10**300 else value), allowed
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _values(f"{key}.{name}", parts[-1], item)
    elif isinstance(value, tuple | list):
        hints = parts if len(parts) == len(value) else parts[:1] * len(value)
        for place, (part, item) in enumerate(zip(hints, value, strict=True)):
            yield from _values(f"{key}[{place}]", part, item)
