"""Sequence to sequence: the probability of a target given a source (Sutskever et al. 2014, Vaswani et al. 2017).

    log p(y | x) = Σ_i log p(y_i | y_<i, x)                                                               in nats
    loss         = mean over counted tokens of (1-ε) · -log p(y_i | y_<i, x) + ε · mean_v -log p(v | y_<i, x)

with ε = ``label_smoothing`` (Szegedy et al. 2016, arXiv:1512.00567, section 7: the target is mixed with the uniform
distribution over the vocabulary).  In training the decoder reads the true target (teacher forcing); to translate, what
it has written itself.  Padding counts neither in the loss nor in attention.

``translate`` searches for the y of largest log p(y | x) / ((5 + |y|) / 6)^length_penalty (Wu et al. 2016, equation 14,
without its coverage term; |y| includes eos), see ``bowerbird/models/decoding.py``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bowerbird import config
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, GenerativeModel, Loss
from bowerbird.models.decoding import Read, Reader, Sampling, beam_search, choose, continuations
from bowerbird.nets.base import Memory, NetConfig
from bowerbird.nets.transformer import TransformerConfig

Tokens = Int[Tensor, "n length"]
Source = Int[Tensor, "n source"]


@dataclass(frozen=True)
class Seq2SeqConfig(config.ModelConfig):
    """Hyperparameters of a model of pairs: translation, summaries."""

    net: NetConfig = TransformerConfig()
    label_smoothing: float = 0.1
    """ε: the part of each target that is spread over the whole vocabulary."""
    beam: int = 1
    """Rows that the search for a translation keeps; 1 is greedy."""
    length_penalty: float = 0.6
    """Exponent of the length normalisation: 0 none, which favours short translations; larger ones favour long."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"model.label_smoothing = {self.label_smoothing} must lie in [0, 1).")
        check_search(self.beam, self.length_penalty)

    def build(self, spec: Any) -> "Seq2Seq":
        if not getattr(spec, "source_context", 0):
            raise BowerbirdError("The family seq2seq is for pairs of texts; for other data use autoregressive.")
        return Seq2Seq(self, spec)


def check_search(beam: int, length_penalty: float) -> None:
    """ValueError unless beam ≥ 1 and length_penalty ≥ 0."""
    if beam < 1:
        raise ValueError(f"beam = {beam} must be at least 1.")
    if length_penalty < 0:
        raise ValueError(f"length_penalty = {length_penalty} must not be negative.")


def smoothed(nll: Float[Tensor, "*n"], uniform: Float[Tensor, "*n"], label_smoothing: float) -> Float[Tensor, "*n"]:
    """(1-ε) nll + ε uniform: the cross-entropy of a target mixed with the uniform distribution, in nats."""
    return (1 - label_smoothing) * nll + label_smoothing * uniform


def before(row: Int[Tensor, " length"], eos: int) -> Int[Tensor, " end"]:
    """The tokens before the first eos; all where there is none."""
    places = (row == eos).nonzero()
    return row[: int(places[0])] if len(places) else row


