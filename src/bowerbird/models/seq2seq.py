"""Sequence to sequence: the probability of a target given a source (Sutskever et al. 2014, Vaswani et al. 2017).

    log p(y | x) = Σ_i log p(y_i | y_<i, x)                                                               in nats
    loss         = mean over counted tokens of (1-ε) · -log p(y_i | y_<i, x) + ε · mean_v -log p(v | y_<i, x)

with ε = ``label_smoothing`` (Szegedy et al. 2016, arXiv:1512.00567, section 7: the target is mixed with the uniform
distribution over the vocabulary).  In training the decoder reads the true target (teacher forcing); to translate, what
it has written itself.  Padding counts neither in the loss nor in attention.

Unless a temperature asks for draws, sampling searches for the y of largest
log p(y | x) / ((5 + |y|) / 6)^length_penalty (Wu et al. 2016, equation 14, without its coverage term; |y| includes
eos), see ``bowerbird/samplers/decoding.py``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, Estimator, GenerativeModel, Loss, Options, Piece, Positional
from bowerbird.nets.conditioning import Given
from bowerbird.nets.roles import Memory, NetConfig
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.ranges import Count, Decay, NonNegative, Whole
from bowerbird.registry import families
from bowerbird.samplers.decoding import Nucleus, Read, Reader, Sampling, beam_search, choose, continuations
from bowerbird.spec import Spec, Tokens

Rows = Int[Tensor, "n length"]
Source = Int[Tensor, "n source"]


@dataclass(frozen=True)
class Seq2SeqOptions(Options):
    """How a target is found: by a search for the most probable one, or, with a temperature, by drawing one."""

    beam: Count | None = None
    """Hypotheses that the search follows at a time (None: as the recipe says; 1 is greedy)."""
    length_penalty: NonNegative | None = None
    """Exponent of the length normalisation: above 0 favours longer targets (None: as the recipe says)."""
    n_tokens: Count | None = None
    """Most tokens of a target, its end included (None: the context)."""
    temperature: NonNegative = 0.0
    """Above 0: draw the target token by token, below 1 more cautiously than the model's own distribution."""
    top_k: Whole = 0
    """Drawing: among this many of the most probable tokens (0: all)."""
    top_p: Nucleus = 1.0
    """Drawing: among the fewest tokens whose probabilities add up to this."""

    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)


@families.register("seq2seq")
@dataclass(frozen=True)
class Seq2SeqConfig(config.ModelConfig):
    """Hyperparameters of a model of pairs: translation, summaries."""

    net: NetConfig = TransformerConfig()
    label_smoothing: Decay = 0.1
    """ε: the part of each target that is spread over the whole vocabulary."""
    beam: Count = 1
    """Rows that the search for a translation keeps; 1 is greedy."""
    length_penalty: NonNegative = 0.6
    """Exponent of the length normalisation: 0 none, which favours short translations; larger ones favour long."""

    def build(self, spec: Spec) -> "Seq2Seq":
        return Seq2Seq(self, spec)


def _tokens(spec: Spec) -> Tokens:
    """The source that the data give."""
    source = spec.given.get("source")
    if not isinstance(source, Tokens):
        raise BowerbirdError(
            f"The family seq2seq learns pairs of texts, but this data source contains {spec.contents}; bring pairs "
            "(docs/translation.md), read a column of questions and one of answers as pairs with --data.modality pairs, "
            "or choose the family autoregressive (recipe poet), which learns chats and texts."
        )
    return source


def smoothed(nll: Float[Tensor, "*n"], uniform: Float[Tensor, "*n"], label_smoothing: float) -> Float[Tensor, "*n"]:
    """(1-ε) nll + ε uniform: the cross-entropy of a target mixed with the uniform distribution, in nats."""
    return (1 - label_smoothing) * nll + label_smoothing * uniform


