"""A reading as one self-contained page, as Markdown and as text for a terminal: three templates beside this module.

On the page code stands beside its text, and every number links to its fact; Markdown has Mermaid and folded answers; in
the terminal lines are wrapped (Chinese characters take two columns) and coloured where there is a terminal.
"""

import base64
import html as escaping
import json
import keyword
import math
import re
import shutil
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bowerbird.reading.explain.reading import Block, Code, Formula, Items, Paragraph, Picture, Reading, Spark, Told
from bowerbird.reading.explain.text import Text
from bowerbird.reading.source import printable
from bowerbird.reading.wording import sentences

FOLDER = Path(__file__).parent
WORDS = sentences(FOLDER / "words.toml")
_BESIDE = (Paragraph, Formula, Spark, Items, Told)
"""What stands beside the code that it follows."""
_BARS = "▁▂▃▄▅▆▇█"
WIDEST = 120


def html(reading: Reading) -> str:
    """The page."""
    return _rendered("page.html", reading, style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")))


def markdown(reading: Reading, pictures: Path | None = None) -> str:
    """The page; pictures go beside it into the folder ``pictures``, or are left out."""
    saved = {} if pictures is None else {b.name: _saved(b, pictures) for b in reading.blocks if isinstance(b, Picture)}
    return re.sub(r"\n{3,}", "\n\n", _rendered("page.md", reading, saved=saved)).rstrip() + "\n"


def terminal(reading: Reading, *, colour: bool = False, width: int | None = None) -> str:
    """Text for a terminal of some width."""
    width = min(width or shutil.get_terminal_size((100, 40)).columns, WIDEST)
    return _rendered("page.txt", reading, paint=_Paint(colour), width=width).rstrip()


def _rendered(template: str, reading: Reading, **more: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=template.endswith(".html"), trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {
        "kind": lambda block: type(block).__name__, "arranged": arranged, "coloured": coloured, "bars": bars,
        "curve": curve, "uri": uri, "marked": dict, "changed": changed, "wrap": wrap, "columns": columns, "cut": cut,
        "plain": lambda text: str(text).replace("`", ""), "safe_words": lambda words: printable(str(words)),
        "where": _where, "value": lambda row: cut(json.dumps(row["value"], ensure_ascii=False), 240),
    }  # fmt: skip
    words = {key: row[reading.lang] for key, row in WORDS.items()}
    return environment.get_template(template).render(reading=reading, lang=reading.lang, words=words, **more)


# -------------------------------------------------------------------------------------------------------- the page


def arranged(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Blocks in order; code with the text that follows it is one group."""
    group: list[Block] = []
    for block in blocks:
        if group and not (isinstance(group[0], Code) and isinstance(block, _BESIDE)):
            yield group
            group = []
        group.append(block)
    if group:
        yield group


_TOKENS = re.compile(
    r"(?P<c>#.*$)|(?P<s>[rbfRBF]{0,2}(?:\"[^\"\\]*(?:\\.[^\"\\]*)*\"|'[^'\\]*(?:\\.[^'\\]*)*'))"
    r"|(?P<d>\b\d[\w.]*\b)|(?P<k>\b[A-Za-z_]+\b)"
)


def coloured(line: str) -> Markup:
    """A line of Python with its words, strings, comments and numbers in colour."""
    parts, place = [], 0
    for match in _TOKENS.finditer(line):
        kind = match.lastgroup or ""
        if kind != "k" or keyword.iskeyword(match[0]):
            parts.append(escaping.escape(line[place : match.start()]))
            parts.append(f'<span class="{kind}">{escaping.escape(match[0])}</span>')
            place = match.end()
    return Markup("".join(parts) + escaping.escape(line[place:]))


def changed(diff: str) -> list[tuple[str, str]]:
    """The lines of a diff below its head, each with what it does: plus, minus or nothing."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    return [({"+": "plus", "-": "minus"}.get(line[:1], ""), line) for line in lines]


def curve(values: Sequence[float]) -> list[tuple[float, float]]:
    """The points of a small curve, 190 × 42."""
    finite = [v for v in values if math.isfinite(v)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    step = 180 / max(1, len(finite) - 1)
    return [(round(5 + i * step, 1), round(38 - 34 * (v - low) / ((high - low) or 1), 1)) for i, v in enumerate(finite)]


def bars(values: Sequence[float]) -> str:
    """Numbers as a row of bars."""
    finite = [v for v in values if math.isfinite(v)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    span = (high - low) or 1.0
    return "".join(_BARS[min(7, int(8 * (v - low) / span))] if math.isfinite(v) else "·" for v in values[:40])


def uri(block: Picture) -> str:
    """A picture as an address that holds it."""
    return f"data:{block.mime};base64,{base64.b64encode(block.data).decode()}"


def _saved(block: Picture, folder: Path) -> str:
    """A picture written beside a page of Markdown, and its address from there."""
    name = re.sub(r"[^\w.-]+", "-", block.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(block.data)
    return f"{folder.name}/{name}"


def _where(row: dict[str, Any]) -> str:
    return f"{Path(row['file']).name}:{row['line']}" if row["line"] else Path(row["file"]).name


# ---------------------------------------------------------------------------------------------------- the terminal

_COLOURS = {"name": "36", "number": "33", "dim": "2", "bold": "1", "head": "1;34", "error": "31", "warning": "33",
            "info": "34", "plus": "32", "minus": "31"}  # fmt: skip


class _Paint:
    def __init__(self, colour: bool) -> None:
        self.colour = colour

    def __call__(self, words: object, kind: str) -> str:
        code = _COLOURS.get(kind) if self.colour else None
        return f"\x1b[{code}m{words}\x1b[0m" if code else str(words)

    def lead(self, lead: str, words: str) -> str:
        """Words with their lead in bold."""
        return self(lead, "bold") + words.removeprefix(lead) if lead else words

    def names(self, words: str, text: Text) -> str:
        """Wrapped words with the names of their text in colour."""
        names = sorted({str(r) for r in text.refs if r.kind == "name"}, key=len, reverse=True)
        for name in names[:12] if self.colour else ():
            words = words.replace(name, self(name[1:-1], "name"))
        return words


def wrap(text: object, width: int, first: str = "", rest: str = "") -> str:
    """Lines of at most so many columns; Chinese breaks anywhere but before its marks."""
    words, width = printable(str(text)), width - 2
    if all(ord(c) < 0x2E80 for c in words):
        lines = textwrap.wrap(
            words, width, initial_indent=first, subsequent_indent=rest, break_long_words=False
        )  # fmt: skip
        return "\n".join(lines or [first])
    lines, line = [], first
    for piece in re.findall(r"[\u2e80-\uffff]|[^\u2e80-\uffff\s]+|\s+", words):
        if _cells(line) + _cells(piece) > width and piece not in "，。；：、）”" and line.strip():
            lines.append(line.rstrip())
            line, piece = rest, piece.lstrip()
        line += piece
    return "\n".join([*lines, line])


def columns(rows: Sequence[Sequence[object]], head: Sequence[str], width: int) -> list[str]:
    """A table's lines, the widest columns cut until they fit."""
    cells = [list(head), *([printable(str(c)).replace("`", "") for c in row] for row in rows)]
    widths = [max(_cells(row[i]) for row in cells) for i in range(len(head))]
    while sum(widths) + 2 * len(widths) > width and max(widths) > 12:
        widths[widths.index(max(widths))] -= 1
    return ["  ".join(_fitted(c, n) for c, n in zip(row, widths, strict=True)).rstrip() for row in cells]


def cut(words: object, most: int) -> str:
    return str(words) if len(str(words)) <= most else str(words)[: most - 1] + "…"


def _cells(words: str) -> int:
    """How many columns words take: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in words)


def _fitted(words: str, width: int) -> str:
    while _cells(words) > width:
        words = words[:-2] + "…" if len(words) > 1 else ""
    return words + " " * (width - _cells(words))
