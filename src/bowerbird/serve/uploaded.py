"""Pictures that clients send, decoded in a confined child process: a decoder is where a hostile file bites.

The child (``decoder``) stays, since its start takes a second; every picture has a fork of its own there, so that none
can touch the next.  All that comes back are bare pixels.
"""

import atexit
import os
import signal
import struct
import subprocess
import sys
import threading
from typing import Any

import numpy as np

from bowerbird.errors import BowerbirdError

REQUEST = struct.Struct("<QQIIB")
"""Bytes of the file, most pixels, height, width, which of ``WAYS``; the file follows."""
WAYS = ("whole", "cropped", "mask", "transparency")
"""As it is, but at most of that size; its centre cut to that shape; 255 where a mask covers; the same by transparency
alone."""
UNLIMITED = (1 << 31) - 1
LENGTH = struct.Struct("<Q")
"""Bytes of the reply that follows."""
REPLY = struct.Struct("<8sIII")
"""Why there is no picture (empty: there is one), height, width, channels; the pixels follow."""
SECONDS = 20.0
"""Time that decoding a picture may take."""
AT_ONCE = 2
REASONS = {
    "large": "The picture has {n} pixels; the limit is {most}.",
    "unknown": "The picture cannot be read: it is in no format that is known here.",
    "broken": "The picture cannot be read: it is broken or truncated.",
    "opaque": "Send a mask whose transparent pixels are to be made anew, or erase them in the picture.",
    "stopped": "The picture cannot be read: decoding it took too much time or memory.",
}


class NoPicture(BowerbirdError):
    """A file that could not be decoded; ``reason`` is one of ``REASONS``."""

    def __init__(self, reason: str, **values: Any):
        super().__init__(REASONS[reason].format(**values))
        self.reason, self.values = reason, values


class Child:
    """A process that decodes one picture at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bowerbird.serve.decoder"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        self._reply()  # it is there

    def ask(self, request: bytes) -> bytes:
        """The reply; EOFError or OSError if it died, or had to be ended."""
        assert self._process.stdin is not None
        late = threading.Timer(SECONDS, self.end)
        late.start()
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
            return self._reply()
        finally:
            late.cancel()

    def _reply(self) -> bytes:
        size = LENGTH.unpack(self._read(LENGTH.size))[0]
        return self._read(size)

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        read = self._process.stdout.read(size)
        if len(read) < size:
            raise EOFError
        return read

    def end(self) -> None:
        """Ends it and the fork that may be at work."""
        if self._process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
        self._process.wait()


_idle: list[Child] = []
_places = threading.BoundedSemaphore(AT_ONCE)


@atexit.register
def end_idle() -> None:
    """Ends the children that wait for pictures."""
    while _idle:
        _idle.pop().end()


def decoded(content: bytes, most_pixels: int, height: int, width: int, *, cropped: bool) -> np.ndarray:
    """uint8 (h, w, 1 or 3), upright and on white; NoPicture where the file is none, or has more pixels.

    ``cropped``: of exactly this size, the centre cut to its shape; else as it is, but at most so high and wide.
    """
    return _asked(content, most_pixels, height, width, "cropped" if cropped else "whole")


def covered(content: bytes, most_pixels: int, *, transparent: bool) -> np.ndarray:
    """uint8 (h, w, 1): 255 where a mask is transparent, or else white; ``transparent``: by transparency alone."""
    return _asked(content, most_pixels, UNLIMITED, UNLIMITED, "transparency" if transparent else "mask")


def _asked(content: bytes, most_pixels: int, height: int, width: int, way: str) -> np.ndarray:
    with _places:
        child = _idle.pop() if _idle else Child()
        try:
            said = child.ask(REQUEST.pack(len(content), most_pixels, height, width, WAYS.index(way)) + content)
        except (EOFError, OSError):
            child.end()
            raise NoPicture("stopped") from None
        _idle.append(child)
    return _read(said, most_pixels)


def _read(said: bytes, most_pixels: int) -> np.ndarray:
    """What a reply says, which a hostile file may have written."""
    if len(said) < REPLY.size:
        raise NoPicture("stopped")
    reason, *shape = REPLY.unpack_from(said)
    if any(reason):
        name = reason.rstrip(b"\0").decode("ascii", "replace")
        raise NoPicture(name if name in REASONS else "broken", n=shape[0] * shape[1], most=most_pixels)
    if shape[2] not in (1, 3) or len(said) != REPLY.size + shape[0] * shape[1] * shape[2]:
        raise NoPicture("broken")
    return np.frombuffer(said, np.uint8, offset=REPLY.size).reshape(shape).copy()