class Seq2Seq(GenerativeModel):
    """An encoder of sources and a decoder of targets, trained as one player."""

    Options = Seq2SeqOptions

    def __init__(self, config: Seq2SeqConfig, spec: Spec):
        super().__init__()
        self.config = config
        self.spec = spec
        self.target, self.source = spec.needs(Tokens, "seq2seq"), _tokens(spec)
        self.net = config.net.translator(self.target.vocab_size, self.source.context, self.target.context)

    @property
    def sampling_network(self) -> nn.Module:
        return self.net

    @property
    def pieces(self) -> dict[str, Piece]:
        def logits(source: Source, tokens: Rows) -> Tensor:
            return self.net(tokens, self.encode_source(source))[0]

        return {"reader": Piece(Positional(self.net, logits), {"source": self.source, "tokens": self.target}, "logits")}

    def procedure(self) -> dict[str, Any]:
        target = self.target
        return {"kind": "pairs", "piece": "reader", "most": target.context} | {
            name: getattr(target, name) for name in ("bos", "eos", "pad")
        }

    def encode_source(self, source: Source) -> Memory:
        """What the decoder reads of each source; padding is marked as such."""
        return self.net.encode(source, source != self.target.pad)

    def token_log_probs(self, x: Rows, source: Source) -> Float[Tensor, "n length-1 vocab"]:
        """log p of every token that might stand after x_≤i, given the source, in nats."""
        logits, _ = self.net(x[:, :-1], self.encode_source(source))
        return logits.float().log_softmax(-1)

    def losses(self, batch: Batch) -> Iterator[Loss]:
        log_probs = self.token_log_probs(batch.x, self.source_of(batch))
        counted = self.counted(batch)
        total = counted.sum().clamp(min=1)
        nll = -(log_probs.gather(-1, batch.x[:, 1:, None])[..., 0] * counted).sum() / total
        uniform = -(log_probs.mean(-1) * counted).sum() / total
        value = smoothed(nll, uniform, self.config.label_smoothing)
        yield Loss("model", value, {"nll_per_token": nll.detach()})

    def source_of(self, batch: Batch) -> Source:
        if "source" not in batch.given:
            raise BowerbirdError("This model knows targets given their source only; give the source.")
        return batch.given["source"]

    def counted(self, batch: Batch) -> Tensor:
        """Which tokens after the first are to be predicted: those of the weight, else all that are no padding."""
        return (batch.x != self.target.pad if batch.weight is None else batch.weight)[:, 1:]

    @property
    def estimators(self) -> dict[str, Estimator]:
        return {"nll": Estimator("exact", self.log_prob)}

    @torch.no_grad()
    def log_prob(self, batch: Batch, generator: torch.Generator | None = None) -> Float[Tensor, " n"]:
        """log p of each row's counted tokens given its source, in nats, exact."""
        log_prob = self.token_log_probs(batch.x, self.source_of(batch)).gather(-1, batch.x[:, 1:, None])[..., 0]
        return (log_prob * self.counted(batch)).sum(1)

    # ------------------------------------------------------------------------------------------------ sampling

    def reader(self, memory: Memory) -> Read:
        """The decoder's reading of targets, given the source."""
        return lambda tokens, state: self.net(tokens, memory, state)

    def sample(
        self, n: int, given: Given | None = None, options: Seq2SeqOptions | None = None, generator: Draws | None = None
    ) -> Rows:
        """A target for each row of ``given["source"]``, from bos to eos, padded after it."""
        o, draws = options or Seq2SeqOptions(), generator or fresh()
        source = self.requested(n, given, draws).get("source")
        if source is None:
            raise BowerbirdError("This model turns one text into another, so it needs a source; give it with --prompt.")
        rows = self.drawn(source, o, draws) if o.temperature else self.found(source, o)
        return torch.cat([torch.full((n, 1), self.target.bos, device=self.device), rows], dim=1)

    def found(self, source: Source, options: Seq2SeqOptions) -> Rows:
        """The best target that a beam search finds for each source, up to and with its eos."""
        beam = self.config.beam if options.beam is None else options.beam
        penalty = self.config.length_penalty if options.length_penalty is None else options.length_penalty
        n, most = len(source), self.longest(options.n_tokens)
        with torch.inference_mode():
            memory = self.encode_source(self.checked(source))
            memory = memory.rows(torch.arange(n, device=self.device).repeat_interleave(beam))
            state = self.net.initial_state(n * beam, most)
        bos = torch.full((n,), self.target.bos, device=self.device)
        tokens, _ = beam_search(
            self.reader(memory), state, bos, eos=self.target.eos, pad=self.target.pad,
            beam=beam, length_penalty=penalty, n_tokens=most,
        )  # fmt: skip
        return tokens.clone()

    def drawn(self, source: Source, options: Seq2SeqOptions, draws: Draws) -> Rows:
        """A target from p(y | source) for each source, up to and with its eos."""
        with torch.inference_mode():
            memory = self.encode_source(self.checked(source))
        added = continuations(
            Reader(self.reader(memory), self.net.initial_state, self.target.context),
            list(torch.full((len(source), 1), self.target.bos, device=self.device)),
            n_tokens=self.longest(options.n_tokens),
            choice=lambda logits, past: choose(logits, options.sampling(), draws),
            eos=self.target.eos,
            pad=self.target.pad,
        )
        return torch.stack(list(added), dim=1).clone()

    def longest(self, n_tokens: int | None) -> int:
        """The most tokens that a target may have: never more than the context."""
        return self.target.context if n_tokens is None else max(1, min(n_tokens, self.target.context))

    def checked(self, source: Source) -> Source:
        """The source; BowerbirdError if it is too long, or a row is empty."""
        if source.shape[1] > self.source.context:
            raise BowerbirdError(
                f"A source has {source.shape[1]} tokens, but this model reads at most {self.source.context}; "
                "shorten it."
            )
        if bool((source == self.target.pad).all(1).any()):
            raise BowerbirdError("A source is empty; there is nothing to translate.")
        return source
