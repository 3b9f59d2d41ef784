"""A step: a Transformer reads one token per row, with as few operations as there can be.

For one token of a small network the time goes into starting operations more than into arithmetic.  So here the weights
are taken out of their modules once, when generation begins, and the equations of ``bowerbird/nets/transformer.py`` are
written for a single token: no mask, no dropout, the sum of a residual branch within its last product, and

    W_down gelu(W_up h) = √½ W_down (u + u ∘ erf(u)),     u = √½ W_up h,

whose factors cost nothing inside the products (torch's own gelu takes 9 µs to start on a CPU, erf 1).

A step belongs to one generation: it need not see weights that change after it was made.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bowerbird.nets.lora import AdaptedLinear

Norm = Callable[[Tensor], Tensor]


class Product:
    """x W + b, from a linear layer or, without b, from an embedding."""

    def __init__(self, layer: Any):
        weight = layer.merged() if isinstance(layer, AdaptedLinear) else layer.weight.detach()
        # As a view: a copy in the order of W, which starts a product sooner, did not pay for itself in 63 tokens.
        self.weight: Float[Tensor, "n_in n_out"] = weight.t()
        self.bias: Float[Tensor, " n_out"] | None = getattr(layer, "bias", None)
        self.nothing = weight.new_zeros(1)

    def of(self, x: Tensor) -> Tensor:
        return x.mm(self.weight) if self.bias is None else torch.addmm(self.bias, x, self.weight)

    def scaled(self, scale: float, x: Tensor) -> Tensor:
        """scale (x W + b)."""
        if self.bias is None:
            return torch.addmm(self.nothing, x, self.weight, beta=0, alpha=scale)
        return torch.addmm(self.bias, x, self.weight, beta=scale, alpha=scale)

    def added_to(self, residual: Tensor, x: Tensor, scale: float = 1.0) -> Tensor:
        """residual + scale x W + b."""
        total = torch.addmm(residual, x, self.weight, alpha=scale)
        return total if self.bias is None else total.add_(self.bias)


class Layer(NamedTuple):
    """What one block computes with."""

    turned: bool
    attention_norm: Norm
    q_norm: Norm | None
    k_norm: Norm | None
    qkv: Product
    out: Product
    mlp_norm: Norm
    up: Product
    activation: Callable[[Tensor], Tensor]
    down: Product


class TokenStep:
    """token (n,) → logits (n, vocab) after it; its keys and values are written behind those of the tokens before."""

    def __init__(self, embedding: Any, blocks: list[Any], norm: nn.Module, head: nn.Module, length: int):
        """``length`` is the most tokens that a row will have; ``head``'s weight gives the logits."""
        weight = embedding.token.weight
        place = embedding.places(0, length)
        self.table, self.table_scale = weight.detach(), embedding.scale
        self.vectors: Float[Tensor, "length n_embd"] | None = embedding.vectors(place)
        turn = embedding.turn(place)
        self.turn = None if turn is None else (turn.cos.to(weight.dtype), turn.sin.to(weight.dtype))
        self.n_head, self.n_kv_head, _ = blocks[0].attention.heads
        self.d: int = blocks[0].attention.d
        self.nothing = weight.new_zeros(1, 1, 1)
        self.layers = [_layer(block) for block in blocks]
        self.norm = _function(norm)
        self.head = Product(head)

    def __call__(
        self,
        token: Int[Tensor, " n"],
        keys_values: Float[Tensor, "n_layer n n_kv_head 2 length d"],
        n_read: int,
        begin: Int[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n vocab"]:
        """``n_read`` places have been filled before, each row's from its ``begin`` on (None: from 0)."""
        x = torch.embedding(self.table, token)
        place = n_read if begin is None else n_read - begin
        if self.vectors is not None:
            x = torch.add(self.vectors[place], x, alpha=self.table_scale)
        turn, hidden = None, None
        if self.turn is not None:
            cos, sin = self.turn[0][place], self.turn[1][place]
            turn = (cos, sin) if begin is None else (cos[:, None], sin[:, None])
        if begin is not None:
            hidden = self._hidden(begin, n_read + 1)
        new = keys_values.select(4, n_read).unbind(0)
        known = keys_values.flatten(1, 2).narrow(3, 0, n_read + 1)
        keys = known.select(2, 0).transpose(2, 3).unbind(0)
        values = known.select(2, 1).unbind(0)
        for layer, own, key, value in zip(self.layers, new, keys, values, strict=True):
            qkv = self._normalised(layer.qkv.of(layer.attention_norm(x)), layer)
            h = self._attention(qkv, turn if layer.turned else None, own, key, value, hidden)
            x = layer.out.added_to(x, h)
            x = _with_mlp(x, layer)
        return self.head.of(self.norm(x))

    def _hidden(self, begin: Int[Tensor, " n"], length: int) -> Float[Tensor, "rows 1 length"]:
        """-inf before each row's beginning, else 0; a row for each head of keys."""
        before = torch.arange(length, device=begin.device) < begin[:, None]
        bias = torch.zeros(before.shape, dtype=self.table.dtype, device=begin.device).masked_fill_(before, -torch.inf)
        return bias.repeat_interleave(self.n_kv_head, 0)[:, None]

    def _normalised(self, qkv: Tensor, layer: Layer) -> Tensor:
        """The same with queries and keys through their norms, where there are any."""
        if layer.q_norm is None or layer.k_norm is None:
            return qkv
        q, k, v = qkv.view(len(qkv), -1, self.d).split((self.n_head, self.n_kv_head, self.n_kv_head), dim=1)
        return torch.cat((layer.q_norm(q), layer.k_norm(k), v), dim=1).flatten(1)

    def _attention(
        self,
        qkv: Tensor,
        turn: tuple[Tensor, Tensor] | None,
        own: Tensor,
        key: Tensor,
        value: Tensor,
        hidden: Tensor | None,
    ) -> Float[Tensor, "n n_embd"]:
        """softmax(q kᵀ / √d + hidden) v; ``own`` is the last of ``key`` (n·n_kv_head, d, token) and ``value``."""
        n, n_head, n_kv_head = len(qkv), self.n_head, self.n_kv_head
        heads = qkv.view(n, -1, self.d)
        if turn is not None:  # as positions.rotated, in place
            qk = heads.narrow(1, 0, n_head + n_kv_head)
            halves_swapped = qk.roll(self.d // 2, -1)
            qk.mul_(turn[0]).addcmul_(halves_swapped, turn[1])
        own.copy_(heads.narrow(1, n_head, 2 * n_kv_head).view(n, 2, n_kv_head, self.d).transpose(1, 2))
        q = heads.narrow(1, 0, n_head).reshape(n * n_kv_head, -1, self.d)
        bias, beta = (self.nothing, 0) if hidden is None else (hidden, 1)
        logits = torch.baddbmm(bias, q, key, beta=beta, alpha=self.d**-0.5)
        return logits.softmax(-1).bmm(value).view(n, -1)


def _with_mlp(x: Tensor, layer: Layer) -> Tensor:
    """x + mlp(norm(x))."""
    h = layer.mlp_norm(x)
    if layer.activation is not F.gelu:
        return layer.down.added_to(x, layer.activation(layer.up.of(h)))
    u = layer.up.scaled(0.5**0.5, h)
    return layer.down.added_to(x, torch.addcmul(u, u, u.erf()), 0.5**0.5)


def _layer(block: Any) -> Layer:
    attention, mlp = block.attention, block.mlp
    q_norm, k_norm = (None if norm is None else _function(norm) for norm in (attention.q_norm, attention.k_norm))
    return Layer(
        block.turned, _function(block.attention_norm), q_norm, k_norm, Product(attention.qkv), Product(attention.out),
        _function(block.mlp_norm), Product(mlp.up), mlp.activation, Product(mlp.down),
    )  # fmt: skip


def _function(norm: Any) -> Norm:
    """The norm without the cost of calling a module."""
    shape, weight, bias, tol = norm.normalized_shape, norm.weight, getattr(norm, "bias", None), norm.eps
    if isinstance(norm, nn.LayerNorm):
        return lambda x: torch.layer_norm(x, shape, weight, bias, tol)
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return lambda x: torch.rms_norm(x, shape, weight, tol)
    tol_tensor = weight.new_tensor(tol)

    def rms_norm(x: Tensor) -> Tensor:
        """x / √(|x|² / n_embd + tol) ∘ weight, in 6 µs to torch's 10."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        mean_square = torch.addcmul(tol_tensor, length, length, value=1 / x.shape[-1])
        return (x * mean_square.rsqrt_()).mul_(weight)

    return rms_norm
