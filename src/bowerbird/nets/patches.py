"""A grid of patches: patch × patch pixels become channels of one position, and back.

    (n, c, h, w) ⇄ (n, c·patch², ⌈h/patch⌉, ⌈w/patch⌉)

Networks work on the grid, which is patch² times smaller.  Any height and width will do.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def to_patches(x: Float[Tensor, "n c h w"], patch: int) -> Float[Tensor, "n c_patch rows columns"]:
    """Folds pixels into channels; sides are first padded at their ends, by repetition, to a multiple of ``patch``."""
    height, width = x.shape[-2:]
    if height % patch or width % patch:
        x = F.pad(x, (0, -width % patch, 0, -height % patch), mode="replicate")
    return F.pixel_unshuffle(x, patch)


def from_patches(
    grid: Float[Tensor, "n c_patch rows columns"], patch: int, height: int, width: int
) -> Float[Tensor, "n c h w"]:
    """The inverse of ``to_patches`` for images of this height and width."""
    return F.pixel_shuffle(grid, patch)[..., :height, :width]
