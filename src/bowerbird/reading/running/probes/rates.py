"""Probes of learning-rate functions: what they give for the first steps."""

import inspect
import re

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe

_RATE = re.compile(
    r"^(get_)?(lr|learning_rate|rate)(_(lambda|schedule|at|for_step))?$|^(lr|warmup)_\w*(lambda|schedule|fn)$", re.I
)


@probe("rates", cheap=True)
def rates(live: Live) -> None:
    """The rate at step 0, 1 and 50 of functions that say they give one."""
    for name, function in live.functions().items():
        needed = [p for p in inspect.signature(function).parameters.values() if p.default is inspect.Parameter.empty]
        if not _RATE.match(name) or len(needed) != 1:
            continue
        try:
            first, second, later = (float(live.call(function, step)) for step in (0, 1, 50))
        except Exception:  # it takes something else than a step
            continue
        value = {"first": first, "second": second, "later": later, "argument": needed[0].name}
        live.record("probe.rate", name, value, at=function)
