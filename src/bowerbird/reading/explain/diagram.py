"""A diagram drawn from facts: sources, networks, losses and optimisers, and what flows between them with its shape."""

import html
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from bowerbird.reading.explain.text import Ref, Text

Sort = Literal["data", "noise", "network", "loss", "optimizer", "output"]
WIDTH, HEIGHT, GAP_X, GAP_Y, EDGE = 176, 58, 96, 26, 16


@dataclass(frozen=True)
class Node:
    key: str
    sort: Sort
    label: Text
    detail: Text = Text()
    column: int = 0


@dataclass(frozen=True)
class Arrow:
    source: str
    target: str
    label: Text = Text()
    back: bool = False
    """An optimiser that updates a network: drawn dashed."""


@dataclass(frozen=True)
class Diagram:
    nodes: tuple[Node, ...] = ()
    arrows: tuple[Arrow, ...] = field(default=())

    def texts(self) -> Iterator[Text]:
        for node in self.nodes:
            yield node.label
            yield node.detail
        for arrow in self.arrows:
            yield arrow.label

    # ------------------------------------------------------------------------------------------------------- mermaid

    def mermaid(self) -> str:
        """The diagram in the language of Mermaid."""
        names = {node.key: f"n{i}" for i, node in enumerate(self.nodes)}
        shapes = {"data": "[(", "noise": "([", "network": "[", "loss": "{{", "optimizer": "[/", "output": "(["}
        closing = {"[(": ")]", "([": "])", "[": "]", "{{": "}}", "[/": "/]"}
        rows = ["flowchart LR"]
        for node in self.nodes:
            start = shapes[node.sort]
            words = "<br/>".join(_plain(text) for text in (node.label, node.detail) if text)
            rows.append(f'    {names[node.key]}{start}"{words}"{closing[start]}')
        for arrow in self.arrows:
            line = "-.->" if arrow.back else "-->"
            words = f'|"{_plain(arrow.label)}"|' if arrow.label else ""
            rows.append(f"    {names[arrow.source]} {line}{words} {names[arrow.target]}")
        return "\n".join(rows)

    # ----------------------------------------------------------------------------------------------------------- svg

    def svg(self) -> str:
        """The diagram as inline SVG; colours are those of the page (CSS classes)."""
        if not self.nodes:
            return ""
        places, width, height = self._layout()
        backs = [arrow for arrow in self.arrows if arrow.back]
        height += 22 * len(backs)
        parts = [
            f'<svg class="flow" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
            'xmlns="http://www.w3.org/2000/svg">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z"/></marker></defs>',
        ]
        parts += [_curve(places, arrow) for arrow in self.arrows if not arrow.back]
        base = height - 22 * len(backs) + 4
        parts += [_return(places, arrow, base + 22 * i, (i + 1) / (len(backs) + 1)) for i, arrow in enumerate(backs)]
        parts += [_box(node, *places[node.key]) for node in self.nodes]
        parts += [_tag(places, arrow) for arrow in self.arrows if not arrow.back and arrow.label]
        return "".join(parts) + "</svg>"

    def _layout(self) -> tuple[dict[str, tuple[int, int]], int, int]:
        columns: dict[int, list[Node]] = {}
        for node in self.nodes:
            columns.setdefault(node.column, []).append(node)
        tallest = max(len(nodes) for nodes in columns.values())
        full = tallest * (HEIGHT + GAP_Y) - GAP_Y
        places = {}
        for x, column in enumerate(sorted(columns)):
            nodes = columns[column]
            own = len(nodes) * (HEIGHT + GAP_Y) - GAP_Y
            for y, node in enumerate(nodes):
                top = EDGE + HEIGHT // 3 + (full - own) // 2 + y * (HEIGHT + GAP_Y)
                places[node.key] = (EDGE + x * (WIDTH + GAP_X), top)
        return places, 2 * EDGE + len(columns) * (WIDTH + GAP_X) - GAP_X, full + 2 * EDGE + HEIGHT // 3


