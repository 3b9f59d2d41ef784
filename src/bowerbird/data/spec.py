"""The shape of data.  A spec is written once, by the data; models are built from it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


@dataclass(frozen=True)
class ImageSpec:
    """Images of one size.  As stored: uint8.  For models: float32 in [-1, 1], black = -1."""

    channels: int
    height: int
    width: int
    classes: tuple[str, ...] = ()
    """Names of the labels, in the order of their numbers; empty when there are none."""
    class_counts: tuple[int, ...] = ()
    """Training examples per class: the label distribution that unconditional sampling draws from."""

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.height, self.width)

    @property
    def dims(self) -> int:
        """Numbers per image: the D of bits per dimension."""
        return self.channels * self.height * self.width

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    def draw_labels(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n labels with the frequencies of the training data, on the CPU."""
        weights = torch.tensor(self.class_counts or [1] * self.n_classes, dtype=torch.float64)
        return torch.multinomial(weights, n, replacement=True, generator=generator)


def to_float(x: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0…255 to [-1, 1]."""
    return x.float() / 127.5 - 1


def to_uint8(x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """[-1, 1] to 0…255, rounded to nearest, clamped: the inverse of ``to_float``."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


_SPECS = {"ImageSpec": ImageSpec}


def spec_to_json(spec: Any) -> dict[str, Any]:
    return {"type": type(spec).__name__} | dataclasses.asdict(spec)


def spec_from_json(table: dict[str, Any]) -> Any:
    """The inverse of ``spec_to_json``; KeyError for a type that this version does not know."""
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items() if key != "type"}
    return _SPECS[table["type"]](**fields)
