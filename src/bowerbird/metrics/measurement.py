"""A number together with how it was obtained, and the refusal to compare numbers that were obtained differently.

A ``Measurement`` is a value, its unit, its standard error where one is known, and its ``Protocol``.  Two measurements
can be compared (<, >, -) when they have the same name and equal protocols; otherwise the comparison raises an error
that names the fields that differ.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bowerbird.errors import BowerbirdError, unknown

Settings = tuple[tuple[str, int | float | str], ...]
"""Names and values, sorted by name."""

CODE_VERSION = 2
"""Raised whenever a change of code changes the value of any metric."""


@dataclass(frozen=True)
class Protocol:
    """How a number was obtained.  Fields that do not bear on a metric keep their default."""

    n_generated: int = 0
    """Samples that entered."""
    n_reference: int = 0
    """Reference examples that entered."""
    reference: str = ""
    """Name of the reference data."""
    split: str = ""
    """Which of its splits."""
    fingerprint: str = ""
    """Content hash of the reference data."""
    preprocessing: Settings = ()
    """What was done to the reference data before they were measured."""
    extractor: str = ""
    extractor_sha256: str = ""
    """Hash of the extractor's weights."""
    resizer: str = ""
    """How the extractor brings images to its size."""
    dtype: str = ""
    """Precision of the extractor's arithmetic."""
    parameters: Settings = ()
    """The metric's own settings, such as its number of neighbours."""
    machine: str = ""
    """Where, for metrics of time."""
    code_version: int = CODE_VERSION

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that are equal exactly for equal protocols."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        tables = {"preprocessing": dict(self.preprocessing), "parameters": dict(self.parameters)}
        return {**dataclasses.asdict(self), **tables}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Protocol":
        for key in table:
            if key not in cls.__dataclass_fields__:
                raise unknown("protocol field", key, cls.__dataclass_fields__)
        tables = {key: settings(table.get(key, {})) for key in ("preprocessing", "parameters")}
        return cls(**{**table, **tables})

    def differences(self, other: "Protocol") -> list[str]:
        """One phrase for each field that differs, and for each setting."""
        mine, theirs = _flat(self.to_json()), _flat(other.to_json())
        told = ((key, mine.get(key, "none"), theirs.get(key, "none")) for key in mine | theirs)
        return [f"{key} ({one!r} and {another!r})" for key, one, another in told if one != another]


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """With the settings beside the other fields, under names of their own."""
    nested = {f"{key}.{name}": x for key, part in table.items() if isinstance(part, dict) for name, x in part.items()}
    return {key: value for key, value in table.items() if not isinstance(value, dict)} | nested


def settings(table: Mapping[str, int | float | str]) -> Settings:
    """A table in the form that a ``Protocol`` holds."""
    return tuple(sorted(table.items()))


def with_data(protocol: Protocol, data: float, **parameters: int | float | str) -> Protocol:
    """The protocol with a metric's own settings and, as 'data', its value for real data (none if not a number)."""
    known = {"data": round(data, 6)} if math.isfinite(data) else {}
    return dataclasses.replace(protocol, parameters=settings({**dict(protocol.parameters), **known, **parameters}))


@dataclass(frozen=True)
class Measurement:
    """A named value with its unit, standard error and protocol."""

    name: str
    value: float
    unit: str
    stderr: float | None
    protocol: Protocol
    interval: tuple[float, float] | None = None
    """A 95 % confidence interval, where it is not simply two standard errors to either side."""

    def to_json(self) -> dict[str, Any]:
        """Plain data; a value that is not finite becomes null, which JSON can write."""
        finite = {"value": self.value, "stderr": self.stderr}
        numbers = {key: x if x is not None and math.isfinite(x) else None for key, x in finite.items()}
        interval = {} if self.interval is None else {"interval": list(self.interval)}
        return {"name": self.name, "unit": self.unit, **numbers, **interval, "protocol": self.protocol.to_json()}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Measurement":
        value = math.nan if table["value"] is None else float(table["value"])
        low_high = tuple(table["interval"]) if "interval" in table else None
        return cls(
            table["name"], value, table["unit"], table["stderr"], Protocol.from_json(table["protocol"]), low_high
        )  # fmt: skip

    def __lt__(self, other: "Measurement") -> bool:
        require_comparable(self, other)
        return self.value < other.value

    def __gt__(self, other: "Measurement") -> bool:
        require_comparable(self, other)
        return self.value > other.value

    def __sub__(self, other: "Measurement") -> "Measurement":
        """The difference, with the standard error of independent measurements: sqrt(stderr² + other.stderr²)."""
        require_comparable(self, other)
        known = self.stderr is not None and other.stderr is not None
        stderr = math.hypot(self.stderr or 0.0, other.stderr or 0.0) if known else None
        return dataclasses.replace(
            self, name=f"{self.name}_difference", value=self.value - other.value, stderr=stderr, interval=None
        )  # fmt: skip


def require_comparable(a: Measurement, b: Measurement) -> None:
    """Raises BowerbirdError, naming what differs, unless both measure the same thing under one protocol."""
    if (a.name, a.unit) != (b.name, b.unit):
        raise BowerbirdError(f"{a.name} in {a.unit} and {b.name} in {b.unit} are different quantities.")
    if differing := a.protocol.differences(b.protocol):
        raise BowerbirdError(
            f"These two values of {a.name} were measured differently and cannot be compared: "
            f"{', '.join(differing)} differ; measure both again under one protocol."
        )
