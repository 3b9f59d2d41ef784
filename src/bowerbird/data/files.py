"""Where files are: a folder or a zip, listed and read in place.  Nothing of a zip is ever written to disk.

A file is named by its path inside the source, in Unicode and with forward slashes, whatever bytes the name is on disk
or in the archive.  What was seen and cannot be used is counted while listing (``Unused``): reason, number, example.

In a user's own folder links are followed, to each folder and file once; links inside an archive are not.  Pipes,
sockets and devices are never opened.
"""

import heapq
import os
import posixpath
import re
import stat
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedIOBase
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, cast

import numpy as np

from bowerbird.data import encodings
from bowerbird.errors import BowerbirdError

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".pgm", ".ppm", ".pbm", ".pnm", ".tif", ".tiff", ".apng", ".avif",
    ".dds", ".dib", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpf", ".jpx", ".mpo", ".pcx", ".pfm",
    ".psd", ".qoi", ".sgi", ".tga",
)  # fmt: skip
"""What counts as an image file; a file with another name is one if its first bytes say so (``BEGINNINGS``)."""
BEGINNINGS = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*|BM....\0\0\0\0|P[1-6]\s|qoif|8BPS"
    rb"|\0\0\0\x0cjP  |....ftyp(?:avif|avis|heic|heix|heim|heis|hevc|mif1|msf1)",
    re.DOTALL,
)
"""First bytes of the formats of images that can be told by them."""
OTHERS = {
    *(".txt", ".md", ".rst", ".html", ".xml", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".yaml", ".toml", ".py"),
    *(".dng", ".nef", ".cr2", ".arw", ".orf", ".pef", ".rw2", ".sr2"),
}
"""Suffixes of files that are not looked into: text, and raw files of cameras, which look like TIFF and are not."""
FIRST_BYTES = 512
UNPACK, AS_TEXT, RENAME = "unpack it, or make a zip of it", "save its text as .txt", "correct its name"
NO_TEXTS = (
    (rb"\xff\xd8\xff|GIF8[79]a|\x89PNG|RIFF....WEBP|BM....\0\0\0\0|II\*\0|MM\0\*", "a picture", RENAME),
    (rb"RIFF....WAVE|OggS|ID3|fLaC", "a sound", RENAME),
    (rb"MThd", "a MIDI file", RENAME),
    (rb"PAR1", "a Parquet file", RENAME),
    (rb"\x1f\x8b", "a gzip file", UNPACK),
    (rb"\xfd7zXZ", "an xz file", UNPACK),
    (rb"BZh[1-9]", "a bzip2 file", UNPACK),
    (rb"\x28\xb5\x2f\xfd", "a Zstandard file", UNPACK),
    (rb"7z\xbc\xaf\x27\x1c|Rar!|.{257}ustar", "an archive", UNPACK),
    (rb"PK\x03\x04", "a zip (as are the files of Excel and Word)", UNPACK),
    (rb"%PDF", "a PDF", AS_TEXT),
    (rb"\xd0\xcf\x11\xe0", "a document of Word or Excel", AS_TEXT),
)
"""First bytes of files that are no text, what they are, and what to do."""
BY_NAME = {
    **dict.fromkeys((".tar", ".tgz", ".7z", ".rar", ".z01"), ("an archive", UNPACK)),
    **dict.fromkeys((".docx", ".odt", ".pptx", ".xlsx", ".ods", ".epub"), ("a document", AS_TEXT)),
}
"""Suffixes of files that would be taken for something else by their content, or not at all."""
METADATA = "metadata.jsonl"
CAPTIONS = (".txt", ".caption")
_IMAGES = frozenset(SUFFIXES)
TABLES_OF_METADATA = (METADATA, "metadata.csv", "metadata.tsv", "metadata.parquet")
LABELS = "dataset.json"
"""Names and labels of images in the archives that StyleGAN's tool writes."""
SHEETS = ("sheet.png", "strip.png", "film.gif", "film.webp")
"""Beside ``METADATA``: pictures of examples, not examples."""
BESIDE = re.compile(
    r"(?:readme|licen[cs]e|copying|notice|changelog|authors|citation|attribution)(?:[.-][\w.-]*)?"
    r"|.*\.aigc\.json|thumbs\.db|desktop\.ini|icon\r|"
    + "|".join(map(re.escape, (*TABLES_OF_METADATA, LABELS, *SHEETS))),
    re.IGNORECASE,
)
"""Files that lie beside images as a matter of course."""
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Top folders that name a split."""


BRACES = re.compile(r"(?P<before>.*)\{(?P<source>[^{},]+),(?P<target>[^{},]+)\}(?P<after>[^{}]*)")
"""Two parallel files as one path."""


T = TypeVar("T")


class Unreadable(RuntimeError):
    """Why one file cannot be used, in words that can stand after a count."""


@dataclass
class Unused:
    """What was seen and not used: how many for each reason, and the first name of each.

    A reason reads on from its count, with {s} for the plural: "file{s} of unknown kind".
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, name: str, count: int = 1) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + count
        self.first[reason] = min(self.first.get(reason, name), name, key=natural)

    def __add__(self, other: "Unused") -> "Unused":
        both = Unused(dict(self.counts), dict(self.first))
        for reason, count in other.counts.items():
            both.add(reason, other.first[reason], count)
        return both

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        most_first = sorted(self.counts.items(), key=lambda item: -item[1])
        return ", ".join(
            f"{count:,} {reason.replace('{s}', 's' * (count != 1))} ({self.first[reason]}{' …' * (count != 1)})"
            for reason, count in most_first
        )


