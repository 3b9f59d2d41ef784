"""Where files are: a folder or a zip, listed and read in place.  Nothing of a zip is ever written to disk.

A file is named by its path inside the source, in Unicode and with forward slashes, whatever bytes the name is on disk
or in the archive.  What was seen and cannot be used is counted while listing (``Unused``): reason, number, example.

In a user's own folder links are followed, to each folder and file once; links inside an archive are not.  Pipes,
sockets and devices are never opened.
"""

import heapq
import os
import stat
import time
import warnings
from collections.abc import Callable
from functools import cached_property
from io import BufferedIOBase
from pathlib import Path
from typing import Protocol, TypeVar

from bowerbird.data.kinds import is_zip, refused
from bowerbird.data.names import is_hidden, is_unicode, legible, may_be_of_another_encoding, printable
from bowerbird.data.unused import Unused
from bowerbird.data.zips import Zip
from bowerbird.errors import BowerbirdError

T = TypeVar("T")


class Files(Protocol):
    """A folder or a zip."""

    unused: Unused
    """What is there and is no file that can be read."""
    note: str
    """What the user may not expect of the names; empty when there is nothing."""

    def names(self) -> list[str]: ...
    def open(self, name: str) -> BufferedIOBase: ...
    def stamp(self, name: str) -> tuple[int, ...]:
        """Bytes, time of the last change in ns (0: unknown), and what else tells that a file has changed."""
        ...


TICK_S = 0.05
"""How long a file must have been left alone before its time of change can tell the next change."""


def stamps(source: Files, names: list[str]) -> list[tuple[int, ...]]:
    """The stamp of each file; waits until a change from now on has another time than the last one."""
    found = [source.stamp(name) for name in names]
    newest = max(stamp[1] for stamp in found) / 1e9
    if 0 <= (age := time.time() - newest) < TICK_S:
        time.sleep(TICK_S - age)
    return found


class Folder:
    """``encoding`` of those names that are not UTF-8; "auto" chooses one for all of them."""

    def __init__(self, path: Path, encoding: str = "auto"):
        self.path, self.encoding = path, encoding
        self.unused, self.note = Unused(), ""
        self._on_disk: dict[str, str] = {}

    def names(self) -> list[str]:
        return self._names

    def open(self, name: str) -> BufferedIOBase:
        return open(self._where(name), "rb")

    def stamp(self, name: str) -> tuple[int, ...]:
        try:
            about = os.stat(self._where(name))
        except OSError:  # a link to nothing
            return 0, 0
        return about.st_size, about.st_ctime_ns, about.st_mtime_ns

    def _where(self, name: str) -> str:
        return f"{self.path}/{self._on_disk.get(name, name)}"  # joined as text: pathlib takes a tenth of a small PNG

    @cached_property
    def _names(self) -> list[str]:
        walk = _Walk(str(self.path))
        self.unused = walk.unused
        if all(map(is_unicode, walk.names)):
            return walk.names
        odd = [name for name in walk.names if may_be_of_another_encoding(name)]
        texts, self.note = legible([os.fsencode(name) for name in odd], self.encoding)
        renamed = dict(zip(odd, texts, strict=True))
        self._on_disk = {renamed.get(name, name): name for name in walk.names}
        return [*self._on_disk]


class _Walk:
    """The files below a folder: what lies in it first, then what its links lead to."""

    def __init__(self, root: str):
        self.root, self.names, self.unused = root, list[str](), Unused()
        self._patient_until, self._said = time.monotonic() + 1, 1
        self._links: list[tuple[int, str]] = []
        """Those that are still to be followed, by their depth and name."""
        self._known: set[tuple[int, int]] = set()
        """Device and number of every file and folder that is listed."""
        self._enter("", os.stat(root), follows=False)
        while self._links:
            self._follow(heapq.heappop(self._links)[1])

    def _enter(self, top: str, at: os.stat_result, follows: bool) -> None:
        pending = [(top, at)]
        while pending:
            folder, at = pending.pop()
            self._say_how_far()
            self._known.add((at.st_dev, at.st_ino))
            try:
                entries = list(os.scandir(os.path.join(self.root, folder)))
            except OSError as error:
                if not folder:
                    raise BowerbirdError(f"{self.root} cannot be listed ({error.strerror}).") from error
                self.unused.add("folder{s} that cannot be listed", printable(folder))
                continue
            if folder and not entries and not is_hidden(folder):
                self.unused.add("empty folder{s}", printable(folder))
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink():
                    heapq.heappush(self._links, (name.count("/"), name))
                elif follows and (at.st_dev, entry.inode()) in self._known:
                    self.unused.add("link{s} to what is listed already", printable(name))
                elif entry.is_dir(follow_symlinks=False):
                    pending.append((name, entry.stat(follow_symlinks=False)))
                elif entry.is_file(follow_symlinks=False):
                    self._known.add((at.st_dev, entry.inode()))
                    self.names.append(name)
                else:
                    self.unused.add("pipe{s}, socket{s} or device{s}", printable(name))

    def _say_how_far(self) -> None:
        """After a second, and then for each ten times as many files."""
        if time.monotonic() > self._patient_until and len(self.names) >= self._said:
            self._said = 10 * len(self.names)
            warnings.warn(f"Listing {self.root}: {len(self.names):,} files so far …", stacklevel=2)

    def _follow(self, name: str) -> None:
        path = os.path.join(self.root, name)
        try:
            at = os.stat(path)
        except OSError:
            return self.unused.add("broken link{s}", printable(name))
        if not (stat.S_ISDIR(at.st_mode) or stat.S_ISREG(at.st_mode)):
            self.unused.add("pipe{s}, socket{s} or device{s}", printable(name))
        elif (at.st_dev, at.st_ino) in self._known:
            self.unused.add("link{s} to what is listed already", printable(name))
        elif _is_above(path, self.root):
            self.unused.add("link{s} to a parent folder", printable(name))
        elif stat.S_ISDIR(at.st_mode):
            self._enter(name, at, follows=True)
        else:
            self._known.add((at.st_dev, at.st_ino))
            self.names.append(name)


def _is_above(path: str, root: str) -> bool:
    return Path(os.path.realpath(path)) in Path(os.path.realpath(root)).parents


def open_files(path: Path, encoding: str = "auto") -> Files:
    """The folder or zip at a path; ``encoding`` of those names that are neither UTF-8 nor say what they are."""
    if path.is_dir():
        return Folder(path, encoding)
    if is_zip(path):
        return Zip(path, encoding)
    raise refused(path) or BowerbirdError(f"{path} is neither a folder nor a zip of images.")


def opener(source: Files, read: Callable[[BufferedIOBase], T]) -> Callable[[str], T]:
    """From a function of an open file, one of its name."""

    def from_name(name: str) -> T:
        with source.open(name) as file:
            return read(file)

    return from_name
