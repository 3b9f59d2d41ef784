"""The contract of an export format: a run is written into a folder, loaded back in the program it is for, and compared.

A format is a file of this package, or of a plugin, whose class is registered among ``registry.exports``.
Nothing reaches the place that the user named unless the comparison succeeded.
"""

import copy
import importlib
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor

from bowerbird import config
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.models.base import GenerativeModel, Piece, Portable
from bowerbird.spec import Classes, Field, Spec, Tensors, Tokens
from bowerbird.training.rundir import RunDir, load_model, model_of

Precision = Literal["f32", "f16"]
"""Of the weights in an exported file."""
EXAMPLE_ROWS = 3
"""Rows of the example that a graph is recorded with …"""
BATCHES = (1, 5)
"""… and those of the comparisons: a graph that kept the example's size fails both."""
TOLERANCE = 1e-4
"""Largest absolute difference from our outputs, as a part of the largest of them (or of 1, if they are smaller)."""
CARD = "README.md"
BY = "by Bowerbird"
"""Stands in every card."""
BY_NUMBERS = ("pixels", "codes", "places")
"""Procedures that make a picture number by number, which only ONNX carries."""


@dataclass(frozen=True)
class Trained:
    """What is exported: a run folder and what it holds."""

    path: Path
    precision: Precision = "f32"

    @cached_property
    def run(self) -> config.Run:
        return RunDir.open(self.path).config()

    @cached_property
    def model(self) -> GenerativeModel:
        return load_model(self.path)[0].to(memory_format=torch.contiguous_format)

    @cached_property
    def outline(self) -> GenerativeModel:
        """The model without its weights, which takes no time."""
        model: GenerativeModel = model_of(self.path)
        return model

    @property
    def spec(self) -> Spec:
        return self.outline.spec

    @property
    def draws_whole_pictures(self) -> bool:
        """Pictures that are not written number by number."""
        pictures = self.spec.medium == "image" and isinstance(self.spec.target, Tensors)
        model: Any = self.outline
        return pictures and not (isinstance(model, Portable) and model.procedure()["kind"] in BY_NUMBERS)

    @property
    def parts(self) -> Mapping[str, Piece]:
        return self.portable.pieces

    @property
    def portable(self) -> Portable:
        require_pieces(self)
        return cast(Portable, self.model)


class Parity(NamedTuple):
    """How near the outputs of an export come to ours."""

    what: str
    batches: tuple[int, ...]
    """Rows of the batches that were compared."""
    difference: float
    """Largest absolute difference."""
    magnitude: float
    """Largest absolute value of ours."""


class Target(ABC):
    """A format that a run can be written in."""

    runtime: ClassVar[str]
    """What the export was loaded back in, for its card."""
    file: ClassVar[str] = ""
    """The file that is the export, where it is one; ``--out`` may then name that file."""
    precisions: ClassVar[tuple[str, ...]] = ("f32",)

    def require(self, trained: Trained) -> None:
        """BowerbirdError for a run that this format cannot carry; asked before ``write``, and by whoever offers it."""
        require_pieces(trained)

    @abstractmethod
    def write(self, trained: Trained, folder: Path) -> None:
        """Writes the files."""

    @abstractmethod
    def compare(self, trained: Trained, folder: Path) -> list[Parity]:
        """Loads the files in the program that they are for and compares; ``compared`` raises where they differ."""

    def usage(self, trained: Trained) -> str:
        """A few lines of code for the card: how the export is used."""
        return ""


def require_one_network(trained: Trained) -> None:
    """BowerbirdError for a model whose samples come from several networks."""
    require_pieces(trained)
    procedure = cast(Portable, trained.outline).procedure()
    if "after" in procedure or procedure["kind"] in ("codes", "places"):
        raise BowerbirdError(
            f"{trained.path} samples with several networks, and this format holds one; export it to onnx instead."
        )


def require_pieces(trained: Trained) -> None:
    """BowerbirdError for a family that cannot be taken apart."""
    model = trained.outline
    if not isinstance(model, Portable):
        why = model.stays or f"its family {type(model).__name__} does not declare its pieces"
        raise BowerbirdError(f"{trained.path} cannot be exported to this format: {why}.")


Function = Callable[..., Tensor]


