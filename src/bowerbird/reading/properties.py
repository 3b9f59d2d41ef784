"""Properties that hold of any program that is right, each found by an experiment that knows no pattern of the text.

    a parameter's gradient at a step = what was accumulated since the optimiser's last step
    example i of a batch does not depend on example j
    attention weights sum to one over what they weigh
    padding does not change an answer; an inverse undoes what it inverts
    the state that a module was trained to is in its state_dict
    what is computed is used
    a network is trained on a path from data to noise, and asked for what belongs to it
    what is given is heeded, and gradients reach what an answer depends on
    a log-determinant is that of the Jacobian

A property of one subject either holds, fails, or was not examined; so two versions of a program can be compared.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.phases import contributions, did_nothing, owners_of, steps_of


@dataclass(frozen=True)
class Property:
    """``said`` tells what was seen, with its numbers; ``facts`` are the ids that it rests on."""

    name: str
    subject: str
    holds: bool
    said: str
    line: int | None = None
    file: str = ""
    facts: tuple[str, ...] = ()


PROBES = (
    "attention", "batch_size", "dataflow", "diffusion_forward", "heeded", "independence", "inverses", "jacobian",
    "learning", "modes", "padding", "path", "state",
)  # fmt: skip
"""The experiments on live objects that these properties read."""
Examined = dict[tuple[str, str], Property]


def properties(facts: FactStore) -> Examined:
    """Every property that was examined, by name and subject; one that failed anywhere fails."""
    found: Examined = {}
    for read in (_recorded, _ledger, _attention, _padding, _inverses):
        for prop in read(facts):
            known = found.setdefault((prop.name, prop.subject), prop)
            if known.holds and not prop.holds:
                found[prop.name, prop.subject] = prop
    return found


def _recorded(facts: FactStore) -> Iterator[Property]:
    """Those that an experiment states itself."""
    for fact in facts.of("property.*"):
        yield _of(fact, fact.topic.partition(".")[2], bool(fact["holds"]), str(fact["said"]))


def _ledger(facts: FactStore) -> Iterator[Property]:
    """What a step uses was accumulated since the step before, and what was accumulated is used."""
    for identity, owners in owners_of(facts).items():
        steps = steps_of(facts, identity)
        for owner in owners if len(steps) > 1 else ():
            used = [contributions(facts, step, owner) for step in steps[1:]]
            older = [u for u, before in zip(used, steps, strict=False) if u and u[0].position < before.position]
            lost = [step for step in steps if did_nothing(step)]
            said = "every step uses what was accumulated since the one before"
            if older:
                said = f"{len(older)} of {len(used)} steps use gradients from before the step before them"
            elif lost:
                said = f"{len(lost)} of {len(steps)} steps have no gradient to use"
            cited = (steps[0].id, steps[1].id)
            yield Property("ledger", owner, not older and not lost, said, steps[0].line, steps[0].file, cited)


def _attention(facts: FactStore) -> Iterator[Property]:
    for fact in facts.of("probe.attention"):
        said = f"the weights sum to {fact['least']:.4g} … {fact['most']:.4g} over the {fact['keys']} keys"
        yield _of(fact, "attention sums to one", fact["sums_to_one"] is not False, said)


def _padding(facts: FactStore) -> Iterator[Property]:
    for fact in facts.of("probe.padding"):
        said = f"an example alone and in its padded batch has answers that differ by {float(fact['change']):.2g}"
        yield _of(fact, "padding", float(fact["change"]) < 1e-3, said)


def _inverses(facts: FactStore) -> Iterator[Property]:
    for fact in facts.of("probe.inverse"):
        yield _of(fact, "inverse", float(fact["error"]) < 1e-3, f"it misses what it inverts by {fact['error']:.3g}")


def _of(fact: Fact, name: str, holds: bool, said: str) -> Property:
    return Property(name, fact.subject, holds, said, fact.line, fact.file, (fact.id,))


@dataclass(frozen=True)
class Turned:
    """A property that fails in one version and holds in the other."""

    before: Property
    after: Property


def mended(before: Examined, after: Examined) -> list[Turned]:
    """The properties that fail before and hold after."""
    return _turned(before, after, lambda one, other: not one.holds and other.holds)


def broken(before: Examined, after: Examined) -> list[Turned]:
    """The properties that hold before and fail after."""
    return _turned(before, after, lambda one, other: one.holds and not other.holds)


def _turned(before: Examined, after: Examined, which: Callable[[Property, Property], bool]) -> list[Turned]:
    return [Turned(one, after[key]) for key, one in before.items() if key in after and which(one, after[key])]
