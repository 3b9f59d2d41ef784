"""The phases of training as they were observed: which backward passes led to which steps.

A phase is a run of optimiser steps with the backward passes since the steps before.  In an alternating game one phase
belongs to the discriminator, the next to the generator.
"""

from dataclasses import dataclass

from bowerbird.reading.facts import Fact, FactStore


@dataclass(frozen=True)
class Phase:
    """``owners`` are the root modules whose parameters the steps hold."""

    backwards: tuple[Fact, ...]
    steps: tuple[Fact, ...]
    owners: frozenset[str]


def phases(facts: FactStore) -> list[Phase]:
    """The phases in order; steps that were not recorded in full take no part."""
    found: list[Phase] = []
    backwards: list[Fact] = []
    steps: list[Fact] = []

    def close() -> None:
        nonlocal backwards, steps
        if steps:
            owners = frozenset(name for step in steps for name in step["owners"] or {})
            found.append(Phase(tuple(backwards), tuple(steps), owners))
            backwards, steps = [], []

    for fact in sorted((*facts.of("event.backward"), *facts.of("event.step")), key=lambda f: f.position):
        if fact.topic == "event.step":
            steps.append(fact)
        else:
            close()
            backwards.append(fact)
    close()
    return found


def owners_of(facts: FactStore) -> dict[int, set[str]]:
    """The root modules whose parameters each optimiser holds completely, by the optimiser's number."""
    return {
        fact["identity"]: {name for name, part in (fact["owners"] or {}).items() if part["tensors"] == part["of"]}
        for fact in facts.of("optimizer.created")
    }


def steps_of(facts: FactStore, identity: int) -> list[Fact]:
    """The steps of one optimiser that were recorded in full."""
    return [s for s in facts.of("event.step") if s["identity"] == identity and s["owners"] is not None]


def contributions(facts: FactStore, step: Fact, owner: str) -> list[Fact]:
    """The backward passes whose gradients a step of ``owner`` used, in order: all since these were last cleared."""
    cleared = max(
        (
            f.position
            for f in facts.of("event.zero_grad")
            if f.position < step.position and owner in (f["owners"] or ())
        ),
        default=0,
    )
    found: list[Fact] = []
    for backward in reversed(facts.of("event.backward")):
        if backward.position > step.position:
            continue
        if backward.position < cleared:
            break
        reached = (backward["grads"] or {}).get(owner)
        if reached is None:
            if backward["grads"] is None:
                break
            continue
        found.append(backward)
        if reached["norm_before"] == 0:
            break
    return found[::-1]


def did_nothing(step: Fact) -> bool:
    """Whether a step had no gradient at all to use."""
    return step["zero"] is not None and step["none"] + step["zero"] >= step["tensors"]


def forwards(facts: FactStore) -> dict[int, Fact]:
    """The calls of root modules by number."""
    return {fact["call"]: fact for fact in facts.of("event.forward")}
