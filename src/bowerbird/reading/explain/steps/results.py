"""How to read what the program produces, with its own output."""

from collections.abc import Iterator

from bowerbird.reading.explain.reading import Block, Output, Picture
from bowerbird.reading.explain.text import Piece, Ref, Text, name
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact

MOST_PICTURES, MOST_OUTPUT_LINES, MOST_ROWS, MOST_FILES = 4, 24, 24, 8


def write(w: Writer) -> Iterator[Block]:
    output = w.study.facts.first("run.output")
    words = str(output["text"]).strip("\n") if output is not None else ""
    if output is not None and words:
        yield w.said("output.printed")
        yield Output("\n".join(line[:160] for line in _halves(words.splitlines())), output.id)
        rows = list(_printed(w, words))
        yield from [w.said("output.numbers")] if rows else []
        yield from w.table("printed", rows[:MOST_ROWS])
    else:
        yield w.said("output.nothing")
    files = {f.subject: f for f in w.study.facts.of("run.file")}
    for picture in w.study.pictures[:MOST_PICTURES]:
        if fact := files.get(picture.name):
            yield Picture(picture.data, picture.mime, picture.name, w.say("output.picture", fact), fact.id)
    yield from w.items(_ranges(w))
    yield from w.items(w.say("output.file", fact) for fact in list(files.values())[:MOST_FILES])
    yield from w.questions(w.study.family.output, w.study.facts.first("program.family"))


def _halves(lines: list[str]) -> list[str]:
    half = MOST_OUTPUT_LINES // 2
    return lines if len(lines) <= MOST_OUTPUT_LINES else [*lines[:half], "⋮", *lines[-half:]]


def _printed(w: Writer, output: str) -> Iterator[list[Piece]]:
    """What each print that ran shows beside its words, and the statement that set it."""
    for fact in w.study.facts.of("output.print"):
        for i, row in enumerate(fact["shown"] or [] if fact["words"] in output else []):
            if row["name"] and row["set"]:
                set_at = _quoted(w, fact, row["set"])
                yield [name(fact, "shown", i, "expression"), w.line(fact), w.line(fact, row["set"]), set_at]


def _quoted(w: Writer, fact: Fact, line: int) -> Ref:
    """A line's text, held by a fact of its own."""
    text = w.study.text(fact.file, line).strip()
    held = w.study.add("source.line", f"line {line}", {"text": text}, file=fact.file, line=line)
    return Ref(text[:100].replace("`", "'"), held.id, "name")


def _ranges(w: Writer) -> Iterator[Text]:
    facts = {(f.line, f.subject): f for f in reversed(w.study.facts.of("image.saved"))}
    for fact in reversed(facts.values()):
        given = fact["input"]
        if isinstance(given, dict) and given.get("min") is not None:
            outside = fact.subject == "save_image" and (given["min"] < -0.01 or given["max"] > 1.01)
            end = "rescaled" if fact["normalize"] else "cut" if outside else "end"
            yield w.say("output.range", fact) + w.say(f"output.{end}")
