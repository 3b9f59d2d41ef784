"""How clips move, beside how real clips move; clips are uint8 (n, c, f, h, w), values span [-1, 1].

    change       Δ = E (x_{k+1} - x_k)²           over all pixels of all neighbouring frames
    residual     R = E min_s (x_{k+1}(p) - x_k(p + s))²,   one shift s of at most ``REACH`` pixels per side for each
                 block of ``BLOCK`` × ``BLOCK`` pixels: what moving parts of a frame cannot explain

Δ alone cannot tell a moving picture from a flickering one.  R can: the blocks of a picture that moves are found again
in the frame before it, those of one that flickers are not.  It is the error that remains after motion compensation, as
film coders compute it (Jain & Jain 1981), and needs no network.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

BLOCK, REACH = 8, 4
SPAN = 127.5
"""Grey levels to values that span [-1, 1]."""
AT_ONCE = 32
Clips = UInt8[Tensor, "n c f h w"]


def change(clips: Clips) -> Float[Tensor, " n"]:
    """Mean squared difference of neighbouring frames of each clip."""
    x = clips.float() / SPAN
    return x.diff(dim=2).square().flatten(1).mean(1)


def residual(clips: Clips) -> Float[Tensor, " n"]:
    """Mean squared difference of neighbouring frames of each clip after the best shift of every block."""
    return torch.cat([_residual(part.float() / SPAN) for part in clips.split(AT_ONCE)])


def _residual(x: Float[Tensor, "n c f h w"]) -> Float[Tensor, " n"]:
    height, width = (side - side % BLOCK or side for side in x.shape[-2:])
    x = x[..., :height, :width]
    n, frames = len(x), x.shape[2]
    before, after = (part.transpose(1, 2).flatten(0, 1) for part in (x[:, :, :-1], x[:, :, 1:]))
    around = F.pad(before, (REACH,) * 4, mode="replicate")
    best = None
    for down in range(2 * REACH + 1):
        for right in range(2 * REACH + 1):
            moved = around[..., down : down + height, right : right + width]
            error = F.avg_pool2d((after - moved).square().mean(1, keepdim=True), min(BLOCK, height, width))
            best = error if best is None else torch.minimum(best, error)
    assert best is not None
    return best.view(n, frames - 1, -1).mean((1, 2))


def repeated(firsts: UInt8[Tensor, "n c h w"], n_frames: int) -> Clips:
    """Clips that show one frame all the time."""
    return firsts[:, :, None].expand(-1, -1, n_frames, -1, -1)


def nearest(firsts: UInt8[Tensor, "n c h w"], known: UInt8[Tensor, "k c f h w"]) -> Int[Tensor, " n"]:
    """The clip whose first frame is nearest, in squared error, to each of these."""
    a, b = (one.flatten(1).float() / SPAN for one in (firsts, known[:, :, 0]))
    return torch.cat([torch.cdist(part, b).argmin(1) for part in a.split(256)])


def as_frames(clips: Clips) -> UInt8[Tensor, "frames c h w"]:
    """All frames of all clips, clip by clip."""
    return clips.transpose(1, 2).flatten(0, 1)
