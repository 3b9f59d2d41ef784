"""The contract between families and the trainer.

A family computes losses and draws samples; the trainer owns everything else (optimisers, gradients, averages,
precision, devices, budgets, checkpoints).  They meet in one generator:

    for loss in model.losses(batch):      # the family says whose parameters a loss moves
        ...                               # the trainer runs backward and steps that player before asking for the next

so that a GAN reads like its pseudo-code, a VAE yields once, and a critic trained five times yields five times.

Whatever a model makes, it makes from what is *given*: a label, several attributes, a caption, a sentence or a picture
to translate, or nothing.  ``Batch.given`` and the ``given`` of ``sample`` have the names of ``spec.given``.

What else a family can do it says by implementing one of the protocols below.  They are asked for with
``isinstance``, never by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bowerbird import config, ranges
from bowerbird.draws import Draws
from bowerbird.errors import unknown
from bowerbird.nets.conditioning import Given, requested
from bowerbird.samplers.continuous import Continuation, ContinuousBatch
from bowerbird.samplers.integrate import Denoising
from bowerbird.spec import Field, Spec


class Batch(NamedTuple):
    """One (micro-)batch of training examples, on the model's device."""

    x: Tensor
    """Pictures: float in [-1, 1], shape (n, c, h, w).  Sequences: tokens, int64, shape (n, length)."""
    given: Given = {}
    """What each example is made from, n rows each: class numbers int64 (n,), tokens int64 (n, length) padded at the
    end, pictures float (n, c, h, w).  Packed sequences: ``document``, the number of the document that each token
    belongs to, int64 (n, length); 0 is padding."""
    weight: Tensor | None = None
    """Sequences: which tokens of x are to be predicted, bool, shape (n, length): no padding, no first token, and of a
    chat only the answers."""
    step: int = 0
    """Optimiser steps done so far, for losses that change during training."""


class Loss(NamedTuple):
    """A scalar for the trainer to differentiate, and the player whose parameters it moves."""

    player: str
    value: Tensor
    logs: dict[str, Tensor] = {}
    """Named scalars to record, detached."""


@dataclass(frozen=True)
class Options:
    """How samples are drawn.  A family's own subclass has a field, with a default and a docstring, for each choice: the
    fields are the flags of the command line.  ValueError for values outside the ranges of their types (``ranges``)."""

    def __post_init__(self) -> None:
        ranges.check(self, "")


class GenerativeModel(nn.Module, ABC):
    """A family's model: its networks, its losses, its sampler."""

    Options: ClassVar[type[Any]] = Options
    spec: Spec
    """What it makes, and from what: the data's spec, without what the model does not use."""
    differentiates_twice: bool = False
    """A loss holds a gradient, such as a gradient penalty; torch.compile cannot differentiate that again."""
    borrowed: str = ""
    """The part, and field of the configuration, that stays as another run has trained it, so that training needs a
    ``train.start``; empty for most."""
    stays: str = ""
    """Why it is not ``Portable``, as the end of a sentence for whoever wants to export it."""

    @property
    def players(self) -> dict[str, nn.Module]:
        """The modules with an optimiser of their own, by name.  One player unless a family says otherwise."""
        return {"model": self}

    @abstractmethod
    def losses(self, batch: Batch) -> Iterator[Loss]:
        """Yields each loss in turn; the trainer has stepped its player before the generator continues."""

    @abstractmethod
    def sample(self, n: int, given: Given | None = None, options: Any = None, generator: Draws | None = None) -> Tensor:
        """Draws n examples in the range of ``Batch.x``.

        ``given`` has n rows under names of ``spec.given``; classes that are left out are drawn with the frequencies of
        the training data.  ``options`` is one of ``Options`` (None: its defaults).  Row i depends on the generator's
        row i alone.  BowerbirdError for what the model does not take.
        """

    def requested(self, n: int, given: Given | None, generator: Draws) -> dict[str, Tensor]:
        """What n samples are made from, on the model's device (see ``nets.conditioning.requested``)."""
        return requested(n, given, self.spec.given, generator, self.device)

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


def options_from(model: GenerativeModel, table: Mapping[str, Any] | None) -> Any:
    """The model's ``Options`` with these values; BowerbirdError for a name it does not have, or a wrong value."""
    known = [field.name for field in fields(model.Options)]
    for name in table or {}:
        if name not in known:
            raise unknown(f"sampling option of {type(model).__name__}", name, known)
    return config.build(model.Options, dict(table or {}), "sampling")


def with_steps(model: GenerativeModel, steps: int) -> Any:
    """The model's default options, with so many steps of the sampler where it takes steps."""
    takes_steps = any(field.name == "steps" for field in fields(model.Options))
    return model.Options(steps=steps) if takes_steps else model.Options()


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


def keep(module: nn.Module) -> None:
    """Turns the module's weights into buffers: part of the model's state, and of no player."""
    for part in module.modules():
        for name, weight in list(part._parameters.items()):
            if weight is not None:
                del part._parameters[name]
                part.register_buffer(name, weight.detach())


