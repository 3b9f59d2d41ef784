"""A zip as files to read in place."""

import posixpath
import stat
import zipfile
from io import BufferedIOBase
from pathlib import Path
from typing import cast

from bowerbird.data.names import is_hidden, legible
from bowerbird.data.unused import Unreadable, Unused
from bowerbird.errors import BowerbirdError


class Zip:
    """``encoding`` of the names that do not say it; "auto" chooses one for all of them."""

    def __init__(self, path: Path, encoding: str = "auto"):
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise BowerbirdError(f"{path} is not a readable zip file ({error}); make it again.") from error
        self.unused = Unused()
        self._members = self._listed(encoding)
        for folder in self._empty():
            self.unused.add("empty folder{s}", folder)

    def names(self) -> list[str]:
        return sorted(self._members)

    def open(self, name: str) -> BufferedIOBase:
        member = self._members[name]
        if member.flag_bits & ENCRYPTED:
            raise Unreadable("encrypted")
        try:
            return cast(BufferedIOBase, self.archive.open(member))
        except NotImplementedError as error:
            raise Unreadable("compressed by a method that Python cannot read") from error

    def _listed(self, encoding: str) -> dict[str, zipfile.ZipInfo]:
        infos = [info for info in self.archive.infolist() if not info.is_dir()]
        named = {id(info): name for info in infos if (name := _stated(info)) is not None}
        unstated = [info for info in infos if id(info) not in named]
        names, self.note = legible([info.orig_filename.encode("cp437") for info in unstated], encoding)
        named |= {id(info): name for info, name in zip(unstated, names, strict=True)}
        has_slashes = any("/" in name for name in named.values())
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            name = named[id(info)].split("\0")[0]
            if info.create_system == FROM_WINDOWS or not has_slashes:
                name = name.replace("\\", "/")
            name = posixpath.normpath(name.lstrip("/"))
            if reason := _no_file(name, info):
                self.unused.add(reason, name)
                continue
            if name in members:
                self.unused.add("earlier file{s} of the same name", name)
            members[name] = info
        return members

    def _empty(self) -> set[str]:
        """The folders of which the zip lists nothing else; one that holds an empty one is not named beside it."""
        stated = (_stated(info) for info in self.archive.infolist() if info.is_dir())
        shown = (name.replace("\\", "/").lstrip("/") for name in stated if name and not is_hidden(name))
        folders = set(map(posixpath.normpath, shown))
        held, above = set[str](), {posixpath.dirname(name) for name in (*self._members, *folders)}
        while above := above - held:
            held |= above
            above = {posixpath.dirname(folder) for folder in above}
        return folders - held

    def stamp(self, name: str) -> tuple[int, ...]:
        info = self._members[name]
        return info.file_size, 0, info.CRC


ENCRYPTED, UTF_8_NAME = 0x1, 0x800
"""Bits of a zip's flags."""
FROM_WINDOWS = 0
"""``create_system`` of a zip: in its names a backslash can only be a separator."""
UNICODE_NAME = 0x7075
"""The extra field that repeats a name in UTF-8."""


def _stated(info: zipfile.ZipInfo) -> str | None:
    """The name, if the zip says what its bytes mean."""
    if info.flag_bits & UTF_8_NAME or info.orig_filename.isascii():
        return info.orig_filename
    extra = info.extra
    while len(extra) >= 4:
        kind, size = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        if kind == UNICODE_NAME and extra[4:5] == b"\1":
            return extra[9 : 4 + size].decode("utf-8", errors="backslashreplace")
        extra = extra[4 + size :]
    return None


def _no_file(name: str, info: zipfile.ZipInfo) -> str:
    """Why a member of a zip is not read; "" if it is."""
    if ".." in name.split("/"):
        return "name{s} that lead out of the archive"
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system != FROM_WINDOWS else 0
    if kind == stat.S_IFLNK:
        return "link{s} inside an archive"
    return "" if kind in (0, stat.S_IFREG) else "pipe{s}, socket{s} or device{s}"
