"""A reading as one self-contained page: contents at the side, code beside its text, every number linked to its fact."""

import html as escaping
import json
import keyword
import re
from collections.abc import Iterator, Sequence
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
    Step,
    Table,
    Told,
)
from bowerbird.reading.explain.show.markdown import data_uri, score_line
from bowerbird.reading.explain.text import Ref, Text

_STYLE = Path(__file__).with_name("page.css")
_BESIDE = (Paragraph, Formula, Spark, Items, Told)
_WORDS = {
    "en": {"facts": "Facts", "under": "Every number and name below leads to the fact that it comes from.", "id": "id",
           "kind": "kind", "about": "about", "where": "where", "value": "value"},
    "zh": {"facts": "事实", "under": "下面的每个数字和名称都能点到它所依据的事实。", "id": "编号",
           "kind": "种类", "about": "关于", "where": "位置", "value": "内容"},
}  # fmt: skip


def html(reading: Reading) -> str:
    """The page."""
    words = _WORDS[reading.lang]
    title = escaping.escape(str(reading.title).replace("`", ""))
    contents = "".join(
        f'<li><a href="#step{s.number}"><b>{s.number}</b>{escaping.escape(s.title)}</a></li>' for s in reading.steps
    )
    contents += f'<li><a href="#facts"><b>·</b>{words["facts"]}</a></li>'
    score = f"<p>{escaping.escape(score_line(reading))}</p>" if reading.score is not None else ""
    body = "".join(_step(step, reading) for step in reading.steps)
    return (
        f'<!doctype html><html lang="{reading.lang}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><style>{_STYLE.read_text(encoding="utf-8")}</style></head><body><div class="page">'
        f"<nav><ol>{contents}</ol></nav><main><h1>{_text(reading.title, reading)}</h1>"
        f'<p class="under">{words["under"]}</p>'
        f"{score}{body}{_facts(reading)}</main></div></body></html>\n"
    )


def _step(step: Step, reading: Reading) -> str:
    head = f'<h2 id="step{step.number}"><b>{step.number}</b>{escaping.escape(step.title)}</h2>'
    return head + "".join(_arranged(step.blocks, reading))


def _arranged(blocks: Sequence[Block], reading: Reading) -> Iterator[str]:
    """Blocks in order; text that follows code stands beside it."""
    i = 0
    while i < len(blocks):
        block = blocks[i]
        end = i + 1
        if isinstance(block, Code):
            while end < len(blocks) and isinstance(blocks[end], _BESIDE):
                end += 1
        if end > i + 1:
            text = "".join(_block(b, reading) for b in blocks[i + 1 : end])
            yield f'<div class="beside"><div>{_block(block, reading)}</div><div>{text}</div></div>'
        else:
            yield _block(block, reading)
        i = end


def _text(text: Text, reading: Reading) -> str:
    return "".join(_ref(part, reading) if isinstance(part, Ref) else escaping.escape(part) for part in text.parts)


def _ref(ref: Ref, reading: Reading) -> str:
    fact = reading.facts.get(ref.fact)
    shown = escaping.escape(ref.shown)
    if ref.kind == "name":
        shown = f'<span class="name">{shown}</span>'
    about = "" if fact is None else f"{ref.fact} · {fact.topic} · {fact.subject} · {fact.kind}"
    return f'<a class="ref {ref.kind}" href="#{ref.fact}" title="{escaping.escape(about[:160])}">{shown}</a>'


def _block(block: Block, reading: Reading) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{_text(text, reading)}</p>"
        case Heading(text):
            return f"<h3>{_text(text, reading)}</h3>"
        case Formula(text):
            return f'<div class="formula">{_text(text, reading)}</div>'
        case Items(items, ordered):
            tag, kind = ("ol", ' class="events"') if ordered else ("ul", "")
            return f"<{tag}{kind}>{''.join(f'<li>{_text(item, reading)}</li>' for item in items)}</{tag}>"
        case Table(head, rows):
            top = "".join(f"<th>{escaping.escape(cell)}</th>" for cell in head)
            body = "".join("<tr>" + "".join(f"<td>{_text(c, reading)}</td>" for c in row) + "</tr>" for row in rows)
            return f'<div class="tablewrap"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
        case Code():
            return _code(block)
        case Figure(diagram, caption):
            drawing = f'<div class="drawing">{diagram.svg()}</div>'
            return f"<figure>{drawing}<figcaption>{_text(caption, reading)}</figcaption></figure>"
        case Output(words):
            return _listing([("", line) for line in words.splitlines()])
        case Picture():
            picture = f'<img alt="" src="{data_uri(block)}">'
            return f'<figure class="picture">{picture}<figcaption>{_text(block.caption, reading)}</figcaption></figure>'
        case Spark(label, values):
            return f'<div class="spark">{_spark(values)}<span>{_text(label, reading)}</span></div>'
        case Advice():
            return _advice(block, reading)
        case Question():
            return _question(block, reading)
        case Told(line, status):
            return f'<div class="told {escaping.escape(status)}">{escaping.escape(line)}</div>'


