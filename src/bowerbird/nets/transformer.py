"""Transformers: stacks of attention and two-layer perceptrons, each added to what goes past it.

    x = x + attention(norm(x))
    x = x + mlp(norm(x)),         mlp(h) = W_down gelu(W_up h)    or    W_down (silu(W_gate h) ∘ W_up h)      (swiglu)
    logits = W_head norm(x)

(Vaswani et al. 2017, arXiv:1706.03762, with the norms first as in GPT-2, Radford et al. 2019).  The decoder-only
``Transformer`` is a ``SequenceNet``; ``TranslationTransformer`` has an encoder whose tokens all see one another, and in
every decoder block, between the two lines above, x = x + attention from norm(x) to the encoder's output.

With the right configuration these are GPT-2 (positions learned, norm layer, gelu-tanh, bias, tied), Llama (rotary, rms,
swiglu, no bias) and its relatives Qwen2, Qwen3, Mistral and SmolLM3, weight by weight; docs/nets.md says which is
which.  All weights start as N(0, 0.02²), those of the last product of each residual branch as N(0, 0.02² / branches)
(GPT-2, section 2.3), biases at zero.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bowerbird.nets.attention import Attend, attention, bias_where, causal_attention, within_documents
from bowerbird.nets.embedding import Embedding
from bowerbird.nets.kvcache import KVCache
from bowerbird.nets.layers import MLP, Activation, Append, Attention, CrossAttention, Hidden, KeysValues
from bowerbird.nets.normalization import Norm, token_norm
from bowerbird.nets.positions import UNSCALED, Positions, RopeScaling, Rotation, positions_within
from bowerbird.nets.roles import Memory, NetConfig, SequenceNet, SequenceState, TranslationNet
from bowerbird.nets.step import TokenStep
from bowerbird.ranges import Count, Decay, Positive, Whole
from bowerbird.registry import nets

Tokens = Int[Tensor, "n token"]
Logits = Float[Tensor, "n token vocab"]


@nets.register("transformer")
@dataclass(frozen=True)
class TransformerConfig(NetConfig):
    """A Transformer's hyperparameters."""

    n_layer: Count = 4
    """Blocks; of the decoder where there are two stacks."""
    n_head: Count = 4
    """Attention heads per block."""
    n_kv_head: Count | None = None
    """Heads of keys and values, each of which n_head / n_kv_head heads of queries share (None: n_head)."""
    n_embd: Count = 128
    """Features per token; a multiple of ``n_head`` unless ``head_dim`` is given."""
    n_ff: Count | None = None
    """Width of the perceptrons (None: 4 n_embd; for swiglu 8/3 n_embd, rounded up to a multiple of 64)."""
    positions: Positions = "rotary"
    """How the place of a token is known."""
    norm: Norm = "layer"
    """layer: LayerNorm; rms: RMSNorm."""
    activation: Activation = "gelu"
    """gelu-tanh is GPT-2's approximation of gelu."""
    tied: bool = True
    """The logits are products with the token embeddings and have no weights of their own."""
    dropout: Decay = 0.0
    """Probability of zeroing a feature of the embeddings and of the output of each branch."""
    bias: bool = False
    """Linear layers and LayerNorms have a bias."""
    norm_tol: Positive = 1e-5
    """Added to the variance or mean square."""
    rope_base: Positive = 10_000.0
    """Rotary positions: the longest wavelength is nearly 2π times this."""
    n_encoder_layer: Count | None = None
    """Blocks of the encoder where there is one (None: n_layer)."""
    rope_scaling: RopeScaling = UNSCALED
    """Scaling of rotary positions, for longer texts than the model was first trained on."""
    unturned: tuple[Whole, ...] = ()
    """Blocks without rotary positions, numbered from 0 (SmolLM3)."""
    attention_bias: Literal["none", "qkv", "all"] = "none"
    """With bias = false: biases of queries, keys and values (Qwen2), or also of the output projection."""
    qk_norm: bool = False
    """Normalise queries and keys by an RMSNorm in each head, before they are rotated (Qwen3)."""
    head_dim: Count | None = None
    """Features per head (None: n_embd / n_head)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_dim is None and self.n_embd % self.n_head:
            raise ValueError(f"transformer.n_embd = {self.n_embd} must be a multiple of n_head = {self.n_head}.")
        if self.n_head % self.kv_heads:
            raise ValueError(f"transformer.n_head = {self.n_head} must be a multiple of n_kv_head = {self.kv_heads}.")
        if any(i >= self.n_layer for i in self.unturned):
            raise ValueError(f"transformer.unturned = {list(self.unturned)} names a block that does not exist.")
        if self.positions == "rotary" and self.d % 2:
            raise ValueError("transformer: rotary positions need an even number of features per head.")
        if self.positions == "sinusoidal" and self.n_embd % 2:
            raise ValueError(f"transformer: sinusoidal positions need an even n_embd, not {self.n_embd}.")

    @property
    def kv_heads(self) -> int:
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def d(self) -> int:
        """Features per head."""
        return self.n_embd // self.n_head if self.head_dim is None else self.head_dim

    @property
    def encoder_layers(self) -> int:
        return self.n_layer if self.n_encoder_layer is None else self.n_encoder_layer

    @property
    def width(self) -> int:
        """Features between the two layers of a perceptron."""
        if self.n_ff is not None:
            return self.n_ff
        return -(-8 * self.n_embd // (3 * 64)) * 64 if self.activation == "swiglu" else 4 * self.n_embd

    def language_model(self, vocab_size: int, context: int) -> "Transformer":
        return Transformer(self, vocab_size, context)

    def translator(self, vocab_size: int, source_context: int, context: int) -> "TranslationTransformer":
        return TranslationTransformer(self, vocab_size, max(source_context, context))

    def make_attention(self) -> Attention:
        return Attention(
            self.n_embd, self.n_head, self.kv_heads, self.bias or self.attention_bias != "none", self.d,
            out_bias=self.bias or self.attention_bias == "all", qk_norm_tol=self.norm_tol if self.qk_norm else None,
        )  # fmt: skip

    def make_norm(self) -> nn.Module:
        return token_norm(self.norm, self.n_embd, self.norm_tol, self.bias)


class Block(nn.Module):
    """Self-attention, then a perceptron."""

    def __init__(self, config: TransformerConfig, turned: bool = True):
        """``turned``: with rotary positions, if the network has them."""
        super().__init__()
        self.turned = turned
        self.attention_norm = config.make_norm()
        self.attention = config.make_attention()
        self.mlp_norm = config.make_norm()
        self.mlp = MLP(config.n_embd, config.width, config.activation, config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Hidden, attend: Attend, turn: Rotation | None = None, append: Append | None = None) -> Hidden:
        turn = turn if self.turned else None
        x = x + self.dropout(self.attention(self.attention_norm(x), attend, turn, append))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class CrossBlock(Block):
    """Self-attention, then attention to the source, then a perceptron."""

    def __init__(self, config: TransformerConfig, turned: bool = True):
        super().__init__(config, turned)
        self.cross_norm = config.make_norm()
        self.cross = CrossAttention(config.n_embd, config.n_head, config.kv_heads, config.bias)

    def forward(  # type: ignore[override]
        self, x: Hidden, turn: Rotation | None, append: Append | None, source: KeysValues, look: Attend
    ) -> Hidden:
        turn = turn if self.turned else None
        x = x + self.dropout(self.attention(self.attention_norm(x), causal_attention, turn, append))
        x = x + self.dropout(self.cross(self.cross_norm(x), source, look))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class Decoder(nn.Module):
    """What both networks share: embeddings, a stack of blocks, logits, and the cache of the tokens read."""

    block: type[Block] = Block

    def __init__(self, config: TransformerConfig, vocab_size: int, context: int):
        super().__init__()
        self.config = config
        self.embedding = Embedding(
            vocab_size, context, config.n_embd, config.d, config.positions, config.rope_base, config.dropout,
            config.rope_scaling,
        )  # fmt: skip
        self.blocks = nn.ModuleList(self.block(config, i not in config.unturned) for i in range(config.n_layer))
        self.norm = config.make_norm()
        self.head = None if config.tied else nn.Linear(config.n_embd, vocab_size, bias=False)
        self.apply(_initialise)
        _shrink_branches(self.blocks)

    def logits(self, x: Hidden) -> Logits:
        x = self.norm(x)
        return F.linear(x, self.embedding.token.weight) if self.head is None else self.head(x)

    def empty_cache(self, n: int, length: int) -> KVCache:
        """A state of n rows with room for ``length`` tokens, in the type that keys and values will have."""
        weight, c = self.embedding.token.weight, self.config
        dtype = weight.dtype
        if torch.is_autocast_enabled(weight.device.type):
            dtype = torch.get_autocast_dtype(weight.device.type)
        shape = (c.n_layer, n, c.kv_heads, 2, length, c.d)
        return KVCache(torch.empty(shape, dtype=dtype, device=weight.device))


class Transformer(Decoder, SequenceNet):
    """The decoder-only network."""

    def forward(
        self, tokens: Tokens, state: SequenceState | None = None, document: Tokens | None = None
    ) -> tuple[Logits, SequenceState | None]:
        if state is None:
            return self.read(tokens, document), None
        assert isinstance(state, KVCache) and document is None, "packed documents are read at once, without a state"
        token = tokens.shape[1]
        if state.begin is None:
            self.embedding.check(state.n_read + token)
        elif state.n_read + token > state.length:
            state = state.rows(torch.arange(len(tokens), device=tokens.device))
        state.check_room(token)
        if state.step is not None and token == 1 and not (self.training or torch.is_grad_enabled()):
            logits = state.step(tokens[:, 0], state.keys_values, state.n_read, state.begin)[:, None]
        else:
            assert state.begin is None, "rows of different lengths read one token at a time, without gradients"
            logits = self.read_on(tokens, state)
        state.n_read += token
        return logits, state

    def read(self, tokens: Tokens, document: Tokens | None) -> Logits:
        """Logits after each token of rows that begin here."""
        place = self.embedding.places(0, tokens.shape[1])
        attend: Attend = causal_attention
        if document is not None:
            place = positions_within(document)
            attend = within_documents(document)
        x = self.embedding(tokens, place)
        turn = self.embedding.turn(place if document is None else place[:, None])  # one row's; for all heads of each
        for block in self.blocks:
            x = block(x, attend, turn)
        return self.logits(x)

    @torch.no_grad()
    def read_on(self, tokens: Tokens, state: KVCache) -> Logits:
        """Logits after each token of rows that the state is the beginning of."""
        place = self.embedding.places(state.n_read, tokens.shape[1])
        x = self.embedding(tokens, place)
        turn = self.embedding.turn(place)
        for i, block in enumerate(self.blocks):
            x = block(x, causal_attention, turn, partial(state.append, i))
        return self.logits(x)

    def initial_state(self, n: int, length: int) -> KVCache:
        """The state before the first token.  Made without gradients, it reads single tokens with today's weights."""
        state = self.empty_cache(n, length)
        if not torch.is_grad_enabled() and state.keys_values.dtype == self.embedding.token.weight.dtype:
            state.step = TokenStep(
                self.embedding, list(self.blocks), self.norm, self.head or self.embedding.token, length
            )
        return state


