"""What a pixel sees of pictures that are known up to it, in reading order: 34 pixels around it, and colours to copy.

A ``Canvas`` holds the pictures: whole ones, or those that are drawn or decompressed, one pixel put after the other.  Of
both a pixel sees the same, to the last bit.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

Rows = Int64[Tensor, " b"]
Colours = Int64[Tensor, "b k c"]

PIXELS, LEFT, UP, RIGHT = range(4)
"""Planes: the picture, and for each pixel the nearest other colour to its left, above it and to its right."""
ABOVE, BESIDE = 3, 4
"""Rows above a picture and columns beside it that hold ``PAPER``."""
PAPER = 255
COPIED = (
    (PIXELS, 0, -1),
    (PIXELS, -1, 0),
    (PIXELS, -1, -1),
    (PIXELS, -1, 1),
    (LEFT, 0, -1),
    (UP, -1, 0),
    (RIGHT, -1, 0),
)
"""(plane, rows down, columns right) of the colours to copy; the last is the mirror image's."""
N_COPIED = len(COPIED) + 1
N_PREDICTORS = 5
AROUND = tuple(
    (PIXELS, down, right)
    for down, first, last in ((-3, -2, 2), (-2, -3, 3), (-1, -3, 4), (0, -3, -1))
    for right in range(first, last + 1)
)
MIRRORED = (*((PIXELS, 0, right) for right in (0, -2, -1, 1, 2)), *((PIXELS, -1, right) for right in (-1, 0, 1)))
"""About the place opposite, the first being that itself."""
N_SEEN = len(AROUND) + len(MIRRORED) + 3
LOG_256 = math.log(256)


def n_features(channels: int) -> int:
    return (N_SEEN + 2) * channels + 5 + math.comb(N_COPIED, 2) + 3


class Neighbourhood(NamedTuple):
    """What is known of pixels before they are."""

    features: Float[Tensor, "b n_in"]
    colours: Colours
    """Those that may be copied."""

    def rows(self, index: Rows) -> "Neighbourhood":
        return Neighbourhood(self.features[index], self.colours[index])

    @property
    def predictors(self) -> Float[Tensor, "b m c"]:
        """Left, above, left + above - above left, above right, mirrored."""
        left, above, corner, right = self.colours[:, :4].float().unbind(1)
        return torch.stack([left, above, (left + above - corner).clamp(0, 255), right, self.colours[:, -1].float()], 1)

    def first(self, x: Int64[Tensor, "b c"]) -> Rows:
        """The first of the colours to copy that equals x; their number if none does."""
        same = (self.colours == x[:, None]).all(-1)
        return torch.where(same.any(1), same.float().argmax(1), N_COPIED)


