"""Autoregressive models: the probability of a sequence as a product of the probabilities of its tokens.

    log p(x) = Σ_i log p(x_i | x_<i),   p(· | x_<i) = softmax(logits after x_<i)                     in nats
    loss     = mean over the counted tokens of -log p(x_i | x_<i)

One loss and one sampler for every ``SequenceNet``, recurrent or Transformer.  Data of tokens (text, music) are rows
already (``TokenRows``).  A picture is read row by row, of a pixel all channels in turn, each value as one token in
0 … levels-1 (``PixelRows``; van den Oord et al. 2016, arXiv:1601.06759, equation 1), after one token for each class
that is given:

    [class tokens, v_1, v_2 … v_D] → log p(x | given) = Σ_i log p(v_i | v_<i, given)      exact, in nats per picture

with p(v_i | …) = softmax over the ``levels`` values alone, so that the probabilities of all pictures sum to 1.  With
256 levels they compare with every other family's likelihood of 8-bit images; with fewer, the model is one of pictures
quantised to the nearest level, and its estimator says so.

Truncated backpropagation (Williams and Peng 1990), for recurrent nets: a row is read in segments of ``segment`` tokens,
each has a loss and a step of its own, and the state is carried on without its gradient.  One segment that covers the
row is the full gradient.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, Estimator, GenerativeModel, Loss, Options, Piece, Positional
from bowerbird.nets import lora
from bowerbird.nets.conditioning import Given, dropped
from bowerbird.nets.lora import LoRAConfig
from bowerbird.nets.roles import NetConfig, SequenceState
from bowerbird.nets.rows import PixelRows, TokenRows
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.ranges import Count, Decay, NonNegative, Positive, Range, Share, Whole
from bowerbird.registry import families
from bowerbird.samplers.continuous import Continuation, ContinuousBatch
from bowerbird.samplers.decoding import Nucleus, Reader, Sampling, choose, continuations
from bowerbird.spec import Spec, Tensors, Tokens

Rows = Int[Tensor, "n length"]

IGNORED = -100
"""Stands where a token is not counted (the default of ``cross_entropy``)."""
LOGITS_AT_ONCE = 2**25
"""Numbers that ``log_prob`` holds at a time: bounds its memory to some 300 MB."""


@dataclass(frozen=True)
class ValueOptions(Options):
    """How the next token is chosen; what is None is as the recipe says."""

    temperature: NonNegative | None = None
    """Below 1 more cautious, 0 always the most probable token."""
    top_k: Whole | None = None
    """Draw among this many of the most probable tokens (0: all)."""
    top_p: Nucleus | None = None
    """Draw among the fewest tokens whose probabilities add up to this."""
    min_p: Share | None = None
    """Draw among tokens of at least this fraction of the largest probability."""

    def sampling(self, usual: Sampling) -> Sampling:
        """The settings of ``choose``: these, and the usual ones where they are None."""
        chosen = {name: value for name, value in asdict(self).items() if value is not None and hasattr(usual, name)}
        return replace(usual, **chosen)


@dataclass(frozen=True)
class TokenOptions(ValueOptions):
    """How sequences are continued; what is None is as the recipe says."""

    repetition_penalty: Positive | None = None
    """Above 1, tokens that were said become less probable."""
    n_tokens: Count | None = None
    """Most tokens that are added (None: until the context is full)."""
    watermark: NonNegative | None = None
    """How much more probable watermarked tokens become, such as 2 (0: no watermark); see ``samplers.greenlist``."""


@families.register("autoregressive")
@dataclass(frozen=True)
class AutoregressiveConfig(config.ModelConfig):
    """Hyperparameters of an autoregressive model."""

    net: NetConfig = TransformerConfig()
    segment: Count | None = None
    """Tokens per segment of truncated backpropagation, for recurrent nets (None: whole rows)."""
    sampling: Sampling = Sampling()
    """How tokens are chosen unless a call says otherwise."""
    levels: Annotated[int, Range(2, 256)] = 256
    """Images: values that a pixel can have; fewer than the data have are quantised to the nearest."""
    conditional: bool = True
    """Images: learn them given their label (or attributes) where the data have any."""
    label_dropout: Decay = 0.0
    """Images: probability with which a label is hidden in training, so that images without one can be scored."""
    lora: LoRAConfig = LoRAConfig()
    """Train low-rank adapters instead of the weights (rank 0: no)."""

    def build(self, spec: Spec) -> "Autoregressive":
        return Autoregressive(self, spec)

    def for_use(self) -> "AutoregressiveConfig":
        """The configuration of the trained model by itself: adapters merged."""
        return replace(self, lora=LoRAConfig())


# ------------------------------------------------------------------------------------------------------ the family


class Autoregressive(GenerativeModel):
    """A net that says what may come next, its loss, its sampler, and the probability of rows of tokens."""

    def __init__(self, config: AutoregressiveConfig, spec: Spec):
        super().__init__()
        self.config = config
        picture = isinstance(spec.target, Tensors)
        seen = spec if config.conditional else spec.alone()
        self.rows: Any = PixelRows(seen, config.levels) if picture else TokenRows(spec)
        self.spec = self.rows.spec
        self.Options = ValueOptions if picture else TokenOptions  # type: ignore[misc]
        # An image may repeat its background.
        self.sampling = replace(config.sampling, repetition_penalty=1.0) if picture else config.sampling
        self.net = config.net.language_model(self.rows.vocab_size, self.rows.context)
        self.context = None if self.net.recurrent else self.rows.context
        """Most tokens that the net reads at once; None: any number."""
        if config.segment is not None and not self.net.recurrent:
            raise BowerbirdError("model.segment is for recurrent nets; leave it out or use the net rnn.")
        if config.lora.rank:
            lora.adapt(self.net, config.lora)

    def weights(self) -> dict[str, Tensor]:
        return lora.merged_state(self)

    def adapters(self) -> dict[str, Tensor]:
        return lora.adapters(self)

    @property
    def sampling_network(self) -> nn.Module:
        return self.net

    @property
    def pieces(self) -> dict[str, Piece]:
        read = Tokens(self.rows.vocab_size, self.rows.context, 0, 0, 0)
        return {"reader": Piece(Positional(self.net, lambda tokens: self.read(tokens)[0]), {"tokens": read}, "logits")}

    def procedure(self) -> dict[str, Any]:
        common = {"piece": "reader", "sampling": asdict(self.sampling), "context": self.context}
        if isinstance(self.rows, PixelRows):
            return common | {"kind": "pixels", "levels": self.rows.n_values, "counts": self.rows.counts}
        most, field = self.rows.most(None, [0])[0], self.rows.field
        return common | {"kind": "tokens", "most": most, "start": field.start, "eos": field.eos, "pad": field.pad}

    def read(
        self, tokens: Rows, state: SequenceState | None = None, document: Rows | None = None
    ) -> tuple[Float[Tensor, "n length values"], SequenceState | None]:
        """What the net says: logits of what may come after each token, and the state after the last."""
        logits, state = self.net(tokens, state, document)
        return logits[..., : self.rows.n_values], state

    # ---------------------------------------------------------------------------------------------- likelihood

    def losses(self, batch: Batch) -> Iterator[Loss]:
        if self.config.label_dropout and self.spec.given:
            batch = batch._replace(given=dropped(batch.given, self.spec.given, self.config.label_dropout))
        rows, counted = self.rows.of(batch)
        for nll in self.segment_losses(rows, counted, batch.given.get("document")):
            logs = {"nll_per_token": nll.detach()}
            if isinstance(self.spec.target, Tensors):
                logs["bits_per_dim"] = nll.detach() / math.log(2)
            yield Loss("model", nll, logs)

    def segment_losses(
        self, x: Rows, counted: Bool[Tensor, "n length"], document: Rows | None = None
    ) -> Iterator[Float[Tensor, ""]]:
        """The mean of -log p over the counted tokens, in nats per token: of all rows, or of each segment in turn."""
        inputs, targets = x[:, :-1], x[:, 1:].masked_fill(~counted[:, 1:], IGNORED)
        if self.config.segment is None:
            yield mean_nll(self.read(inputs, None, None if document is None else document[:, :-1])[0], targets)
            return
        if document is not None:
            raise BowerbirdError('Packed rows cannot be read in segments; choose data.text.layout = "stream".')
        state: SequenceState | None = self.net.initial_state(len(x), self.config.segment)
        for begin in range(0, inputs.shape[1], self.config.segment):
            piece = slice(begin, begin + self.config.segment)
            logits, after = self.read(inputs[:, piece], state)
            state = after.detached() if after is not None else None
            yield mean_nll(logits, targets[:, piece])

    @property
    def estimators(self) -> dict[str, Estimator]:
        return {"nll": Estimator(self.rows.estimator, self.log_prob)}

    @torch.no_grad()
    def log_prob(self, batch: Batch, generator: torch.Generator | None = None) -> Float[Tensor, " n"]:
        """log p of each row's counted tokens given those before them, in nats, exact.

        Pictures: log p(x | given), or log p(x) where nothing is given to a model that has learned it.
        """
        if self.spec.given.keys() - {"prompt"} - batch.given.keys() and not self.config.label_dropout:
            raise BowerbirdError(
                "This model has only seen images with their label; give the labels, or train with label_dropout = 0.1."
            )
        rows, counted = self.rows.of(batch)
        document = batch.given.get("document")
        pieces = rows.split(max(1, LOGITS_AT_ONCE // (rows.shape[1] * self.rows.n_values)))
        starts = [0, *torch.tensor([len(piece) for piece in pieces]).cumsum(0).tolist()]
        return torch.cat(
            [
                self.row_log_prob(piece, counted[a:b], None if document is None else document[a:b])
                for piece, a, b in zip(pieces, starts, starts[1:], strict=False)
            ]
        )

    def row_log_prob(
        self, x: Rows, counted: Bool[Tensor, "n length"], document: Rows | None = None
    ) -> Float[Tensor, " n"]:
        """Σ log p over the counted tokens of each row, in nats."""
        targets = x[:, 1:].masked_fill(~counted[:, 1:], IGNORED)
        logits, _ = self.read(x[:, :-1], None, None if document is None else document[:, :-1])
        return -F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none").sum(1)

    # ------------------------------------------------------------------------------------------------ sampling

    def sample(
        self, n: int, given: Given | None = None, options: ValueOptions | None = None, generator: Draws | None = None
    ) -> Tensor:
        """n pictures, or rows that begin with their prompt and go on until eos, padded after it.

        One network evaluation per token.  Rows may be longer than the context, see ``decoding.Reader``.
        """
        draws = generator or fresh()
        asked = self.requested(n, given, draws)
        return self.rows.examples(self.rows.beginnings(n, asked), list(self.stream(n, asked, options, draws)))

    def stream(
        self, n: int, given: Given | None = None, options: ValueOptions | None = None, generator: Draws | None = None
    ) -> Iterator[Int[Tensor, " n"]]:
        """Yields the next token of every row until all have ended or ``n_tokens`` were yielded."""
        o, draws = options or self.Options(), generator or fresh()
        beginnings = self._beginnings(n, given, draws)
        lengths = [len(row) for row in beginnings]
        sampling = o.sampling(self.sampling)
        n_tokens, longest_row = self.rows.most(getattr(o, "n_tokens", None), lengths)
        tokens = continuations(
            Reader(self.read, self.net.initial_state, self.context),
            beginnings,
            n_tokens=n_tokens,
            choice=lambda logits, past: self._ended(choose(logits, sampling, draws, past)),
            eos=self.rows.eos,
            pad=self.rows.pad,
            longest_row=longest_row,
        )
        return (token.clone() for token in tokens)  # for autograd, a tensor made in inference mode is of no use

    def _beginnings(self, n: int, given: Given | None, draws: Draws) -> list[Int[Tensor, " length"]]:
        """What each row begins with; BowerbirdError where it is longer than the context."""
        rows = [row.to(self.device) for row in self.rows.beginnings(n, self.requested(n, given, draws))]
        if self.context is not None and (longest := max(map(len, rows))) > self.context:
            raise BowerbirdError(
                f"The prompt has {longest} tokens, but this model reads at most {self.context}; shorten the prompt."
            )
        return rows

    def row(
        self, given: Given | None = None, options: ValueOptions | None = None, generator: Draws | None = None
    ) -> Continuation:
        """The beginning of one row, and how it is to be continued: what ``stream`` would do with it."""
        o, draws = options or self.Options(), generator or fresh()
        (beginning,) = self._beginnings(1, given, draws)
        n_tokens, longest_row = self.rows.most(getattr(o, "n_tokens", None), [len(beginning)])
        most = len(beginning) + n_tokens
        ends = frozenset({self.rows.eos, *self.sampling.also_eos})
        return Continuation(beginning.tolist(), min(most, longest_row or most), o.sampling(self.sampling), draws, ends)

    def batch(self) -> ContinuousBatch:
        """An empty batch of rows that join and leave while others go on."""
        return ContinuousBatch(self.read, self.net.initial_state, self.context, self.device)

    def _ended(self, tokens: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """eos in place of every other token that ends a text."""
        if not self.sampling.also_eos or self.rows.eos is None:
            return tokens
        return tokens.masked_fill(torch.isin(tokens, tokens.new_tensor(self.sampling.also_eos)), self.rows.eos)


def mean_nll(logits: Float[Tensor, "n length vocab"], targets: Rows) -> Float[Tensor, ""]:
    """The mean of -log softmax(logits)[target] over targets that are not ``IGNORED``, in nats; 0 if there are none."""
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)
