"""Pictures of images: contact sheets and their files.

A sheet shows images of one size, row by row, with thin gaps.  Every image pixel becomes a square of ``scale`` pixels
of the same value, so that what is seen is what was generated: nothing is smoothed, stretched or compressed.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bowerbird.data.writing import write_atomically
from bowerbird.provenance.labelling import marked

GAP = 2
"""Pixels between images and around the sheet."""
TILE = 64
"""Small images are enlarged by the largest whole number that keeps their longer side within this many pixels."""

FRAME_MS = 80
"""How long a film shows an image."""

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_PAPER: dict[str, float | tuple[int, ...]] = {"L": 38, "LA": (38, 0), "RGB": (38, 38, 38), "RGBA": (38, 38, 38, 0)}
_INK: dict[str, float | tuple[int, ...]] = {
    "L": 235,
    "LA": (150, 255),
    "RGB": (235, 235, 235),
    "RGBA": (150, 150, 150, 255),
}
_TEXT_HEIGHT = 14


def picture(image: UInt8[Tensor, "c h w"], scale: int = 1) -> Image.Image:
    """One image of 1 to 4 channels, each pixel as a square of ``scale`` pixels."""
    pixels = image.permute(1, 2, 0).contiguous().cpu().numpy()
    drawn = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return drawn.resize((drawn.width * scale, drawn.height * scale), Image.Resampling.NEAREST)


def enlargement(height: int, width: int) -> int:
    """The side, in pixels of a sheet, of a pixel of a picture."""
    return max(1, TILE // max(height, width))


def save_film(path: Path, images: UInt8[Tensor, "n c h w"]) -> Path:
    """An animated GIF or WebP, as the suffix says, that shows one image after the other for ever."""
    scale = enlargement(*images.shape[-2:])
    first, *others = [marked(picture(image, scale)) for image in images]
    buffer = io.BytesIO()
    kind = path.suffix.lstrip(".").upper()
    how = {"lossless": True} if kind == "WEBP" else {}
    first.save(buffer, kind, save_all=True, append_images=others, duration=FRAME_MS, loop=0, **how)
    write_atomically(path, lambda unfinished: unfinished.write_bytes(buffer.getvalue()))
    return path


def sheet(
    images: UInt8[Tensor, "n c h w"],
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    scale: int | None = None,
) -> Image.Image:
    """A contact sheet of ``n`` images of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA) channels.

    ``columns``: images per row (None: ⌈√n⌉).  ``labels``: one text under each image.  ``scale``: side in sheet pixels
    of one image pixel (None: see ``TILE``).  The image in row r, column k starts at ``GAP + k·(scale·w + GAP)`` from
    the left.  Raises ``ValueError`` for no images, a channel count without a colour mode, or too few labels.
    """
    n, channels, height, width = images.shape
    if n == 0 or channels not in _MODES:
        raise ValueError(f"A sheet needs at least one image of 1 to 4 channels, not shape {tuple(images.shape)}.")
    if labels is not None and len(labels) != n:
        raise ValueError(f"{len(labels)} labels were given for {n} images.")
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    scale = scale or enlargement(height, width)
    mode = _MODES[channels]
    step_x = width * scale + GAP
    step_y = height * scale + GAP + (_TEXT_HEIGHT if labels is not None else 0)
    paper = Image.new(mode, (GAP + columns * step_x, GAP + math.ceil(n / columns) * step_y), _PAPER[mode])
    pen = ImageDraw.Draw(paper)
    font = ImageFont.load_default(size=11)
    for i, image in enumerate(images):
        left, top = GAP + i % columns * step_x, GAP + i // columns * step_y
        paper.paste(picture(image, scale), (left, top))
        if labels is not None:
            middle = (left + width * scale / 2, top + height * scale + _TEXT_HEIGHT / 2)
            pen.text(middle, labels[i], fill=_INK[mode], font=font, anchor="mm")
    return paper
