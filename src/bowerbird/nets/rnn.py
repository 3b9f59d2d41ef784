"""Recurrent networks: a state of fixed size is carried from token to token, and all that a network knows is in it.

    LSTM    i, f, o = σ(W [x, h] + b),   g = tanh(W_g [x, h] + b_g)
            c = f ∘ c + i ∘ g,   h = o ∘ tanh(c)        (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000)
    GRU     r, z = σ(W [x, h] + b),   m = tanh(W_m x + b_m + r ∘ (U_m h + b_h))
            h = (1 - z) ∘ m + z ∘ h       (Cho et al. 2014, arXiv:1406.1078, equations 5 to 8, but r after U_m as cuDNN)
    logits = W_head h + b_head

The forget gates of LSTMs start open (bias 1, Jozefowicz et al. 2015, section 2.2).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bowerbird.errors import BowerbirdError
from bowerbird.machine import bf16_is_faster
from bowerbird.nets.roles import NetConfig, SequenceNet, SequenceState
from bowerbird.ranges import Count, Decay
from bowerbird.registry import nets

Tokens = Int[Tensor, "n token"]


@nets.register("rnn")
@dataclass(frozen=True)
class RNNConfig(NetConfig):
    """A recurrent network's hyperparameters."""

    cell: Literal["lstm", "gru"] = "lstm"
    n_layer: Count = 2
    """Layers, each reading what the one below it says."""
    n_embd: Count = 256
    """Features per token."""
    n_hidden: Count | None = None
    """Features of the state of a layer (None: n_embd)."""
    tied: bool = True
    """The logits are products with the token embeddings; needs n_hidden = n_embd."""
    dropout: Decay = 0.0
    """Probability of zeroing a feature of the embeddings and of the output of each layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tied and self.width != self.n_embd:
            raise ValueError(f"rnn.tied needs n_hidden = n_embd = {self.n_embd}; leave n_hidden out or untie.")

    @property
    def width(self) -> int:
        return self.n_embd if self.n_hidden is None else self.n_hidden

    def language_model(self, vocab_size: int, context: int) -> "RNN":
        return RNN(self, vocab_size)


class RNNState(SequenceState):
    """The state of every layer: h, and of LSTMs also c, each (n_layer, n, n_hidden)."""

    def __init__(self, parts: tuple[Float[Tensor, "n_layer n n_hidden"], ...]):
        self.parts = parts

    def detached(self) -> "RNNState":
        return RNNState(tuple(part.detach() for part in self.parts))

    def rows(self, index: Int[Tensor, " m"]) -> "RNNState":
        return RNNState(tuple(part[:, index] for part in self.parts))

    def beside(self, other: SequenceState) -> "RNNState":
        assert isinstance(other, RNNState)
        return RNNState(tuple(torch.cat(pair, 1) for pair in zip(self.parts, other.parts, strict=True)))


class RNN(SequenceNet):
    """A stack of LSTM or GRU layers between embeddings and logits."""

    recurrent = True

    def __init__(self, config: RNNConfig, vocab_size: int):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocab_size, config.n_embd)
        between = config.dropout if config.n_layer > 1 else 0.0  # torch warns of dropout between one layer
        cell = nn.LSTM if config.cell == "lstm" else nn.GRU
        self.layers = cell(config.n_embd, config.width, config.n_layer, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.head = None if config.tied else nn.Linear(config.width, vocab_size)
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if config.tied else None
        nn.init.normal_(self.embedding.weight, std=config.n_embd**-0.5)
        if config.cell == "lstm":
            self._open_forget_gates()

    def _open_forget_gates(self) -> None:
        """Torch's order of gates is i, f, g, o, and each has two biases that are added."""
        for name, bias in self.layers.named_parameters():
            if name.startswith("bias"):
                start = 1.0 if name.startswith("bias_ih") else 0.0
                nn.init.constant_(bias[self.config.width : 2 * self.config.width], start)

    def forward(
        self, tokens: Tokens, state: SequenceState | None = None, document: Tokens | None = None
    ) -> tuple[Float[Tensor, "n token vocab"], SequenceState | None]:
        if document is not None:
            raise BowerbirdError(
                'The net rnn cannot keep packed documents apart; choose data.text.layout = "documents".'
            )
        assert state is None or isinstance(state, RNNState)
        h, parts = self._recurrence(self.dropout(self.embedding(tokens)), None if state is None else state.parts)
        return self.logits(self.dropout(h)), RNNState(parts)

    def _recurrence(
        self, x: Float[Tensor, "n token n_embd"], parts: tuple[Tensor, ...] | None
    ) -> tuple[Float[Tensor, "n token n_hidden"], tuple[Tensor, ...]]:
        """Stays in float32 where bf16 is emulated: torch has no bf16 LSTM for such a CPU."""
        kind = x.device.type
        with torch.autocast(kind, enabled=torch.is_autocast_enabled(kind) and bf16_is_faster(kind)):
            if self.config.cell == "lstm":
                return self.layers(x, parts)
            h, last = self.layers(x, None if parts is None else parts[0])
            return h, (last,)

    def logits(self, h: Float[Tensor, "n token n_hidden"]) -> Float[Tensor, "n token vocab"]:
        return F.linear(h, self.embedding.weight, self.bias) if self.head is None else self.head(h)

    def initial_state(self, n: int, length: int) -> RNNState:
        """Zeros; one size serves any ``length``."""
        zeros = self.embedding.weight.new_zeros(self.config.n_layer, n, self.config.width)
        return RNNState((zeros, zeros) if self.config.cell == "lstm" else (zeros,))
