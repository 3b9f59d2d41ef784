"""Self-attention among the pixels or patches of an image, in two forms that compute the same.

    attention(q, k, v) = softmax(q kᵀ / √d) v,   q, k, v of shape (n, head, token, d)

The explicit form materialises the token × token matrix; the fused one (torch's scaled_dot_product_attention) does
not.  Fused kernels win on accelerators and for long sequences; for few tokens on a CPU there is nothing to win.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

EXPLICIT_AT_MOST = 64
"""Tokens up to which CPUs use the explicit form.

Measured in fp32 (docs/nets.md): both forms train equally fast up to here, and at 200 tokens the fused one 1.5 times
faster.  Where they tie, the explicit form is the better one, because it has derivatives of every order."""


def explicit_attention(
    q: Float[Tensor, "n head token d"], k: Float[Tensor, "n head key d"], v: Float[Tensor, "n head key d"]
) -> Float[Tensor, "n head token d"]:
    """softmax(q kᵀ / √d) v, one product after the other (Vaswani et al. 2017, eq. 1)."""
    # The scale goes on q, which is smaller than the matrix of logits wherever attention costs anything.
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return torch.softmax(logits, dim=-1) @ v


def attention(
    q: Float[Tensor, "n head token d"], k: Float[Tensor, "n head key d"], v: Float[Tensor, "n head key d"]
) -> Float[Tensor, "n head token d"]:
    """softmax(q kᵀ / √d) v in whichever form is faster for this device and number of tokens."""
    if q.device.type == "cpu" and k.shape[-2] <= EXPLICIT_AT_MOST:
        return explicit_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def n_heads(channels: int, head_channels: int) -> int:
    """The number of heads that divides the channels and comes nearest to ``head_channels`` each, rounded down."""
    return next(n for n in range(max(1, channels // head_channels), 0, -1) if channels % n == 0)


class SelfAttention(nn.Module):
    """Multi-head self-attention of (n, token, channels)."""

    def __init__(self, channels: int, n_head: int):
        super().__init__()
        self.n_head = n_head
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "n token channels"]) -> Float[Tensor, "n token channels"]:
        n, token, channels = x.shape
        # (n, token, 3·head·d) → three tensors of (n, head, token, d)
        q, k, v = self.qkv(x).view(n, token, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        return self.out(attention(q, k, v).transpose(1, 2).reshape(n, token, channels))
