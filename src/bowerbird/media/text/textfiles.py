"""Files of text: unpacked as they are read, decoded without a guess, and no more of them than was allowed.

Text is UTF-8, unless a byte order mark says UTF-16 or UTF-32 or the user names an encoding.  No byte is replaced or
dropped: the first that does not fit is an error with its place and the encoding that it looks like.
"""

import bz2
import codecs
import gzip
import io
import lzma
import posixpath
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from typing import Any

from bowerbird.data import encodings, files
from bowerbird.data.kinds import POINTER, no_text, require_content
from bowerbird.errors import BowerbirdError, unknown

COMPRESSED: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
AUTO = "auto"
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""A byte order mark decides, whatever encoding was named, as in the Encoding Standard of the WHATWG."""
CHUNK = 1 << 16
"""Bytes that are unpacked at once."""
AT_ONCE = 1 << 20
"""Characters that are decoded at once."""


@dataclass
class Room:
    """How many bytes of text may be read, all files of a source together."""

    limit: int
    taken: int = 0

    def take(self, n_bytes: int, name: str) -> None:
        self.taken += n_bytes
        if self.taken > self.limit:
            raise BowerbirdError(
                f"{name}: the text is larger than {self.limit >> 20:,} MB; use a part of it, or allow more with "
                "--data.text.max-mb if there is enough memory."
            )


class TextFile:
    """One file of a folder or zip, read as text."""

    def __init__(self, source: files.Files, name: str, encoding: str, room: Room):
        self.source, self.name, self.encoding, self.room = source, name, encoding, room

    def text(self) -> str:
        """The whole text; ends of lines become \\n."""
        with self._open() as raw:
            text = _Decoded(raw, self.encoding).read().replace("\r\n", "\n")
        return text if "\n" in text else text.replace("\r", "\n")

    def lines(self) -> Iterator[str]:
        """The lines without their ends, which are LF or CR LF; a CR by itself ends a line only where there is no LF."""
        with self._open() as raw:
            lines = iter(_Decoded(raw, self.encoding))
            first = next(lines, "")
            if not first.endswith("\n") and "\r" in first:  # the only line
                yield from first.removesuffix("\r").split("\r")
            elif first:
                yield first.removesuffix("\n").removesuffix("\r")
            for line in lines:
                yield line.removesuffix("\n").removesuffix("\r")

    def binary(self) -> Any:
        """The file itself, for formats that are no text."""
        self._require_content()
        return self.source.open(self.name)

    def _open(self) -> "_Unpacked":
        self._require_content()
        return _Unpacked(self)

    def _require_content(self) -> None:
        with suppress(OSError, RuntimeError, zipfile.BadZipFile), self.source.open(self.name) as file:
            require_content(file.read(len(POINTER)), self.name)


class _Unpacked(io.BufferedIOBase):
    """The bytes of a file, unpacked, counted and refused beyond the room that there is."""

    def __init__(self, file: TextFile):
        self.name, self.room, self.n_read, self.keeps_nul = file.name, file.room, 0, False
        unpack = COMPRESSED.get(posixpath.splitext(file.name.lower())[1])
        try:
            self.packed: Any = file.source.open(file.name)
            self.file = unpack(self.packed) if unpack else self.packed
        except (OSError, RuntimeError, zipfile.BadZipFile) as error:  # RuntimeError: an encrypted zip
            raise BowerbirdError(f"{file.name} cannot be opened ({error}).") from error
        self.head = self._next()
        self.ahead = self.head

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1, /) -> bytes:
        chunk, self.ahead = self.ahead or self._next(), b""
        if not self.keeps_nul and (at := chunk.find(0)) > 0:
            chunk, self.ahead = chunk[:at], chunk[at:]  # an error before it comes first
        self.n_read += len(chunk)
        self.room.take(len(chunk), self.name)
        if not self.keeps_nul and chunk.startswith(b"\0"):
            raise UnicodeDecodeError("utf-8", chunk, 0, 1, "no text has this byte")
        return chunk

    def _next(self) -> bytes:
        try:
            return self.file.read(CHUNK)
        except (OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
            raise BowerbirdError(f"{self.name} cannot be unpacked ({error}); write it again.") from error

    def close(self) -> None:
        self.file.close()
        self.packed.close()
        super().close()


class _Decoded:
    """The text of bytes, all at once or line by line; lines end at LF."""

    def __init__(self, raw: _Unpacked, encoding: str):
        marked = next((name for mark, name in MARKS.items() if raw.head.startswith(mark)), "")
        if encoding != AUTO and codecs.lookup(encoding).name == "utf-16":  # Python takes the order of the machine
            encoding = _utf_16(raw.head) or "utf-16-le"
        self.raw, self.encoding = raw, marked or ("utf-8" if encoding == AUTO else encoding)
        raw.keeps_nul = encoding != AUTO or self.encoding != "utf-8"
        self.file = io.TextIOWrapper(raw, self.encoding, errors="strict", newline="\n")

    def read(self) -> str:
        try:
            return "".join(iter(lambda: self.file.read(AT_ONCE), "")).removeprefix("\ufeff")
        except UnicodeError as error:
            raise self._refused(error) from error

    def __iter__(self) -> Iterator[str]:
        try:
            first = self.file.readline().removeprefix("\ufeff")
            if first:
                yield first
            yield from self.file
        except UnicodeError as error:
            raise self._refused(error) from error

    def _refused(self, error: UnicodeError) -> BowerbirdError:
        name = self.raw.name
        if kind := no_text(self.raw.head):
            return BowerbirdError(f"{name} is {kind[0]} by its first bytes, not text; {kind[1]}.")
        if not isinstance(error, UnicodeDecodeError):
            return BowerbirdError(f"{name} is not {self.encoding}: {error}.")
        here, at = bytes(error.object), error.start
        offset = self.raw.n_read - len(here) + at
        if here[at] == 0 and self.encoding == "utf-8" and not encodings.is_utf_16(self.raw.head):
            return BowerbirdError(
                f"{name} holds a NUL character at byte {offset}, as files that are no text do; remove it or, if it "
                "belongs there, add --data.text.encoding utf-8."
            )
        place = f"at byte {offset} (0x{here[at]:02x})"
        what = f"{name} is not {'UTF-8' if self.encoding == 'utf-8' else self.encoding} {place}"
        return BowerbirdError(f"{what}{advice(here, at, self.raw._next(), self.raw.head, self.encoding)}")


def checked_encoding(name: str) -> str:
    """The name of an encoding, or an error with the nearest one."""
    if name == AUTO:
        return name
    try:
        b"a".decode(name)  # of no bytes Python would not even look the name up
    except UnicodeError:
        return name
    except (LookupError, ValueError) as error:
        from encodings.aliases import aliases

        of_text = {known for known in aliases.items() if not known[1].endswith("_codec") and known[1] != "rot_13"}
        near = get_close_matches(name, {AUTO, *chain.from_iterable(of_text)})
        raise unknown("encoding of text", name, near or [AUTO, "utf-8", *USUAL]) from error
    return name


# ------------------------------------------------------------------------------------------- what it may be

USUAL = ("gb18030", "big5", "shift_jis", "euc_kr", "cp1251", "cp1252", "utf-16-le")
MENDABLE = 0.1
"""Most part of broken characters in what is still called UTF-8."""


SAMPLED = 4096
"""Bytes by which an encoding is told."""


def advice(here: bytes, at: int, following: bytes, head: bytes, tried: str) -> str:
    """What bytes may be, of which those at ``at`` are not in the encoding that was tried, as the end of a sentence."""
    is_early = head.find(here[at : at + SAMPLED]) in range(SAMPLED // 2)
    begin = here.rfind(b"\n", 0, at) + 1
    if tried == "utf-8" and _is_mostly_utf_8(here[max(0, at - CHUNK) : at + CHUNK] + following):
        return ", though the text around it is; correct that place."
    if likely := _utf_16(head):
        names = [likely]
    elif tried != "utf-8" and _is_utf_8(here[begin:] + following):
        names = ["utf-8"]
    else:
        names = encodings.of_text(head[:SAMPLED] if is_early else (here[begin:] + following)[:SAMPLED], is_early, tried)
    if not names:
        return f"; it cannot be told which encoding it has: try --data.text.encoding with {', '.join(USUAL)}."
    if len(names) == 1:
        return f"; it may be {names[0]}: use --data.text.encoding {names[0]}."
    others = " or ".join(names[1:])
    return (
        f"; it may be {names[0]} or else {others}, as too few bytes tell them apart: add --data.text.encoding "
        f"{names[0]}, and see whether the texts read well."
    )


def _is_utf_8(sample: bytes) -> bool:
    try:
        return not codecs.getincrementaldecoder("utf-8")().decode(sample).isascii()
    except UnicodeDecodeError:
        return False


def _is_mostly_utf_8(sample: bytes) -> bool:
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(sample)
    return 0 < text.count("\ufffd") <= MENDABLE * sum(character > "\x7f" for character in text)


def _utf_16(head: bytes) -> str:
    """Without a mark: every second byte of spaces, digits, ends of lines and Latin letters is 0."""
    zeros = [half.count(0) for half in (head[1::2], head[::2])]
    if max(zeros) > 20 * min(zeros) and max(zeros) > 1 + len(head) // 20:
        return "utf-16-le" if zeros[0] > zeros[1] else "utf-16-be"
    return ""
