"""What there is to measure: samples, features, likelihoods …, each computed when a metric first asks for it, and once.

A context is a table from names to what they stand for.  A metric lists in ``needs`` what it reads, and applies wherever
all of that is offered; nothing else decides which metrics a medium or a family has.
"""

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.metrics.cache import FeatureSet
from bowerbird.metrics.copied import Symbols
from bowerbird.metrics.features import Extractor
from bowerbird.metrics.harmony import Kind
from bowerbird.metrics.matcher import Captioned
from bowerbird.metrics.measurement import Protocol
from bowerbird.metrics.progress_bar import progress_bar
from bowerbird.spec import Tokens

T = TypeVar("T")
S = TypeVar("S")

NEEDS: dict[str, str] = {
    "examples": "samples beside real examples, as models make them: Sides of tensors",
    "pictures": "pictures beside real ones: Sides of uint8 (n, c, h, w)",
    "extractor": "an extractor of features of pictures",
    "features": "features of pictures beside those of real ones: Compared",
    "training_features": "training and held-out pictures of the same source: FeatureSets of both",
    "sizes": "the number of images on each side: samples, reference, and others",
    "digits": "samples drawn with labels that are digits: the digit that each was asked to show",
    "clips": "moving pictures beside real ones and beside baselines: Moving",
    "waveforms": "waveforms of spectrograms beside the recordings that these are of, and beside a baseline: Vocoded",
    "attributes": "pictures with attributes, labels among them: Attributes",
    "captions": "pictures made from captions: Captions",
    "counterparts": "a true counterpart of every picture made: Counterparts",
    "named": "a model that classifies pictures: Named, of real ones",
    "reconstructions": "a model that encodes and decodes: Counterparts",
    "nats": "a model that knows likelihoods: PictureNats of real pictures",
    "flow_nats": "a model that knows the likelihood under its probability flow: PictureNats of real pictures",
    "cost": "samples that a model has drawn: SamplingCost",
    "texts": "texts beside real ones: Sides of strings",
    "form": "real texts in one verse form: lines and characters, or None",
    "copies": "how far samples repeat training data symbol by symbol: Copies",
    "translations": "texts with a reference for each: Sides of strings",
    "pieces": "music beside real music: Sides of grids or notes",
    "music": "how music is written down: Written",
    "voices": "music in a grid of voices",
    "document_nats": "a model of sequences that knows likelihoods: DocumentNats",
    "tokens": "the number of tokens of each document",
    "bytes": "the number of bytes of the whole split",
    "characters": "the number of characters of the whole split",
    "frames": "the number of frames of each piece of music",
    "notes": "the number of notes of each piece of music",
    "bigram": "the nats of each document under the bigram model of the training split",
}
"""Names that contexts offer: what each stands for, and the type of ``context[name]``."""


class Chosen(typing.Protocol):
    """A metric, as far as a context knows it."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]


class Context:
    """What can be measured here, and the protocol of the data that it is measured against."""

    def __init__(
        self,
        protocol: Protocol,
        offers: Mapping[str, Callable[["Context"], Any]],
        what: str = "these data",
        missing: Mapping[str, str] = MappingProxyType({}),
    ):
        self.protocol = protocol
        self.what = what
        """What is measured, for messages."""
        self.missing = missing
        """Needs that could be offered on another machine, and why they are not here, without a full stop."""
        self.chosen: tuple[Chosen, ...] = ()
        """All metrics that are computed in this context."""
        self.offers = dict(offers)
        self._memory: dict[Callable[[Any], Any], Any] = {}

    def has(self, *needs: str) -> bool:
        return all(need in self.offers for need in needs)

    def __getitem__(self, need: str) -> Any:
        """What a need stands for."""
        return self.once(self.offers[need])

    def once(self, compute: Callable[["Context"], T]) -> T:
        """``compute(context)``, remembered: what several metrics share is a function that each asks for here."""
        if compute not in self._memory:
            self._memory[compute] = compute(self)
        found: T = self._memory[compute]
        return found


@dataclass(frozen=True)
class Sides(Generic[S]):
    """Samples and what they are held against, and the protocol of metrics that use all of both."""

    samples: S
    reference: S
    protocol: Protocol
    training: S | None = None

    @classmethod
    def of(cls, protocol: Protocol, samples: Any, reference: Any, training: Any = None) -> "Sides[S]":
        """With the numbers of both sides in the protocol."""
        numbered = replace(protocol, n_generated=len(samples), n_reference=len(reference))
        return cls(samples, reference, numbered, training)


@dataclass(frozen=True)
class Compared:
    """Features of samples and of what they are compared with, and the protocol that all metrics of them share."""

    extractor: Extractor
    samples: FeatureSet
    reference: FeatureSet
    common: Protocol
    """Without numbers of samples and references."""

    def all(self, name: str) -> Tensor:
        """Every feature of the ``samples`` or the ``reference``."""
        return all_of(getattr(self, name), name)

    @property
    def protocol(self) -> Protocol:
        """Of metrics that use all samples and all of the reference."""
        return replace(self.common, n_generated=self.samples.n, n_reference=self.reference.n)


def all_of(features: FeatureSet, name: str) -> Float[Tensor, "n d"]:
    """Every feature of a set, with a progress bar."""
    with progress_bar(f"features of {name}", features.n) as progress:
        return features.all(progress)


def with_extractor(protocol: Protocol, extractor: Extractor) -> Protocol:
    """The protocol of what is computed from an extractor's features."""
    return replace(
        protocol, extractor=extractor.name, extractor_sha256=extractor.sha256, resizer=extractor.resizer,
        dtype=extractor.dtype,
    )  # fmt: skip


