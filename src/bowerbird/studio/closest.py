"""The training picture that lies nearest to each sample, in pixels: whether something is new is best seen."""

from collections import OrderedDict
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bowerbird import config
from bowerbird.data.writing import save_png
from bowerbird.eightbit import to_uint8
from bowerbird.media import open_data
from bowerbird.media.image.imageset import ImageData
from bowerbird.media.image.pictures import picture

AT_ONCE = 2048
"""Training pictures that are compared at a time."""
CANDIDATES = 8
MOST_SETS = 3


class Closest:
    """Opened data of runs; to be used in the thread of models."""

    def __init__(self) -> None:
        self._opened: OrderedDict[str, ImageData] = OrderedDict()

    def data(self, run: Path) -> ImageData:
        """The data that a run was trained on; BowerbirdError where they are no longer."""
        key = str(run)
        if key not in self._opened:
            opened: ImageData = open_data(config.load(str(run / "run.toml")).data)  # type: ignore[assignment]
            self._opened[key] = opened
        self._opened.move_to_end(key)
        while len(self._opened) > MOST_SETS:
            self._opened.popitem(last=False)
        return self._opened[key]

    def pictures(self, run: Path, x: Tensor) -> list[Image.Image]:
        """For each sample in [-1, 1] the nearest training picture, by the Euclidean distance of pixels."""
        images = self.data(run).train.images
        return [picture(images[i]) for i in nearest_rows(to_uint8(x), images).tolist()]

    def written(self, run: Path, x: Tensor, folder: Path) -> list[Path]:
        found = self.pictures(run, x)
        return [save_png(folder / f"nearest-{i:05d}.png", image) for i, image in enumerate(found)]


def nearest_rows(x: Tensor, images: Tensor) -> Tensor:
    """The row of ``images`` that lies nearest to each of ``x``, both uint8 (n, c, h, w).

    In float32 it could be another one that lies nearly as near, so a few of them are compared in whole numbers.
    """
    near = torch.empty(len(x), 0)
    rows = torch.empty(len(x), 0, dtype=torch.int64)
    queries = _centred(x)
    for start in range(0, len(images), AT_ONCE):
        points = _centred(images[start : start + AT_ONCE])
        distances = torch.addmm(points.square().sum(1)[None], queries, points.T, alpha=-2)  # but for |x|²
        here = torch.arange(start, start + len(points)).expand(len(x), -1)
        near, rows = torch.cat([near, distances], 1), torch.cat([rows, here], 1)
        near, kept = near.topk(min(CANDIDATES, near.shape[1]), largest=False)
        rows = rows.gather(1, kept)
    rows = rows.sort(1).values
    apart = (x[:, None].int() - images[rows].int()).flatten(2).square().sum(2)
    return rows.gather(1, apart.argmin(1, keepdim=True)).squeeze(1)


def _centred(images: Tensor) -> Tensor:
    """Bytes as rows of small numbers, so that little is lost in their products."""
    return images.flatten(1).float() - 128
