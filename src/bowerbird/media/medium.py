"""The contract of a medium: how one kind of thing is opened, written, and shown.

A medium is a folder with its class in ``__init__.py``, or a class in a plugin; ``@registry.media.register("name")``
makes it known.  It never imports another medium, and no model: samples come to it as tensors with their spec.
Importing a medium imports no torch, so that it can be asked which files it knows.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from bowerbird import config, registry

if TYPE_CHECKING:
    from torch import Tensor

    from bowerbird.spec import Spec


class Split(Protocol):
    """Examples that can be batched."""

    @property
    def lengths(self) -> "Tensor | None":
        """Size of each example, where batches of like sizes are cheaper; else None."""

    def __len__(self) -> int: ...

    def batch(self, indices: "Tensor", device: Any = "cpu") -> dict[str, Any]:
        """``x``, and where there are any ``given`` and ``weight``, on the device: fields of ``models.base.Batch``."""


class Opened(Protocol):
    """A source, split and ready to be batched."""

    name: str
    spec: "Spec"
    fingerprint: str
    """16 hexadecimal digits that change with the examples of any split."""
    preprocessing: dict[str, str | int]
    """What the protocol of a measurement has to state."""

    @property
    def train(self) -> Split: ...

    @property
    def val(self) -> Split: ...

    @property
    def test(self) -> Split: ...

    def summary(self) -> str:
        """One line: what there is, how it is split, what was seen and not used."""


class Medium(ABC):
    """One kind of thing that models make."""

    name: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]]
    """Values of ``data.modality`` that mean this medium."""
    suffixes: ClassVar[tuple[str, ...]]
    """Files that hold it, in lower case, with the dot."""
    n_samples: ClassVar[int]
    """How many samples are drawn unless said otherwise …"""
    n_preview: ClassVar[int]
    """… and how many show at a glance how a model does."""
    n_measured: ClassVar[int]
    """… and how many a measurement takes."""

    def holds(self, name: str) -> bool:
        """Whether a file of this name belongs to the medium."""
        return name.lower().endswith(self.suffixes)

    @abstractmethod
    def open(self, data: config.Data) -> Opened:
        """The examples of a source; BowerbirdError says what is wrong with it."""

    @abstractmethod
    def decoded(self, x: "Tensor", spec: "Spec") -> list[Any]:
        """What a person calls the samples: arrays of pixels, texts, pieces of music."""

    @abstractmethod
    def write(
        self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", folder: Path, names: list[str]
    ) -> list[dict[str, Any]]:
        """Writes each sample into the folder, its file name beginning with its name, and a sheet; returns what is to be
        said of each (``file_name`` or ``text``)."""

    @abstractmethod
    def preview(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", stem: Path) -> None:
        """Writes a few samples into files whose names begin with ``stem``, for a glance."""

    def preview_given(self, spec: "Spec") -> dict[str, "Tensor"]:
        """What the samples of a preview are made from, where that makes it easier to look at."""
        return {}

    def real(self, data: Opened, stem: Path) -> None:
        """Writes test examples in the form of a preview."""
        import torch

        batch = data.test.batch(torch.arange(min(self.n_preview, len(data.test))))
        self.preview(batch["x"], batch.get("given", {}), data.spec, stem)

    @abstractmethod
    def html(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> str:
        """The samples as a piece of a page, complete in itself."""

    def png(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> bytes | None:
        """The samples as one picture; None where that is not what they are."""
        return None


def medium(name: str) -> Medium:
    """The medium of that name; BowerbirdError with the nearest name if there is none."""
    return registry.media.get(name)()


def media() -> list[Medium]:
    return [medium(name) for name in registry.media.names()]
