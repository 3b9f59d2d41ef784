"""The shape of data: what is to be generated, and from what.  Written once, by the data; models are built from it.

    target  the x of a batch            Tensors (images, latents), or Tokens (text, music)
    given   what x is made from         Classes (a label, or several attributes), Tokens (a caption, a source sentence),
                                        Tensors (a picture to translate, a mask); nothing for unconditional data

A spec is stored as JSON in the header of a run's weights, except for its long texts, which have files of their own.
Imports no torch.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bowerbird.errors import BowerbirdError


@dataclass(frozen=True)
class Tensors:
    """Real numbers in arrays of one shape.  Pictures are (channels, height, width), black = -1, and clips
    (channels, frames, height, width)."""

    shape: tuple[int, ...]
    bounds: tuple[float, float] | None = (-1.0, 1.0)
    """The interval that contains every number, to which samplers may clip; None if the numbers are unbounded."""

    @property
    def dims(self) -> int:
        """Numbers per example: the D of bits per dimension."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Tokens:
    """Sequences of integers in 0 … vocab_size - 1."""

    vocab_size: int
    context: int
    """The most tokens that a model reads at once; a target has at most one more, its last."""
    bos: int
    eos: int
    pad: int
    start: tuple[int, ...] = ()
    """For targets: the tokens that sampling without a prompt begins with."""


@dataclass(frozen=True)
class Classes:
    """One name out of several, as its number."""

    names: tuple[str, ...]
    counts: tuple[int, ...] = ()
    """Training examples per class: a class that is not given is drawn in proportion to them; empty: all alike.  One
    number more is the weight of leaving it unsaid."""


NO_TOKEN = -1
"""Pads prompts of different lengths; it is in no vocabulary."""

Field = Tensors | Tokens | Classes
F = TypeVar("F", Tensors, Tokens, Classes)


@dataclass(frozen=True)
class Spec:
    """What a model makes, and from what."""

    medium: str
    """The medium that opens, writes and previews x: image, text, music, speech, video …"""
    target: Field
    given: Mapping[str, Field] = field(default_factory=dict)
    codec: str = ""
    """JSON that turns x, or the captions given with it, into what people read or hear; kept as tokenizer.json."""
    chat_template: str = ""
    """For chats: the Jinja template that writes one as text; stored in a run folder as chat_template.jinja."""

    def alone(self) -> "Spec":
        """The same target, made from nothing."""
        return dataclasses.replace(self, given={})

    @property
    def contents(self) -> str:
        """What a data source of this spec holds, in words."""
        if self.medium != "text":
            return self.medium
        return "pairs of texts" if "source" in self.given else "chats" if self.chat_template else "text"

    def needs(self, kind: type[F], family: str) -> F:
        """The target, which must be of this kind; otherwise BowerbirdError, which says what the family is for."""
        if isinstance(self.target, kind):
            return self.target
        text = "seq2seq (recipe translator)" if "source" in self.given else "autoregressive (recipes poet, shakespeare)"
        music = "autoregressive (recipe chorales)"
        made, instead = (
            ("images and other tensors", {"text": text, "music": music}.get(self.medium, "autoregressive"))
            if kind is Tensors
            else ("sequences of tokens", "gan, vae, diffusion or flow")
        )
        raise BowerbirdError(
            f"The family {family} generates {made}, but this data source contains {self.contents}; choose the family "
            f"{instead}, or another --data."
        )


def shape_of_picture(spec: Spec) -> tuple[int, int, int]:
    """(channels, height, width) of the target; BowerbirdError if it is not a picture."""
    if not isinstance(spec.target, Tensors) or len(spec.target.shape) != 3:
        raise BowerbirdError(
            f"This network needs images, but this data source contains {spec.medium}; choose another --data."
        )
    channels, height, width = spec.target.shape
    return channels, height, width


def shape_of_clip(spec: Spec) -> tuple[int, int, int, int]:
    """(channels, frames, height, width) of the target; BowerbirdError if it is not a moving picture."""
    if not isinstance(spec.target, Tensors) or len(spec.target.shape) != 4:
        raise BowerbirdError(
            f"This network needs clips of frames, but this data source contains {spec.medium}; choose another --data."
        )
    channels, frames, height, width = spec.target.shape
    return channels, frames, height, width


IN_FILES = {"codec": "tokenizer.json", "chat_template": "chat_template.jinja"}
"""Fields of a spec that may take up megabytes, and the file of a run folder that stores each."""

_KINDS: dict[str, type[Field]] = {kind.__name__: kind for kind in (Tensors, Tokens, Classes)}


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """Everything except the fields that have files of their own."""
    return {
        "medium": spec.medium,
        "target": _field_to_json(spec.target),
        "given": {name: _field_to_json(one) for name, one in spec.given.items()},
    }


def spec_from_json(table: dict[str, Any], **in_files: str) -> Spec:
    """The inverse of ``spec_to_json``; KeyError for a type that this version does not know."""
    if "type" in table:
        table = _of_first_version(table)
    given = {name: _field_from_json(one) for name, one in table["given"].items()}
    return Spec(table["medium"], _field_from_json(table["target"]), given, **in_files)


def _field_to_json(one: Field) -> dict[str, Any]:
    return {"type": type(one).__name__} | dataclasses.asdict(one)


def _field_from_json(table: dict[str, Any]) -> Field:
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items() if key != "type"}
    return _KINDS[table["type"]](**values)


def _of_first_version(old: dict[str, Any]) -> dict[str, Any]:
    """Version 0.1 had one spec for images and one for sequences of every kind."""
    if old["type"] == "ImageSpec":
        target = {"type": "Tensors", "shape": [old["channels"], old["height"], old["width"]]}
        label = {"type": "Classes", "names": old["classes"], "counts": old["class_counts"]}
        return {"medium": "image", "target": target, "given": {"label": label} if old["classes"] else {}}
    if old["type"] != "TokenSpec":
        raise KeyError(old["type"])
    target = {name: old[name] for name in ("vocab_size", "context", "bos", "eos", "pad", "start")} | {"type": "Tokens"}
    source = target | {"context": old["source_context"], "start": []}
    return {
        "medium": "music" if old["kind"] in ("grid", "midi") else "text",
        "target": target,
        "given": {"source": source} if old["source_context"] else {},
    }
