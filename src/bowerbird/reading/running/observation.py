"""Observes a program: executes it as often as needed, each time with other stand-ins, and keeps the best execution."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from bowerbird.reading import defaults, drivers
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.patching import Patch
from bowerbird.reading.running.launch import Child, warm
from bowerbird.reading.running.request import Driver, Request
from bowerbird.reading.running.run import Run, StandIn
from bowerbird.reading.source import Source

SEQUENCE = (32,)
"""So many tokens in place of a picture."""
SHAPES = ((1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 32, 32))
MOST_ATTEMPTS = 4
MOST_RERUNS = 12
LARGEST_PROBED = 30_000_000


@contextlib.contextmanager
def observe(
    source: Source, *, steps: int = 6, seconds: float = 12.0, seed: int = 0, child: Child | None = None,
    given: tuple[Driver, ...] | None = None, defining: bool = False, like: Run | None = None,
) -> Iterator[Run]:  # fmt: skip
    """The run of a program; while the context is open, ``run.patched(patch)`` can execute changed versions of it.

    A ``child`` that is given serves several programs, so that torch is loaded once for all.  What the program does not
    call by itself is called by the drivers that are ``given``; without any, by those that its project offers.  A run
    ``like`` another one takes its sizes and shapes, and is one execution.
    """
    with warm(child) as child:
        child.start()
        request = Request(
            source.main, dict(source.texts), str(source.root), "", "", steps=steps, seconds=seconds, seed=seed,
            defining=defining, wanted=source.wanted, project=str(source.project), settings=defaults.found(source),
            drivers=tuple(drivers.likely(source)) if given is None else given,
        )  # fmt: skip
        if like is None:
            facts, used, why = attempts(child, request)
        else:
            used = as_in(request, like.facts)
            facts, why = execute(child, used)
        if not used.drivers and _guessed(facts):
            used = replace(used, drivers=tuple(drivers.found(source)))
            facts, why = execute(child, used) if used.drivers else (facts, why)
        if used.shrink:
            facts = _at_true_size(facts, execute(child, replace(request, count=True, probes=False))[0])
        run = Run(_ran(facts), facts, _stand_ins(facts), why, drivers=used.drivers, defining=defining)
        reruns = 0

        def rerun(patch: Patch) -> FactStore | None:
            nonlocal reruns
            reruns += 1
            if reruns > MOST_RERUNS:
                return None
            changed = replace(used, texts=patch.apply(used.texts), run=f"patched:{patch.label}")
            return execute(child, changed)[0]

        run.rerun = rerun
        yield run


def as_in(request: Request, facts: FactStore) -> Request:
    """A request with the sizes and shapes of the execution that gave these facts."""
    program = facts.first("run.program")
    if program is None:
        return request
    shape = program["image_shape"]
    return replace(request, shrink=bool(program["shrink"]), image_shape=tuple(shape) if shape else None)


def _guessed(facts: FactStore) -> bool:
    """Whether arguments had to be made up for something that the program defines."""
    program = facts.first("run.program")
    return program is not None and bool(program["guessed"])


def execute(child: Child, request: Request) -> tuple[FactStore, str]:
    scratch = child.scratch()
    complete = replace(request, scratch=str(scratch), results=str(scratch.with_suffix(".facts")))
    return child.execute(complete, wall_s=3 * request.cpu_s + 5)


def attempts(child: Child, request: Request) -> tuple[FactStore, Request, str]:
    """Executes until training was seen: other shapes where a stand-in did not fit, smaller sizes where time ran out."""
    best: tuple[tuple[int, int], FactStore, Request, str] | None = None
    waiting = [request]
    for _ in range(MOST_ATTEMPTS):
        if not waiting:
            break
        current = waiting.pop(0)
        facts, why = execute(child, current)
        merit = _merit(facts), _lines(facts)
        if best is None or merit > best[0]:
            best = (merit, facts, current, why)
        if merit[0] >= 100:
            break
        waiting = waiting or _others(facts, why, current)
    assert best is not None
    return best[1], best[2], best[3]


def _at_true_size(facts: FactStore, counted: FactStore) -> FactStore:
    """The facts of a program that was made smaller, with the parameters that its networks have in truth.

    Networks that could not be counted say ``made_smaller``.
    """
    sizes = {(f.topic, f.subject): f.value for f in counted if f.topic in ("module.tree", "module.parameters")}
    true = counted.of("module.tree")

    def sized(fact: Fact) -> Fact:
        value = sizes.get((fact.topic, fact.subject))
        if fact.topic == "module.tree" and (value is None or value["class"] != fact["class"]):
            alone = [t for t in true if t["class"] == fact["class"]]
            value = alone[0].value if len(alone) == 1 else {**fact.value, "made_smaller": True}
        return fact if value is None else replace(fact, value=value)

    return FactStore(map(sized, facts))


def _others(facts: FactStore, why: str, request: Request) -> list[Request]:
    program = facts.first("run.program")
    slow = why or _too_large(facts) or facts.first("run.cut") or (program and program["cpu_s"] > 0.7 * request.seconds)
    if slow and not request.shrink:
        return [replace(request, shrink=True)]
    failed = facts.of("run.exception")
    guessed = any("stand-in images" in str(fact["reason"]) for fact in facts.of("run.stand_in"))
    if failed and guessed and request.image_shape is None:
        texts = any("Embedding(" in text for text in request.texts.values())  # then texts are likely, and tried first
        return [replace(request, image_shape=shape) for shape in ((SEQUENCE, *SHAPES) if texts else SHAPES)]
    return []


def _merit(facts: FactStore) -> int:
    """How much of a program was seen: 100 when it trained as far as it was asked to without running out of time."""
    steps = len(facts.of("event.step"))
    failures = len(facts.of("run.exception"))
    program = facts.first("run.program")
    forwards = len(facts.of("event.forward"))
    if program is None:
        return min(steps, 5) + min(forwards, 5)
    if facts.first("run.cut") is None and not failures:
        return 95 if _too_large(facts) else 100
    trained = 40 if steps >= 2 else 20 * steps
    return trained + min(forwards, 10) + max(0, 10 - 2 * failures) + (10 if program["finished"] else 0)


def _lines(facts: FactStore) -> int:
    """How many lines ran by themselves."""
    return sum(len(fact.value) for fact in facts.of("run.reached", "program"))


def _too_large(facts: FactStore) -> bool:
    """Whether a module is too large for probes to call it again and again."""
    return any(int(tree["parameters"]) > LARGEST_PROBED for tree in facts.of("module.tree"))


def _ran(facts: FactStore) -> bool:
    program = facts.first("run.program")
    if program is not None:
        return bool(program["ran"])
    return bool(facts.of("event.*"))


def _stand_ins(facts: FactStore) -> tuple[StandIn, ...]:
    return tuple(StandIn(fact.subject, str(fact["reason"])) for fact in facts.of("run.stand_in"))
