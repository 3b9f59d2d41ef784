"""How it learns: what flows where, one round of training in order, each loss as an equation beside its lines."""

from collections.abc import Iterator
from typing import Any

from bowerbird.reading.explain.drawing import draw
from bowerbird.reading.explain.reading import Block, Figure, Spark
from bowerbird.reading.explain.text import Piece, Ref, Text, joined, name, number, told
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact

_SAID = ("last", "divided", "sum", "mean", "rest", "weighted", "confirmed")
"""How an equation is known, each with a sentence on the calls that were observed."""
LONGEST_LOSS, NEAR, LONGEST_FUNCTION, MOST_FUNCTIONS, MOST_BACKWARDS = 30, 8, 26, 2, 4


def write(w: Writer) -> Iterator[Block]:
    diagram, round_ = draw(w), w.study.facts.first("training.round")
    if diagram.nodes:
        yield Figure(diagram, w.say("flow.caption"))
    if round_ is None:
        yield from _untrained(w)
        return
    yield w.heading("round.title")
    yield from w.items([_event(w, round_, i, row) for i, row in enumerate(round_["events"])], ordered=True)
    yield from _counts(w, round_)
    for fact in w.study.facts.of("loss.identified"):
        yield from _loss(w, fact)
    yield from w.items([w.say("round.event", f, said=told(f, w.lang)) for f in w.study.facts.of("probe.equivalent")])
    yield from _optimizers(w)
    yield from w.questions([*w.study.family.training, "zero-grad"], round_)


def _untrained(w: Writer) -> Iterator[Block]:
    """What the text says of training that did not happen."""
    yield w.said("round.none")
    for fact in w.study.facts.of("loss.identified"):
        if fact["functions"]:
            yield from _loss(w, fact)
    unit = w.study.program.main
    for call in list(unit.calls("*.backward"))[:MOST_BACKWARDS]:
        yield from w.excerpt(unit.file, max(1, call.lineno - 4), call.lineno + 2)


# ------------------------------------------------------------------------------------------------------- the events


def _event(w: Writer, round_: Fact, place: int, row: dict[str, Any]) -> Text:
    fact = w.study.facts.get(row["fact"])
    assert fact is not None
    more = {"event.forward": _forward, "event.backward": _backward, "event.step": _step}.get(fact.topic)
    said = w.say("round.event", fact, said=told(fact, w.lang)) + (more(w, fact) if more is not None else Text())
    repeated = row["times"] > 1
    return said + (w.say("round.times", times=number(round_, "events", place, "times")) if repeated else Text())


def _step(w: Writer, fact: Fact) -> Text:
    optimizer = next((o for o in w.study.optimizers if o.subject == fact.subject), fact)
    owners = [Ref(o, optimizer.id, "name", o) for o in optimizer["moves"] or fact["owners"] or {} if o]
    return w.say("round.moves", owners=owners) if owners else Text()


def _forward(w: Writer, fact: Fact) -> Text:
    calls = {f["call"]: f for f in w.study.facts.of("event.forward")}
    before = {calls[c].subject: calls[c].id for c in reversed(fact["from"] or []) if c in calls}
    if not before:
        return Text()
    names: list[Piece] = [Ref(b, identity, "name", b) for b, identity in reversed(before.items())]
    return w.say("round.with", before=names) + (w.say("round.detached") if fact["detached"] else Text())


def _backward(w: Writer, fact: Fact) -> Text:
    networks = {f.subject for f in w.study.networks}
    reached = [k for k in fact["grads"] or {} if k]
    if not set(reached) <= networks:
        reached = list(dict.fromkeys(r["module"] for r in fact["through"] or []))
    return w.say("round.reached", reached=[Ref(k, fact.id, "name", k) for k in reached]) if reached else Text()


def _counts(w: Writer, round_: Fact) -> Iterator[Block]:
    steps = round_["steps"] or {}
    if len(steps) > 1:
        counts = [
            w.say("round.count", name=Ref(k, round_.id, "name", k), times=number(round_, "steps", k)) for k in steps
        ]
        yield w.said("round.steps", counts=joined(counts, w.lang))


