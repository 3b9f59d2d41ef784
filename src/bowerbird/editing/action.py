"""The contract of an action: what it needs of a run, what it is asked for, and what it answers with."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from bowerbird import ranges, registry
from bowerbird.data.tensorfile import write_tensors
from bowerbird.data.writing import save_png
from bowerbird.eightbit import to_uint8
from bowerbird.errors import BowerbirdError
from bowerbird.generating import Samples
from bowerbird.media.giving import read_given
from bowerbird.media.image.pictures import save_film, sheet
from bowerbird.models.base import Denoises, GenerativeModel, options_from
from bowerbird.provenance.labelling import UNSIGNED, Labeller, labelling, marked_sheet
from bowerbird.samplers.integrate import Denoising
from bowerbird.spec import Classes, Tensors

SOURCE, MASK = "source", "mask"
"""Pictures that a user gives besides what the model is given: to start from, and where to change it."""
SHOWN = "shown"
"""Name under which what was shown of the source stands on a sheet, to the left of the result."""


@dataclass(frozen=True)
class Inputs:
    """What a user gives, as tensors of n rows on the model's device."""

    n: int
    source: Tensor | None
    """The pictures to start from, in [-1, 1]."""
    given: dict[str, Tensor]
    """What else the results are made from; what was not said is not there."""
    names: list[str]
    """Of the source's files, without suffix; empty for arrays."""


@dataclass(frozen=True)
class Request:
    """What is to be edited, with which model."""

    model: GenerativeModel
    words: Mapping[str, Any] = field(default_factory=dict)
    """``source`` and ``mask``: files or arrays of pixels; everything else by the names of what the model is given."""
    n: int | None = None
    """How many results (None: one for each source)."""
    seed: int = 0
    origin: Mapping[str, Any] = field(default_factory=dict)
    """What the results' metadata say about where they come from."""
    labeller: Labeller = UNSIGNED

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the model's pictures."""
        target: Any = self.model.spec.target
        return target.shape

    def read(self, shape: tuple[int, ...] | None = None, default: int = 1) -> Inputs:
        """The inputs, of which the source has this shape (None: that of the model's pictures).

        ``default``: how many results, where neither a number nor several sources are given.
        """
        spec = replace(self.model.spec, given={**self.model.spec.given, SOURCE: Tensors(shape or self.shape)})
        words = {name: value for name, value in self.words.items() if name != MASK}
        given, n, names = read_given(spec, words, self.n)
        if n is None:
            n = default
            given, _, names = read_given(spec, words, n)
        placed = {name: value.to(self.model.device) for name, value in given.items()}
        return Inputs(n, placed.pop(SOURCE, None), placed, names)

    def pictures(self, what: str, shape: tuple[int, ...] | None = None) -> tuple[Tensor, Inputs]:
        """The inputs of an action that needs a source; BowerbirdError, with ``what`` it does, if there is none."""
        if self.words.get(SOURCE) is None:
            raise BowerbirdError(f"There is no picture to {what}; give one with --source FILE.")
        inputs = self.read(shape)
        assert inputs.source is not None
        self.require_classes(inputs)
        return inputs.source, inputs

    def require_classes(self, inputs: Inputs) -> None:
        """Where the model has never seen a picture of which nothing was said, all has to be said."""
        config: Any = getattr(self.model, "prior", self.model).config  # of a latent model, the one that is given it
        if isinstance(self.model, Denoises) and config.label_dropout > 0:
            return
        for name, one in self.model.spec.given.items():
            if isinstance(one, Classes) and name not in inputs.given:
                flag = "--label " if name == "label" else f"--given {name}="
                raise BowerbirdError(
                    f"This run was never trained without its {name}; say which, with {flag}{one.names[0]}."
                )

    def denoising(
        self, given: Mapping[str, Tensor], steps: int | None, guidance: float | None, sampler: str | None = None
    ) -> Denoising:
        """How the model denoises (None: as its recipe says), guided only where something is given."""
        if not given and guidance is None:
            guidance = 1.0
        said = {"steps": steps, "guidance": guidance, "sampler": sampler}
        model: Any = self.model
        return model.denoising(given, options_from(model, {k: v for k, v in said.items() if v is not None}))

    def answer(self, action: "Action", x: Tensor, inputs: Inputs, **more: Any) -> "Edited":
        """The results with what they were made from.  ``more`` are further fields of ``Edited``."""
        beside = {SOURCE: inputs.source} | more.pop("beside", {})
        shown = {name: one.cpu() for name, one in beside.items() if one is not None and one.shape[-2:] == x.shape[-2:]}
        spec = self.model.spec
        fields = {name: Tensors(tuple(one.shape[1:])) for name, one in shown.items()}
        about = {**self.origin, "action": registry.actions.name_of(type(action)), "seed": self.seed, **action.said()}
        return Edited(
            x.detach().float().cpu(),
            {name: value.cpu() for name, value in inputs.given.items()} | shown,
            replace(spec, given={**spec.given, **fields}),
            about,
            inputs.names,
            self.labeller,
            **more,
        )


class Action(ABC):
    """What a run can be asked to do.  A subclass is a frozen dataclass: its fields are the options of the action."""

    takes: ClassVar[tuple[str, ...]] = (SOURCE,)
    """Which pictures a user can give."""

    def __post_init__(self) -> None:
        ranges.check(self, "")

    @classmethod
    @abstractmethod
    def lacks(cls, model: GenerativeModel) -> str:
        """Why this model cannot do it, as "it …"; empty if it can.  The model may be without weights."""

    @abstractmethod
    def __call__(self, request: Request) -> "Edited":
        """Does it.  BowerbirdError for inputs that are not fit for it."""

    def said(self) -> dict[str, Any]:
        """The options that are not the defaults."""
        usual = type(self)()
        return {name: value for name, value in vars(self).items() if value != getattr(usual, name)}


@dataclass(frozen=True)
class Edited(Samples):
    """What an action made: samples, and for some a strip, a film, and what the pictures were found to come from."""

    facts: tuple[dict[str, Any], ...] = ()
    """What else is to be said about each."""
    columns: int = 0
    """Pictures per row of ``strip.png``, and of the film that all rows make in turn; 0: there is neither."""
    latents: Tensor | None = None
    """The code, or the noise, of each, for ``latents.safetensors``."""
    summary: str = ""
    """What was found, in a sentence."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        facts = self.facts or ({},) * len(self)
        return [row | fact for row, fact in zip(super().rows, facts, strict=True)]

    def shown(self, place: Path) -> Path:
        """What to look at first of what ``save`` wrote."""
        return place / ("strip.png" if self.columns else "sheet.png")

    def save(self, folder: Path | str, *, labelled: bool = True) -> Path:
        """What ``Samples.save`` writes, and ``strip.png``, ``film.gif``, ``film.webp`` and ``latents.safetensors``."""
        folder = super().save(folder, labelled=labelled)
        with labelling(self.labeller if labelled else None):
            if self.columns:
                save_png(folder / "strip.png", marked_sheet(sheet(to_uint8(self.x), self.columns)))
                for name in ("film.gif", "film.webp"):
                    save_film(folder / name, to_uint8(self.x))
        if self.latents is not None:
            write_tensors(folder / "latents.safetensors", {"latent": self.latents.contiguous()}, {})
        return folder
