"""Layers of a Transformer: what tokens learn from one another, and what each makes of it.

Heads of queries come first, so that h = 0 … n_head-1 uses the keys and values of head h // (n_head / n_kv_head).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.nets.attention import Attend
from bowerbird.nets.positions import Rotation, rotated

Hidden = Float[Tensor, "n token n_embd"]
KeysValues = Float[Tensor, "n n_kv_head 2 source d"]
Append = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Keys and values (n, n_kv_head, token, d) of new tokens → those of all tokens."""
Activation = Literal["gelu", "gelu-tanh", "swiglu"]


class Attention(nn.Module):
    """Multi-head self-attention.  The rows of ``qkv`` give all queries, then all keys, then all values."""

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_kv_head: int,
        bias: bool,
        d: int | None = None,
        out_bias: bool | None = None,
        qk_norm_tol: float | None = None,
    ):
        """``d`` features per head (None: n_embd / n_head); with ``qk_norm_tol``, queries and keys are normalised."""
        super().__init__()
        self.heads = (n_head, n_kv_head, n_kv_head)
        self.d = d or n_embd // n_head
        self.qkv = nn.Linear(n_embd, sum(self.heads) * self.d, bias=bias)
        self.out = nn.Linear(n_head * self.d, n_embd, bias=bias if out_bias is None else out_bias)
        self.q_norm = None if qk_norm_tol is None else nn.RMSNorm(self.d, eps=qk_norm_tol)
        self.k_norm = None if qk_norm_tol is None else nn.RMSNorm(self.d, eps=qk_norm_tol)

    def forward(self, x: Hidden, attend: Attend, turn: Rotation | None = None, append: Append | None = None) -> Hidden:
        q, k, v = self.qkv(x).unflatten(-1, (-1, self.d)).transpose(1, 2).split(self.heads, dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if turn is not None:
            q, k = rotated(q, turn), rotated(k, turn)
        if append is not None:
            k, v = append(k, v)
        return self.out(attend(q, k, v).transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention from the target's tokens to the encoded source."""

    def __init__(self, n_embd: int, n_head: int, n_kv_head: int, bias: bool):
        super().__init__()
        self.n_kv_head = n_kv_head
        self.d = n_embd // n_head
        self.q = nn.Linear(n_embd, n_embd, bias=bias)
        self.kv = nn.Linear(n_embd, 2 * n_kv_head * self.d, bias=bias)
        self.out = nn.Linear(n_embd, n_embd, bias=bias)

    def keys_values(self, source: Float[Tensor, "n source n_embd"]) -> KeysValues:
        """Computed once per source, however long the target grows."""
        kv = self.kv(source).unflatten(-1, (2, self.n_kv_head, self.d))
        # Of a head first all keys, then all values: (n, head) is then one batch dimension to a product, with no copy.
        return kv.permute(0, 3, 2, 1, 4).contiguous()

    def forward(self, x: Hidden, keys_values: KeysValues, attend: Attend) -> Hidden:
        q = self.q(x).unflatten(-1, (-1, self.d)).transpose(1, 2)
        k, v = keys_values.unbind(2)
        return self.out(attend(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two layers, W_down activation(W_up x).  For swiglu the first half of ``up`` gives the gate."""

    def __init__(self, n_embd: int, n_ff: int, activation: Activation, bias: bool):
        super().__init__()
        self.up = nn.Linear(n_embd, 2 * n_ff if activation == "swiglu" else n_ff, bias=bias)
        self.down = nn.Linear(n_ff, n_embd, bias=bias)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Hidden) -> Hidden:
        return self.down(self.activation(self.up(x)))


def swiglu(h: Float[Tensor, "*n two_n_ff"]) -> Float[Tensor, "*n n_ff"]:
    """silu(gate) ∘ up of the two halves of h (Shazeer 2020, arXiv:2002.05202, equation 6)."""
    gate, up = h.chunk(2, dim=-1)
    return F.silu(gate) * up


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu-tanh": partial(F.gelu, approximate="tanh"),
    "swiglu": swiglu,
}
