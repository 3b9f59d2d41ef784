"""A reading in the terminal: wrapped lines, colours where there is a terminal, answers shortened to their question."""

import re
import shutil
import textwrap
import unicodedata
from collections.abc import Iterator

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
from bowerbird.reading.explain.show.markdown import score_line, spark
from bowerbird.reading.explain.text import Ref, Text
from bowerbird.reading.source import printable

_COLOURS = {"name": "36", "number": "33", "line": "2", "dim": "2", "bold": "1", "head": "1;34", "error": "31",
            "warning": "33",
            "suggestion": "32", "info": "34", "plus": "32", "minus": "31"}  # fmt: skip


class Page:
    """Writes a reading for a terminal of some width."""

    def __init__(self, reading: Reading, *, colour: bool = False, width: int | None = None) -> None:
        self.reading, self.colour = reading, colour
        self.width = min(width or shutil.get_terminal_size((100, 40)).columns, 120)

    def lines(self) -> Iterator[str]:
        yield self._paint(str(self.reading.title).replace("`", ""), "bold")
        if self.reading.score is not None:
            yield score_line(self.reading)
        for step in self.reading.steps:
            yield ""
            yield self._paint(f"{step.number}  {step.title}", "head")
            for block in step.blocks:
                yield from self._block(block)

    def _paint(self, words: str, kind: str) -> str:
        code = _COLOURS.get(kind)
        return f"\x1b[{code}m{words}\x1b[0m" if self.colour and code else words

    def _wrapped(self, text: Text, first: str = "", rest: str = "") -> Iterator[str]:
        """Text broken into lines; colours are put in afterwards, where names stand."""
        width = self.width - 2
        lines = _wrap(printable(str(text)), width, first, rest)
        if not self.colour:
            yield from lines
            return
        names = sorted({str(r) for r in text.refs if r.kind == "name"}, key=len, reverse=True)
        for line in lines:
            for name in names[:12]:
                line = line.replace(name, self._paint(name[1:-1], "name"))
            yield line

    def _block(self, block: Block) -> Iterator[str]:
        match block:
            case Paragraph(text):
                yield from self._wrapped(text)
            case Heading(text):
                yield ""
                yield self._paint(str(text).replace("`", ""), "bold")
            case Formula(text):
                yield f"    {self._paint(str(text), 'number')}"
            case Items(items, ordered):
                for i, item in enumerate(items, 1):
                    mark = f"{i:>2}. " if ordered else "  - "
                    yield from self._wrapped(item, mark, "    ")
            case Table(head, rows):
                yield from self._table(head, rows)
            case Code():
                yield from self._code(block)
            case Figure(diagram):
                for arrow in diagram.arrows:
                    nodes = {
                        n.key: "".join(p.shown if isinstance(p, Ref) else p for p in n.label.parts)
                        for n in diagram.nodes
                    }
                    label = f" [{arrow.label}]" if arrow.label else ""
                    yield f"    {nodes[arrow.source]} {'··>' if arrow.back else '──>'} {nodes[arrow.target]}{label}"
            case Output(words):
                yield from (self._paint(f"    │ {printable(line)}", "dim") for line in words.splitlines())
            case Picture():
                yield from self._wrapped(block.caption, "  - ", "    ")
            case Spark(label, values):
                yield f"    {self._paint(spark(values), 'number')}  {label}"
            case Advice():
                yield from self._advice(block)
            case Question(card):
                yield from self._wrapped(Text((f"? {card.title(self.reading.lang)}  (bowerbird ask)",)), "  ", "    ")
            case Told(line):
                yield from (f"    {part}" for part in line.splitlines())

    def _table(self, head: tuple[str, ...], rows: tuple[tuple[Text, ...], ...]) -> Iterator[str]:
        cells = [[*head], *([printable(str(c)).replace("`", "") for c in row] for row in rows)]
        widths = [max(_cells(row[i]) for row in cells) for i in range(len(head))]
        while sum(widths) + 2 * len(widths) > self.width and max(widths) > 12:
            widths[widths.index(max(widths))] -= 1
        for n, row in enumerate(cells):
            line = "  ".join(_fitted(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
            yield self._paint(f"  {line}", "dim") if n == 0 else f"  {line}"

    def _code(self, block: Code) -> Iterator[str]:
        marks = dict(block.marked)
        for n, line in enumerate(block.lines, block.first):
            mark = self._paint("▌" if n in marks else " ", marks.get(n, ""))
            yield f"  {mark}{self._paint(f'{n:>4}', 'dim')}  {printable(line)[: self.width - 8]}"

    def _advice(self, block: Advice) -> Iterator[str]:
        first, *rest = list(self._wrapped(block.title, "", "    "))
        yield self._paint(first, block.severity)
        yield from rest
        for text in block.body:
            yield from self._wrapped(text, "    ", "    ")
        for line in block.diff.splitlines():
            kind = "plus" if line.startswith("+") else "minus" if line.startswith("-") else "dim"
            yield f"      {self._paint(printable(line), kind)}"


def _cells(words: str) -> int:
    """How many columns words take: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in words)


def _fitted(words: str, width: int) -> str:
    while _cells(words) > width:
        words = words[:-2] + "…" if len(words) > 1 else ""
    return words + " " * (width - _cells(words))


def _wrap(words: str, width: int, first: str, rest: str) -> list[str]:
    """Lines of at most so many columns; Chinese breaks anywhere."""
    if all(ord(c) < 0x2E80 for c in words):
        return textwrap.wrap(words, width, initial_indent=first, subsequent_indent=rest, break_long_words=False) or [
            first
        ]
    lines, line = [], first
    for piece in re.findall(r"[\u2e80-\uffff]|[^\u2e80-\uffff\s]+|\s+", words):
        if _cells(line) + _cells(piece) > width and piece not in "，。；：、）”" and line.strip():
            lines.append(line.rstrip())
            line = rest
            piece = piece.lstrip()
        line += piece
    return [*lines, line]
