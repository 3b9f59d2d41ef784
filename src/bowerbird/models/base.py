"""The contract between families and the trainer.

A family computes losses and draws samples; the trainer owns everything else (optimisers, gradients, averages,
precision, devices, budgets, checkpoints).  They meet in one generator:

    for loss in model.losses(batch):      # the family says whose parameters a loss moves
        ...                               # the trainer runs backward and steps that player before asking for the next

so that a GAN reads like its pseudo-code, a VAE yields once, and a critic trained five times yields five times.

What else a family can do it says by implementing one of the protocols below.  They are asked for with
``isinstance``, never by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


class Batch(NamedTuple):
    """One (micro-)batch of training examples, on the model's device."""

    x: Tensor
    """Images: float in [-1, 1], shape (n, c, h, w).  Sequences: tokens, int64, shape (n, length)."""
    label: Tensor | None = None
    """Class numbers, int64, shape (n,); None when the data have no labels."""
    step: int = 0
    """Optimiser steps done so far, for losses that change during training."""
    counted: Tensor | None = None
    """Sequences: which tokens of x are to be predicted, bool, shape (n, length): no padding, no first token, and of a
    chat only the answers."""
    document: Tensor | None = None
    """Packed sequences: the number of the document that each token belongs to, int64, shape (n, length); 0 is padding.
    None when each row is one document."""
    source: Tensor | None = None
    """Pairs: the tokens to translate, int64, shape (n, source length), padded at the end."""


class Loss(NamedTuple):
    """A scalar for the trainer to differentiate, and the player whose parameters it moves."""

    player: str
    value: Tensor
    logs: dict[str, Tensor] = {}
    """Named scalars to record, detached."""


class GenerativeModel(nn.Module, ABC):
    """A family's model: its networks, its losses, its sampler."""

    spec: Any
    """The data's spec (see ``bowerbird.spec``)."""
    n_classes: int = 0
    """Classes that ``sample`` can be asked for; 0 when the data have no labels or the model does not use them."""
    differentiates_twice: bool = False
    """A loss holds a gradient, such as a gradient penalty; torch.compile cannot differentiate that again."""

    @property
    def players(self) -> dict[str, nn.Module]:
        """The modules with an optimiser of their own, by name.  One player unless a family says otherwise."""
        return {"model": self}

    @abstractmethod
    def losses(self, batch: Batch) -> Iterator[Loss]:
        """Yields each loss in turn; the trainer has stepped its player before the generator continues."""

    @abstractmethod
    def sample(self, n: int, *, cond: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draws n examples in the range of ``Batch.x``.

        ``cond`` holds class numbers of shape (n,); None draws them with the frequencies of the training data.  The
        same generator state gives the same samples.  Families add keyword options of their own (steps, guidance …),
        each with a default; the command line offers exactly those.
        """

    def weights(self) -> dict[str, Tensor]:
        """What a run keeps for use: the state of the model that ``config.for_use().build(spec)`` makes."""
        return self.state_dict()

    def adapters(self) -> dict[str, Tensor]:
        """What training added to weights that came from elsewhere, to be kept beside them; empty when it is all one."""
        return {}

    @property
    @abstractmethod
    def sampling_network(self) -> nn.Module:
        """The network whose calls are the cost of sampling."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


@contextmanager
def counting_evaluations(model: GenerativeModel) -> Iterator[list[int]]:
    """Counts what sampling costs: inside, the list's one entry is the rows that went through the sampling network.

    Divided by the number of samples it is the network evaluations per sample, as measured, not as claimed.
    """
    rows = [0]

    def count(_module: nn.Module, inputs: tuple, _output: Any) -> None:
        rows[0] += inputs[0].shape[0]

    handle = model.sampling_network.register_forward_hook(count)
    try:
        yield rows
    finally:
        handle.remove()


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside (no dropout, running statistics); afterwards the mode that ``net`` had."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)


@runtime_checkable
class Encodes(Protocol):
    """Has a latent space: x → z → x."""

    def encode(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """The latent code of each example, shape (n, n_latent)."""

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The example of each code, in the range of ``Batch.x``."""


@runtime_checkable
class Scores(Protocol):
    """Knows how likely data are."""

    estimator: str
    """What ``log_prob`` computes with its default settings, in a few words: part of a measurement's protocol."""

    def log_prob(self, x: Tensor, label: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Log-likelihood of each example in nats, or a lower bound on it (the family's docstring says which), (n,)."""


@runtime_checkable
class ScoresByFlow(Protocol):
    """Knows besides how likely data are under its probability flow."""

    flow_estimator: str
    """What ``flow_log_prob`` computes with its default settings, in a few words."""

    def flow_log_prob(
        self, x: Tensor, label: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """A lower bound on the log-probability of 8-bit images in nats, (n,)."""


@runtime_checkable
class Completes(Protocol):
    """Continues sequences of tokens."""

    def complete(
        self, prompts: list[Tensor], *, n_tokens: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yields the next token of every prompt, int64 (n,), until all rows have ended or ``n_tokens`` were yielded.

        After its end a row yields ``spec.pad``.  Families add sampling options of their own (temperature, top_k …).
        """


@runtime_checkable
class Translates(Protocol):
    """Turns one sequence of tokens into another."""

    def translate(self, source: Tensor) -> list[Tensor]:
        """The translation of each row of ``source`` (n, length), padded at the end; without bos and eos."""
