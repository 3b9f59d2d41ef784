"""In short, half a page: what it is, its one trick, what happened when it ran, what is wrong, what to watch out for."""

from collections.abc import Iterator

from bowerbird.reading.exercised import Exercised
from bowerbird.reading.explain.reading import Block
from bowerbird.reading.explain.steps.advice import message, noted, shown
from bowerbird.reading.explain.text import Ref, Text, general, name, quote
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact
from bowerbird.reading.findings import Finding

MOST_NEVER, MOST_LOSSES, MOST_FINDINGS = 8, 3, 5


def write(w: Writer) -> Iterator[Block]:
    family, fact = w.study.family, w.study.facts.first("program.family")
    assert fact is not None
    yield from _what(w, fact)
    if family.trick is not None:
        yield w.paragraph(Text((general(fact, family.trick[w.lang]),)), lead="lead.trick")
    yield from _ran(w)
    yield from _found(w)
    if family.watch:
        yield w.paragraph(w.say("short.watch", kind=_kind(w, fact)), lead="lead.watch")
        yield from w.items(Text((general(fact, words[w.lang]),)) for words in family.watch)


def _kind(w: Writer, family: Fact) -> Ref:
    return Ref(w.study.family.name[w.lang], family.id, "general", family.subject)


def _what(w: Writer, family: Fact) -> Iterator[Block]:
    files = w.study.facts.of("source.file")
    reasons = [name(family, "reasons", i) for i in range(len(family["reasons"]))]
    said = w.say("short.kind", file=name(w.study.titled), kind=_kind(w, family))
    yield w.paragraph(said, w.say("short.reasons", reasons=reasons) if reasons else w.say("net.end"))
    for fact in files[:1]:
        if fact["docstring"]:
            yield w.said("short.says", fact, file=name(fact))


# ---------------------------------------------------------------------------------------------------------- the run


def _ran(w: Writer) -> Iterator[Block]:
    """What of the program ran: a reading describes that, and nothing else."""
    program = w.study.facts.first("run.program")
    if not w.study.run.executed or program is None:
        reason = w.study.add("run.not", "program", {"why": w.study.run.why_not})
        yield w.paragraph(w.say("short.not_run" if w.study.run.why_not else "short.unrun", reason), lead="lead.ran")
        return
    fact = exercised(w, program)
    said = w.say("short.ran", fact, parts=w.say(f"run.{fact['kind']}"))
    yield w.paragraph(said, lead="lead.ran")
    yield from w.items([_moved(w, f) for f in w.study.facts.of("loss.moved") if f["n"] > 1][:MOST_LOSSES])
    raised = w.study.run.exceptions()[:1] if fact["why"] else []
    if raised and raised[0]["phase"] == "program":
        yield w.said("short.stopped", raised[0])
        return
    for key in ("why", "smaller"):
        if fact[key]:
            yield w.said(f"short.{key}", fact)


def _moved(w: Writer, fact: Fact) -> Text:
    known = w.study.facts.first("loss.identified", fact.subject)
    loss = name(known, "expression") if known is not None and known["expression"] else Text()
    through = known is not None and " through " in fact.subject
    return w.say("short.moved", fact, loss=loss, through=w.say("short.through", known) if through else Text())


def exercised(w: Writer, program: Fact) -> Fact:
    """How much of the program ran, as one fact."""
    known = w.study.facts.first("run.exercised")
    if known is not None:
        return known
    found = Exercised(w.study.program, w.study.run)
    covered, of = found.covered
    value = {
        "ran": len(found.parts) - len(found.never), "of": len(found.parts), "kind": found.kind, "lines": covered,
        "all": of, "steps": program["steps"], "never": found.never[:MOST_NEVER], "why": found.not_judged,
        "smaller": ", ".join(found.run.shrunk),
    }  # fmt: skip
    return w.study.add("run.exercised", "program", value)


# ---------------------------------------------------------------------------------------------------- what is wrong


def _found(w: Writer) -> Iterator[Block]:
    grave: dict[str, list[Finding]] = {}
    for finding in shown(w.study):
        if finding.severity != "info":
            grave.setdefault(finding.rule, []).append(finding)
    if grave:
        yield w.paragraph(w.say("short.found"), lead="lead.found")
        yield from w.items(_line(w, *same) for same in list(grave.values())[:MOST_FINDINGS])
    elif w.study.run.executed:
        yield w.paragraph(w.say("short.fine"), lead="lead.found")


def _line(w: Writer, finding: Finding, *others: Finding) -> Text:
    """The findings of one rule: the worst, and the lines of the others."""
    fact = noted(w, finding)
    severity = Ref(w.words(f"severity.{finding.severity}"), fact.id, "quote")
    said = w.say("advice.finding", fact, severity=severity, rule=quote(fact), message=message(w, fact))
    lines = [w.line(noted(w, other)) for other in others[:MOST_NEVER]]
    return said + (w.say("short.also", lines=lines) if lines else Text())
