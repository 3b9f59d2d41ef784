"""A small classifier of handwritten digits, shipped with the package: its features and its verdicts are measures.

Images are uint8 of any size, grey or RGB.  They become 28×28 grey floats in [0, 1] (``to_digits``), pass five
convolutions with ReLU, and one affine map to 128 *features*, standardised on the training digits: each has mean 0 and
variance 1 there, so a Fréchet distance in this space has a scale that can be read (the total variance of real digits
is 128).  Class scores are an affine map of relu(features).

The weights are stored beside the code in half precision with the recipe that made them (``weights/digits.toml``).
Batch normalisation was folded into the convolutions after training.  The network knows nothing but digits: on other
images its features still separate distributions, but its class means nothing.
"""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird.errors import BowerbirdError

WEIGHTS = Path(__file__).parent / "weights" / "digits.safetensors"
SIDE = 28
FEATURES = 128
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""
CONVOLUTIONS = ((1, 32, 5, 2), (32, 32, 3, 1), (32, 64, 3, 2), (64, 64, 3, 1), (64, 64, 3, 2))
"""Channels in, channels out, kernel, stride; 28 → 14 → 14 → 7 → 7 → 4 pixels."""


class DigitNet(nn.Module):
    """28×28 grey digits in [0, 1] → 128 features → 10 class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2) for n_in, n_out, kernel, stride in CONVOLUTIONS
        )
        self.project = nn.Linear(64 * 4 * 4, FEATURES)
        self.classify = nn.Linear(FEATURES, 10)

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> "DigitNet":
        """The shipped network, computing in float32."""
        network = cls()
        network.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
        return network.eval().requires_grad_(False)

    def features(self, x: Float[Tensor, "n 1 28 28"]) -> Float[Tensor, "n 128"]:
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        return self.project(x.flatten(1))

    def logits(self, features: Float[Tensor, "n 128"]) -> Float[Tensor, "n 10"]:
        return self.classify(F.relu(features))

    def forward(self, x: Float[Tensor, "n 1 28 28"]) -> Float[Tensor, "n 10"]:
        return self.logits(self.features(x))


def to_digits(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n 1 28 28"]:
    """Grey by BT.601 luma, 28×28 by antialiased bilinear interpolation (stretched if not square), values in [0, 1].

    28×28 grey images pass unchanged but for the division by 255.
    """
    n_channels = images.shape[1]
    if n_channels not in (1, 3):
        raise BowerbirdError(f"Digits must be grey or RGB images; these have {n_channels} channels.")
    x = images.float() / 255
    if n_channels == 3:
        x = (x * torch.tensor(LUMA, device=x.device).view(3, 1, 1)).sum(1, keepdim=True)
    if x.shape[2:] != (SIDE, SIDE):
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    return x


INK, BOX = 0.25, 20
"""Brightness from which a pixel belongs to a digit, and the side of the box in which MNIST's digits lie."""


def as_scanned(images: UInt8[Tensor, "n 1 h w"]) -> tuple[Float[Tensor, "n 1 28 28"], Float[Tensor, " n"]]:
    """What is bright as MNIST shows a digit, and the longer side of it in pixels, 0 where nothing is bright.

    The box around it is scaled to 20 pixels and its centre of mass put into the middle (LeCun et al. 1998).
    """
    found, sides = torch.zeros(len(images), 1, SIDE, SIDE), torch.zeros(len(images))
    for i, image in enumerate(images[:, 0].float().cpu() / 255):
        rows, columns = ((image > INK).any(axis).nonzero().flatten() for axis in (1, 0))
        if not len(rows):
            continue
        part = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        sides[i] = max(part.shape)
        size = [max(1, round(BOX * side / max(part.shape))) for side in part.shape]
        part = F.interpolate(part[None, None], size, mode="bilinear", align_corners=False, antialias=True)[0, 0]
        top, left = (_middle(part.sum(1 - axis)) for axis in (0, 1))
        found[i, 0, top : top + size[0], left : left + size[1]] = part
    return found, sides


def _middle(ink: Float[Tensor, " k"]) -> int:
    """Where k rows begin whose centre of mass lies in the middle, as nearly as there is room."""
    mass = float((ink * torch.arange(len(ink))).sum() / ink.sum())
    return min(max(round((SIDE - 1) / 2 - mass), 0), SIDE - len(ink))