def not_used(problems: dict[str, str]) -> Unused:
    """Files by name, and what is wrong with each."""
    unused = Unused()
    for name, reason in problems.items():
        unused.add(reason, name)
    return unused


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
        return (self.path / self._on_disk.get(name, name)).open("rb")

    def stamp(self, name: str) -> tuple[int, ...]:
        try:
            about = os.stat(f"{self.path}/{self._on_disk.get(name, name)}")
        except OSError:  # a link to nothing
            return 0, 0
        return about.st_size, about.st_ctime_ns, about.st_mtime_ns

    @cached_property
    def _names(self) -> list[str]:
        walk = _Walk(str(self.path))
        self.unused = walk.unused
        if all(map(_is_unicode, walk.names)):
            return walk.names
        odd = [name for name in walk.names if _may_be_of_another_encoding(name)]
        legible, self.note = _legible([os.fsencode(name) for name in odd], self.encoding)
        renamed = dict(zip(odd, legible, strict=True))
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


class Zip:
    """``encoding`` of the names that do not say it; "auto" chooses one for all of them."""

    def __init__(self, path: Path, encoding: str = "auto"):
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise BowerbirdError(f"{path} is not a readable zip file ({error}); make it again.") from error
        self.unused = Unused()
        self._members = self._listed(encoding)

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
        names, self.note = _legible([info.orig_filename.encode("cp437") for info in unstated], encoding)
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


def _legible(raw: list[bytes], wanted: str) -> tuple[list[str], str]:
    """Names as text, and what is to be said about their encoding."""
    encoding = wanted
    if wanted == "auto":
        encoding = encodings.chosen(raw)
    try:
        names = [name.decode(encoding or "ascii", errors="strict" if encoding else "backslashreplace") for name in raw]
    except LookupError as error:
        raise BowerbirdError(
            f"There is no encoding '{wanted}'; try gb18030, big5, cp932, cp949, cp437 or utf-8."
        ) from error
    except UnicodeDecodeError as error:
        raise BowerbirdError(f"The file name {error.object!r} is not {wanted}; set --data.names to another.") from error
    if not raw or wanted != "auto" or encoding == encodings.UTF_8:
        return names, ""
    if not encoding:
        return names, f"{len(raw):,} names are in no known encoding (--data.names sets it)"
    return names, f"names read as {encoding}, which is a guess (--data.names sets another encoding)"


def _is_unicode(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= one <= "\udfff" for one in name)


def _may_be_of_another_encoding(name: str) -> bool:
    """Whether a name beyond ASCII is no UTF-8, or could be by accident: all of its letters take two bytes."""
    return not name.isascii() and all(one < "\u0800" or "\udc80" <= one <= "\udcff" for one in name)


def printable(name: str) -> str:
    """The name, with its bytes written out where they are not UTF-8."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def open_files(path: Path, encoding: str = "auto") -> Files:
    """The folder or zip at a path; ``encoding`` of those names that are neither UTF-8 nor say what they are."""
    if path.is_dir():
        return Folder(path, encoding)
    if is_zip(path):
        return Zip(path, encoding)
    raise refused(path) or BowerbirdError(f"{path} is neither a folder nor a zip of images.")


def is_zip(path: Path) -> bool:
    """By its name, or by its beginning and its end: what only ends as a zip may be a tar that holds one."""
    if not path.is_file():
        return False
    is_one = beginning(path).startswith(b"PK") and path.suffix.lower() not in BY_NAME and zipfile.is_zipfile(path)
    return is_one or path.suffix.lower() == ".zip"


def beginning(path: Path) -> bytes:
    """The bytes of a file by which its kind is told; none if it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(FIRST_BYTES)
    except OSError:
        return b""


def no_text(head: bytes) -> tuple[str, str] | None:
    """What a file is by its first bytes if it is no text, and what to do."""
    return next(((what, do) for begin, what, do in NO_TEXTS if re.match(begin, head, re.DOTALL)), None)


