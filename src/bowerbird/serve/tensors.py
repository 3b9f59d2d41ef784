"""A run as a function of tensors, for clients of model servers: what goes in and comes out, with names and types.

in     seed (1), n (1); or seed and number, one per sample
       a field for everything that is given: names of classes and texts as bytes, pictures as float32 or as files
out    x      float32 (n, c, h, w) as the model makes it, or int64 tokens (n, length)
       text   of models of text, bytes (n)
       file   the labelled file of each sample, bytes (n): PNG, MIDI, text
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bowerbird.errors import BowerbirdError
from bowerbird.generating import Samples
from bowerbird.serve import words
from bowerbird.serve.endpoints import together
from bowerbird.serve.limits import Limits
from bowerbird.serve.served import Served
from bowerbird.serve.service import Engine
from bowerbird.spec import Classes, Field, Spec, Tensors, Tokens


@dataclass(frozen=True)
class Described:
    """One input or output."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """-1 where it varies."""
    optional: bool = True


def inputs(spec: Spec) -> list[Described]:
    fixed = [Described("seed", "INT64", (1,)), Described("n", "INT64", (1,))]
    return fixed + [_input(name, field) for name, field in words.taken(spec).items()]


def classes(spec: Spec) -> list[str]:
    """Inputs that name a class."""
    return [name for name, field in spec.given.items() if isinstance(field, Classes)]


def _input(name: str, field: Field) -> Described:
    if isinstance(field, Tensors):
        return Described(name, "FP32", (-1, *field.shape), optional=False)
    return Described(name, "BYTES", (-1,), optional=isinstance(field, Classes) or name == "prompt")


def outputs(spec: Spec) -> list[Described]:
    target = spec.target
    x = (
        Described("x", "FP32", (-1, *target.shape))
        if isinstance(target, Tensors)
        else Described("x", "INT64", (-1, -1))
    )
    texts = [Described("text", "BYTES", (-1,))] if spec.medium == "text" else []
    return [x, *texts, Described("file", "BYTES", (-1,))]


SUFFIX = {"image": ".png", "music": ".mid", "speech": ".wav", "text": ".txt", "video": ".webp"}


async def computed(samples: Samples, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """The outputs of these names."""
    found: dict[str, np.ndarray] = {}
    if "x" in wanted:
        found["x"] = samples.x.numpy()
    if "text" in wanted:
        found["text"] = np.array([str(text).encode() for text in samples], dtype=object)
    if "file" in wanted:
        suffix = SUFFIX.get(samples.spec.medium, "")
        files = await asyncio.to_thread(samples.files)
        found["file"] = np.array([one.get(suffix) or next(iter(one.values())) for one in files], dtype=object)
    return found


def tensor_given(served: Served, name: str, value: np.ndarray, limits: Limits) -> Any:
    """An input as ``Engine.submit`` takes it; BowerbirdError for a wrong shape, or numbers outside the bounds."""
    field = words.taken(served.spec).get(name)
    if field is None:
        raise BowerbirdError(f"The model '{served.name}' has no input '{name}'.")
    flat = [_plain(one) for one in value.reshape(-1)] if value.dtype == object or not isinstance(field, Tensors) else []
    if isinstance(field, Tensors) and value.dtype == object:
        return [words.picture(one.encode() if isinstance(one, str) else one, field, limits) for one in flat]
    if isinstance(field, Tensors):
        return pictures(name, field, value, limits)
    if isinstance(field, Tokens) and not all(isinstance(one, str | bytes) for one in flat):
        raise BowerbirdError(f"The input '{name}' must be text.")
    decoded = [one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in flat]
    return words.from_json(served, {name: decoded}, limits)[name]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def pictures(name: str, field: Tensors, value: np.ndarray, limits: Limits) -> torch.Tensor:
    """Pictures as tensors, float32 (n, c, h, w) within the bounds of the field."""
    if len(value) > limits.samples:
        raise BowerbirdError(f"The input '{name}' has {len(value)} pictures; the limit is {limits.samples}.")
    if value.shape[1:] != tuple(field.shape) or not len(value):
        raise BowerbirdError(f"The input '{name}' must have the shape (n, {', '.join(map(str, field.shape))}).")
    x = torch.from_numpy(np.array(value, dtype=np.float32))  # a copy: what a request holds is read-only
    low, high = field.bounds or (-torch.inf, torch.inf)
    if not torch.isfinite(x).all() or x.min() < low or x.max() > high:
        raise BowerbirdError(f"The numbers of '{name}' must be finite and within [{low:g}, {high:g}].")
    return x


async def one_by_one(
    engine: Engine, run: Served, rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> list[Samples]:
    """A sample for each row: what it is given, its ``seed``, and its ``number`` (else its place among its seed's)."""
    seen: dict[int, int] = {}
    work = []
    for row in rows:
        given = {name: value for name, value in row.items() if name not in ("seed", "number")}
        seed = whole(row["seed"], "seed")
        number = whole(row.get("number", seen.get(seed, 0)), "number")
        seen[seed] = number + 1
        work.append(engine.submit(run.name, 1, seed=seed, first=number, given=given, options=options))
    if len(work) > engine.limits.samples:
        for one in work:
            one.close()
        raise BowerbirdError(f"{len(work)} samples are too many; the limit is {engine.limits.samples}.")
    return await together(work)


def whole(value: Any, name: str) -> int:
    """A whole number of 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not -(2**63) <= int(value) < 2**63:
        raise BowerbirdError(f"'{name}' must be a 64-bit whole number.")
    return int(value)
