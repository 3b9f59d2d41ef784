"""Probes: experiments on the live objects of a program after it has run.

    @probe("attention")
    def attention_sums_to_one(live: Live) -> None:
        for module in live.instances("MultiHeadAttention"): ...
            live.record("probe.attention", name, {...}, at=module)

Each probe has its own share of time; what it raises becomes a fact ``probe.failed`` and stops no other probe.
This package is imported in the child alone (it may import torch); every module in it is loaded before the probes run.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bowerbird.reading.running.live import Live

Experiment = Callable[["Live"], None]
_PROBES: dict[str, Experiment] = {}
_CHEAP: set[str] = set()
_LATE: set[str] = set()


def probe(name: str, *, cheap: bool = False, late: bool = False) -> Callable[[Experiment], Experiment]:
    """Registers an experiment under a name that its facts carry; cheap ones run no network and come first, late ones
    take the time that the others leave."""

    def register(experiment: Experiment) -> Experiment:
        _PROBES[name] = experiment
        if cheap:
            _CHEAP.add(name)
        if late:
            _LATE.add(name)
        return experiment

    return register


def all_probes() -> dict[str, Experiment]:
    """Every probe by name, in the order in which they run."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_PROBES.items(), key=lambda entry: (entry[0] in _LATE, entry[0] not in _CHEAP, entry[0])))
