"""Pictures to one file that is smaller than theirs, from which ``decompress`` makes them again, every bit of them.

    "BBIRD", version (8 bytes) · length of the header (4) · header: JSON, deflated · words · SHA-256 of all before

The header says which model it takes, the shape, the names, how the coder was used, and a SHA-256 of all pixels.
"""

import hashlib
import json
import struct
import time
import zlib
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from bowerbird.data.writing import write_atomically
from bowerbird.editing import needs
from bowerbird.editing.action import SOURCE, Action, Edited, Request
from bowerbird.errors import BowerbirdError
from bowerbird.media.image.imageset import to_float
from bowerbird.media.image.supplied import exact
from bowerbird.metrics.progress_bar import progress_bar
from bowerbird.models.base import GenerativeModel
from bowerbird.registry import actions
from bowerbird.samplers import bitsback
from bowerbird.samplers.bitsback import Packed

SUFFIX = ".bb"
MAGIC = b"BBIRD\0\0\1"
DIGEST = 32
LARGEST_HEADER = 1 << 26


class Contents(NamedTuple):
    """What a file of compressed pictures holds."""

    packed: Packed
    model: str
    """``identity`` of the model that it takes."""
    shape: tuple[int, int, int]
    n_values: int
    names: list[str]
    pixels: str
    """SHA-256 of all pixels."""


def identity(model: GenerativeModel) -> str:
    """Of everything that the bits depend on: the weights and what is built around them."""
    digest = hashlib.sha256(repr((model.spec.target, getattr(model, "config", None))).encode())
    for name, weight in model.state_dict().items():
        digest.update(name.encode() + weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def digest_of(images: UInt8[np.ndarray, "n c h w"]) -> str:
    return hashlib.sha256(repr(images.shape).encode() + images.tobytes()).hexdigest()


def numbered(n: int) -> list[str]:
    """The names of files that have none of their own, which need not be kept."""
    return [f"{i:05d}" for i in range(n)]


def to_bytes(contents: Contents) -> bytes:
    packed = contents.packed
    header = {
        "model": contents.model,
        "shape": contents.shape,
        "values": contents.n_values,
        "batches": [(size, len([*group])) for size, group in groupby(packed.batches)],
        "borrowed": packed.n_borrowed,
        "pixels": contents.pixels,
        "names": [] if contents.names == numbered(sum(packed.batches)) else contents.names,
    }
    said = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    whole = MAGIC + struct.pack("<I", len(said)) + said + packed.words.astype("<u4").tobytes()
    return whole + hashlib.sha256(whole).digest()


def from_bytes(content: bytes, where: str) -> Contents:
    """BowerbirdError for a file that is something else, or is damaged."""
    if content[: len(MAGIC) - 1] != MAGIC[:-1]:
        raise BowerbirdError(f"{where} does not hold pictures that bowerbird edit RUN compress made.")
    if content[: len(MAGIC)] != MAGIC:
        raise BowerbirdError(f"{where} was made by another version of Bowerbird, whose compression differs.")
    whole, digest = content[:-DIGEST], content[-DIGEST:]
    if hashlib.sha256(whole).digest() != digest:
        raise BowerbirdError(f"{where} is damaged: its checksum is wrong, so nothing is decompressed.")
    (length,) = struct.unpack_from("<I", whole, len(MAGIC))
    begin = len(MAGIC) + 4
    header: dict[str, Any] = json.loads(zlib.decompress(whole[begin : begin + length]))
    batches = [size for size, times in header["batches"] for _ in range(times)]
    words = np.frombuffer(whole[begin + length :], "<u4").astype(np.uint32)
    channels, height, width = header["shape"]
    return Contents(
        Packed(words, batches, header["borrowed"]), header["model"], (channels, height, width), header["values"],
        header["names"] or numbered(sum(batches)), header["pixels"],
    )  # fmt: skip


@dataclass(frozen=True)
class Compressed(Edited):
    """The pictures, and the one file that holds them."""

    content: bytes = b""

    def shown(self, place: Path) -> Path:
        return place

    def save(self, folder: Path | str, *, labelled: bool = True) -> Path:
        """Writes the file, which is ``folder`` itself if that ends in ``.bb``; nothing in it was generated."""
        path = Path(folder)
        path = path if path.suffix == SUFFIX else path / f"pictures{SUFFIX}"
        write_atomically(path, lambda unfinished: unfinished.write_bytes(self.content))
        return path


@actions.register("compress")
@dataclass(frozen=True)
class Compress(Action):
    """Compresses pictures of the run's size without loss; decompress needs the same run to give them back."""

    @classmethod
    def lacks(cls, model: Any) -> str:
        if lacks := needs.infers(model):
            return lacks
        return "it was trained with labels, which pictures do not say" if model.spec.given else ""

    def __call__(self, request: Request) -> Edited:
        if (sources := request.words.get(SOURCE)) is None:
            raise BowerbirdError("There is no picture to compress; give files or folders with --source.")
        images, names = exact(sources if isinstance(sources, list) else [sources], request.shape)
        before = time.process_time()
        nets = bitsback.networks_of(request.model)
        with progress_bar("compressing", len(images)) as progress:
            packed = bitsback.compress(images, nets, progress)
        n_values = bitsback.values_of(images)
        names = names or numbered(len(images))
        contents = Contents(packed, identity(request.model), request.shape, n_values, names, digest_of(images))
        content = to_bytes(contents)
        seconds = time.process_time() - before
        bits = 8 * len(content) / images.size
        return Compressed(
            to_float(torch.from_numpy(images)), {}, request.model.spec, dict(request.origin), names, request.labeller,
            summary=f"{len(images):,} pictures in {len(content):,} bytes: {bits:.3f} bits per number instead of "
            f"{1 if n_values == 2 else 8}, {len(images) / max(seconds, 1e-9):,.0f} pictures a CPU second.",
            content=content,
        )  # fmt: skip
