"""A diagram of sources, networks, losses and optimisers, and what flows between them with its shape."""

import html
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jinja2

from bowerbird.reading.explain.text import Text

Sort = Literal["data", "noise", "network", "loss", "optimizer"]
Place = tuple[int, int]
WIDTH, HEIGHT, GAP_X, GAP_Y, EDGE, LANE = 160, 58, 84, 26, 14, 22
_RADIUS = {"data": 6, "noise": 28, "network": 8, "loss": 20, "optimizer": 3}
_MERMAID = {"data": ("[(", ")]"), "noise": ("([", "])"), "network": ("[", "]"), "loss": ("{{", "}}"),
            "optimizer": ("[/", "/]")}  # fmt: skip
MOST_LETTERS = {"label": 19, "detail": 26, "arrow": 16, "back": 28}


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
    arrows: tuple[Arrow, ...] = ()

    def texts(self) -> Iterator[Text]:
        for node in self.nodes:
            yield from (node.label, node.detail)
        yield from (arrow.label for arrow in self.arrows)

    def shown(self, key: str) -> str:
        """The label of a node."""
        return next(node.label.plain for node in self.nodes if node.key == key)

    def mermaid(self) -> str:
        """The diagram in the language of Mermaid."""
        names = {node.key: f"n{i}" for i, node in enumerate(self.nodes)}
        rows = ["flowchart LR"]
        for node in self.nodes:
            start, end = _MERMAID[node.sort]
            words = "<br/>".join(_quoted(text) for text in (node.label, node.detail) if text)
            rows.append(f'    {names[node.key]}{start}"{words}"{end}')
        for arrow in self.arrows:
            words = f'|"{_quoted(arrow.label)}"|' if arrow.label else ""
            rows.append(f"    {names[arrow.source]} {'-.->' if arrow.back else '-->'}{words} {names[arrow.target]}")
        return "\n".join(rows)

    def svg(self) -> str:
        """The diagram as inline SVG; colours are those of the page (CSS classes)."""
        if not self.nodes:
            return ""
        places, width, height = self._layout()
        backs = [arrow for arrow in self.arrows if arrow.back]
        lanes = [(height + 4 + LANE * i, (i + 1) / (len(backs) + 1)) for i in range(len(backs))]
        template = jinja2.Template(Path(__file__).with_name("flow.svg").read_text(encoding="utf-8"), autoescape=True)
        return template.render(
            places=places, width=width, height=height + LANE * len(backs), nodes=self.nodes, radius=_RADIUS,
            most=MOST_LETTERS, box=(WIDTH, HEIGHT),
            curves=[(a, *_curve(places[a.source], places[a.target])) for a in self.arrows if not a.back],
            returns=[
                (a, *_return(places[a.source], places[a.target], *lane)) for a, lane in zip(backs, lanes, strict=True)
            ],
        )  # fmt: skip

    def _layout(self) -> tuple[dict[str, Place], int, int]:
        """Where each node stands, in columns of which each is centred, and how large the whole is."""
        columns: dict[int, list[str]] = defaultdict(list)
        for node in sorted(self.nodes, key=lambda node: node.column):
            columns[node.column].append(node.key)
        pitch, tallest, top = HEIGHT + GAP_Y, max(len(keys) for keys in columns.values()), EDGE + HEIGHT // 3
        places = {
            key: (EDGE + x * (WIDTH + GAP_X), top + (tallest - len(keys)) * pitch // 2 + y * pitch)
            for x, keys in enumerate(columns.values()) for y, key in enumerate(keys)
        }  # fmt: skip
        return places, 2 * EDGE + len(columns) * (WIDTH + GAP_X) - GAP_X, top + tallest * pitch - GAP_Y + EDGE


def _quoted(text: Text) -> str:
    return html.escape(text.plain, quote=False).replace('"', "'").replace("|", "/").replace("&gt;", ">")


def _curve(source: Place, target: Place) -> tuple[str, Place]:
    """The path of an arrow, and where its label stands; an arrow that skips a column runs over it."""
    (x0, y0), (x1, y1) = source, target
    if x1 <= x0:
        down = y1 > y0
        x0, y0, x1, y1 = x0 + WIDTH // 2, y0 + HEIGHT * down, x1 + WIDTH // 2, y1 + HEIGHT * (not down)
    else:
        x0, y0, y1 = x0 + WIDTH, y0 + HEIGHT // 2, y1 + HEIGHT // 2
    middle, bend = ((x0 + x1) // 2, (y0 + y1) // 2 - 5), max(30, (x1 - x0) // 2)
    if x1 - x0 <= WIDTH:
        return f"M{x0} {y0}C{x0 + bend} {y0} {x1 - bend} {y1} {x1 - 2} {y1}", middle
    over = max(4, min(y0, y1) - HEIGHT)
    path = f"M{x0} {y0}C{x0 + GAP_X} {over} {x1 - GAP_X} {over} {x1 - 2} {y1 - 8}"
    return path, (middle[0], max(14, middle[1] + 15 - HEIGHT))


def _return(source: Place, target: Place, low: int, share: float) -> tuple[str, Place]:
    """An optimiser's dashed way back to its network, in a lane below everything."""
    (x0, y0), (x1, y1) = source, target
    start, end = x0 + int(WIDTH * share), x1 + WIDTH // 2
    path = f"M{start} {y0 + HEIGHT}V{low - 8}Q{start} {low} {start - 8} {low}H{end + 8}Q{end} {low} {end} {low - 8}"
    return f"{path}V{y1 + HEIGHT + 2}", ((start + end) // 2, low - 5)
