"""Differentiable augmentation: random changes of images through which gradients flow.

A discriminator that sees few images learns them by heart.  Showing it only randomly changed images, real and
generated alike, prevents that; because every change is differentiable the generator still learns *through* it, and
because it is applied to both sides the generator is not asked to imitate the change (Zhao et al. 2020,
arXiv:2006.10738; strengths as there).

Every function maps (n, c, h, w) in [-1, 1] to the same shape and draws one change per image from PyTorch's global
random state, on the CPU, so that a seed means the same on every device.  Uncovered pixels become 0 (mid-grey), as
in the paper.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

Images = Float[Tensor, "n c h w"]
Augmentation = Literal["translate", "cutout", "colour"]

LARGEST_SHIFT = 1 / 8
CUTOUT_SIDE = 1 / 2


def translate(x: Images) -> Images:
    """Moves each image by whole pixels, up to 1/8 of its side in each direction."""
    for dim in (2, 3):
        largest = round(x.shape[dim] * LARGEST_SHIFT)
        x = _shift(x, dim, torch.randint(-largest, largest + 1, (len(x),)), largest)
    return x


def _shift(x: Images, dim: int, offset: Int64[Tensor, " n"], largest: int) -> Images:
    """y[…, i, …] = x[…, i - offset, …] along ``dim``, and 0 where that lies outside."""
    sides = (0, 0, largest, largest) if dim == 2 else (largest, largest, 0, 0)
    shape = [1, 1, 1, 1]
    shape[dim] = x.shape[dim]
    source = torch.arange(x.shape[dim]).view(shape) - offset.view(-1, 1, 1, 1) + largest
    return F.pad(x, sides).gather(dim, source.to(x.device).expand_as(x))


def cutout(x: Images) -> Images:
    """Blanks a rectangle of half the sides whose centre is uniform over the image."""
    n, _, h, w = x.shape
    rows = _covered(n, h).view(n, 1, h, 1)
    columns = _covered(n, w).view(n, 1, 1, w)
    return x * (~(rows & columns)).to(x)


def _covered(n: int, size: int) -> Tensor:
    """Which of the ``size`` positions lie within a quarter of it from a random centre, (n, size)."""
    centre = torch.rand(n, 1) * size
    return (torch.arange(size) + 0.5 - centre).abs() <= size * CUTOUT_SIDE / 2


def colour(x: Images) -> Images:
    """Brightness + U(-0.5, 0.5), saturation × U(0, 2), contrast × U(0.5, 1.5); grey images have no saturation."""
    brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1).to(x)
    x = x + (brightness - 0.5)
    x = x.lerp(x.mean(1, keepdim=True), 1 - 2 * saturation)
    return x.lerp(x.mean((1, 2, 3), keepdim=True), 0.5 - contrast)


AUGMENTATIONS: dict[Augmentation, Callable[[Tensor], Tensor]] = {
    "translate": translate,
    "cutout": cutout,
    "colour": colour,
}


def augmented(x: Images, names: tuple[Augmentation, ...]) -> Images:
    """Applies the named changes in the order given; with no names x is returned as it is."""
    for name in names:
        x = AUGMENTATIONS[name](x)
    return x
