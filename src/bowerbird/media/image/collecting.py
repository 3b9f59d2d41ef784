"""Decodes every picture file of a source once, into a pack.

Pictures go one by one from their file into a log (``data.packing``), never through memory together.  The size of a set
whose files agree is known after the first, so that each file is opened once; where the guess was wrong, it is done
again in the right size.
"""

import hashlib
import io
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import PIL
from PIL import Image

from bowerbird import config
from bowerbird.data import files, packing
from bowerbird.data.listing import official_splits
from bowerbird.data.packing import Log, Packed
from bowerbird.data.unused import not_used
from bowerbird.errors import BowerbirdError
from bowerbird.media.image import pixels

LARGEST_DEFAULT_SIZE = 64
"""Pixels: larger images are reduced to this unless a size is asked for."""
SIZE_STEP = 8
"""A size that we choose is a multiple of this, so that networks can halve it three times."""
SMALL_BYTES = 1 << 20
"""Files that together are smaller than this are decoded in every process: that takes a moment."""
LARGE_FILE_BYTES = 1 << 14
"""On average: smaller files are decoded fastest by one thread."""
NO_HEADER = pixels.Header(0, 0, "", has_frames=False)


class Collecting:
    """One source of picture files and the wish for their size and colour."""

    def __init__(self, path: Path, source: files.Files, names: list[str], data: config.Data):
        self.path, self.source, self.names, self.data = path, source, names, data
        self.note = ""
        self.ranges = pixels.Ranges(names, self._reading)
        stamps = files.stamps(source, names)
        self.n_bytes = sum(stamp[0] for stamp in stamps)
        self.key = self._key(stamps)

    def _key(self, stamps: list[tuple[int, ...]]) -> str:
        """A hash of all that the pixels follow from, without reading any of them."""
        wish = (self.data.size, self.data.channels, self.data.halves)
        tools = (packing.VERSION, PIL.__version__, pixels.can_read_heif(), Image.MAX_IMAGE_PIXELS, pixels.RESIZE)
        where = self.path.resolve() if self.path.is_dir() else self.path.name
        listed = "\n".join(f"{name}\0{stamp}" for name, stamp in zip(self.names, stamps, strict=True))
        return hashlib.sha256(f"{wish} {tools} {where}\n{listed}".encode(errors="surrogateescape")).hexdigest()[:32]

    def packed(self) -> Packed:
        """The pack from the cache, or made now; BowerbirdError where it fits nowhere, or nothing can be read."""
        side = self.data.size or LARGEST_DEFAULT_SIZE
        if self.n_bytes < SMALL_BYTES and 3 * len(self.names) * side * side < packing.LARGEST_IN_MEMORY:
            return self._decoded(Log(io.BytesIO()), None)
        found, self.note = packing.cached(self.key, self._decoded)
        return found

    def _decoded(self, log: Log, folder: Path | None) -> Packed:
        self._fill(log, folder)
        there = [channels for channels in log.channels if channels]
        if not there:
            problems = dict(zip(self.names, log.problems.values(), strict=True))
            raise BowerbirdError(
                f"None of the {len(self.names)} images in {self.path} can be read: {not_used(problems)}."
            )
        n_channels = channels_of(there.count(3), len(there), self.data.channels)
        readable = [name for number, name in enumerate(self.names) if number not in log.problems]
        deciding = {"source-left": slice(log.size[1] // 2, None), "source-right": slice(0, log.size[1] // 2)}
        convert = partial(pixels.converted, n_channels=n_channels)
        hashed = deciding.get(self.data.halves, slice(None))
        marked = self._marked(log)
        moving = ["--data.modality video opens all frames"] if any(one.has_frames for one in marked.values()) else []
        said = "; ".join([*pixels.described(self.ranges, marked), *moving])
        return packing.packed(log, self.names, convert, official_splits(readable), hashed, folder, said)

    def _marked(self, log: Log) -> dict[str, pixels.Header]:
        """What the log says of the files that are more than 8 bits, one frame or sRGB."""
        return {
            self.names[number]: pixels.Header(0, 0, pixels.DEPTHS[mark // 4], bool(mark % 2), bool(mark // 2 % 2))
            for number, mark in enumerate(log.marks)
            if mark
        }

    # ------------------------------------------------------------------------------------------- decoding

    def _fill(self, log: Log, folder: Path | None) -> None:
        """Brings every file into the log, all in one size."""
        beside = 1 if self.data.halves == "none" else 2
        if self.data.size is not None:
            self._append(log, (self.data.size, beside * self.data.size), folder)
            return
        height, width = log.size if log.size != (0, 0) else self._guess(beside)
        if self._append(log, (height, width), folder, alike=(height, width // beside)):
            right = default_size([(h, w // beside) for h, w in log.sizes])
        else:
            headers, _ = pixels.each_readable(self.names, self._reading(pixels.header))
            right = default_size([(one.height, one.width // beside) for one in headers.values()])
        self._append(log, (right[0], right[1] * beside), folder)

    def _guess(self, beside: int) -> tuple[int, int]:
        """The size of the set, if all files are like the first that can be read."""
        for _, header in pixels.attempts(self.names, self._reading(pixels.header), threads=1):
            if not isinstance(header, pixels.Problem):
                height, width = default_size([(header.height, header.width // beside)])
                return height, width * beside
        return 1, beside

    def _append(
        self, log: Log, size: tuple[int, int], folder: Path | None, alike: tuple[int, int] | None = None
    ) -> bool:
        """Decodes what the log does not hold yet in this size; False as soon as it cannot be the right one."""
        self._fits(size, folder)
        log.begin(*size)
        beside = 1 if self.data.halves == "none" else 2
        as_stored = alike is not None and max(alike) <= LARGEST_DEFAULT_SIZE
        threads = 1 if self.n_bytes < LARGE_FILE_BYTES * len(self.names) else None
        reading = self._reading(partial(_with_header, size=size, ranges=self.ranges))
        answers = pixels.attempts(self.names[len(log) :], reading, threads)
        what = f"{self.path.name}: decoding {len(self.names):,} images"
        for _, answer in packing.shown(answers, what, len(self.names), folder, len(log)):
            header, decoded = (NO_HEADER, answer) if isinstance(answer, pixels.Problem) else answer
            original = header[:2]
            if isinstance(decoded, pixels.Problem):
                log.append(original, None, decoded)
            else:
                log.append(original, decoded, mark=_mark(header))
            if as_stored and original != (0, 0) and (original[0], original[1] // beside) != alike:
                return False
        return True

    def _reading(self, read: Any) -> Any:
        def from_name(name: str) -> Any:
            with self.source.open(name) as file:
                return read(file)

        return from_name

    def _fits(self, size: tuple[int, int], folder: Path | None) -> None:
        n_bytes = 2 * len(self.names) * size[0] * size[1] * (1 if self.data.channels == "grey" else 3)
        what = f"Decoded to {size[1]}x{size[0]}, the {len(self.names):,} images of {self.path}"
        packing.require_room(n_bytes, folder, what, "a smaller --data.size")


def _with_header(file: Any, size: tuple[int, int], ranges: pixels.Ranges) -> tuple[pixels.Header, Any]:
    """What is known before decoding, and the pixels or the problem with them."""
    image = pixels.opened(file)
    header = pixels.header_of(image)
    try:
        return header, pixels.decode_opened(image, *size, ranges)
    except Exception as error:  # as in ``attempts``; the size counts nevertheless
        return header, pixels.problem(error)


def default_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """(height, width): as stored when all agree and the longer side is at most 64, else a square.

    The square's side is the median of the shorter sides, at most 64, rounded down to a multiple of 8.
    """
    if not sizes:
        return 1, 1
    if len(set(sizes)) == 1 and max(sizes[0]) <= LARGEST_DEFAULT_SIZE:
        return sizes[0]
    side = min(LARGEST_DEFAULT_SIZE, int(median(min(size) for size in sizes)))
    side = side - side % SIZE_STEP or side
    return side, side


def channels_of(in_colour: int, of: int, wanted: str) -> int:
    """A few colour pictures among many grey ones do not make the set colourful: the majority decides."""
    return {"auto": 3 if 2 * in_colour > of else 1, "grey": 1, "rgb": 3}[wanted]


def _mark(header: pixels.Header) -> int:
    """What the log keeps of a header, in one number."""
    return 4 * pixels.DEPTHS.index(header.depth) + 2 * header.has_profile + header.has_frames