class Canvas:
    """n pictures, as far as they are known."""

    planes: UInt8[Tensor, "planes n rows columns c"]

    def __init__(self, n: int, shape: tuple[int, ...], device: Any = None):
        """Nothing is known of pictures of this shape, (c, h, w)."""
        channels, self.height, self.width = shape
        size = (4, n, ABOVE + self.height, self.width + 2 * BESIDE, channels)
        self.planes = torch.full(size, PAPER, dtype=torch.uint8, device=device)

    @classmethod
    def of(cls, x: UInt8[Tensor, "n c h w"]) -> "Canvas":
        """Whole pictures."""
        canvas = cls(len(x), x.shape[1:], x.device)
        canvas.planes[:, :, ABOVE:, BESIDE:-BESIDE] = x.permute(0, 2, 3, 1)
        for row in range(ABOVE, canvas.planes.shape[2]):
            canvas._extend(UP, (slice(None), row), (slice(None), row - 1))
        for column in range(1, canvas.planes.shape[3]):
            canvas._extend(LEFT, (slice(None), slice(None), column), (slice(None), slice(None), column - 1))
        canvas._look_right(slice(None))
        return canvas

    def __len__(self) -> int:
        return self.planes.shape[1]

    def pictures(self) -> UInt8[Tensor, "n c h w"]:
        return self.planes[PIXELS, :, ABOVE:, BESIDE:-BESIDE].permute(0, 3, 1, 2).contiguous()

    def put(self, row: int, column: int, x: Int64[Tensor, "n c"]) -> None:
        """The next pixel of every picture."""
        row, column = row + ABOVE, column + BESIDE
        self.planes[PIXELS, :, row, column] = x.to(self.planes.dtype)
        self._extend(LEFT, (slice(None), row, column), (slice(None), row, column - 1))
        self._extend(UP, (slice(None), row, column), (slice(None), row - 1, column))
        if column == self.width + BESIDE - 1:
            self._look_right(row)

    def _look_right(self, rows: Any) -> None:
        """The plane RIGHT of rows that are known to their end."""
        for column in reversed(range(self.planes.shape[3] - 1)):
            self._extend(RIGHT, (slice(None), rows, column), (slice(None), rows, column + 1))

    def _extend(self, plane: int, here: Any, before: Any) -> None:
        """The other colour: that of the pixel before, or, where it is the same, what was the other colour there."""
        pixels = self.planes[PIXELS]
        same = (pixels[here] == pixels[before]).all(-1, keepdim=True)
        self.planes[plane][here] = torch.where(same, self.planes[plane][before], pixels[before])

    def colours(self, i: Rows, row: Rows, column: Rows) -> Int64[Tensor, "b c"]:
        """Of the pixels at (row, column) of the pictures i."""
        return self.planes[PIXELS, i, row + ABOVE, column + BESIDE].long()

    def about(self, i: Rows, row: Rows, column: Rows) -> Neighbourhood:
        """What the pixels at (row, column) of the pictures i see."""
        copied, (mirrored, known) = self._at(i, row, column, COPIED), self._mirrored(i, row, column)
        left = copied[:, :1]
        mirrored = torch.where(known[..., None], mirrored, left)
        colours = torch.cat([copied, mirrored[:, :1]], 1)
        seen = torch.cat([self._at(i, row, column, AROUND), mirrored, copied[:, 4:]], 1)
        first, second = torch.triu_indices(N_COPIED, N_COPIED, 1, device=row.device)
        equal = equalities(colours)[:, first, second]
        place = torch.stack([row / self.height, column / self.width, (2 * column / self.width - 1).abs()], 1)
        tones = copied[:, :2].flatten(1) / 127.5 - 1
        numbers = [logarithmic(seen - left).flatten(1), tones, known[:, :5], equal, place]
        return Neighbourhood(torch.cat([one.float() for one in numbers], 1), colours)

    def _mirrored(self, i: Rows, row: Rows, column: Rows) -> tuple[Colours, Bool[Tensor, "b k"]]:
        """The colours about the place opposite, and which of them are known."""
        opposite, above = self.width - 1 - column, -self.planes.shape[3]
        steps = torch.tensor([right if down == 0 else above for _, down, right in MIRRORED], device=row.device)
        return self._at(i, row, opposite, MIRRORED), opposite[:, None] + steps < column[:, None]

    def _at(self, i: Rows, row: Rows, column: Rows, places: Any) -> Colours:
        """The colours at ``places``, (plane, rows down, columns right)."""
        _, n, rows, columns, channels = self.planes.shape
        steps = [(plane * n * rows + down) * columns + right for plane, down, right in places]
        here = (i * rows + row + ABOVE) * columns + column + BESIDE
        return self.planes.view(-1, channels)[here[:, None] + torch.tensor(steps, device=here.device)].long()


def equalities(colours: Colours) -> Bool[Tensor, "b k k"]:
    """Which of the colours of each pixel are the same."""
    return (colours[:, :, None] == colours[:, None]).all(-1)


def logarithmic(difference: Tensor) -> Tensor:
    """sign(d) log(1 + |d|) / log 256: tells equal from nearly equal."""
    return difference.sign() * difference.abs().float().log1p() / LOG_256
