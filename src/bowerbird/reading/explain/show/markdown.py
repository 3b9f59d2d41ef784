"""A reading as Markdown: tables, fenced code with line numbers, Mermaid, folded answers."""

import base64
import html
import re
from collections.abc import Iterator
from pathlib import Path

from bowerbird.reading.explain.reading import (
    Advice,
    Block,
    Code,
    Figure,
    Formula,
    Heading,
    Items,
    Output,
    Paragraph,
    Picture,
    Question,
    Reading,
    Spark,
    Table,
    Told,
)
from bowerbird.reading.explain.text import Text

_BARS = "▁▂▃▄▅▆▇█"


def markdown(reading: Reading, pictures: Path | None = None) -> str:
    """The page; pictures go beside it into the folder ``pictures``, or are left out."""
    lines = [f"# {_inline(reading.title)}", ""]
    if reading.score is not None:
        lines += [score_line(reading), ""]
    for step in reading.steps:
        lines += [f"## {step.number}. {step.title}", ""]
        for block in step.blocks:
            lines += [*_block(block, reading, pictures), ""]
    return "\n".join(lines).rstrip() + "\n"


def score_line(reading: Reading) -> str:
    """How the model's claims fared, in one line."""
    score = reading.score
    assert score is not None
    if reading.lang == "zh":
        return f"模型 {score.model} 的陈述：已核实 {score.verified}/{score.total}。"
    return f"Claims of {score.model}: verified {score.verified} of {score.total}."


def spark(values: tuple[float, ...]) -> str:
    """Numbers as a row of bars."""
    finite = [v for v in values if v == v and abs(v) != float("inf")]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    span = (high - low) or 1.0
    return "".join(_BARS[min(7, int(8 * (v - low) / span))] if v in finite else "·" for v in values[:40])


def _inline(text: Text) -> str:
    return str(text)


def _cell(text: Text) -> str:
    return _inline(text).replace("|", "\\|").replace("\n", " ")


def _block(block: Block, reading: Reading, pictures: Path | None) -> Iterator[str]:
    match block:
        case Paragraph(text):
            yield _inline(text)
        case Heading(text):
            yield f"### {_inline(text)}"
        case Formula(text):
            yield f"> {_inline(text)}"
        case Items(items, ordered):
            yield from (f"{f'{i}.' if ordered else '-'} {_inline(item)}" for i, item in enumerate(items, 1))
        case Table(head, rows):
            yield "| " + " | ".join(head) + " |"
            yield "|" + "---|" * len(head)
            yield from ("| " + " | ".join(map(_cell, row)) + " |" for row in rows)
        case Code():
            width = len(str(block.last))
            yield "```text"
            yield from (f"{n:>{width}}  {line}".rstrip() for n, line in enumerate(block.lines, block.first))
            yield "```"
        case Figure(diagram, caption):
            yield from ("```mermaid", diagram.mermaid(), "```", "", f"*{_inline(caption)}*")
        case Output(words):
            yield from ("```text", words.replace("```", "ˋˋˋ"), "```")
        case Picture():
            yield from _picture(block, pictures)
        case Spark(label, values):
            yield f"{_inline(label)}  {spark(values)}"
        case Advice():
            yield from _advice(block)
        case Question():
            yield from _question(block, reading)
        case Told(line):
            yield f"- {line}"


def _picture(block: Picture, pictures: Path | None) -> Iterator[str]:
    if pictures is None:
        yield f"*{_inline(block.caption)}*"
        return
    name = re.sub(r"[^\w.-]+", "-", block.name)
    pictures.mkdir(parents=True, exist_ok=True)
    (pictures / name).write_bytes(block.data)
    yield f"![{_inline(block.caption).replace('`', '')}]({pictures.name}/{name})"


def _advice(block: Advice) -> Iterator[str]:
    yield f"- **{_inline(block.title)}**"
    yield from (f"  - {_inline(text)}" for text in block.body)
    if block.diff:
        yield from ("", "  ```diff", *(f"  {line}" for line in block.diff.splitlines()), "  ```")


def _question(block: Question, reading: Reading) -> Iterator[str]:
    card = block.card
    yield f"<details><summary>{html.escape(card.title(reading.lang))}</summary>"
    yield ""
    if block.why:
        yield from (_inline(block.why), "")
    yield card.answer(reading.lang)
    yield ""
    yield " · ".join(f"[{r}]({r.url})" if r.url else str(r) for r in card.references)
    yield ""
    yield "</details>"


def data_uri(block: Picture) -> str:
    """A picture as an address that holds it."""
    return f"data:{block.mime};base64,{base64.b64encode(block.data).decode()}"
