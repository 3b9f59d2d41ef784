"""What a Transformer begins with: the vectors of tokens, and where they stand."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bowerbird.errors import BowerbirdError
from bowerbird.nets.positions import UNSCALED, Positions, RopeScaling, Rotation, rotation, sinusoids


class Embedding(nn.Module):
    """Tokens and their positions → vectors."""

    def __init__(
        self,
        vocab_size: int,
        context: int,
        n_embd: int,
        head_width: int,
        positions: Positions,
        rope_base: float,
        dropout: float,
        rope_scaling: RopeScaling = UNSCALED,
    ):
        super().__init__()
        self.context, self.n_embd, self.head_width = context, n_embd, head_width
        self.positions, self.rope_base, self.rope_scaling = positions, rope_base, rope_scaling
        self.token = nn.Embedding(vocab_size, n_embd)
        self.position = nn.Embedding(context, n_embd) if positions == "learned" else None
        self.dropout = nn.Dropout(dropout)
        # Sines start much larger than embeddings, which √n_embd makes up for (Vaswani et al. 2017, section 3.4).
        self.scale = n_embd**0.5 if positions == "sinusoidal" else 1.0

    def forward(
        self, tokens: Int[Tensor, "n token"], place: Int[Tensor, "*n token"]
    ) -> Float[Tensor, "n token n_embd"]:
        x = self.token(tokens)
        if (vectors := self.vectors(place)) is not None:
            x = torch.add(vectors, x, alpha=self.scale)
        return self.dropout(x)

    def vectors(self, place: Int[Tensor, "*n token"]) -> Float[Tensor, "*n token n_embd"] | None:
        """What is added to tokens at these positions; None for rotary ones."""
        if self.position is not None:
            return self.position(place)
        if self.positions == "sinusoidal":
            return sinusoids(place, self.n_embd).to(self.token.weight.dtype)
        return None

    def turn(self, place: Int[Tensor, "*n token"]) -> Rotation | None:
        """How rotary positions turn queries and keys; None for others."""
        if self.positions != "rotary":
            return None
        return rotation(place, self.head_width, self.rope_base, self.rope_scaling)

    def places(self, first: int, token: int) -> Int[Tensor, " token"]:
        """first, first + 1 …; BowerbirdError where learned positions end before."""
        self.check(first + token)
        return torch.arange(first, first + token, device=self.token.weight.device)

    def check(self, token: int) -> None:
        if self.position is not None and token > self.context:
            raise BowerbirdError(f"This network knows {self.context} positions; it cannot read {token} tokens.")
