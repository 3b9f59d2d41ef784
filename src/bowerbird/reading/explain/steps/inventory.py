"""What is here, and what was needed to run it: what is looked up, not read."""

from collections.abc import Iterator

from bowerbird.reading.explain.reading import Block
from bowerbird.reading.explain.steps.short import exercised
from bowerbird.reading.explain.text import Piece, Text, joined, name, number, quote
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact

MOST_FILES, MOST_DEFINITIONS, MOST_EXCEPTIONS, MOST_STAND_INS, MOST_LOOPS = 20, 45, 6, 24, 8


def write(w: Writer) -> Iterator[Block]:
    yield from _files(w)
    yield from _definitions(w)
    yield from _ran(w)
    yield from _stand_ins(w)
    cut = [f for f in w.study.facts.of("run.loop") if f["cut"] and f["iterations"]]
    if cut:
        yield w.said("run.cut", loops=joined([_loop(w, fact) for fact in cut[:MOST_LOOPS]], w.lang))


def _files(w: Writer) -> Iterator[Block]:
    study, columns = w.study, ("lines", "classes", "modules", "functions")
    files = study.facts.of("source.file")
    yield from w.table("file", [[name(f), *(number(f, c) for c in columns)] for f in files[:MOST_FILES]])
    for words in study.source.mended:
        yield w.said("here.mended", study.add("source.mended", study.source.path.name, {"what": words}))
    if study.shown and study.source.main != study.file:  # the stand-in program that drives a recipe of ours
        driver = next(f for f in files if f.file == study.source.main)
        yield w.said("here.driver", name=name(driver))
        yield from w.excerpt(driver.file, 1, driver["lines"])


def _definitions(w: Writer) -> Iterator[Block]:
    classes = sorted(w.study.facts.of("define.class"), key=lambda f: (f.file, f.line or 0))[:30]
    functions = [f for f in w.study.facts.of("define.function") if "." not in f.subject]
    rows = [_definition(w, fact) for fact in [*classes, *functions][:MOST_DEFINITIONS]]
    if rows:
        yield w.heading("here.definitions")
        yield from w.table("definition", rows)


def _definition(w: Writer, fact: Fact) -> list[Piece]:
    kind = "network" if fact["module"] else fact.topic.removeprefix("define.")
    lines = w.say("here.range", first=w.line(fact, fact["first"]), last=w.line(fact, fact["last"]))
    own = Text((quote(fact, "docstring", most=140),)) if fact["docstring"] else Text()
    return [name(fact), w.say(f"here.{kind}"), lines, own]


def _ran(w: Writer) -> Iterator[Block]:
    program = w.study.facts.first("run.program")
    if not w.study.run.executed or program is None:
        return
    yield w.heading("run.title")
    yield w.said("run.exercised", program)
    fact = exercised(w, program)
    if fact["never"]:
        yield w.said("run.never", fact)
    if not program["finished"]:
        yield w.said("run.unfinished")
    for raised in w.study.run.exceptions()[:MOST_EXCEPTIONS]:
        yield w.said("run.raised" if raised["phase"] == "program" else "run.tried", raised)


def _stand_ins(w: Writer) -> Iterator[Block]:
    """What took the place of what was missing, each named once."""
    found = {f.subject: f for f in reversed(w.study.facts.of("run.stand_in")) if f["reason"]}
    if found:
        yield w.said("run.replaced")
        yield from w.items(_stand_in(w, fact) for fact in list(found.values())[: -MOST_STAND_INS - 1 : -1])
    elif w.study.run.executed:
        yield w.said("run.whole")


def _stand_in(w: Writer, fact: Fact) -> Text:
    at = w.say("run.at", fact) if fact.line else Text()
    return w.say("run.stand_in", fact) + at


def _loop(w: Writer, fact: Fact) -> Text:
    return w.say("run.loop", fact) + (w.say("run.of", fact) if fact["of"] else Text())
