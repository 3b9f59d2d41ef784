"""Step six: how to read what the program produces, with its own output."""

from collections.abc import Iterator

from bowerbird.reading.explain.reading import Block, Output, Picture
from bowerbird.reading.explain.text import Ref, Text, name, number, shape
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact

TITLE = ("How to read what it produces", "如何看懂它的输出")
MOST_PICTURES, MOST_OUTPUT_LINES = 4, 24
_CARDS = {
    "gan": ("fid-is", "precision-recall"),
    "vae": ("blurry-vae", "fid-is"),
    "diffusion": ("ddpm-ddim-ode", "guidance", "fid-is"),
    "transformer": ("perplexity", "temperature"),
    "recurrent": ("perplexity", "temperature"),
}


def write(w: Writer) -> Iterator[Block]:
    output = w.study.facts.first("run.output")
    words = str(output["text"]).strip("\n") if output is not None else ""
    if output is not None and words:
        yield w.said(
            "It printed, in this short run on stand-ins or made-up data:",
            "在这次使用替身或虚构数据的短时运行中，它打印了：",
        )
        lines = words.splitlines()
        half = MOST_OUTPUT_LINES // 2
        if len(lines) > MOST_OUTPUT_LINES:
            lines = [*lines[:half], "⋮", *lines[-half:]]
        yield Output("\n".join(line[:160] for line in lines), output.id)
        yield from _printed(w)
    else:
        yield w.said("It printed nothing.", "它没有打印任何内容。")
    yield from _pictures(w)
    yield from w.items(_ranges(w))
    yield from w.items(_files(w))
    family = w.study.facts.first("program.family")
    for card in _CARDS.get(family.subject if family is not None else "", ()):
        assert family is not None
        yield from w.question(card, family)


def _printed(w: Writer) -> Iterator[Block]:
    rows = []
    output = w.study.facts.first("run.output")
    printed = str(output["text"]) if output is not None else ""
    for fact in w.study.facts.of("output.print"):
        if fact["words"] not in printed:
            continue  # it did not run
        for i, row in enumerate(fact["shown"] or []):
            if row["name"] and row["set"]:
                rows.append([
                    name(fact, "shown", i, "expression"), w.line(fact), w.line(fact, row["set"]),
                    _quoted(w, fact, row["set"]),
                ])  # fmt: skip
    if rows:
        yield w.said("What the printed numbers are:", "打印的数各是什么：")
        yield w.table((("printed", "打印"), ("at", "打印于"), ("set at", "赋值于"), ("as", "赋值语句")), rows[:24])


def _quoted(w: Writer, fact: Fact, line: int) -> Ref:
    """A line's text, held by a fact of its own."""
    text = w.study.text(fact.file, line).strip()
    held = w.study.add("source.line", f"line {line}", {"text": text}, file=fact.file, line=line)
    return Ref(text[:100].replace("`", "'"), held.id, "name")


def _pictures(w: Writer) -> Iterator[Block]:
    files = {f.subject: f for f in w.study.facts.of("run.file")}
    for picture in w.study.pictures[:MOST_PICTURES]:
        fact = files.get(picture.name)
        if fact is not None:
            caption = w.say("{n}, as the program saved it in this run", "{n}，程序在这次运行中保存", n=name(fact))
            yield Picture(picture.data, picture.mime, picture.name, caption, fact.id)


def _ranges(w: Writer) -> Iterator[Text]:
    seen = set()
    for fact in w.study.facts.of("image.saved"):
        given = fact["input"]
        if (fact.line, fact.subject) in seen or not isinstance(given, dict) or given.get("min") is None:
            continue
        seen.add((fact.line, fact.subject))
        said = w.say(
            "{l}: {f} is given {s}, values from {a} to {b}", "{l}：{f} 得到 {s}，取值从 {a} 到 {b}",
            l=w.line(fact), f=name(fact), s=shape(fact, "input", "shape"), a=number(fact, "input", "min"),
            b=number(fact, "input", "max"),
        )  # fmt: skip
        if fact["normalize"]:
            said += w.say("; it rescales them itself.", "；由它自己缩放。")
        elif fact.subject == "save_image" and (given["min"] < -0.01 or given["max"] > 1.01):
            said += w.say("; what lies outside the unit interval is cut off.", "；超出单位区间的部分会被截断。")
        else:
            said += w.say(".", "。")
        yield said


def _files(w: Writer) -> Iterator[Text]:
    files = w.study.facts.of("run.file")
    for fact in files[:8]:
        yield w.say("It wrote {n}, {b:byte}.", "它写了 {n}，{b} 字节。", n=name(fact), b=number(fact, "bytes"))
