"""A step: a Transformer reads one token per row, with as few operations as there can be.

For one token the time goes into starting operations, not into arithmetic.  So here the modules' weights are taken out
once, when generation begins, and the equations of ``bowerbird/nets/transformer.py`` are written for a single token: no
mask, no dropout, no copy, the sum of a residual branch within its last product.  Products of one row run up to 1.7
times faster with weights stored input × output; small networks get a copy in that order (docs/nets.md).

A step belongs to one generation: it does not see weights that change after it was made.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bowerbird.nets.lora import AdaptedLinear
from bowerbird.nets.positions import Rotation

class Product:
    """x W + b, from a linear layer (or, without b, from an embedding)."""

    def __init__(self, layer: Any):
        weight = layer.merged() if isinstance(layer, AdaptedLinear) else layer.weight.detach()
        self.weight: Float[Tensor, "n_in n_out"] = weight.t()
        self.bias: Float[Tensor, " n_out"] | None = getattr(layer, "bias", None)

    def of(self, x: Tensor) -> Tensor:
        return x.mm(self.weight) if self.bias is None else torch.addmm(self.bias, x, self.weight)

    def times(self, scale: float, x: Tensor) -> Tensor:
        """scale (x W + b)."""
        if self.bias is None:
            return torch.addmm(x, x, self.weight, beta=0, alpha=scale)
        return torch.addmm(self.bias, x, self.weight, beta=scale, alpha=scale)

    def added_to(self, residual: Tensor, x: Tensor, scale: float = 1.0) -> Tensor:
        """residual + scale x W + b."""
        total = torch.addmm(residual, x, self.weight, alpha=scale)
        return total if self.bias is None else total.add_(self.bias)


class Step:
    """token (n,) → logits (n, vocab) after it; its keys and values are written behind those of the tokens before."""

    def __init__(self, embedding: Any, blocks: list[Any], norm: nn.Module, head: nn.Module, length: int):
        """``length`` is the most tokens that a row will have; ``head``'s weight gives the logits."""
        place = torch.arange(length, device=embedding.token.weight.device)
        self.embedding = embedding
        self.vectors: Float[Tensor, "length n_embd"] | None = embedding.vectors(place)
        turn = embedding.turn(place)
        self.turn = None if turn is None else Rotation(*(table.to(embedding.token.weight.dtype) for table in turn))
        self.heads: tuple[int, int, int] = blocks[0].attention.heads
        self.d: int = blocks[0].attention.d
        self.nothing = embedding.token.weight.new_zeros(1, 1, 1)
        packed = (
            place.device.type == "cpu"
            and sum(w.numel() for block in blocks for w in block.state_dict().values()) <= PACK_AT_MOST
        )
        self.layers = [_layer(block, packed) for block in blocks]
        self.norm = _function(norm)
        self.head = Product(head, packed)

    def __call__(
        self, token: Int[Tensor, " n"], keys_values: Float[Tensor, "n_layer n n_kv_head 2 length d"], n_read: int
    ) -> Float[Tensor, "n vocab"]:
        """``n_read`` tokens of each row have been read before."""
        x = self.embedding.scaled(token)
        if self.vectors is not None:
            x = x + self.vectors[n_read]
        new = keys_values.select(4, n_read).unbind(0)
        old = keys_values.flatten(1, 2).narrow(3, 0, n_read + 1)
        keys = old.select(2, 0).transpose(2, 3).unbind(0)
        values = old.select(2, 1).unbind(0)
        turn = None if self.turn is None else (self.turn.cos[n_read], self.turn.sin[n_read])
        for layer, write, key, value in zip(self.layers, new, keys, values, strict=True):
            h = self.attention(layer.qkv.of(layer.attention_norm(x)), turn, write, key, value)
            x = layer.out.added_to(x, h)
            h = layer.activation(layer.up.of(layer.mlp_norm(x)))
            x = layer.down.added_to(x, h)
        return self.head.of(self.norm(x))

    def attention(
        self, qkv: Tensor, turn: tuple[Tensor, Tensor] | None, write: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """softmax(q kᵀ / √d) v of the new token; ``key`` (n·kv_head, d, token) and ``value`` have ``write`` as last."""
        n_head, n_kv_head, _ = self.heads
        n = len(qkv)
        heads = qkv.view(n, -1, self.d)
        if turn is not None:
            qk = heads.narrow(1, 0, n_head + n_kv_head)
            swapped = qk.roll(self.d // 2, -1)
            qk.mul_(turn[0]).addcmul_(swapped, turn[1])
        write.copy_(heads.narrow(1, n_head, 2 * n_kv_head).view(n, 2, n_kv_head, self.d).transpose(1, 2))
        q = heads.narrow(1, 0, n_head).reshape(n * n_kv_head, -1, self.d)
        logits = torch.baddbmm(self.nothing, q, key, beta=0, alpha=self.d**-0.5)
        return logits.softmax(-1).bmm(value).view(n, -1)


def _layer(block: Any, packed: bool) -> Layer:
    attention, mlp = block.attention, block.mlp
    return Layer(
        _function(block.attention_norm), Product(attention.qkv, packed), Product(attention.out, packed),
        _function(block.mlp_norm), Product(mlp.up, packed), mlp.activation, Product(mlp.down, packed),
    )  # fmt: skip


def _function(norm: Any) -> Callable[[Tensor], Tensor]:
    """The norm without the cost of calling a module."""
    shape, weight, tol = norm.normalized_shape, norm.weight, norm.eps
    if isinstance(norm, nn.RMSNorm):
        return lambda x: torch.rms_norm(x, shape, weight, tol)
    return lambda x: torch.layer_norm(x, shape, weight, norm.bias, tol)