@torch.no_grad()
def compared(what: str, ours: Function, theirs: Function, inputs: Callable[[int], tuple[Tensor, ...]]) -> Parity:
    """Both functions at all ``BATCHES``; RunFailed if they do not agree."""
    difference = magnitude = 0.0
    for n in BATCHES:
        tensors = inputs(n)
        try:
            expected, found = ours(*tensors), theirs(*tensors)
        except Exception as error:  # whatever a foreign runtime raises, it is the same news
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RunFailed(f"The export was discarded: its {what} does not run with {n} rows ({reason}).") from error
        if found.shape != expected.shape:
            raise RunFailed(
                f"The export was discarded: its {what} returns the shape {tuple(found.shape)} for {n} rows, where the "
                f"run's model returns {tuple(expected.shape)}."
            )
        gap = float((found.double() - expected.double()).abs().max())
        difference, magnitude = max(difference, gap), max(magnitude, float(expected.abs().max()))
        if not gap <= TOLERANCE * max(1.0, magnitude):
            raise RunFailed(
                f"The export was discarded: with {n} rows its {what} differs from the run's model by {gap:.3g}; at "
                f"most {TOLERANCE * max(1.0, magnitude):.1g} is accepted."
            )
    return Parity(what, BATCHES, difference, magnitude)


def compared_pieces(trained: Trained, theirs: Mapping[str, Function]) -> list[Parity]:
    """Every piece of the model beside the function of that name."""
    return [compared_piece(trained, name, theirs[name]) for name in trained.parts]


def compared_piece(trained: Trained, name: str, theirs: Function) -> Parity:
    """One piece of the model beside a function of the same tensors."""
    piece = trained.parts[name]
    return compared(name, piece.module, theirs, lambda n: examples(piece.inputs, n))


def compared_logits(trained: Trained, theirs: Function, matrices_only: bool = False) -> list[Parity]:
    """A language model; with the precision f16 beside ours with its weights, or its matrices, rounded alike."""
    model: Any = trained.model
    if trained.precision == "f16":
        model = copy.deepcopy(model)
        for weight in model.parameters():
            weight.data = weight if matrices_only and weight.ndim < 2 else weight.half().float()
    piece = model.pieces["reader"]
    return [compared("logits", piece.module, theirs, lambda n: examples(piece.inputs, n))]


def package(name: str, extra: str = "export") -> Any:
    """A package that is no part of the smallest installation; BowerbirdError says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BowerbirdError(
            f"This format needs the package {name}; install it with: pip install 'bowerbird[{extra}]'"
        ) from error


def examples(fields: Mapping[str, Field], n: int) -> tuple[Tensor, ...]:
    """n rows of every input, drawn with a seed of its own; the length of tokens depends on n, too."""
    g = torch.Generator().manual_seed(n)
    return tuple(_example(field, n, g) for field in fields.values())


def _example(field: Field, n: int, g: torch.Generator) -> Tensor:
    if isinstance(field, Classes):
        return torch.randint(len(field.names) + 1, (n,), generator=g)  # the last stands for "not given"
    if isinstance(field, Tokens):
        return torch.randint(field.vocab_size, (n, min(field.context, 2 * n + 1)), generator=g)
    return torch.randn(n, *field.shape, generator=g).clamp(*(field.bounds or (-4.0, 4.0)))


# ------------------------------------------------------------------------------------------------------------ placing


@contextmanager
def placed(out: Path, target: Target) -> Iterator[Path]:
    """An empty folder; what is in it at the end moves to ``out``, and nothing does if there is an error."""
    _require_own(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".part") as scratch:
            folder = Path(scratch) / "export"
            folder.mkdir()
            yield folder
            _move(folder, out, target)
    except OSError as error:
        raise BowerbirdError(f"The export cannot be written to {out}: {error.strerror or error}.") from error


def _require_own(out: Path) -> None:
    """BowerbirdError for a folder with files of somebody else; an empty one and one of an export may be written.

    Hidden files may lie there, as in the clone of a repository.
    """
    card = out / CARD
    if not out.is_dir() or (card.is_file() and BY in card.read_text(encoding="utf-8", errors="replace")):
        return
    if theirs := next((file.name for file in sorted(out.iterdir()) if not file.name.startswith(".")), None):
        raise BowerbirdError(
            f"{out} holds files that no export wrote ({theirs}); choose a new or empty folder for --out."
        )


def _move(folder: Path, out: Path, target: Target) -> None:
    if target.file and out.suffix == Path(target.file).suffix:
        os.replace(folder / target.file, out)
        os.replace(folder / CARD, out.with_suffix(".md"))
    elif out.is_dir():
        shutil.copytree(folder, out, dirs_exist_ok=True, copy_function=os.replace)
    else:
        os.replace(folder, out)
