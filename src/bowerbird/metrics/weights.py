"""Published weights of extractors: read without running anything that a file may hold, and checked by shape."""

import pickle
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird.errors import BowerbirdError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in [0, 1]."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pth file that holds tensors alone."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BowerbirdError(f"{path} cannot be read as weights (.pth or .safetensors): {reason}") from error
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise BowerbirdError(f"{path} holds something else than named tensors; give the published weights as they are.")
    return stored


def fill(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Loads ``weights`` into the network; one sentence when they are those of another network."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:300]
        raise BowerbirdError(f"{path} does not fit the network {type(network).__name__}: {problem}") from error


def to_photograph(images: UInt8[Tensor, "n c h w"], side: int) -> Float[Tensor, "n 3 {side} {side}"]:
    """Values in [0, 1], antialiased bicubic to side × side (stretched if not square), grey repeated."""
    x = images.float()
    if x.shape[2:] != (side, side):
        x = F.interpolate(x, (side, side), mode="bicubic", align_corners=False, antialias=True).clamp_(0, 255)
    return (x / 255).expand(-1, 3, -1, -1)