def _listing(lines: list[tuple[str, str]]) -> str:
    rows = "".join(f'<div class="{kind}">{escaping.escape(line) or " "}</div>' for kind, line in lines)
    return f'<div class="listing plain"><code>{rows}</code></div>'


_TOKENS = re.compile(
    r"(?P<c>#.*$)|(?P<s>[rbfRBF]{0,2}(?:\"[^\"\\]*(?:\\.[^\"\\]*)*\"|'[^'\\]*(?:\\.[^'\\]*)*'))"
    r"|(?P<d>\b\d[\w.]*\b)|(?P<k>\b[A-Za-z_]+\b)"
)


def coloured(line: str) -> str:
    """A line of Python with its words, strings, comments and numbers in colour."""
    parts, place = [], 0
    for match in _TOKENS.finditer(line):
        kind = match.lastgroup or ""
        if kind == "k" and not keyword.iskeyword(match[0]):
            continue
        parts.append(escaping.escape(line[place : match.start()]))
        parts.append(f'<span class="{kind}">{escaping.escape(match[0])}</span>')
        place = match.end()
    return "".join(parts) + escaping.escape(line[place:])


def _code(block: Code) -> str:
    marks = dict(block.marked)
    rows = "".join(
        f'<div class="{marks.get(n, "")}"><i>{n}</i><span>{coloured(line)}</span></div>'
        for n, line in enumerate(block.lines, block.first)
    )
    return f'<div class="listing" title="{block.fact}"><code>{rows}</code></div>'


def _spark(values: tuple[float, ...]) -> str:
    finite = [v for v in values if v == v and abs(v) != float("inf")]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    step = 180 / max(1, len(finite) - 1)
    points = [(5 + i * step, 38 - 34 * (v - low) / ((high - low) or 1)) for i, v in enumerate(finite)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return f'<svg viewBox="0 0 190 42"><polyline points="{line}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="3"/></svg>'


def _advice(block: Advice, reading: Reading) -> str:
    body = "".join(f"<p>{_text(text, reading)}</p>" for text in block.body)
    diff = ""
    if block.diff:
        lines = [
            ("plus" if line.startswith("+") else "minus" if line.startswith("-") else "", line)
            for line in block.diff.splitlines()
            if not line.startswith(("---", "+++"))
        ]
        diff = _listing(lines)
    return f'<div class="advice {block.severity}"><p class="title">{_text(block.title, reading)}</p>{body}{diff}</div>'


def _question(block: Question, reading: Reading) -> str:
    card = block.card
    sources = " · ".join(
        f'<a href="{escaping.escape(r.url)}">{escaping.escape(str(r))}</a>' if r.url else escaping.escape(str(r))
        for r in card.references
    )
    why = f"<p>{_text(block.why, reading)}</p>" if block.why else ""
    return (
        f"<details><summary>{escaping.escape(card.title(reading.lang))}</summary>{why}"
        f'<p>{escaping.escape(card.answer(reading.lang))}</p><p class="sources">{sources}</p></details>'
    )


def _facts(reading: Reading) -> str:
    """The facts that the page leads to."""
    words = _WORDS[reading.lang]
    rows = []
    for row in reading.to_json()["facts"]:
        where = f"{Path(row['file']).name}:{row['line']}" if row["line"] else Path(row["file"]).name
        value = json.dumps(row["value"], ensure_ascii=False)
        cells = (
            row["id"],
            row["kind"],
            f"{row['topic']} · {row['subject']}",
            where,
            value if len(value) < 240 else value[:239] + "…",
        )
        rows.append(f'<tr id="{row["id"]}">' + "".join(f"<td>{escaping.escape(str(c))}</td>" for c in cells) + "</tr>")
    head = "".join(f"<th>{words[k]}</th>" for k in ("id", "kind", "about", "where", "value"))
    return (
        f'<h2 id="facts">{words["facts"]}</h2><div class="tablewrap facts"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
