"""DINOv2 vision transformers (Oquab et al. 2023, arXiv:2304.07193), whose class token is a feature of an image.

An image of 224×224 is cut into 16×16 patches of 14 pixels; each becomes a token, a class token leads, and blocks of

    x ← x + γ₁ · attention(norm(x)),    x ← x + γ₂ · mlp(norm(x))

follow.  The feature is the normalised class token of the last block.  Positions were learnt for 37×37 patches and are
interpolated bicubically, at the scale (16 + 0.1)/37 that the published code uses.  Depth and width are read from the
weights: ViT-S/14 has 12 blocks of width 384, ViT-B/14 12 of 768, ViT-L/14 24 of 1,024; heads are 64 wide.
"""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird.errors import BowerbirdError
from bowerbird.metrics.weights import IMAGENET_MEAN, IMAGENET_STD, fill, read_weights, to_photograph

INPUT_SIZE = 224
PATCH = 14
HEAD_WIDTH = 64
NORM_EPSILON = 1e-6
POSITION_OFFSET = 0.1


class Scale(nn.Module):
    """A learnt factor per channel."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class PatchAttention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class PatchMLP(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class PatchBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.attn = PatchAttention(width)
        self.ls1 = Scale(width)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mlp = PatchMLP(width)
        self.ls2 = Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchTransformer(nn.Module):
    """uint8 images of any size → the class token, float32."""

    def __init__(self, width: int, depth: int, n_positions: int):
        super().__init__()
        self.width = width
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, n_positions, width))
        self.mask_token = nn.Parameter(torch.empty(1, width))  # of its training; stored with the weights, not used
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        self.blocks = nn.ModuleList(PatchBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)

    @classmethod
    def load(cls, path: Path) -> "PatchTransformer":
        """Reads a published file, as .pth or .safetensors; the sizes follow from its shapes."""
        weights = read_weights(path)
        if "cls_token" not in weights or "pos_embed" not in weights:
            raise BowerbirdError(f"{path} does not hold a DINOv2 network: it has no cls_token and pos_embed.")
        depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
        network = cls(weights["cls_token"].shape[-1], depth, weights["pos_embed"].shape[1])
        fill(network, weights, path)
        return network.float().eval().requires_grad_(False)

    def forward(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        x = to_photograph(images, INPUT_SIZE)
        mean, std = (x.new_tensor(of).view(3, 1, 1) for of in (IMAGENET_MEAN, IMAGENET_STD))
        patches = self.patch_embed["proj"]((x - mean) / std)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches.flatten(2).mT], 1)
        tokens = tokens + self._positions(patches.shape[-1])
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 0]

    def _positions(self, side: int) -> Float[Tensor, "1 t d"]:
        """The position of the class token, then those of side × side patches."""
        learnt = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if side == learnt:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].unflatten(1, (learnt, learnt)).permute(0, 3, 1, 2)
        factor = (side + POSITION_OFFSET) / learnt
        grid = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).mT], 1)
