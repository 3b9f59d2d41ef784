"""Autoregressive models: the probability of a sequence as a product of the probabilities of its tokens.

    log p(x) = Σ_i log p(x_i | x_<i),   p(· | x_<i) = softmax(logits after x_<i)                     in nats
    loss     = mean over the counted tokens of -log p(x_i | x_<i)

One loss and one sampler for every ``SequenceNet``, recurrent or Transformer.  Data of tokens (text, music) are modelled
here; images are made into tokens first, which is ``bowerbird/models/pixel_model.py``.

Truncated backpropagation (Williams and Peng 1990), for recurrent nets: a row is read in segments of ``segment`` tokens,
each has a loss and a step of its own, and the state is carried on without its gradient.  One segment that covers the
row is the full gradient.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bowerbird import config
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, GenerativeModel, Loss
from bowerbird.models.decoding import Reader, Sampling, choose, continuations
from bowerbird.nets import lora
from bowerbird.nets.base import NetConfig, SequenceState
from bowerbird.nets.lora import LoRAConfig
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.spec import ImageSpec

Tokens = Int[Tensor, "n length"]

IGNORED = -100
"""Stands where a token is not counted (the default of ``cross_entropy``)."""
LOGITS_AT_ONCE = 2**25
"""Numbers that ``log_prob`` holds at a time: bounds its memory to some 300 MB."""


@dataclass(frozen=True)
class AutoregressiveConfig(config.ModelConfig):
    """Hyperparameters of an autoregressive model."""

    net: NetConfig = TransformerConfig()
    segment: int | None = None
    """Tokens per segment of truncated backpropagation, for recurrent nets (None: whole rows)."""
    sampling: Sampling = Sampling()
    """How tokens are chosen unless a call says otherwise."""
    levels: int = 256
    """Images: values that a pixel can have; fewer than the data have are quantised to the nearest."""
    conditional: bool = True
    """Images: learn them given their label where the data have labels."""
    label_dropout: float = 0.0
    """Images: probability with which a label is hidden in training, so that images without one can be scored."""
    lora: LoRAConfig = LoRAConfig()
    """Train low-rank adapters instead of the weights (rank 0: no)."""
    start: str = ""
    """Folder of a run or of an imported model whose weights training starts from."""

    def __post_init__(self) -> None:
        if self.segment is not None and self.segment < 1:
            raise ValueError(f"model.segment = {self.segment} must be at least 1.")
        if not 2 <= self.levels <= 256:
            raise ValueError(f"model.levels = {self.levels} must lie between 2 and 256.")
        if not 0 <= self.label_dropout < 1:
            raise ValueError(f"model.label_dropout = {self.label_dropout} must lie in [0, 1).")

    def build(self, spec: Any) -> "Autoregressive":
        if isinstance(spec, ImageSpec):
            from bowerbird.models.pixel_model import PixelModel  # which is built on this module

            return PixelModel(self, spec)
        return LanguageModel(self, spec)

    def for_use(self) -> "AutoregressiveConfig":
        """The configuration of the trained model by itself: adapters merged, and no need of ``start``."""
        return replace(self, lora=LoRAConfig(), start="")


class Autoregressive(GenerativeModel):
    """What models of text and of pixels share: the net, the loss, the probability of rows of tokens."""

    def __init__(self, config: AutoregressiveConfig, spec: Any, vocab_size: int, context: int):
        super().__init__()
        self.config = config
        self.spec = spec
        self.net = config.net.language_model(vocab_size, context)
        self.context = None if self.net.recurrent else context
        """Most tokens that the net reads at once; None: any number."""
        if config.segment is not None and not self.net.recurrent:
            raise BowerbirdError("model.segment is for recurrent nets; leave it out or use the net rnn.")
        if config.start:
            load_weights(self, Path(config.start))
        if config.lora.rank:
            lora.adapt(self.net, config.lora)

    def weights(self) -> dict[str, Tensor]:
        return lora.merged_state(self)

    def adapters(self) -> dict[str, Tensor]:
        return lora.adapters(self)

    @property
    def sampling_network(self) -> nn.Module:
        return self.net

    def read(
        self, tokens: Tokens, state: SequenceState | None = None, document: Tokens | None = None
    ) -> tuple[Float[Tensor, "n length vocab"], SequenceState | None]:
        """What the net says: logits of what may come after each token, and the state after the last."""
        return self.net(tokens, state, document)

    def segment_losses(
        self, x: Tokens, counted: Bool[Tensor, "n length"], document: Tokens | None = None
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

    def row_log_prob(
        self, x: Tokens, counted: Bool[Tensor, "n length"], document: Tokens | None = None
    ) -> Float[Tensor, " n"]:
        """Σ log p over the counted tokens of each row, in nats."""
        targets = x[:, 1:].masked_fill(~counted[:, 1:], IGNORED)
        logits, _ = self.read(x[:, :-1], None, None if document is None else document[:, :-1])
        return -F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none").sum(1)


def mean_nll(logits: Float[Tensor, "n length vocab"], targets: Tokens) -> Float[Tensor, ""]:
    """The mean of -log softmax(logits)[target] over targets that are not ``IGNORED``, in nats; 0 if there are none."""
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


def in_pieces(n: int, numbers_per_row: int) -> Iterator[slice]:
    """Slices of n rows, each of at most ``LOGITS_AT_ONCE`` numbers (but at least one row)."""
    rows = max(1, LOGITS_AT_ONCE // numbers_per_row)
    return (slice(start, start + rows) for start in range(0, n, rows))


def load_weights(model: nn.Module, folder: Path) -> None:
    """Gives the model the weights of ``folder``/model.safetensors; BowerbirdError if they do not fit.

    Pretrained models often have rows for more tokens than their tokenizer knows; these are left out.
    """
    file = folder / "model.safetensors"
    if not file.is_file():
        raise BowerbirdError(f"model.start = {folder} has no model.safetensors; name a trained run or imported model.")
    found, own = safetensors.torch.load_file(file), model.state_dict()
    for name in PER_TOKEN & found.keys() & own.keys():
        if found[name].shape[1:] == own[name].shape[1:]:
            found[name] = found[name][: len(own[name])]
    for name in sorted(found.keys() | own.keys()):
        shapes = [tuple(tensors[name].shape) if name in tensors else None for tensors in (found, own)]
        if shapes[0] != shapes[1]:
            there, here = (f"of shape {shape}" if shape else "missing" for shape in shapes)
            raise BowerbirdError(
                f"model.start = {folder} does not fit: '{name}' is {there} there and {here} here; use its [model.net] "
                "and its tokenizer (data.text.tokenizer)."
            )
    model.load_state_dict(found)


PER_TOKEN = {"net.embedding.token.weight", "net.head.weight", "net.head.bias"}
"""Tensors with a row per token of the vocabulary."""


class LanguageModel(Autoregressive):
    """An autoregressive model of sequences that are tokens already."""

    estimator = "exact"

    def __init__(self, config: AutoregressiveConfig, spec: Any):
        super().__init__(config, spec, spec.vocab_size, spec.context)

    def losses(self, batch: Batch) -> Iterator[Loss]:
        counted = torch.ones_like(batch.x, dtype=torch.bool) if batch.counted is None else batch.counted
        for nll in self.segment_losses(batch.x, counted, batch.document):
            yield Loss("model", nll, {"nll_per_token": nll.detach()})

    @torch.no_grad()
    def log_prob(
        self,
        x: Tokens,
        label: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        counted: Bool[Tensor, "n length"] | None = None,
        document: Tokens | None = None,
    ) -> Float[Tensor, " n"]:
        """log p of each row's counted tokens given those before them, in nats, exact.

        ``counted`` None: every token after the first that is not ``spec.pad``.
        """
        if counted is None:
            counted = x != self.spec.pad
        pieces = in_pieces(len(x), x.shape[1] * self.spec.vocab_size)
        return torch.cat(
            [self.row_log_prob(x[p], counted[p], None if document is None else document[p]) for p in pieces]
        )

    def sample(
        self,
        n: int,
        *,
        cond: Tensor | None = None,
        generator: torch.Generator | None = None,
        prompt: Tensor | None = None,
        n_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
    ) -> Int[Tensor, "n length"]:
        """n rows that begin with ``prompt`` (None: ``spec.start``) and go on until eos; padded after it.

        ``n_tokens`` is the most that are added (None: until the context is full); rows may be longer than the context,
        see ``decoding.Reader``.  Options that are None are those of ``config.sampling``.
        """
        if cond is not None:
            raise BowerbirdError("This model was trained without labels, so it cannot sample by label.")
        begin = torch.tensor(self.spec.start) if prompt is None else prompt
        if n_tokens is None:
            n_tokens = max(1, self.spec.context + 1 - len(begin))
        added = self.complete(
            [begin] * n, n_tokens=n_tokens, generator=generator, temperature=temperature,
            top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty,
        )  # fmt: skip
        return torch.cat([begin.to(self.device).expand(n, -1), *(token[:, None] for token in added)], dim=1)

    def complete(
        self,
        prompts: list[Tensor],
        *,
        n_tokens: int,
        generator: torch.Generator | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
    ) -> Iterator[Int[Tensor, " n"]]:
        """Yields the next token of every prompt until all rows have ended or ``n_tokens`` were yielded.

        A prompt is all that the model reads before, with bos where rows begin so; an empty one is ``spec.start``.
        BowerbirdError if one is longer than the context.
        """
        sampling = self.config.sampling.but(
            temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty
        )
        start = torch.tensor(self.spec.start)
        prompts = [(prompt if len(prompt) else start).to(self.device) for prompt in prompts]
        longest = max(len(prompt) for prompt in prompts)
        if self.context is not None and longest > self.context:
            raise BowerbirdError(
                f"The prompt has {longest} tokens, but this model reads at most {self.context}; shorten the prompt."
            )
        tokens = continuations(
            Reader(self.read, self.net.initial_state, self.context),
            prompts,
            n_tokens=n_tokens,
            choice=lambda logits, past: choose(logits, sampling, generator, past),
            eos=self.spec.eos,
            pad=self.spec.pad,
        )
        return (token.clone() for token in tokens)  # for autograd, a tensor made in inference mode is of no use
