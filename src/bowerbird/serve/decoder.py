"""The child that decodes pictures which strangers send: each in a fork of its own that is confined before it looks.

    python -m bowerbird.serve.decoder

Requests and replies are framed as ``uploaded`` packs them.  The fork has no files and no network, little memory and
little time; this process only passes on the bytes that the fork wrote.
"""

import contextlib
import os
import sys
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from bowerbird.media.image import pixels
from bowerbird.media.image.supplied import covered
from bowerbird.reading.running.kernel import confine, packages
from bowerbird.serve.uploaded import LENGTH, REPLY, REQUEST, WAYS

MASK = WAYS.index("mask")
MEMORY = 2_000_000_000
CPU_S = 15
MOST_REPLY = 1 << 28
"""Bytes that are passed on."""


def limit() -> None:
    """Memory, time and files of this process, where the system can limit them."""
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def reply(content: bytes, most_pixels: int, height: int, width: int, way: int) -> bytes:
    """The pixels of a picture, upright and on white, or why there are none."""
    Image.MAX_IMAGE_PIXELS = None  # the limit is ours
    try:
        header = pixels.header(BytesIO(content))
        if header.height * header.width > most_pixels:
            return REPLY.pack(b"large", header.height, header.width, 0)
        x = mask(BytesIO(content), WAYS[way]) if way >= MASK else picture(BytesIO(content), height, width, way)
    except Opaque:
        return REPLY.pack(b"opaque", 0, 0, 0)
    except UnidentifiedImageError:
        return REPLY.pack(b"unknown", 0, 0, 0)
    except Exception:  # decoders answer a broken file with almost any exception
        return REPLY.pack(b"broken", 0, 0, 0)
    return REPLY.pack(b"", *x.shape) + x.tobytes()


class Opaque(Exception):
    """A mask that was to be transparent somewhere."""


def mask(file: BytesIO, way: str) -> np.ndarray:
    """uint8 (h, w, 1): 255 where it covers."""
    image = pixels.opened(file)
    if way == "transparency" and not image.has_transparency_data:
        raise Opaque
    return np.where(covered(image), 255, 0).astype(np.uint8)[..., None]


def picture(file: BytesIO, height: int, width: int, way: int) -> np.ndarray:
    """uint8 (h, w, c) of this size, its centre cut to the shape; or as it is, but no larger."""
    x = pixels.as_stored(file)
    if WAYS[way] == "cropped":
        return pixels.fit_array(x[None], height, width)[0]
    image = Image.fromarray(x if x.shape[-1] == 3 else x[..., 0])
    image.thumbnail((width, height))
    return np.asarray(image).reshape(image.height, image.width, -1)


def in_a_fork(content: bytes, wish: tuple[int, int, int, int], readable: list[Path]) -> bytes:
    """The reply of a confined fork; nothing if it died.  Where there are no forks, this process is all there is."""
    if not hasattr(os, "fork"):
        return reply(content, *wish)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _confined(content, wish, readable, writing)
    os.close(writing)
    with open(reading, "rb") as answer:
        said = answer.read(MOST_REPLY)
    os.waitpid(child, 0)
    return said


def _confined(content: bytes, wish: tuple[int, int, int, int], readable: list[Path], writing: int) -> None:
    """What the fork does, which never returns."""
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for inherited in (0, 1):
            os.dup2(nothing, inherited)
        limit()
        confine(Path(os.devnull), readable)  # there is no folder to write to
        with open(writing, "wb") as answer:
            answer.write(reply(content, *wish))
    finally:
        os._exit(0)


def answer_all(requests: BinaryIO, replies: BinaryIO) -> None:
    """Until whoever asks has gone."""
    Image.init()  # every decoder is loaded before files are out of reach
    pixels.can_read_heif()
    readable = packages()
    replies.write(LENGTH.pack(0))
    replies.flush()
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        size, *wish = REQUEST.unpack(head)
        said = in_a_fork(requests.read(size), (wish[0], wish[1], wish[2], wish[3]), readable)
        replies.write(LENGTH.pack(len(said)) + said)
        replies.flush()


if __name__ == "__main__":
    answer_all(sys.stdin.buffer, sys.stdout.buffer)
