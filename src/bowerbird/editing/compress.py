"""Pictures to one file that is smaller than theirs, from which ``decompress`` makes them again.

    "BBIRD", version (8 bytes) · length of the header (4) · header: JSON, deflated · words · SHA-256 of all before

The header says which model it takes, the shape, the names, how the coder was used, and a SHA-256 of the pixels.
"""

import hashlib
import json
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from bowerbird.data.writing import write_atomically
from bowerbird.editing import needs
from bowerbird.editing.action import SOURCE, Action, Edited, Request
from bowerbird.eightbit import to_float
from bowerbird.errors import BowerbirdError
from bowerbird.media.image.supplied import exact
from bowerbird.metrics.progress_bar import progress_bar
from bowerbird.models.base import GenerativeModel, Packs
from bowerbird.ranges import Share
from bowerbird.registry import actions
from bowerbird.samplers.bitsback import BitsBack, Coded, values_of

SUFFIX = ".bb"
MAGIC = b"BBIRD\0\0\2"
DIGEST = 32
LARGEST_HEADER = 1 << 26


class Contents(NamedTuple):
    """What a file of compressed pictures holds."""

    coded: Coded
    model: str
    """``identity`` of the model that it takes."""
    shape: tuple[int, int, int]
    names: list[str]
    """Of the pictures, in their order."""
    pixels: str
    """SHA-256 of all pixels that come out."""


def codec_of(model: Any) -> Any:
    """The model's own codec, or bits back."""
    return model.codec() if isinstance(model, Packs) else BitsBack(model)


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
    names = contents.names
    header = {
        "model": contents.model,
        "shape": contents.shape,
        "coder": contents.coded.facts,
        "pixels": contents.pixels,
        "names": len(names) if names == numbered(len(names)) else names,
    }
    said = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    whole = MAGIC + struct.pack("<I", len(said)) + said + contents.coded.words.astype("<u4").tobytes()
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
    words = np.frombuffer(whole[begin + length :], "<u4").astype(np.uint32)
    channels, height, width = header["shape"]
    names = header["names"]
    names = numbered(names) if isinstance(names, int) else names
    return Contents(Coded(words, header["coder"]), header["model"], (channels, height, width), names, header["pixels"])


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
    """Compresses pictures of the run's size; decompress needs the same run to restore them."""

    quality: Share | None = None
    """For runs with loss (family lossy): 0 gives the smallest file, 1 the nearest pictures (default 0.5)."""

    @classmethod
    def lacks(cls, model: Any) -> str:
        if isinstance(model, Packs):
            return needs.pictures(model)
        if lacks := needs.infers(model):
            return lacks
        return "it was trained with labels, which pictures do not say" if model.spec.given else ""

    def __call__(self, request: Request) -> Edited:
        if (sources := request.words.get(SOURCE)) is None:
            raise BowerbirdError("There is no picture to compress; give files or folders with --source.")
        images, names = exact(sources if isinstance(sources, list) else [sources], request.shape)
        before = time.process_time()
        codec = codec_of(request.model)
        if codec.lossless and self.quality is not None:
            raise BowerbirdError("--quality does not apply: this run compresses without loss.")
        with progress_bar("compressing", len(images)) as progress:
            coded = codec.pack(images, progress, self.quality)
        kept = images if codec.lossless else codec.unpack(coded, len(images), request.shape, lambda n: None)
        names = names or numbered(len(images))
        content = to_bytes(Contents(coded, identity(request.model), request.shape, names, digest_of(kept)))
        seconds = time.process_time() - before
        return Compressed(
            to_float(torch.from_numpy(kept)), {}, request.model.spec, dict(request.origin), names, request.labeller,
            summary=f"{len(images):,} pictures in {len(content):,} bytes: {told(images, kept, len(content))}, "
            f"{len(images) / max(seconds, 1e-9):,.0f} pictures a CPU second.",
            content=content,
        )  # fmt: skip


def told(images: UInt8[np.ndarray, "n c h w"], kept: UInt8[np.ndarray, "n c h w"], n_bytes: int) -> str:
    """How small, and how near."""
    bits = 8 * n_bytes / images.size
    if kept is images:
        return f"{bits:.3f} bits per number instead of {1 if values_of(images) == 2 else 8}"
    error = np.square(images.astype(float) - kept).mean()
    psnr = f"{10 * np.log10(255**2 / error):.1f} dB" if error else "no difference"
    return f"{bits * images.shape[1]:.3f} bits per pixel, {psnr} from the originals"
