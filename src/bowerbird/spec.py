"""The shape of data.  A spec is written once, by the data; models are built from it."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

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

    n_preview: ClassVar[int] = 64
    """Samples that show at a glance how a model does."""

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


@dataclass(frozen=True)
class TokenSpec:
    """Sequences of integers in 0 … vocab_size - 1: text, music, pairs of texts, chats."""

    kind: Literal["text", "pairs", "chat", "grid", "midi"]
    """What the sequences are; grid is music of a fixed number of voices, midi music as events."""
    vocab_size: int
    context: int
    """Most tokens that a model reads at once; an example has at most one more, its last target."""
    bos: int
    eos: int
    pad: int
    start: tuple[int, ...]
    """What sampling without a prompt begins with."""
    source_context: int = 0
    """Pairs: most tokens of a source; 0 when the data are no pairs."""
    codec: str = ""
    """JSON that turns tokens into text or music and back; lies in a run folder as tokenizer.json."""
    chat_template: str = ""
    """Jinja program that writes a chat as one text; lies in a run folder as chat_template.jinja."""

    n_preview: ClassVar[int] = 8


def to_float(x: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0…255 to [-1, 1]."""
    return x.float() / 127.5 - 1


def to_uint8(x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """[-1, 1] to 0…255, rounded to nearest, clamped: the inverse of ``to_float``."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


_SPECS = {"ImageSpec": ImageSpec, "TokenSpec": TokenSpec}


IN_FILES = {"codec": "tokenizer.json", "chat_template": "chat_template.jinja"}
"""Fields of a spec that may be megabytes, and the file of a run folder that each is kept in."""


def spec_to_json(spec: Any) -> dict[str, Any]:
    """Everything but what has a file of its own."""
    table = {"type": type(spec).__name__} | dataclasses.asdict(spec)
    return {key: value for key, value in table.items() if key not in IN_FILES}


def spec_from_json(table: dict[str, Any], **in_files: str) -> Any:
    """The inverse of ``spec_to_json``; KeyError for a type that this version does not know."""
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items() if key != "type"}
    return _SPECS[table["type"]](**fields, **in_files)
