"""A small text encoder: what a network is told of a caption, as one vector."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from bowerbird.nets.attention import attention, bias_where
from bowerbird.nets.layers import MLP, Attention
from bowerbird.spec import Tokens


class CaptionEncoder(nn.Module):
    """Tokens → vector: one Transformer block in which all tokens see one another, and the mean over the tokens."""

    def __init__(self, field: Tokens, n_out: int, n_embd: int = 128, n_head: int = 4):
        super().__init__()
        self.pad = field.pad
        self.token = nn.Embedding(field.vocab_size, n_embd)
        self.position = nn.Embedding(field.context, n_embd)
        self.norm1, self.norm2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.attention = Attention(n_embd, n_head, n_head, bias=True)
        self.mlp = MLP(n_embd, 4 * n_embd, "gelu", bias=True)
        self.out = nn.Linear(n_embd, n_out)
        for table in (self.token, self.position):
            nn.init.normal_(table.weight, std=n_embd**-0.5)

    def forward(self, tokens: Int64[Tensor, "n length"]) -> Float[Tensor, "n n_out"]:
        visible = tokens != self.pad
        first = torch.arange(tokens.shape[1], device=tokens.device) == 0
        seen = visible | first  # a row of padding alone still has to look at something
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        bias = bias_where(seen[:, None, None, :])
        x = x + self.attention(self.norm1(x), lambda q, k, v: attention(q, k, v, bias=bias))
        x = x + self.mlp(self.norm2(x))
        weight = visible[..., None].to(x)
        return self.out((x * weight).sum(1) / weight.sum(1).clamp(min=1))
