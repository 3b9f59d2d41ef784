"""Pictures that were decoded once, in a file of the cache; a large one is mapped, so that opening reads none of them.

A pack is a safetensors file: ``images`` uint8 (m, c, h, w), training, validation and test pictures one after the other;
``rows``, where picture i of the source lies; ``digests``, by which splits are chosen.  It lies in a folder of the cache
whose name is a hash of all that determines its content.  Beside it lie what was derived from it (``kept``,
``remembered``) and, while it is being made, ``decoded.part``: a log of pictures in the order of their names, which
another process continues where a killed one left it.

Without a cache that can be written, or where decoding again costs next to nothing, the same is done in memory.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import mmap
import os
import shutil
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BufferedRandom, BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bowerbird import machine
from bowerbird.data import room, split
from bowerbird.data.writing import write_atomically
from bowerbird.errors import BowerbirdError

VERSION = 3
"""Part of every key: a higher one leaves all older packs unused."""
CHUNK_BYTES = 1 << 22
"""What is read, hashed or written at a time."""
LARGEST_IN_MEMORY = 1 << 28
"""Bytes: what is smaller is read from its file, what is larger is mapped and only read where it is looked at."""
ABOUT = ("problems", "in_colour", "note")
"""What a pack says besides, in the order of its checksum."""
QUIET_S = 2.0
"""Decoding that takes longer shows its progress."""
PACK = "pictures.safetensors"
LOG = "decoded.part"
T = TypeVar("T")
TYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype("u1"), "I64": np.dtype("<i8")}


# ------------------------------------------------------------------------------------------------- what is opened


@dataclass(frozen=True)
class Packed:
    """Pictures of one shape, of which nothing is read before it is needed; indexing selects rows and copies nothing."""

    stored: np.ndarray
    """uint8 (m, c, h, w)."""
    rows: np.ndarray
    """Picture i is stored[rows[i]]."""
    hashed: np.ndarray | None = None
    """``split.digests`` of all that is stored, where they are known."""
    mapped: mmap.mmap | None = None
    folder: Path | None = None
    """Where what follows from these pictures can be kept."""
    problems: dict[str, str] = field(default_factory=dict)
    """Files that are not among them, and why."""
    in_colour: int = 0
    """How many files are in colour."""
    note: str = ""
    """What was done to the files, in words."""
    columns: tuple[int, int | None] = (0, None)
    """What was cut out of every picture."""

    @classmethod
    def of(cls, images: np.ndarray) -> "Packed":
        """Pictures in memory, uint8 (n, h, w, c)."""
        return cls(images.transpose(0, 3, 1, 2), np.arange(len(images)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray) -> "Packed":
        return replace(self, rows=self.rows[rows])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, h, w, c)."""
        _, c, h, w = self.stored.shape
        return len(self.rows), h, w, c

    def between(self, left: int, right: int | None) -> "Packed":
        """These columns of every picture."""
        return replace(self, stored=self.stored[..., left:right], columns=(left, right))

    @property
    def digests(self) -> np.ndarray:
        """``split.digests`` of each picture, uint64 (n,)."""
        if self.hashed is not None:
            return self.hashed[self.rows]
        return np.concatenate([split.digests(part.transpose(0, 2, 3, 1)) for part in self.chunks()])

    @property
    def identity(self) -> str:
        """A hash of which columns of which pictures of which pack these are, without looking at their pixels."""
        return _checksum(str(self.folder), str(self.columns), self.rows)

    def chunks(self) -> Iterator[np.ndarray]:
        """The pictures uint8 (b, c, h, w), some megabytes at a time; what is mapped is given back in between."""
        size = max(1, CHUNK_BYTES // max(1, self.stored[0].size)) if len(self.stored) else 1
        for start in range(0, len(self.rows), size):
            yield np.ascontiguousarray(self.stored[self.rows[start : start + size]])
            if self.mapped is not None and hasattr(self.mapped, "madvise"):
                self.mapped.madvise(mmap.MADV_DONTNEED)

    def tensor(self) -> Tensor:
        """The pictures uint8 (n, c, h, w): mapped if they lie one after the other or are many, else in memory."""
        start = int(self.rows[0]) if len(self.rows) else 0
        if self.stored.flags.c_contiguous and np.array_equal(self.rows, np.arange(start, start + len(self.rows))):
            return _strided(torch.from_numpy(self.stored[start : start + len(self.rows)]))
        n, h, w, c = self.shape
        if self.folder is not None and n * h * w * c > LARGEST_IN_MEMORY:
            return _strided(kept(self.folder, f"selected-{self.identity}", (n, c, h, w), self.chunks()))
        return _strided(torch.from_numpy(np.ascontiguousarray(self.stored[self.rows])))


def _strided(images: Tensor) -> Tensor:
    """One channel with the strides of (n, h, w, 1): kernels, and with them the last bits of losses, depend on them."""
    n, c, h, w = images.shape
    return images.view(n, h, w, 1).permute(0, 3, 1, 2) if c == 1 else images


def opened(folder: Path) -> Packed | None:
    """The pack in a folder of the cache; None if there is none, or it is damaged."""
    if (found := _mapped(folder / PACK)) is None:
        return None
    arrays, about, mapped = found
    known = [arrays.get("rows", ""), arrays.get("digests", ""), *(about.get(key, "") for key in ABOUT)]
    if about.get("checksum") != _checksum(*known):
        return None
    with contextlib.suppress(OSError):
        os.utime(folder)  # used now: see ``room``
    said = {"problems": json.loads(about["problems"]), "in_colour": int(about["in_colour"]), "note": about["note"]}
    digests, images = arrays["digests"].view(np.uint64), arrays["images"]
    if images.nbytes <= LARGEST_IN_MEMORY:
        return Packed(images.copy(), arrays["rows"].copy(), digests.copy(), None, folder, **said)
    return Packed(images, arrays["rows"], digests, mapped, folder, **said)


def kept(folder: Path, name: str, shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> Tensor:
    """uint8 values of this shape, which follow from a pack: read from beside it, or first written there."""
    path = folder / f"{name}.safetensors"
    if _mapped(path) is None:
        write_atomically(path, lambda unfinished: _write(unfinished, {"images": ("U8", shape)}, {}, parts))
    found = _mapped(path)
    assert found is not None
    return torch.from_numpy(found[0]["images"])


def remembered(folder: Path | None, name: str, compute: Callable[[], str]) -> str:
    """A short text that follows from a pack: read from beside it, or computed and, if possible, written there."""
    if folder is None:
        return compute()
    path = folder / f"{name}.txt"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text, _, checksum = path.read_text(encoding="utf-8").rpartition(" ")
        if text and checksum == _checksum(text):
            return text
    text = compute()
    with contextlib.suppress(OSError):
        write_atomically(path, lambda part: part.write_text(f"{text} {_checksum(text)}", encoding="utf-8"))
    return text


# --------------------------------------------------------------------------------------------------- making a pack


class Log:
    """Pictures of one size as they are decoded, one record after the other, in memory or in a file that can be
    continued."""

    RECORD = struct.Struct("<BBII")
    """Channels (0: a reason follows instead of pixels), the mark, height and width of the original (0: unknown)."""
    START = struct.Struct("<4sII")

    def __init__(self, file: BufferedRandom | BytesIO):
        self.file = file
        self.size = (0, 0)
        self.sizes: list[tuple[int, int]] = []
        self.channels: list[int] = []
        self.marks: list[int] = []
        self.offsets: list[int] = []
        self.problems: dict[int, str] = {}
        self._continue()

    def __len__(self) -> int:
        return len(self.channels)

    def begin(self, height: int, width: int) -> None:
        """Keeps what is there if it has this size, and forgets it otherwise."""
        if self.size != (height, width):
            self.size = (height, width)
            self.sizes, self.channels, self.marks, self.offsets, self.problems = [], [], [], [], {}
            self.file.seek(0)
            self.file.truncate()
            self.file.write(self.START.pack(b"log2", height, width))

    def append(self, size: tuple[int, int], pixels: np.ndarray | None, problem: str = "", mark: int = 0) -> None:
        """A picture (h, w, 1 or 3), or why there is none; ``mark`` is kept with it, up to 255."""
        content = problem.encode() if pixels is None else pixels.tobytes()
        channels = 0 if pixels is None else pixels.shape[-1]
        self._note(self.file.tell(), channels, mark, size, problem)
        length = struct.pack("<I", len(content)) if pixels is None else b""
        self.file.write(self.RECORD.pack(channels, mark, *size) + length + content)

    def read(self, number: int) -> np.ndarray:
        """Picture ``number``, which must not be a problem, uint8 (h, w, c)."""
        channels = self.channels[number]
        self.file.seek(self.offsets[number] + self.RECORD.size)
        content = self.file.read(math.prod(self.size) * channels)
        return np.frombuffer(content, np.uint8).reshape(*self.size, channels)

    def _note(self, offset: int, channels: int, mark: int, size: tuple[int, int], problem: str) -> None:
        self.offsets.append(offset)
        self.channels.append(channels)
        self.marks.append(mark)
        if size != (0, 0):
            self.sizes.append(size)
        if channels == 0:
            self.problems[len(self.channels) - 1] = problem

    def _continue(self) -> None:
        """Reads what a killed process has left, up to the last whole record."""
        end = self.file.seek(0, io.SEEK_END)
        self.file.seek(0)
        start = self.file.read(self.START.size)
        if len(start) == self.START.size and start[:4] == b"log2":
            self.size = self.START.unpack(start)[1:]
            while self._skip_record(end):
                pass

    def _skip_record(self, end: int) -> bool:
        offset = self.file.tell()
        head = self.file.read(self.RECORD.size)
        whole = len(head) == self.RECORD.size
        channels, mark, *size = self.RECORD.unpack(head) if whole else (0, 0, 0, 0)
        length = self.file.read(4) if whole and channels == 0 else b""
        n_bytes = math.prod(self.size) * channels or (struct.unpack("<I", length)[0] if len(length) == 4 else 0)
        if not n_bytes or self.file.tell() + n_bytes > end:
            self.file.seek(offset)
            self.file.truncate()
            return False
        problem = "" if channels else self.file.read(n_bytes).decode(errors="replace")
        if channels:
            self.file.seek(n_bytes, io.SEEK_CUR)
        self._note(offset, channels, mark, (size[0], size[1]), problem)
        return True


def packed(
    log: Log, names: Sequence[str], convert: Callable[[np.ndarray], np.ndarray], official: np.ndarray, hashed: slice,
    folder: Path | None, note: str = "",
) -> Packed:  # fmt: skip
    """The pack of what a log holds: written into the folder, or in memory if that is None.

    ``convert`` gives every picture the same channels; ``official`` is the split of every readable file, and ``hashed``
    the columns of the pictures that choose it otherwise.
    """
    there = [number for number, channels in enumerate(log.channels) if channels]
    digests = split.digests(convert(log.read(number))[:, hashed] for number in there)
    where = split.assign(digests, official)
    order = np.argsort([split.SPLITS.index(name) for name in where], kind="stable")
    rows = np.empty(len(order), np.int64)
    rows[order] = np.arange(len(order))
    shape = (len(there), *convert(log.read(there[0])).transpose(2, 0, 1).shape)
    parts = (convert(log.read(there[i])).transpose(2, 0, 1) for i in order)
    problems = {names[number]: reason for number, reason in log.problems.items()}
    in_colour = log.channels.count(3)
    if folder is None:
        stored = np.empty(shape, np.uint8)
        for row, part in zip(stored, parts, strict=True):
            row[...] = part
        return Packed(stored, rows, digests[order], problems=problems, in_colour=in_colour, note=note)
    about = {"problems": json.dumps(problems), "in_colour": str(in_colour), "note": note}
    _write_pack(folder / PACK, shape, rows, digests[order].view(np.int64), about, parts)
    found = opened(folder)
    assert found is not None
    return found


def _write_pack(
    path: Path, shape: tuple[int, ...], rows: np.ndarray, digests: np.ndarray, about: dict[str, str],
    parts: Iterable[np.ndarray],
) -> None:  # fmt: skip
    entries = {"rows": ("I64", rows.shape), "digests": ("I64", digests.shape), "images": ("U8", shape)}
    about = about | {"checksum": _checksum(rows, digests, *about.values())}

    def content() -> Iterator[np.ndarray]:
        yield from (rows, digests)
        yield from parts

    write_atomically(path, lambda unfinished: _write(unfinished, entries, about, content()))


def _write(
    path: Path, entries: dict[str, tuple[str, tuple[int, ...]]], about: dict[str, str], parts: Iterable[np.ndarray]
) -> None:
    """A safetensors file, part by part."""
    table: dict[str, Any] = {"__metadata__": about}
    end = 0
    for name, (kind, shape) in entries.items():
        begin, end = end, end + math.prod(shape) * TYPES[kind].itemsize
        table[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(table).encode()
    header += b" " * (-(8 + len(header)) % 64)
    with path.open("wb", buffering=CHUNK_BYTES) as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for part in parts:
            file.write(part.tobytes())


def _mapped(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str], mmap.mmap] | None:
    """The arrays of a safetensors file, which are read when they are looked at; None if it is not whole."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            size = os.fstat(file.fileno()).st_size
            table = json.loads(file.read(min(length, size)))
            about = table.pop("__metadata__")
            if 8 + length + max(entry["data_offsets"][1] for entry in table.values()) != size:
                return None
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        arrays = {}
        for name, entry in table.items():
            kind, offset = TYPES[entry["dtype"]], 8 + length + entry["data_offsets"][0]
            flat = np.frombuffer(content, kind, math.prod(entry["shape"]), offset)
            arrays[name] = flat.reshape(entry["shape"])
        return arrays, about, content
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return None


def _checksum(*parts: np.ndarray | str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part.tobytes())
    return digest.hexdigest()[:32]


def cached(key: str, decoded: Callable[[Log, Path | None], Packed]) -> tuple[Packed, str]:
    """The pack of this key from the cache, or ``decoded`` into it now; without a usable cache in memory, and why."""
    folder = room.packs_folder() / key
    if (found := opened(folder)) is not None:
        return found, ""
    try:
        return _into_cache(folder, decoded), ""
    except OSError as error:
        why = "is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"cannot be used ({error.strerror})"
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
        note = f"decoded in memory, because the cache {room.packs_folder()} {why}"
        return decoded(Log(io.BytesIO()), None), note


def _into_cache(folder: Path, decoded: Callable[[Log, Path | None], Packed]) -> Packed:
    with claimed(folder) as file:
        if (found := opened(folder)) is None:  # else another process has made it meanwhile
            found = decoded(Log(file), folder)
    (folder / LOG).unlink(missing_ok=True)
    room.make_room(folder)
    return found


def require_room(n_bytes: int, folder: Path | None, what: str, instead: str) -> None:
    """Before anything is decoded: OSError if the disk of the cache is too small; without a cache, BowerbirdError if the
    memory is, that begins with ``what`` takes so much and says what to choose ``instead``."""
    if folder is not None:
        if shutil.disk_usage(folder).free < n_bytes:
            raise OSError(errno.ENOSPC, "no room")
        return
    free = machine.available_memory(torch.device("cpu"))
    if free is not None and n_bytes > free:
        raise BowerbirdError(
            f"{what} take up to {n_bytes / 2e9:.1f} GB, which fit neither in memory nor in the cache "
            f"{room.packs_folder()}; choose {instead}, or name another folder in BOWERBIRD_CACHE."
        )


def shown(answers: Iterable[T], what: str, n: int, folder: Path | None, done: int = 0) -> Iterator[T]:
    """The same; after a moment with a line on standard error that says how far it is, of ``n``."""
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        advance = None
        for number, answer in enumerate(answers, done + 1):
            if advance is None and time.monotonic() - start > QUIET_S:
                advance = stack.enter_context(_bar(what, n, folder))
            if advance is not None and number % 64 == 0:
                advance(number)
            yield answer


@contextlib.contextmanager
def _bar(what: str, n: int, folder: Path | None) -> Iterator[Any]:
    """A progress bar on a terminal; elsewhere one line."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    what += "" if folder is None else ", once"
    if not console.is_terminal:
        console.print(what + ("" if folder is None else f" (kept in {folder.parent})"), markup=False)
    parts = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*parts, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=n)
        yield lambda done: bar.update(task, completed=done)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[BufferedRandom]:
    """The log in a folder of the cache, made if need be, for this process alone: another one is waited for."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG, "a+b") as touched:
        _wait_for(touched)
        with open(folder / LOG, "r+b") as file:
            yield file


def _wait_for(file: BufferedRandom) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    fcntl.flock(file, fcntl.LOCK_EX)