def refused(path: Path) -> BowerbirdError | None:
    """The error for a file that is neither read in place nor text, if it is one."""
    kind = BY_NAME.get(path.suffix.lower()) or no_text(beginning(path))
    return BowerbirdError(f"{path.name} is {kind[0]}, which is not read as it is; {kind[1]}.") if kind else None


def naturally(names: Iterable[str]) -> list[str]:
    """Sorted so that s2 comes before s10.

    Names that differ in nothing but digits, in equally long numbers, are in this order already when sorted as text.  So
    the slow key is needed for the first and the last name of each such group alone, unless groups overlap.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name.translate(ANY_DIGIT), []).append(name)
    groups = sorted(map(sorted, alike.values()), key=lambda group: natural(group[0]))
    for group, following in pairwise(groups):
        if natural(group[-1]) > natural(following[0]):
            return sorted(chain.from_iterable(groups), key=natural)
    return list(chain.from_iterable(groups))


ANY_DIGIT = str.maketrans("123456789", "0" * 9)


def natural(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key by which s2 comes before s10."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], text


def visible(names: list[str]) -> list[str]:
    """Without hidden files and what systems put among the user's."""
    return [name for name in names if not is_hidden(name)]


def is_hidden(name: str) -> bool:
    """Whether a name or a folder of it begins with a dot, or a system put it there."""
    return name.startswith(".") or "/." in name or _is_of_a_system(name)


OF_SYSTEMS = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
"""Folders that operating systems and network storage put among the user's."""


def _is_of_a_system(name: str) -> bool:
    return not OF_SYSTEMS.isdisjoint(name.split("/")) or base(name).startswith("._")


def base(name: str) -> str:
    """The last part of a name, as ``posixpath.basename`` has it, in a fraction of the time."""
    return name[name.rfind("/") + 1 :]


def opener(source: Files, read: Callable[[BufferedIOBase], T]) -> Callable[[str], T]:
    """From a function of an open file, one of its name."""

    def from_name(name: str) -> T:
        with source.open(name) as file:
            return read(file)

    return from_name


class Listing(NamedTuple):
    """The image files of a source."""

    names: list[str]
    """In natural order."""
    captions: dict[str, str]
    """Text files that lie beside images under the same name, by the name of the image."""
    unused: Unused
    """Everything else, but for what lies beside images as a matter of course."""


def image_files(source: Files) -> Listing:
    """All image files, without the sheets and films of folders that ``sample`` and ``edit`` wrote."""
    names = source.names()
    unused = Unused() + source.unused
    sampled = {posixpath.dirname(name) for name in names if base(name) == METADATA}
    found: list[str] = []
    others: list[str] = []
    for name in names:
        is_image = suffix(name) in _IMAGES
        if is_hidden(name):
            if is_image and not _is_of_a_system(name):
                unused.add("hidden image{s}", name)
        elif is_image and not (base(name) in SHEETS and posixpath.dirname(name) in sampled):
            found.append(name)
        elif not BESIDE.fullmatch(base(name)):
            (found if begins_as_image(source, name) else others).append(name)
    captions = _captions(found, others)
    for name in set(others) - set(captions.values()):
        unused.add("file{s} of unknown kind", name)
    return Listing(naturally(found), captions, unused)


def _captions(images: list[str], others: list[str]) -> dict[str, str]:
    texts = {posixpath.splitext(name)[0]: name for name in others if suffix(name) in CAPTIONS}
    stems = ((name, posixpath.splitext(name)[0]) for name in images) if texts else ()
    return {name: texts[stem] for name, stem in stems if stem in texts}


def suffix(name: str) -> str:
    """In lower case, with its dot; "" if there is none."""
    return posixpath.splitext(name)[1].lower()


def begins_as_image(source: Files, name: str) -> bool:
    """Whether a file is an image by its first bytes; files of text are not looked into."""
    if suffix(name) in OTHERS:
        return False
    try:
        with source.open(name) as file:
            return BEGINNINGS.match(file.read(16)) is not None
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def official_splits(names: list[str]) -> np.ndarray:
    """The split that each file's top folder names: train, val or test; "" unless all do and one is for training."""
    depth = n_common_folders(names)
    tops = {folder: [*folder.split("/"), *[""] * (depth + 1)][depth].lower() for folder in _folders(names)}
    splits = {folder: SPLITS.get(top, "") for folder, top in tops.items()}
    if not all(splits.values()) or "train" not in splits.values():
        return np.full(len(names), "")
    return np.array([splits[posixpath.dirname(name)] for name in names])


def n_common_folders(names: list[str]) -> int:
    """How many folders, from the top, hold all files."""
    folders = [folder.split("/") if folder else [] for folder in _folders(names)]
    first, last = min(folders), max(folders)  # what these two share, all share
    return next((i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))


def _folders(names: list[str]) -> set[str]:
    return {name[: max(0, name.rfind("/"))] for name in names}
