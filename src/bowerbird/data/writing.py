"""Writing files so that a crash at any moment leaves the old file or the new one, never half of one."""

import base64
import contextlib
import io
import json
import os
import wave
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


Finish = Callable[[Path, bytes], bytes]
"""(Where a file goes, what it holds) → what it shall hold."""
_finish: ContextVar[Finish | None] = ContextVar("finish", default=None)


@contextlib.contextmanager
def finishing(finish: Finish) -> Iterator[None]:
    """Inside, every file passes through ``finish`` before it is put in place."""
    token = _finish.set(finish)
    try:
        yield
    finally:
        _finish.reset(token)


def _umask() -> int:
    """What the user takes away from the permissions of new files; can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write(temporary_path)``, flushes it to the disk and renames it to ``path``, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        if finish := _finish.get():
            temporary.write_bytes(finish(path, temporary.read_bytes()))
        os.chmod(temporary, 0o666 & ~_umask())  # safetensors writes for the owner alone
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    write_atomically(path, lambda unfinished: unfinished.write_bytes(content))


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A JSON object per line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def png_bytes(image: "Image.Image") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(path: Path, image: "Image.Image") -> Path:
    """Writes the picture and returns its path."""
    write_bytes(path, png_bytes(image))
    return path


def wav_bytes(waveform: "np.ndarray", rate_hz: int) -> bytes:
    """Samples in [-1, 1], shape (channels, samples), as a WAV file of 16 bits."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(len(waveform))
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((waveform.T.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    return buffer.getvalue()


def write_wav(path: Path, waveform: "np.ndarray", rate_hz: int) -> Path:
    """Writes samples in [-1, 1], shape (channels, samples), with 16 bits and returns the path."""
    write_bytes(path, wav_bytes(waveform, rate_hz))
    return path


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """A file's content as its address inside a page."""
    return f"data:{kind};base64," + base64.b64encode(content).decode("ascii")
