"""Curves as inline SVG: text stays text, colours are the page's own (``--series-1`` …), so they suit light and dark.

A ``Panel`` is one set of axes with named series.  Matplotlib draws it on a figure of its own: no pyplot, no window,
no global state left behind, and the same data give the same bytes.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter

N_SERIES = 6
"""Colours that the style sheet defines; further series use them again, dashed."""
LARGEST_SCALE = 1.2
"""A figure grows with the page up to this: beyond, its labels would be larger than the text around it."""
MOST_POINTS = 400
"""Longer series are averaged in as many equal bins: a screen shows no more."""

# Matplotlib writes colours as hexadecimal; these stand for the style sheet's variables and are replaced by them.
_INK, _GRID = "#0a0b0c", "#0a0b0d"
_SERIES = [f"#0a0b{0x10 + i:02x}" for i in range(N_SERIES)]
_VARIABLES = {_INK: "var(--muted)", _GRID: "var(--line)"} | {c: f"var(--series-{i + 1})" for i, c in enumerate(_SERIES)}


@dataclass
class CurveSeries:
    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int | None = None
    """Index of the colour (None: the position in the panel); equal names share one legend entry."""


@dataclass
class Panel:
    title: str
    series: list[CurveSeries] = field(default_factory=list)
    x_label: str = "step"
    log_y: bool = False


@dataclass
class Dot:
    """One row of a dot plot: a value, the half-width of its error bar (0: none)."""

    name: str
    value: float
    stderr: float = 0.0


def curve(panel: Panel, width: float = 5.3, height: float = 2.9) -> Markup:
    """The panel as an ``<svg>`` element of ``width`` × ``height`` inches (of 96 pixels) that scales with the page.

    Noisy series are drawn faintly, with their running mean on top.  Values that are not finite are left out.
    """
    several = len({series.name for series in panel.series}) > 1
    figure, axes = _axes(width, height, above=0.3 if several else 0.1)
    named: set[str] = set()
    for i, series in enumerate(panel.series):
        colour = i if series.colour is None else series.colour
        x, y = _finite(series.x, series.y, positive=panel.log_y)
        if len(x) == 0:
            continue
        shade, dash = _SERIES[colour % N_SERIES], "-" if colour < N_SERIES else "--"
        label = "_" if series.name in named else series.name
        named.add(series.name)
        smooth = _running_mean(y)
        if smooth is not None:
            axes.plot(*_thin(x, y), linewidth=0.8, alpha=0.28, color=shade, linestyle=dash)
        axes.plot(*_thin(x, y if smooth is None else smooth), linewidth=1.6, label=label, color=shade, linestyle=dash)
        if len(x) == 1:
            axes.plot(x, y, marker="o", markersize=4, color=shade)
    if panel.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatterSciNotation())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(_tick)
        if (limits := _limits([value for series in panel.series for value in series.y])) is not None:
            axes.set_ylim(*limits)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(panel.x_label)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    if several:
        axes.legend(frameon=False, labelcolor=_INK, loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0)
    return _svg(figure, panel.title)


def dots(title: str, rows: Sequence[Dot], x_label: str, log_x: bool = False, width: float = 11.2) -> Markup:
    """Values with error bars, one row each, in the given order from the top."""
    longest = max(len(row.name) for row in rows)
    figure, axes = _axes(width, 0.62 + 0.34 * len(rows), left=0.3 + 0.09 * longest)
    for i, row in enumerate(rows):
        colour = _SERIES[i % N_SERIES]
        axes.errorbar(row.value, i, xerr=row.stderr or None, fmt="o", color=colour, markersize=7, capsize=3, lw=1.6)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(x_label)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    return _svg(figure, title)


def _axes(width: float, height: float, left: float = 0.62, above: float = 0.1) -> tuple[Figure, Axes]:
    """Axes with margins in inches: fixed, so that the axes of neighbouring panels are aligned."""
    right, below = 0.1, 0.52
    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((left / width, below / height, 1 - (left + right) / width, 1 - (below + above) / height))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.tick_params(which="both", colors=_INK, labelsize=10, length=0, pad=6)
    axes.xaxis.label.set(color=_INK, fontsize=10)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure, title: str) -> Markup:
    """The figure as an element to be put inside a page: no XML header, no ids that could clash, no fixed size."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bowerbird", "legend.fontsize": 10}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r' width="[\d.]+pt"', "", re.sub(r' height="[\d.]+pt"', "", text, count=1), count=1)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"font: (\d+)px[^;\"]*", r"font-size: \1px", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    label, widest = Markup.escape(title), LARGEST_SCALE * 96 * figure.get_figwidth()
    attributes = f'class="plot" style="max-width: {widest:.0f}px" role="img" aria-label="{label}"'
    return Markup(text.replace("<svg ", f"<svg {attributes} ", 1))


def _finite(x: Sequence[float], y: Sequence[float], positive: bool) -> tuple[np.ndarray, np.ndarray]:
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    kept = np.isfinite(xs) & np.isfinite(ys) & ((ys > 0) if positive else True)
    return xs[kept], ys[kept]


def _tick(value: float, _position: float | None = None) -> str:
    """A short label: 0.5, 1500, 2e-4."""
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _limits(values: Sequence[float]) -> tuple[float, float] | None:
    """The range of all but the most extreme 2 %, so that one spike does not flatten the curve; None for few values."""
    finite = np.asarray([v for v in values if math.isfinite(v)])
    if len(finite) < 50:
        return None
    low, high = np.percentile(finite, [1, 99])
    margin = max(0.08 * (high - low), 1e-3 * abs(high))  # a constant would be drawn as its rounding errors
    return (float(low - margin), float(high + margin)) if margin > 0 else None


def _running_mean(y: np.ndarray) -> np.ndarray | None:
    """Mean over a centred window of a twentieth of the series (shorter at its ends), or None for short series."""
    half = len(y) // 40
    if half < 1:
        return None
    total = np.concatenate([[0.0], np.cumsum(y)])
    i = np.arange(len(y))
    reach = np.minimum(half, np.minimum(i, len(y) - 1 - i))
    return (total[i + reach + 1] - total[i - reach]) / (2 * reach + 1)


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x) <= MOST_POINTS:
        return x, y
    edges = np.linspace(0, len(x), MOST_POINTS + 1).astype(int)[:-1]
    count = np.diff(np.append(edges, len(x)))
    return np.add.reduceat(x, edges) / count, np.add.reduceat(y, edges) / count


def log_worthwhile(values: Sequence[float]) -> bool:
    """Whether values spread so far (over a factor 50, all positive) that only a logarithmic axis shows them all."""
    finite = [v for v in values if math.isfinite(v)]
    return bool(finite) and min(finite) > 0 and max(finite) > 50 * min(finite)