@dataclass(frozen=True)
class Counterparts:
    """Pictures that were made, each with the true one: what it should have become, or was encoded from."""

    made: UInt8[Tensor, "n c h w"]
    truth: UInt8[Tensor, "n c h w"]
    protocol: Protocol
    source: UInt8[Tensor, "n c2 h2 w2"] | None = None
    """What each was made from, where that is a picture too; for a caption, the training picture of the nearest one."""

    def __post_init__(self) -> None:
        if self.made.shape != self.truth.shape:
            sizes = f"{tuple(self.made.shape)} beside {tuple(self.truth.shape)}"
            raise BowerbirdError(f"Every picture needs a true one of its size, not {sizes}.")


@dataclass(frozen=True)
class Attributes:
    """What samples were asked to show, and real pictures to learn from what that looks like."""

    samples: UInt8[Tensor, "n c h w"]
    asked: Mapping[str, Int[Tensor, " n"]]
    """Of each attribute the class numbers that were asked for."""
    classes: Mapping[str, Sequence[str]]
    """Of each attribute the names of its classes."""
    training: UInt8[Tensor, "M c h w"]
    training_given: Mapping[str, Int[Tensor, " M"]]
    held_out: UInt8[Tensor, "k c h w"]
    held_out_given: Mapping[str, Int[Tensor, " k"]]
    protocol: Protocol


@dataclass(frozen=True)
class Moving:
    """Clips beside real ones, and beside clips that need no model."""

    samples: UInt8[Tensor, "n c f h w"]
    reference: UInt8[Tensor, "k c f h w"]
    baselines: Mapping[str, UInt8[Tensor, "n c f h w"]]
    """By name."""
    protocol: Protocol


@dataclass(frozen=True)
class Vocoded:
    """Waveforms of spectrograms, the recordings that these are of, and how their spectrograms are made."""

    reference: Float[Tensor, "n samples"]
    made: Mapping[str, Float[Tensor, "n samples"]]
    """The model's under "", those of baselines by name."""
    decibels: Callable[[Tensor], Tensor]
    """Waveforms → mel bands in dB (n, mel, frames), and the least that they can be is silence."""
    protocol: Protocol


@dataclass(frozen=True)
class Captions:
    """What pictures were asked for in words, and real pairs to learn from what words look like."""

    asked: Int[Tensor, "n length"]
    """Of each counterpart (``counterparts``)."""
    training: Captioned
    field: Tokens


@dataclass(frozen=True)
class PictureNats:
    """-log p of real pictures in nats, how it was computed, and how many numbers a picture has."""

    nats: Float[Tensor, " n"]
    dims: int
    protocol: Protocol


@dataclass(frozen=True)
class Named:
    """The labels that a model gives real pictures, and their own."""

    found: Int[Tensor, " n"]
    truth: Int[Tensor, " n"]
    protocol: Protocol


@dataclass(frozen=True)
class SamplingCost:
    """What drawing samples took."""

    n: int
    evaluations: float
    """Network evaluations per sample."""
    seconds: float
    """Wall-clock seconds per sample."""
    machine: str


@dataclass(frozen=True)
class DocumentNats:
    """-log p of documents in nats, over all tokens that are predicted."""

    nats: Float[np.ndarray, " n"]
    protocol: Protocol
    rows: Sequence[Shaped[np.ndarray, "_"]] = ()
    """The tokens of each document."""


@dataclass(frozen=True)
class Written:
    """How music is written down."""

    grid: bool
    """Frames of voices, otherwise notes."""
    frame_quarters: float = 1.0
    """Length of a frame of a grid."""

    @property
    def kind(self) -> Kind:
        return "grid" if self.grid else "midi"

    @property
    def step(self) -> str:
        """What a copied run is counted in."""
        return f"frame of {self.frame_quarters:g} quarters" if self.grid else "note"


@dataclass(frozen=True)
class Copies:
    """For every position of samples and unseen examples, how far from there on training data go on in the same way."""

    samples: Sequence[Symbols]
    unseen: Sequence[Symbols]
    span: int
    """Least length that counts towards the copied share."""
    protocol: Protocol
    parameters: Mapping[str, int | float | str]
    """What the protocol states besides."""