class TranslationTransformer(Decoder, TranslationNet):
    """The encoder-decoder network.  Sources and targets share one table of tokens and one of positions."""

    block = CrossBlock

    def __init__(self, config: TransformerConfig, vocab_size: int, context: int):
        super().__init__(config, vocab_size, context)
        self.encoder = nn.ModuleList(Block(config) for _ in range(config.encoder_layers))
        self.encoder_norm = config.make_norm()
        self.encoder.apply(_initialise)
        _shrink_branches(self.encoder)

    def encode(self, source: Int[Tensor, "n source"], is_source: Bool[Tensor, "n source"]) -> Memory:
        """The keys and values that each decoder block will look at."""
        place = self.embedding.places(0, source.shape[1])
        x = self.embedding(source, place)
        turn = self.embedding.turn(place)
        look = _looking_at(is_source)
        for block in self.encoder:
            x = block(x, look, turn)
        x = self.encoder_norm(x)
        crosses: list[CrossAttention] = [block.cross for block in self.blocks]  # type: ignore[misc]
        return Memory(tuple(cross.keys_values(x) for cross in crosses), is_source)

    def forward(
        self, tokens: Tokens, memory: Memory, state: SequenceState | None = None
    ) -> tuple[Logits, SequenceState | None]:
        if state is None:
            return self.read(tokens, memory, None), None
        assert isinstance(state, KVCache)
        with torch.no_grad():
            return self.read(tokens, memory, state), state

    def read(self, tokens: Tokens, memory: Memory, state: KVCache | None) -> Logits:
        """Logits after each token of rows that begin here, or go on from the state."""
        place = self.embedding.places(0 if state is None else state.n_read, tokens.shape[1])
        x = self.embedding(tokens, place)
        turn = self.embedding.turn(place)
        look = _looking_at(memory.is_source)
        if state is not None:
            state.check_room(tokens.shape[1])
        for i, (block, source) in enumerate(zip(self.blocks, memory.hidden, strict=True)):
            x = block(x, turn, None if state is None else partial(state.append, i), source, look)
        if state is not None:
            state.n_read += tokens.shape[1]
        return self.logits(x)

    def initial_state(self, n: int, length: int) -> KVCache:
        return self.empty_cache(n, length)


def _looking_at(is_source: Bool[Tensor, "n source"]) -> Attend:
    """Attention to the tokens of a source, without its padding."""
    return partial(attention, bias=bias_where(is_source[:, None, None, :]))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


@torch.no_grad()
def _shrink_branches(blocks: nn.ModuleList) -> None:
    """Divides the last weights of every branch by √branches, so that what goes past them grows as if there were one."""
    last = [weight for name, weight in blocks.named_parameters() if name.endswith(("out.weight", "down.weight"))]
    for weight in last:
        weight.div_(len(last) ** 0.5)
