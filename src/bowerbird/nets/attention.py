"""Attention: every token takes from others a mean of what they hold, weighted by how well its query fits their keys.

    attention(q, k, v, bias) = softmax(q kᵀ / √d + bias) v           (Vaswani et al. 2017, arXiv:1706.03762, equation 1)

q has the shape (n, head, token, d); k and v (n, kv_head, key, d), where each of the kv_heads serves head / kv_head
heads in a row (grouped-query attention, Ainslie et al. 2023, arXiv:2305.13245); bias is 0 where a token may look and
-inf where it may not.  ``causal_attention`` lets token i look at what stands up to i.

There are two forms that compute the same.  The explicit one materialises the token × key matrix; the fused one (torch's
scaled_dot_product_attention) does not.  Fused kernels win on accelerators and for long sequences; for few tokens on a
CPU there is nothing to win.
"""

from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

EXPLICIT_AT_MOST = 64
"""Keys up to which CPUs use the explicit form when every token sees every other.

Measured in fp32 (docs/nets.md): both forms train equally fast up to here, and at 200 tokens the fused one 1.5 times
faster.  Where they tie, the explicit form is the better one, because it has derivatives of every order."""

EXPLICIT_IN_BF16_AT_MOST = 256
"""The same in bf16, with a bias or without: on a CPU with bf16 instructions, bf16 makes the training of a small GPT 2.3
times faster with the explicit form, and 1.2 to 1.4 times with the fused one.  In fp32 and with a bias the fused form is
the faster one at every size (docs/nets.md)."""

Queries = Float[Tensor, "n head token d"]
Keys = Float[Tensor, "n kv_head key d"]
Bias = Float[Tensor, "*rows #token key"]
"""For all heads of all rows, for all heads of each row (n, 1, token, key), or (n, 1, 1, key)."""


class Attend(Protocol):
    """One of the forms below, with its bias bound: who may look at whom."""

    def __call__(self, q: Queries, k: Keys, v: Keys) -> Queries: ...


def explicit_attention(q: Queries, k: Keys, v: Keys, bias: Bias | None = None) -> Queries:
    """softmax(q kᵀ / √d + bias) v, one product after the other."""
    n, n_head, token, d = q.shape
    n_kv_head, key = k.shape[1:3]
    # The scale goes on q, which is smaller than the matrix of logits wherever attention costs anything.  The heads that
    # share a key are rows of one product, so that no key is copied.
    q = (q * d**-0.5).reshape(n, n_kv_head, -1, d)
    logits = (q @ k.transpose(-2, -1)).view(n, n_head, token, key)
    if bias is not None:
        logits = logits + bias.to(q.dtype)
    weights = torch.softmax(logits, dim=-1).view(n, n_kv_head, -1, key)
    return (weights @ v).view(n, n_head, token, d)


def attention(q: Queries, k: Keys, v: Keys, bias: Bias | None = None) -> Queries:
    """softmax(q kᵀ / √d + bias) v in whichever form is faster for this device, type and number of keys."""
    if _explicit_is_faster(k, bias is not None):
        return explicit_attention(q, k, v, bias)
    bias = None if bias is None else bias.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, bias, enable_gqa=q.shape[1] != k.shape[1])


def causal_attention(q: Queries, k: Keys, v: Keys) -> Queries:
    """softmax(q kᵀ / √d + bias) v where the last query is the last key, and no query sees a later key."""
    token, key = q.shape[-2], k.shape[-2]
    if token == 1:
        return attention(q, k, v)
    if token < key or _explicit_is_faster(k, biased=True):
        return attention(q, k, v, causal_bias(token, key, q))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


def _explicit_is_faster(k: Keys, biased: bool) -> bool:
    if k.device.type != "cpu":
        return False
    if k.dtype == torch.bfloat16:
        return k.shape[-2] <= EXPLICIT_IN_BF16_AT_MOST
    return not biased and k.shape[-2] <= EXPLICIT_AT_MOST


def causal_bias(token: int, key: int, like: Tensor) -> Float[Tensor, "token key"]:
    """-inf where key j > i + (key - token), else 0; of the type and on the device of ``like``."""
    return torch.full((token, key), -torch.inf, dtype=like.dtype, device=like.device).triu_(key - token + 1)


def bias_where(visible: Bool[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0 where ``visible``, else -inf."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill_(~visible, -torch.inf)


def within_documents(document: Int[Tensor, "n token"]) -> Attend:
    """Causal attention in which packed documents do not see one another."""
    same = document[:, :, None] == document[:, None, :]
    return partial(attention, bias=bias_where(same.tril_()[:, None]))


def n_heads(channels: int, head_channels: int) -> int:
    """The number of heads that divides the channels and comes nearest to ``head_channels`` each, rounded down."""
    return next(n for n in range(max(1, channels // head_channels), 0, -1) if channels % n == 0)


class SelfAttention(nn.Module):
    """Multi-head self-attention of (n, token, channels), every token with every other."""

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
