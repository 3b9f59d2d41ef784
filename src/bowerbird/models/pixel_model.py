"""Autoregressive models of images: pixels as tokens (van den Oord et al. 2016, arXiv:1601.06759, equation 1).

An image is read row by row, of a pixel all channels in turn, each value as one token in 0 … levels-1.  The first token
says the label; behind the values the vocabulary has one number per class and one for "no label":

    [label, v_1, v_2 … v_D] → log p(x | label) = Σ_i log p(v_i | v_<i, label)            exact, in nats per image

with p(v_i | …) = softmax over the ``levels`` values alone, so that the probabilities of all images sum to 1.  With 256
levels they compare with every other family's likelihood of 8-bit images; with fewer, the model is one of images
quantised to the nearest level, and ``estimator`` says so.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.models.autoregressive import Autoregressive, AutoregressiveConfig, Tokens, in_pieces
from bowerbird.models.base import Batch, Loss
from bowerbird.models.conditioning import drop_labels, labels_for
from bowerbird.models.decoding import Reader, choose, continuations
from bowerbird.nets.base import SequenceState

Images = Float[Tensor, "n c h w"]
Values = Int[Tensor, "n dims"]


def to_values(x: Images, levels: int) -> Values:
    """[-1, 1] to the nearest of 0 … levels-1, in raster order."""
    return ((x + 1) / 2 * (levels - 1)).round().clamp(0, levels - 1).long().permute(0, 2, 3, 1).flatten(1)


def to_images(values: Values, levels: int, shape: tuple[int, int, int]) -> Images:
    """The inverse of ``to_values`` for images whose values are levels."""
    channels, height, width = shape
    x = values.float() * (2 / (levels - 1)) - 1
    return x.view(-1, height, width, channels).permute(0, 3, 1, 2).contiguous()


class PixelModel(Autoregressive):
    """An autoregressive model of images."""

    def __init__(self, config: AutoregressiveConfig, spec: Any):
        n_classes = spec.n_classes if config.conditional else 0
        super().__init__(config, spec, vocab_size=config.levels + n_classes + 1, context=spec.dims)
        self.n_classes = n_classes
        self.levels = config.levels
        self.sampling = config.sampling.but(repetition_penalty=1.0)  # an image may repeat its background

    @property
    def estimator(self) -> str:
        return "exact" if self.levels == 256 else f"exact, of images quantised to {self.levels} levels"

    def read(
        self, tokens: Tokens, state: SequenceState | None = None, document: Tokens | None = None
    ) -> tuple[Float[Tensor, "n length levels"], SequenceState | None]:
        """Logits of values alone: a label never follows."""
        logits, state = self.net(tokens, state, document)
        return logits[..., : self.levels], state

    def label_tokens(self, n: int, label: Int[Tensor, " n"] | None) -> Int[Tensor, "n 1"]:
        """The first token of each row; None is "no label"."""
        number = torch.full((n,), self.n_classes, device=self.device) if label is None else label.to(self.device)
        return (self.levels + number)[:, None]

    def losses(self, batch: Batch) -> Iterator[Loss]:
        label = batch.label if self.n_classes else None
        if label is not None and self.config.label_dropout:
            label = drop_labels(label, self.n_classes, self.config.label_dropout)
        x = torch.cat([self.label_tokens(len(batch.x), label), to_values(batch.x, self.levels)], dim=1)
        for nll in self.segment_losses(x, torch.ones_like(x, dtype=torch.bool)):
            bits_per_dim = nll.detach() / torch.log(torch.tensor(2.0))
            yield Loss("model", nll, {"nll_per_token": nll.detach(), "bits_per_dim": bits_per_dim})

    @torch.no_grad()
    def log_prob(
        self, x: Images, label: Int[Tensor, " n"] | None = None, *, generator: torch.Generator | None = None
    ) -> Float[Tensor, " n"]:
        """log p(x | label) of each image, in nats, exact; label None: log p(x) of a model that has learned it."""
        if self.n_classes and label is None and not self.config.label_dropout:
            raise BowerbirdError(
                "This model has only seen images with their label; give the labels, or train with label_dropout = 0.1."
            )
        tokens = self.label_tokens(len(x), label if self.n_classes else None)
        tokens = torch.cat([tokens, to_values(x, self.levels)], dim=1)
        counted = torch.ones_like(tokens, dtype=torch.bool)
        pieces = in_pieces(len(x), tokens.shape[1] * self.levels)
        return torch.cat([self.row_log_prob(tokens[piece], counted[piece]) for piece in pieces])

    def sample(
        self,
        n: int,
        *,
        cond: Int[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
    ) -> Images:
        """n images, value by value; one network evaluation per number of an image.

        Options that are None are those of ``config.sampling``; only its defaults draw from the model's distribution.
        """
        sampling = self.sampling.but(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        label = labels_for(n, cond, self.spec, self.n_classes, generator)
        values = continuations(
            Reader(self.read, self.net.initial_state, self.context),
            list(self.label_tokens(n, label)),
            n_tokens=self.spec.dims,
            choice=lambda logits, past: choose(logits, sampling, generator),
            eos=-1,  # images have one length
            pad=0,
        )
        return to_images(torch.stack(list(values), dim=1), self.levels, self.spec.shape)