class Seq2Seq(GenerativeModel):
    """An encoder of sources and a decoder of targets, trained as one player."""

    estimator = "exact"

    def __init__(self, config: Seq2SeqConfig, spec: Any):
        super().__init__()
        self.config = config
        self.spec = spec
        self.net = config.net.translator(spec.vocab_size, spec.source_context, spec.context)

    @property
    def sampling_network(self) -> nn.Module:
        return self.net

    def encode_source(self, source: Source) -> Memory:
        """What the decoder reads of each source; padding is marked as such."""
        return self.net.encode(source, source != self.spec.pad)

    def token_log_probs(self, x: Tokens, source: Source) -> Float[Tensor, "n length-1 vocab"]:
        """log p of every token that might stand after x_≤i, given the source, in nats."""
        logits, _ = self.net(x[:, :-1], self.encode_source(source))
        return logits.float().log_softmax(-1)

    def losses(self, batch: Batch) -> Iterator[Loss]:
        if batch.source is None:
            raise BowerbirdError("The family seq2seq needs pairs of texts; these data have no source.")
        log_probs = self.token_log_probs(batch.x, batch.source)
        counted = (batch.x != self.spec.pad if batch.counted is None else batch.counted)[:, 1:]
        total = counted.sum().clamp(min=1)
        nll = -(log_probs.gather(-1, batch.x[:, 1:, None])[..., 0] * counted).sum() / total
        uniform = -(log_probs.mean(-1) * counted).sum() / total
        value = smoothed(nll, uniform, self.config.label_smoothing)
        yield Loss("model", value, {"nll_per_token": nll.detach()})

    @torch.no_grad()
    def log_prob(
        self,
        x: Tokens,
        label: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        source: Source | None = None,
        counted: Bool[Tensor, "n length"] | None = None,
    ) -> Float[Tensor, " n"]:
        """log p of each row's counted tokens given its source, in nats, exact.

        ``counted`` None: every token after the first that is not ``spec.pad``.
        """
        if source is None:
            raise BowerbirdError("This model knows likelihoods of targets given their source only; give the source.")
        counted = (x != self.spec.pad if counted is None else counted)[:, 1:]
        log_prob = self.token_log_probs(x, source).gather(-1, x[:, 1:, None])[..., 0]
        return (log_prob * counted).sum(1)

    def reader(self, memory: Memory) -> Read:
        """The decoder's reading of targets, given the source."""
        return lambda tokens, state: self.net(tokens, memory, state)

    def translate(
        self,
        source: Source,
        *,
        beam: int | None = None,
        length_penalty: float | None = None,
        n_tokens: int | None = None,
    ) -> list[Tensor]:
        """The best translation that a beam search finds for each row of ``source``, without bos and eos.

        Options that are None are those of the configuration; ``n_tokens`` is the most that a translation may have,
        eos included (None: the context).
        """
        beam = self.config.beam if beam is None else beam
        length_penalty = self.config.length_penalty if length_penalty is None else length_penalty
        try:
            check_search(beam, length_penalty)
        except ValueError as error:
            raise BowerbirdError(str(error)) from error
        n, most = len(source), self.longest(n_tokens)
        with torch.inference_mode():
            memory = self.encode_source(self.checked(source))
            memory = memory.rows(torch.arange(n, device=self.device).repeat_interleave(beam))
            state = self.net.initial_state(n * beam, most)
        bos = torch.full((n,), self.spec.bos, device=self.device)
        tokens, _ = beam_search(
            self.reader(memory), state, bos, eos=self.spec.eos, pad=self.spec.pad,
            beam=beam, length_penalty=length_penalty, n_tokens=most,
        )  # fmt: skip
        return [before(row, self.spec.eos).clone() for row in tokens]

    def longest(self, n_tokens: int | None) -> int:
        """The most tokens that a target may have: never more than the context."""
        return self.spec.context if n_tokens is None else max(1, min(n_tokens, self.spec.context))

    def checked(self, source: Source) -> Source:
        """The source on the model's device; BowerbirdError if it is too long, or a row is empty."""
        if source.shape[1] > self.spec.source_context:
            raise BowerbirdError(
                f"A source has {source.shape[1]} tokens, but this model reads at most {self.spec.source_context}; "
                "shorten it."
            )
        if bool((source == self.spec.pad).all(1).any()):
            raise BowerbirdError("A source is empty; there is nothing to translate.")
        return source.to(self.device)

    def sample(
        self,
        n: int,
        *,
        cond: Tensor | None = None,
        generator: torch.Generator | None = None,
        source: Tensor | None = None,
        n_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
    ) -> Tokens:
        """n targets drawn from p(y | source), from bos to eos, padded after it.

        ``source`` has n rows, or is one row that all n are drawn for.
        """
        if cond is not None:
            raise BowerbirdError("This model was trained without labels, so it cannot sample by label.")
        if source is None:
            raise BowerbirdError("This model turns one text into another, so sampling needs a source.")
        sampling = Sampling().but(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        with torch.inference_mode():
            memory = self.encode_source(self.checked(source.expand(n, -1)))
        bos = torch.full((n, 1), self.spec.bos, device=self.device)
        added = continuations(
            Reader(self.reader(memory), self.net.initial_state, self.spec.context),
            list(bos),
            n_tokens=self.longest(n_tokens),
            choice=lambda logits, past: choose(logits, sampling, generator),
            eos=self.spec.eos,
            pad=self.spec.pad,
        )
        return torch.cat([bos, torch.stack(list(added), dim=1)], dim=1)