def _plain(text: Text) -> str:
    words = "".join(part.shown if isinstance(part, Ref) else part for part in text.parts)
    return words.replace('"', "'").replace("<", "&lt;").replace("|", "/")


def _cut(text: Text, most: int) -> str:
    words = "".join(part.shown if isinstance(part, Ref) else part for part in text.parts)
    return html.escape(words if len(words) <= most else words[: most - 1] + "…")


def _box(node: Node, x: int, y: int) -> str:
    facts = " ".join(dict.fromkeys(node.label.facts + node.detail.facts))
    title = f"<title>{html.escape(facts)}</title>"
    middle = x + WIDTH // 2
    lines = f'<text class="label" x="{middle}" y="{y + (25 if node.detail else 34)}">{_cut(node.label, 24)}</text>'
    if node.detail:
        lines += f'<text class="detail" x="{middle}" y="{y + 43}">{_cut(node.detail, 30)}</text>'
    radius = {"data": 6, "noise": 28, "network": 8, "loss": 20, "optimizer": 3, "output": 28}[node.sort]
    return (
        f'<g class="node {node.sort}" data-facts="{html.escape(facts)}">{title}'
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="{radius}"/>{lines}</g>'
    )


def _ends(places: dict[str, tuple[int, int]], arrow: Arrow) -> tuple[int, int, int, int]:
    (x0, y0), (x1, y1) = places[arrow.source], places[arrow.target]
    if x1 > x0:
        return x0 + WIDTH, y0 + HEIGHT // 2, x1, y1 + HEIGHT // 2
    return x0 + WIDTH // 2, y0 + (HEIGHT if y1 > y0 else 0), x1 + WIDTH // 2, y1 + (0 if y1 > y0 else HEIGHT)


def _curve(places: dict[str, tuple[int, int]], arrow: Arrow) -> str:
    x0, y0, x1, y1 = _ends(places, arrow)
    bend = max(30, (x1 - x0) // 2)
    if x1 - x0 > WIDTH:  # over the column between them
        over = max(4, min(y0, y1) - HEIGHT)
        return (
            f'<path class="arrow" marker-end="url(#tip)" d="M{x0} {y0}'
            f'C{x0 + GAP_X} {over} {x1 - GAP_X} {over} {x1 - 2} {y1 - 8}">'
            f"<title>{' '.join(arrow.label.facts)}</title></path>"
        )
    return (
        f'<path class="arrow" marker-end="url(#tip)" d="M{x0} {y0}C{x0 + bend} {y0} {x1 - bend} {y1} {x1 - 2} {y1}">'
        f"<title>{' '.join(arrow.label.facts)}</title></path>"
    )


def _tag(places: dict[str, tuple[int, int]], arrow: Arrow) -> str:
    x0, y0, x1, y1 = _ends(places, arrow)
    skips = x1 - x0 > WIDTH
    x = (x0 + x1) // 2
    y = max(14, (y0 + y1) // 2 - HEIGHT + 10) if skips else (y0 + y1) // 2 - 5
    return f'<text class="flowing" x="{x}" y="{y}">{_cut(arrow.label, 20)}</text>'


def _return(places: dict[str, tuple[int, int]], arrow: Arrow, low: int, share: float) -> str:
    """An optimiser's dashed way back to its network, below everything."""
    (x0, y0), (x1, y1) = places[arrow.source], places[arrow.target]
    start, end = x0 + int(WIDTH * share), x1 + WIDTH // 2
    return (
        f'<path class="arrow back" marker-end="url(#tip)" d="M{start} {y0 + HEIGHT}V{low - 8}'
        f"Q{start} {low} {start - 8} {low}"
        f'H{end + 8}Q{end} {low} {end} {low - 8}V{y1 + HEIGHT + 2}"><title>{" ".join(arrow.label.facts)}</title></path>'
        f'<text class="flowing" x="{(start + end) // 2}" y="{low - 5}">{_cut(arrow.label, 28)}</text>'
    )
