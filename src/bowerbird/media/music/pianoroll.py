"""A piano roll: time from left to right, pitch from low to high, each note a bar in the colour of its voice.

A piece that is too long for one line goes on in the next, as a score does; every line shows the same time and the same
range of pitches.  Numbers above a line count bars.
"""

import io
import itertools
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from bowerbird.media.music.score import Note, Piece

COLOURS = ("#c8452f", "#e09f2b", "#2f8f6f", "#2c5fa8", "#8a4f9e", "#5b6770", "#b5567f", "#6f8f2f")
"""Of voices; further voices use them again."""
PAPER, BLACK_ROW, BEAT_LINE, BAR_LINE, INK = "#fffdf9", "#f4f0e8", "#eee8dc", "#cfc6b4", "#5f584c"
BLACK_KEYS = {1, 3, 6, 8, 10}
LINE_QUARTERS = 64.0
"""The most that a line shows …"""
MOST_LINES = 6
"""… unless the piece would need more lines than these."""
WIDTH_IN = 12.0
LEFT_IN, RIGHT_IN, TOP_IN, BOTTOM_IN, GAP_IN = 0.5, 0.15, 0.5, 0.15, 0.3
"""Margins, and the space between lines."""
ROW_IN = 0.055
"""Height of a semitone."""
DPI = 130


def pianoroll(piece: Piece) -> Image.Image:
    """The picture of a piece; an empty staff of two octaves if it has no notes."""
    pitches = [note.pitch for note in piece.notes] or [60, 72]
    low, high = min(pitches) - 2, max(pitches) + 2
    if high - low < 24:
        low, high = (low + high) // 2 - 12, (low + high) // 2 + 12
    bars = piece.bars() or [0.0]
    starts = _lines(bars, piece.quarters)
    length = max(b - a for a, b in itertools.pairwise(starts))
    row_in = max(ROW_IN, 1.2 / (high - low))
    line_in = (high - low + 1) * row_in
    n_lines = len(starts) - 1
    height = TOP_IN + n_lines * line_in + (n_lines - 1) * GAP_IN + BOTTOM_IN
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor=PAPER)
    for i in range(n_lines):
        bottom = height - TOP_IN - i * (line_in + GAP_IN) - line_in
        inside = (LEFT_IN / WIDTH_IN, bottom / height, 1 - (LEFT_IN + RIGHT_IN) / WIDTH_IN, line_in / height)
        axes = figure.add_axes(inside, facecolor=PAPER)
        axes.set_xlim(starts[i], starts[i] + length)
        axes.set_ylim(low - 0.5, high + 0.5)
        _draw_staff(axes, piece, bars, low, high)
        _draw_notes(axes, piece.notes, row_in, length)
    _draw_legend(figure, piece, height)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("RGB")


def _lines(bars: Sequence[float], end: float) -> list[float]:
    """Where lines begin, and where the last one ends: all hold the same number of bars."""
    end = max(end, 1.0)
    n_lines = min(MOST_LINES, max(1, math.ceil(end / LINE_QUARTERS)))
    per_line = math.ceil(len(bars) / n_lines)
    starts = list(bars[::per_line])
    last_bar = bars[-1] - bars[-2] if len(bars) > 1 else 4.0
    return [*starts, max(end, bars[-1] + last_bar)]


def _draw_staff(axes: Axes, piece: Piece, bars: Sequence[float], low: int, high: int) -> None:
    left, right = axes.get_xlim()
    keys = 0.014 * (right - left)
    for pitch in range(low, high + 1):
        is_black = pitch % 12 in BLACK_KEYS
        if is_black:
            axes.add_patch(Rectangle((left, pitch - 0.5), right - left, 1, color=BLACK_ROW, linewidth=0, zorder=0))
        key = Rectangle(
            (left - keys, pitch - 0.5), keys * (0.62 if is_black else 1), 1,
            facecolor="#3c372f" if is_black else "white", edgecolor=BAR_LINE, linewidth=0.4, clip_on=False,
        )  # fmt: skip
        axes.add_patch(key)
        if pitch % 12 == 0:
            axes.axhline(pitch - 0.5, color=BAR_LINE, linewidth=0.6, zorder=1)
            name = f"C{pitch // 12 - 1}"
            axes.text(left - 1.35 * keys, pitch, name, ha="right", va="center", fontsize=7.5, color=INK)
    visible = [(number, bar) for number, bar in enumerate(bars, 1) if left <= bar < right]
    every = next(n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 1 << 30) if len(visible) / n <= 17)
    if right - left <= LINE_QUARTERS * 1.5:
        for quarter in range(math.ceil(left), math.ceil(right)):
            axes.axvline(quarter, color=BEAT_LINE, linewidth=0.5, zorder=1)
    for number, bar in visible:
        axes.axvline(bar, color=BAR_LINE, linewidth=0.9 if every <= 4 else 0.5, zorder=1)
        if (number - 1) % every == 0:
            axes.text(bar, high + 0.9, str(number), ha="center", va="bottom", fontsize=7, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set(color=BAR_LINE, linewidth=0.8)


def _draw_notes(axes: Axes, notes: Sequence[Note], row_in: float, length: float) -> None:
    """Each note as a line with round ends, which reach exactly from its onset to its end."""
    left, right = axes.get_xlim()
    thick = 72 * row_in * 0.86
    half_cap = 0.5 * thick / 72 * length / (WIDTH_IN - LEFT_IN - RIGHT_IN)
    shown = [note for note in notes if note.onset < right and note.onset + note.duration > left]
    segments, colours, edges = [], [], []
    for note in sorted(shown, key=lambda note: (-note.voice, note.onset)):
        reach = min(half_cap, note.duration / 2)
        segments.append([(note.onset + reach, note.pitch), (note.onset + note.duration - reach, note.pitch)])
        colours.append(_mixed(COLOURS[note.voice % len(COLOURS)], PAPER, 0.35 + 0.65 * min(1.0, note.velocity / 80)))
        edges.append(_mixed(colours[-1], "#000000", 0.72))
    axes.add_collection(LineCollection(segments, linewidths=thick, colors=edges, capstyle="round", zorder=3))
    axes.add_collection(LineCollection(segments, linewidths=thick - 0.9, colors=colours, capstyle="round", zorder=4))


def _mixed(colour: str, other: str, share: float) -> str:
    """``share`` of a colour, the rest of another one."""
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(other[1:]), strict=True)
    return "#" + bytes(round(share * a + (1 - share) * b) for a, b in pairs).hex()


def _draw_legend(figure: Figure, piece: Piece, height: float) -> None:
    """The names of the voices that play, in their colours, on the right above the first line."""
    playing = sorted({note.voice for note in piece.notes}, reverse=True)
    right = 1 - RIGHT_IN / WIDTH_IN
    for voice in playing:
        name = piece.voices[voice].name.lower() or f"voice {voice + 1}"
        text = figure.text(right, 1 - 0.2 / height, name, ha="right", va="center", fontsize=9, color=INK)
        box = text.get_window_extent(FigureCanvasAgg(figure).get_renderer())
        right -= box.width / (DPI * WIDTH_IN) + 0.010
        figure.text(
            right, 1 - 0.2 / height, "●", ha="center", va="center", fontsize=9, color=COLOURS[voice % len(COLOURS)]
        )
        right -= 0.016
