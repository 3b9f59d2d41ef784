"""Spectrograms to look at: time to the right, pitch upwards, loud is bright; what each was made from below it."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bowerbird.eightbit import to_uint8
from bowerbird.media.speech.spectrogram import seen
from bowerbird.spec import Classes, Spec

GAP, TEXT_HEIGHT = 3, 15
"""Pixels."""
PAPER, INK = (24, 24, 30), (225, 225, 225)
MOST_CLASSES = 12
ROWS = 4


def first_classes(spec: Spec) -> tuple[str, Classes] | None:
    """The first of what is given that has few enough classes for a column each."""
    fields = ((name, field) for name, field in spec.given.items() if isinstance(field, Classes))
    return next(((name, field) for name, field in fields if len(field.names) <= MOST_CLASSES), None)


def sheet(x: Tensor, given: Mapping[str, Any], spec: Spec) -> Image.Image:
    """All spectrograms of samples, a column for each class where there are few."""
    found = first_classes(spec)
    columns = len(found[1].names) if found and len(x) % len(found[1].names) == 0 else min(len(x), 8)
    pictures = [spectrogram(one) for one in to_uint8(seen(x, spec))[:, 0]]
    return _pasted(pictures, captions(len(x), given, spec), columns)


def captions(n: int, given: Mapping[str, Any], spec: Spec) -> list[str]:
    """The classes of each sample, in words."""
    fields = [(name, field) for name, field in spec.given.items() if isinstance(field, Classes) and name in given]
    return [" · ".join((*field.names, "?")[int(given[name][i])] for name, field in fields) for i in range(n)]


def spectrogram(values: UInt8[Tensor, "mel frames"]) -> Image.Image:
    """One of them, twice as large."""
    pixels = colours()[np.flipud(values.numpy())]
    return Image.fromarray(pixels).resize((2 * values.shape[1], 2 * values.shape[0]), Image.Resampling.NEAREST)


@cache
def colours() -> UInt8[np.ndarray, "256 3"]:
    from matplotlib import colormaps  # half a second, which only those pay who look at sound

    return (colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def _pasted(pictures: Sequence[Image.Image], texts: Sequence[str], columns: int) -> Image.Image:
    width, height = pictures[0].size
    below = TEXT_HEIGHT if any(texts) else 0
    rows = -(-len(pictures) // columns)
    size = (GAP + columns * (width + GAP), GAP + rows * (height + below + GAP))
    paper, font = Image.new("RGB", size, PAPER), ImageFont.load_default(size=11)
    pen = ImageDraw.Draw(paper)
    for i, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        left, top = GAP + i % columns * (width + GAP), GAP + i // columns * (height + below + GAP)
        paper.paste(picture, (left, top))
        pen.text((left + 2, top + height), text[: width // 6], INK, font)
    return paper
