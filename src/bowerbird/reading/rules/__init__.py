"""The rules: each a small function that reads the program and the facts and yields findings.

    @rule("L01", "Gradients are never cleared", family="loop")
    def zero_grad_missing(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]: ...

Rules run in the parent: what needs live tensors is a probe, which writes facts.  Every module of this package is loaded
when the registry is first asked for; a rule that fails is reported and stops no other.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program
from bowerbird.reading.running.run import Run

Judge = Callable[[Program, FactStore, Run], Iterator[Finding]]


@dataclass(frozen=True)
class Rule:
    """An id of the catalogue, what it looks for, the family it belongs to, and the function that judges.

    An ``exact`` rule observes an identity that holds or not (which objects an optimiser has, what was raised), so that
    its errors need no experiment.
    """

    id: str
    title: str
    family: str
    judge: Judge
    exact: bool = False


_RULES: dict[str, Rule] = {}


def rule(identity: str, title: str, *, family: str, exact: bool = False) -> Callable[[Judge], Judge]:
    """Registers a rule under its id in the catalogue of defects."""

    def register(judge: Judge) -> Judge:
        if identity in _RULES and _RULES[identity].title != title:
            raise ValueError(f"two rules are called {identity}")
        _RULES[identity] = Rule(identity, title, family, judge, exact)
        return judge

    return register


def all_rules() -> dict[str, Rule]:
    """Every rule by id, in the order of the catalogue."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_RULES.items()))
