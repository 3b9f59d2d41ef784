"""Layouts: which of our Transformer's tensors is made of which tensors of a file, in the order of their rows.

We keep queries, keys and values in one matrix, and the two halves of a SwiGLU; Llama files keep them apart.  Names are
without their last part, "weight" or "bias".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.nets.transformer import TransformerConfig

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """Our names and theirs."""

    outer: Mapping[str, str]
    """What stands once."""
    prefix: str
    """Begins the names of a block; {} is its number."""
    block: Mapping[str, tuple[str, ...]]
    """What stands in every block."""
    biased: bool
    """Whether linear layers and norms have biases, always."""
    qk_norms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What stands in every block of a net whose queries and keys are normalised."""

    def names(self, net: TransformerConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each of our tensors and what it is made of."""
        for ours, theirs in self._stems(net):
            yield f"{ours}.weight", tuple(f"{name}.weight" for name in theirs)
            if self._has_bias(ours, net):
                yield f"{ours}.bias", tuple(f"{name}.bias" for name in theirs)

    def _has_bias(self, ours: str, net: TransformerConfig) -> bool:
        if self.biased:
            return not ours.startswith(("embedding", "head"))
        wanted = {"none": (), "qkv": ("attention.qkv",), "all": ("attention.qkv", "attention.out")}
        return ours.endswith(wanted[net.attention_bias])

    def _stems(self, net: TransformerConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
        for ours, name in self.outer.items():
            if not (net.tied and ours == "head"):
                yield ours, (name,)
        for i in range(net.n_layer):
            for ours, theirs in (*self.block.items(), *(self.qk_norms.items() if net.qk_norm else ())):
                yield f"blocks.{i}.{ours}", tuple(self.prefix.format(i) + name for name in theirs)

    def read(self, tensors: Mapping[str, Tensor], net: TransformerConfig, where: str) -> Tensors:
        """Our tensors from theirs, in float32; BowerbirdError if ``where`` lacks one or has one that has no place."""
        names = dict(self.names(net))
        used = {name for theirs in names.values() for name in theirs}
        if missing := sorted(used - tensors.keys()):
            raise BowerbirdError(
                f"{where} lacks the tensor '{missing[0]}', so it does not match the model that it declares."
            )
        if extra := sorted(tensors.keys() - used):
            raise BowerbirdError(f"{where} has a tensor '{extra[0]}', which this architecture has no place for.")
        parts = {ours: [tensors[name].float() for name in theirs] for ours, theirs in names.items()}
        return {ours: torch.cat(rows) if len(rows) > 1 else rows[0] for ours, rows in parts.items()}

    def write(self, weights: Mapping[str, Tensor], net: TransformerConfig) -> Tensors:
        """Theirs from ours: the inverse of ``read``.  A bias that our network does without is zero in theirs."""
        tensors: Tensors = {}
        for ours, theirs in self.names(net):
            whole = weights.get(ours)
            if whole is None:
                whole = torch.zeros(len(weights[ours.removesuffix("bias") + "weight"]))
            rows = (
                [net.n_head * net.d, net.kv_heads * net.d, net.kv_heads * net.d]
                if len(theirs) == 3
                else len(whole) // len(theirs)
            )
            tensors |= zip(theirs, whole.split(rows), strict=True)
        return tensors
