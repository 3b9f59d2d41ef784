"""Transformers with one mistake each: embeddings of standard deviation 1, and attention without a mask."""

from dataclasses import dataclass

from torch import Tensor, nn

from bowerbird.nets.attention import attention
from bowerbird.nets.transformer import Transformer, TransformerConfig
from bowerbird.registry import nets


@nets.register("transformer-loud")
@dataclass(frozen=True)
class LoudConfig(TransformerConfig):
    """As TransformerConfig."""

    def language_model(self, vocab_size: int, context: int) -> Transformer:
        net = Transformer(self, vocab_size, context)
        nn.init.normal_(net.embedding.token.weight)
        return net


@nets.register("transformer-unmasked")
@dataclass(frozen=True)
class UnmaskedConfig(TransformerConfig):
    """As TransformerConfig."""

    def language_model(self, vocab_size: int, context: int) -> Transformer:
        return Unmasked(self, vocab_size, context)


class Unmasked(Transformer):
    def read(self, tokens: Tensor, document: Tensor | None) -> Tensor:
        place = self.embedding.places(0, tokens.shape[1])
        x, turn = self.embedding(tokens, place), self.embedding.turn(place)
        for block in self.blocks:
            x = block(x, attention, turn)
        return self.logits(x)
