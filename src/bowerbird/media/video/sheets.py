"""Clips to look at: a row of frames for each, time to the right; and all of them side by side as they move."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from bowerbird.eightbit import to_uint8
from bowerbird.media.video.films import GAP, PAPER, pictures, strip
from bowerbird.spec import Classes, Spec

MOST_CLASSES = 16
TRUTH = "truth"
"""Name under which the true clips are given; each is the row below its sample."""
BETWEEN = 5
"""Pixels between one clip and the next."""


def classes(spec: Spec) -> tuple[str, Classes] | None:
    """The first of what is given that has few enough classes to show all of them."""
    fields = ((name, field) for name, field in spec.given.items() if isinstance(field, Classes))
    return next(((name, field) for name, field in fields if len(field.names) <= MOST_CLASSES), None)


def sheet(x: Tensor, given: Mapping[str, Any], spec: Spec) -> Image.Image:
    """A strip for each clip (n, c, f, h, w), the true one below where there is one."""
    groups = [[strip(pictures(clip))] for clip in _arrays(x)]
    if TRUTH in given:
        for group, true in zip(groups, _arrays(given[TRUTH]), strict=False):
            group.append(strip(pictures(true)))
    width, height = groups[0][0].size
    step = len(groups[0]) * (height + GAP) + BETWEEN
    paper = Image.new("RGB", (width + 2 * BETWEEN, len(groups) * step + BETWEEN), (PAPER,) * 3)
    for i, group in enumerate(groups):
        for j, one in enumerate(group):
            paper.paste(one, (BETWEEN, BETWEEN + i * step + j * (height + GAP)))
    return paper


def together(x: Tensor) -> list[Image.Image]:
    """Frames in which all clips stand side by side."""
    clips = [pictures(clip) for clip in _arrays(x)]
    columns = math.ceil(math.sqrt(len(clips)))
    width, height = (side + GAP for side in clips[0][0].size)
    size = (columns * width + GAP, -(-len(clips) // columns) * height + GAP)
    frames = []
    for moment in zip(*clips, strict=True):
        paper = Image.new(clips[0][0].mode, size, PAPER if clips[0][0].mode == "L" else (PAPER,) * 3)
        for i, picture in enumerate(moment):
            paper.paste(picture, (GAP + i % columns * width, GAP + i // columns * height))
        frames.append(paper)
    return frames


def _arrays(x: Tensor) -> "list[np.ndarray]":
    """(frames, h, w, c) each."""
    return list(to_uint8(x).permute(0, 2, 3, 4, 1).contiguous().cpu().numpy())
