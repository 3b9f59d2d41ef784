"""A check: what is observed when the answer to an exercise runs, with the numbers that show it.

Checks run in the child process only (they load torch).  Each is a generator of observations; all of them must hold for
an exercise to be passed.  An observation says what was seen and what should have been seen, never how to mend it.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bowerbird.reading.learn.exercise import FOLDER
from bowerbird.reading.wording import table


@dataclass(frozen=True)
class Observation:
    """One thing that was observed; ``key`` is that of its sentence in the exercise's file, ``values`` fill it."""

    ok: bool
    key: str
    values: dict[str, Any]


def seen(ok: bool, key: str, **values: Any) -> Observation:
    return Observation(ok, key, values)


Check = Callable[[Any], Iterator[Observation]]
"""answer (the learner's module) → observations."""

CHECKS: dict[str, Check] = {}


def checks(exercise: str) -> Callable[[Check], Check]:
    """Registers the check of an exercise."""

    def register(function: Check) -> Check:
        CHECKS[exercise] = function
        return function

    return register


def check_of(exercise: str) -> Check:
    """The check of an exercise, from the module that its file names."""
    importlib.import_module(f"{__name__}.{table(FOLDER / f'{exercise}.toml')['checked_by']}")
    return CHECKS[exercise]