@runtime_checkable
class Encodes(Protocol):
    """Has a latent space: x → z → x."""

    def encode(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The latent code of each example, shape (n, n_latent)."""

    def decode(self, z: Tensor, given: Given | None = None) -> Tensor:
        """The example of each code, in the range of ``Batch.x``."""


@runtime_checkable
class EncodesGrid(Encodes, Protocol):
    """Its codes can be taken for small pictures, so that another family can learn them."""

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """How the n_latent numbers of a code are arranged: (numbers per position, rows, columns)."""


@runtime_checkable
class Infers(Protocol):
    """Has a Gaussian over the codes of each example: its code is not certain."""

    def posterior(self, x: Tensor, given: Given | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code of each example, each (n, n_latent)."""


@runtime_checkable
class Classifies(Protocol):
    """Names the label of a picture, which is one of the things that it makes pictures from."""

    def classify(self, x: Tensor) -> Tensor:
        """Logarithms of the probabilities of the classes of ``spec.given["label"]``, (n, n_classes)."""


@runtime_checkable
class Packs(Protocol):
    """Keeps pictures in few bytes in a way of its own."""

    def codec(self) -> Any:
        """With ``lossless``, ``pack`` and ``unpack``, as ``samplers.bitsback.BitsBack`` has them."""


class Estimator(NamedTuple):
    """One way to compute how likely data are."""

    description: str
    """What ``log_prob`` computes, in a few words: part of a measurement's protocol."""
    log_prob: Callable[..., Tensor]
    """(batch, generator=None) → the log-likelihood of each example in nats, or a lower bound on it, (n,)."""


@runtime_checkable
class Scores(Protocol):
    """Knows how likely data are."""

    @property
    def estimators(self) -> Mapping[str, Estimator]:
        """By name: "nll" is the family's own, "flow" that of the probability flow."""


class Piece(NamedTuple):
    """A part of a model that other programs can run: tensors of n rows in, one tensor of n rows out."""

    module: nn.Module
    """Called with the inputs in their order."""
    inputs: dict[str, Field]
    """What each of them holds; ``Tensors(())`` is one number per row."""
    output: str
    """What comes out, in a word."""


class Positional(nn.Module):
    """A function of a network as a module whose arguments are tensors: the last are what is given, by their names."""

    def __init__(self, net: nn.Module, function: Callable[..., Tensor], names: Iterable[str] = ()):
        super().__init__()
        self.net, self.names = net, tuple(names)
        # As a module it would be a second part, and its weights would have two names.
        self.function = function.__call__ if isinstance(function, nn.Module) else function
        self.train(net.training)  # or a tool that evaluates it would turn the net's dropout on again afterwards

    def forward(self, *tensors: Tensor) -> Tensor:
        if not self.names:
            return self.function(*tensors)
        n = len(self.names)
        return self.function(*tensors[:-n], dict(zip(self.names, tensors[-n:], strict=True)))


@runtime_checkable
class Portable(Protocol):
    """Can be taken apart into pieces that draw samples without Bowerbird."""

    @property
    def pieces(self) -> Mapping[str, Piece]:
        """By name; they share the model's parameters."""

    def procedure(self) -> dict[str, Any]:
        """How the pieces make a sample with the default options, as JSON; its ``kind`` is a function in
        ``export/scripts``."""


@runtime_checkable
class Denoises(Protocol):
    """Makes examples of noise step by step, so that others can take part in the steps."""

    def denoising(self, given: Given, options: Any) -> Denoising:
        """How it does, made from ``given`` with n rows; what is left out is not given, and nothing is drawn."""


@runtime_checkable
class HasCodes(Protocol):
    """Makes codes first, and a picture of each: what takes part in its steps takes part in the making of codes."""

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """Of one code: (numbers per position, rows, columns)."""

    def codes(self, x: Tensor) -> Tensor:
        """Pictures to codes."""

    def pictures(self, z: Tensor) -> Tensor:
        """Codes to pictures."""


@runtime_checkable
class Inverts(Protocol):
    """Makes pictures of noise by an equation that can be followed back."""

    def noise_of(self, x: Tensor, given: Given | None = None, *, steps: int = ..., begin: float = ...) -> Tensor:
        """The noise that it would make each picture of: N(0, I) for its own, (n, c, h, w) or in the shape of codes.

        In ``steps`` steps of Heun's method from sigma/alpha = ``begin``, about the noise that the picture has itself.
        """


@runtime_checkable
class Streams(Protocol):
    """Makes sequences of tokens from left to right, and can be given their beginning."""

    def stream(
        self, n: int, given: Given | None = None, options: Any = None, generator: Draws | None = None
    ) -> Iterator[Tensor]:
        """Yields the next token of every row, int64 (n,), until all rows have ended.

        ``given["prompt"]``: what each row begins with, int64 (n, length), padded at the end with ``NO_TOKEN``.  After
        its end a row yields ``spec.target.pad``.
        """


@runtime_checkable
class Joins(Streams, Protocol):
    """Streams whose rows may join others that are under way, as a server needs it (continuous batching)."""

    def row(self, given: Given | None = None, options: Any = None, generator: Draws | None = None) -> Continuation:
        """The beginning of one row, made from ``given`` with one row, and how it is to be continued."""

    def batch(self) -> ContinuousBatch:
        """An empty batch, which rows may join."""
