"""A budget: how much one training run may cost, written as a number and a unit such as ``60s`` or ``500steps``.

Imports no torch, so that the command line can check one before anything is loaded.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from bowerbird.errors import BowerbirdError

_UNITS: dict[str, tuple[str, float]] = {
    unit: (field, factor)
    for field, factor, units in (
        ("seconds", 1, "s sec second seconds"),
        ("seconds", 60, "m min minute minutes"),
        ("seconds", 3600, "h hour hours"),
        ("steps", 1, "step steps"),
        ("examples", 1, "example examples"),
        ("flops", 1, "flop flops"),
    )
    for unit in units.split()
}
_BUDGET = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)\s*([a-z]+)", re.IGNORECASE)
_WHOLE = ("steps", "examples")


def parse_budget(text: str) -> dict[str, float | int]:
    """The field of ``config.Train`` that ``text`` sets and its value: ``10m`` is ``{"seconds": 600.0}``.

    Units: s, m, h, steps, examples, flops.  Raises ``BowerbirdError`` for anything else, and for a budget of nothing.
    """
    match = _BUDGET.fullmatch(str(text).strip())
    if match is None or (unit := match[2].lower()) not in _UNITS:
        raise BowerbirdError(
            f"The budget '{text}' is not a number with a known unit; write for example 60s, 10m, 2h, "
            "500steps, 20000examples (an epoch is every training example once) or 1e15flops."
        )
    field, factor = _UNITS[unit]
    value = float(match[1]) * factor
    if not 0 < value < math.inf:
        raise BowerbirdError(f"The budget '{text}' must be more than zero and finite.")
    if field not in _WHOLE:
        return {field: value}
    if value != int(value):
        raise BowerbirdError(f"The budget '{text}' must be a whole number of {field}.")
    return {field: int(value)}


def compute_budget(text: str) -> dict[str, float | int]:
    """As ``parse_budget``, for a comparison: time is counted in seconds of compute time.

    The wall clock would give a run less to compute whenever something else keeps the machine busy.
    """
    return {"compute_seconds" if field == "seconds" else field: value for field, value in parse_budget(text).items()}


LIMITS = ("steps", "examples", "seconds", "compute_seconds", "flops")
"""The fields of ``config.Train`` that are budgets."""


def only(budget: dict[str, float | int]) -> dict[str, Any]:
    """This budget and no other, as fields of ``config.Train``."""
    return dict.fromkeys(LIMITS) | budget


def continued_budget(text: str, used: Mapping[str, Any]) -> dict[str, float | int]:
    """The budget with which a run that has used so much goes on: ``+500steps`` adds, ``500steps`` is the new whole.

    ``used`` are a checkpoint's counters, empty before the first.  BowerbirdError for a whole that is used up already.
    """
    adds = text.strip().startswith("+")
    ((field, value),) = parse_budget(text.strip().removeprefix("+")).items()
    before = used.get("step" if field == "steps" else field, 0)
    if not adds and value <= before:
        raise BowerbirdError(
            f"The run has already used {describe_budget({field: before})}, which is no less than {text}; add to it "
            f"with --budget +{text.strip()}."
        )
    return {field: before + value if adds else value}


def describe_budget(budget: dict[str, float | int]) -> str:
    """A budget in words: ``10 minutes``, ``10 minutes of compute time``, ``500 steps``."""
    ((field, value),) = budget.items()
    if field == "compute_seconds":
        return describe_budget({"seconds": value}) + " of compute time"
    if field == "seconds":
        for name, seconds in (("hour", 3600), ("minute", 60)):
            if value >= seconds and value % seconds == 0:
                return _counted(value / seconds, name)
        return _counted(value, "second")
    if field == "flops":
        return f"{value:.3g} FLOPs"
    return _counted(value, field.removesuffix("s"))


def _counted(value: float, name: str) -> str:
    return f"{value:,.6g} {name}" + ("" if value == 1 else "s") if value < 1e6 else f"{value:,.0f} {name}s"