# ------------------------------------------------------------------------------------------------------- the losses


def _loss(w: Writer, fact: Fact) -> Iterator[Block]:
    """A loss: its lines, its equation beside them, how it is known, how it moved."""
    title = name(fact, "expression") if fact["expression"] else name(fact)
    yield w.heading("loss.title" if fact.line else "loss.returned", fact, loss=title)
    lines = fact["lines"] or []
    if lines and max(lines) - min(lines) < LONGEST_LOSS:
        near = (fact.line or 0) - max(lines) < NEAR
        yield from w.excerpt(fact.file, min(lines), max(*lines, fact.line or 0) if near else max(lines))
    yield from _written_in(w, fact)
    equations = dict.fromkeys(e for e in (fact["equation"], *(fact["formulas"] or [])) if e)
    yield from (w.formula(fact, equation) for equation in equations)
    yield from _evidence(w, fact)
    moved = w.study.facts.first("loss.moved", fact.subject)
    if moved is not None:
        yield Spark(w.say("loss.moved", moved), tuple(float(v) for v in moved["values"]), moved.id)


def _written_in(w: Writer, fact: Fact) -> Iterator[Block]:
    """The functions of the program in which the terms of a loss are computed."""
    places = sorted({(file, line) for file, line in [*(fact["at"] or []), *(fact["pattern_lines"] or [])]})
    spans: dict[tuple[str, int, int], None] = {}
    for file, line in places:
        for function in w.study.facts.of("define.function"):
            first, last = function["first"], function["last"]
            elsewhere = not first <= (fact.line or 0) <= last and last - first < LONGEST_FUNCTION
            if function.file == file and first <= line <= last and elsewhere:
                spans[file, first, last] = None
    for span in list(spans)[:MOST_FUNCTIONS]:
        yield from w.excerpt(*span)


def _evidence(w: Writer, fact: Fact) -> Iterator[Block]:
    """How it is known that it is this loss."""
    calls = [_call(w, fact, i) for i in range(len(fact["functions"] or [])) if fact["values"][i] is not None]
    rule = fact["rule"] if fact["rule"] == "derived" or (calls and fact["rule"] in _SAID) else "other"
    total = number(fact, "value", form="exact")
    rest = number(fact, "parts", -1, form="exact" if rule in ("rest", "weighted") else "")
    yield w.said(f"loss.{rule}", calls=calls[-1:] if rule in ("last", "divided") else calls, total=total, share=rest,
                 rest=rest)  # fmt: skip
    if fact["patterns"]:
        yield w.said("loss.written", lines=[w.line(fact, line, file) for file, line in fact["pattern_lines"]])
    if fact["through"]:
        yield w.said("loss.through", fact)


def _call(w: Writer, fact: Fact, i: int) -> Text:
    file, line = fact["at"][i]
    return w.say(
        "loss.call", function=name(fact, "functions", i), reduction=name(fact, "reductions", i),
        line=w.line(fact, line, file), value=number(fact, "values", i, form="exact"),
    )  # fmt: skip


def _optimizers(w: Writer) -> Iterator[Block]:
    rows = [_optimizer(w, fact) for fact in w.study.optimizers]
    if rows:
        yield w.heading("optimizer.title")
        yield from w.table("optimizer", rows)


def _optimizer(w: Writer, fact: Fact) -> list[Piece]:
    moved = w.study.facts.first("optimizer.moved", fact.subject)
    seen = moved is not None and moved["ratio"] is not None
    owners = joined([Ref(o, fact.id, "name", o) for o in fact["moves"] or []], w.lang)
    norm, ratio = (w.say("optimizer.norm", moved), number(moved, "ratio")) if moved and seen else (Text(), Text())
    return [name(fact), name(fact, "class"), number(fact, "lr"), owners, number(fact, "steps"), norm, ratio]
