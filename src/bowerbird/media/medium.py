"""The contract of a medium: how one kind of data is opened, written, and displayed.

A medium is a folder with its class in ``__init__.py``, or a class in a plugin; ``@registry.media.register("name")``
registers it.  It never imports another medium or a model: it receives samples as tensors with their spec.
Importing a medium that ships imports no torch, so that finding the medium of a file is fast.
"""

import tempfile
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
        """Size of each example, if batches of similar sizes are cheaper; else None."""

    def __len__(self) -> int: ...

    def batch(self, indices: "Tensor", device: Any = "cpu") -> dict[str, Any]:
        """``x``, and ``given`` and ``weight`` if there are any, on the device: fields of ``models.base.Batch``."""


class Opened(Protocol):
    """A source, split and ready to be batched."""

    name: str
    spec: "Spec"
    fingerprint: str
    """16 hexadecimal digits that change with the examples of any split."""
    preprocessing: dict[str, str | int]
    """What the protocol of a measurement must state."""

    @property
    def train(self) -> Split: ...

    @property
    def val(self) -> Split: ...

    @property
    def test(self) -> Split: ...

    def summary(self) -> str:
        """One line: what there is, how it is split, what was found but not used."""


class Medium(ABC):
    """One kind of data that models generate."""

    name: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]]
    """Values of ``data.modality`` that select this medium."""
    suffixes: ClassVar[tuple[str, ...]]
    """Suffixes of its files, in lower case, with the dot."""
    settings: ClassVar[tuple[str, ...]] = ("options",)
    """Fields of ``config.Data`` that this medium reads, besides the source and the modality."""
    n_samples: ClassVar[int]
    """How many samples are drawn by default …"""
    n_preview: ClassVar[int]
    """… and how many a preview shows …"""
    n_measured: ClassVar[int]
    """… and how many a measurement takes."""

    def holds(self, name: str) -> bool:
        """Whether a file of this name belongs to the medium."""
        return name.lower().endswith(self.suffixes)

    @abstractmethod
    def open(self, data: config.Data) -> Opened:
        """The examples of a source; BowerbirdError if something is wrong with it."""

    @abstractmethod
    def decoded(self, x: "Tensor", spec: "Spec") -> list[Any]:
        """The samples in the form that a user works with: pixel arrays, texts, pieces of music."""

    @abstractmethod
    def write(
        self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", folder: Path, names: list[str]
    ) -> list[dict[str, Any]]:
        """Writes each sample into the folder, its file name beginning with its name, and a sheet; returns what to
        record about each (``file_name`` or ``text``)."""

    def encoded(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> list[dict[str, bytes]]:
        """The files of each sample by their suffixes, in memory: those that ``write`` names after it."""
        names = [f"{i:08d}" for i in range(len(x))]
        with tempfile.TemporaryDirectory(prefix="bowerbird-") as folder:
            self.write(x, given, spec, Path(folder), names)
            written = sorted(Path(folder).iterdir())
            return [
                {path.name.removeprefix(name): path.read_bytes() for path in written if path.name.startswith(name)}
                for name in names
            ]

    @abstractmethod
    def preview(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", stem: Path) -> None:
        """Writes a few samples to files whose names begin with ``stem``, for a quick look."""

    def preview_given(self, spec: "Spec") -> dict[str, "Tensor"]:
        """What the samples of a preview are made from, if fixing it makes the preview easier to read."""
        return {}

    def real(self, data: Opened, stem: Path) -> None:
        """Writes test examples in the form of a preview."""
        import torch

        batch = data.test.batch(torch.arange(min(self.n_preview, len(data.test))))
        self.preview(batch["x"], batch.get("given", {}), data.spec, stem)

    @abstractmethod
    def html(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> str:
        """The samples as a self-contained HTML fragment."""

    def png(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> bytes | None:
        """The samples as one picture; None if they cannot be shown as one."""
        return None


def medium(name: str) -> Medium:
    """The medium of that name; BowerbirdError with the nearest name if there is none."""
    return registry.media.get(name)()


def media() -> list[Medium]:
    return [medium(name) for name in registry.media.names()]
