"""One image file → uint8 pixels of the wanted size: decode, composite, crop, resize.

Grey stays one channel, everything else becomes RGB; transparency is composited on white; photographs are turned upright
as their EXIF or XMP orientation says, wherever in the file that stands; of several frames the first counts.

Pixels of more than 8 bits do not say what is white: the same 16 bits hold data of 12.  So their range is found over all
files of a set (``Ranges``), one for each kind of pixel, and every file is scaled by it.

Then the centre is cut to the target's aspect ratio and resized by Pillow's Lanczos filter, which widens with the
reduction and so does not alias.  An image that already has the target size keeps its pixels untouched.
"""

import os
import struct
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from io import BufferedIOBase, BytesIO
from threading import Lock
from typing import IO, Any, NamedTuple, cast

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from bowerbird.data.kinds import FIRST_BYTES, instead
from bowerbird.data.unused import Unreadable

RESIZE = "centre crop, Lanczos (Pillow, reducing_gap 3)"
"""The resizer, as protocols state it."""
REDUCING_GAP = 3.0
"""Strong reductions first average whole blocks, down to this many times the target (far faster, same look)."""
EXIF_ORIENTATION = 0x0112
LATE = 64
"""PNG files of at most this many pixels a side are read to their end for an orientation that stands there."""
HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Brands of HEIC files, at their bytes 8 to 11."""


class Header(NamedTuple):
    """What is known of an image before its pixels are decoded."""

    height: int
    width: int
    """As it will be seen."""
    depth: str
    """"" for 8 bits, else the kind of its pixels: one of ``KINDS``."""
    has_frames: bool
    """Whether there are several, as in an animation."""
    has_profile: bool = False
    """Of colours other than sRGB."""


@dataclass(frozen=True)
class Range:
    """The values that become black and white."""

    black: float
    white: float


SIXTEEN, COLOUR, INTEGER, FLOAT = "16-bit", "16-bit colour", "32-bit", "floating-point"
WHOLE = {SIXTEEN: Range(0, 65535), COLOUR: Range(0, 65535)}
"""What 16 bits mean if nothing else is known."""
INTEGERS = tuple(Range(0, 2**bits - 1) for bits in (8, 10, 12, 14, 16))
KINDS = {SIXTEEN: INTEGERS, COLOUR: INTEGERS, INTEGER: INTEGERS, FLOAT: (Range(0, 1), Range(-1, 1))}
"""The ranges that a kind of pixel usually has, the narrowest first; what fits none is scaled from least to greatest."""


DEPTHS = ("", *KINDS)


def opened(file: BufferedIOBase | BytesIO) -> ImageFile.ImageFile:
    """The image with only its header read; Unreadable before any pixel is unpacked if there are too many."""
    try:
        image = Image.open(cast(IO[bytes], file))
    except UnidentifiedImageError:
        image = _heif(file)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Unreadable("too large, perhaps a decompression bomb")
    return image


def _heif(file: BufferedIOBase | BytesIO) -> ImageFile.ImageFile:
    """HEIC, which Pillow reads with the help of another package."""
    file.seek(0)
    start = file.read(FIRST_BYTES)
    head = start[:12]
    file.seek(0)
    if what := instead(start):
        raise Unreadable(what)
    if head[4:8] == b"ftyp" and head[8:] in HEIF and not _reads_heif():
        raise Unreadable("HEIC, which needs: pip install pillow-heif")
    if head[4:8] == b"ftyp" and head[8:11] == b"avi" and ".avif" not in Image.registered_extensions():
        raise Unreadable("AVIF, which this copy of Pillow cannot read")
    return Image.open(cast(IO[bytes], file))


@cache
def _reads_heif() -> bool:
    try:
        import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


def can_read_heif() -> bool:
    """Whether HEIC files can be read, without importing anything."""
    return find_spec("pillow_heif") is not None


def header(file: BufferedIOBase | BytesIO) -> Header:
    """Size and kind of a file without decoding it."""
    return header_of(opened(file))


def header_of(image: ImageFile.ImageFile) -> Header:
    """The same of an image that was opened."""
    kind = depth(image)
    has_frames = image.format != "MPO" and getattr(image, "is_animated", False)  # of MPO others are previews
    height, width = (image.width, image.height) if _turns(image, kind) else (image.height, image.width)
    return Header(height, width, kind, has_frames, _has_profile(image))


def _has_profile(image: ImageFile.ImageFile) -> bool:
    profile = image.info.get("icc_profile") or b""
    return bool(profile) and not any("sRGB".encode(code) in profile for code in ("ascii", "utf-16-be"))


def _turns(image: ImageFile.ImageFile, kind: str) -> bool:
    """Whether height and width change places.

    The end of a PNG file can say so, for which Pillow decodes it all.  That is done for those alone that may keep a
    size that is not square, which are small.  The size of TIFF files is turned already.
    """
    is_small = image.width != image.height and max(image.size) <= LATE and not kind
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info and not is_small):
        return False
    return _orientation(image) >= 5


def _orientation(image: Image.Image) -> int:
    if _has_no_metadata(image):
        return 1
    with suppress(*BROKEN_EXIF):
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    return 1


def _has_no_metadata(image: Image.Image) -> bool:
    """Whether nothing that was read of a PNG file can hold an orientation: asking it would take longer than decoding a
    small one."""
    names = [name.lower() for name in image.info if isinstance(name, str)]
    return image.format == "PNG" and not any("exif" in name or "xmp" in name for name in names)


BROKEN_EXIF = (SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError, struct.error)
"""What Pillow raises for metadata that are no EXIF; such a picture is taken as upright, as by every viewer."""


def depth(image: ImageFile.ImageFile) -> str:
    """The kind of pixels of more than 8 bits, "" for others."""
    if image.format == "PPM" and image.mode == "I":
        return ""  # the file states its white, and Pillow has scaled it to 65535
    if image.mode.startswith("I;16"):
        return SIXTEEN
    if image.mode in ("I", "F"):
        return INTEGER if image.mode == "I" else FLOAT
    return COLOUR if image.mode in ("RGB", "RGBA") and ";16" in _packing(image) else ""


def _packing(image: ImageFile.ImageFile) -> str:
    """Pillow's word for how the first tile of a file holds its numbers, such as RGB;16B."""
    arguments = image.tile[0].args if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def decode(file: BufferedIOBase | BytesIO, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 1) when the pixels are grey, else (height, width, 3)."""
    return decode_opened(opened(file), height, width)


def decode_opened(
    image: ImageFile.ImageFile, height: int, width: int, ranges: Mapping[str, Range] = WHOLE
) -> np.ndarray:
    """The same of an image of which only the header was read."""
    wanted = int(REDUCING_GAP * max(height, width))
    image.draft(None, (wanted, wanted))  # lets libjpeg skip detail that the reduction would average away
    return fit(flatten(_upright(_of_8_bits(image, ranges))), height, width)


def as_stored(file: BufferedIOBase | BytesIO, ranges: Mapping[str, Range] = WHOLE) -> np.ndarray:
    """The image of a file in its own size, upright: uint8 (h, w, 1) when the pixels are grey, else (h, w, 3)."""
    image = flatten(_upright(_of_8_bits(opened(file), ranges)))
    return fit(image, image.height, image.width)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    if _has_no_metadata(image):
        return image
    with suppress(*BROKEN_EXIF):
        ImageOps.exif_transpose(image, in_place=True)
    return image


# ---------------------------------------------------------------------------------------------- more than 8 bits


class Ranges(dict[str, Range]):
    """The range of each kind of deep pixel over all files that have it, found when the first of them is decoded.

    ``reading`` makes a function of names from one of open files.
    """

    def __init__(self, names: Sequence[str], reading: Callable[[Callable[[Any], Any]], Callable[[str], Any]]):
        super().__init__()
        self._names, self._reading, self._lock = names, reading, Lock()

    def __missing__(self, kind: str) -> Range:
        with self._lock:  # the first of several threads does it
            if not self:
                self.update(self._found())
        return self.get(kind, WHOLE.get(kind, Range(0, 1)))

    def _found(self) -> dict[str, Range]:
        headers, _ = each_readable(list(self._names), self._reading(header))
        kinds = {name: one.depth for name, one in headers.items() if one.depth}
        ends, _ = each_readable(list(kinds), self._reading(_extremes))
        low = {kind: min(ends[name][0] for name in ends if kinds[name] == kind) for kind in map(kinds.get, ends)}
        high = {kind: max(ends[name][1] for name in ends if kinds[name] == kind) for kind in low}
        return {kind: _range(kind, low[kind], high[kind]) for kind in KINDS if kind in low}


def described(ranges: Mapping[str, Range], headers: Mapping[str, Header]) -> list[str]:
    """What was done to images that are more than 8 bits and one frame, in words."""
    kinds = {one.depth for one in headers.values()}
    done = [
        f"{kind} values from {ranges[kind].black:.6g} (black) to {ranges[kind].white:.6g} (white) were scaled to 8 bits"
        for kind in KINDS
        if kind in kinds
    ]
    several = [name for name, one in headers.items() if one.has_frames]
    first = f"only the first frame of {len(several):,} that have more ({several[0]} …)" if several else ""
    other = [name for name, one in headers.items() if one.has_profile]
    colours = f"colour profiles of {len(other):,} were not applied ({other[0]} …)" if other else ""
    return [*done, *filter(None, [first, colours])]


def _range(kind: str, low: float, high: float) -> Range:
    usual = (one for one in KINDS[kind] if one.black <= low and high <= one.white)
    return next(usual, Range(float(low), float(high)))


def _extremes(file: BufferedIOBase) -> tuple[float, float]:
    image = opened(file)
    values = _values(image)
    colours = values[..., :3] if values.ndim == 3 else values
    return float(colours.min()), float(colours.max())


def _values(image: ImageFile.ImageFile) -> np.ndarray:
    """The numbers in a file of more than 8 bits; Unreadable if some are not finite."""
    values = (_sixteen_bits(image) if depth(image) == COLOUR else np.asarray(image)).astype(np.float64)
    if not np.isfinite(values).all():
        raise Unreadable("with non-finite values")
    return values


GREY_AND_OPACITY = "LA;16B"
SWAPPED = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}


def _sixteen_bits(image: ImageFile.ImageFile) -> np.ndarray:
    """16-bit colour, of which Pillow keeps the upper byte; if that says little, the lower is read in its place."""
    file, packing = cast(BufferedIOBase, image.fp), _packing(image)  # which loading makes it forget
    upper = np.asarray(image).astype(np.uint16)
    if upper[..., :3].max() >= 64:
        return upper * 257
    file.seek(0)
    again = opened(file)
    again.tile = [tile._replace(args=_swapped(tile.args)) for tile in again.tile]
    try:
        lower = np.asarray(again)
    except ValueError as error:
        raise Unreadable("with 16 bits in a layout that Pillow reads as 8") from error
    return upper * 256 + (lower[..., [1, 1, 1, 3]] if packing == GREY_AND_OPACITY else lower)


def _swapped(arguments: Any) -> Any:
    """The same tile with the two bytes of each number in the other order; of grey and opacity all four bytes."""
    if arguments == GREY_AND_OPACITY:
        return "RGBA"
    if isinstance(arguments, tuple):
        return (_swapped(arguments[0]), *arguments[1:])
    return arguments[:-4] + SWAPPED.get(arguments[-4:], arguments[-4:])


def _of_8_bits(image: ImageFile.ImageFile, ranges: Mapping[str, Range]) -> Image.Image:
    kind = depth(image)
    if not kind or (kind == COLOUR and ranges[kind] == WHOLE[kind]):
        return image
    values, one = _values(image), ranges[kind]
    black, white = np.full(values.shape[2:], one.black), np.full(values.shape[2:], one.white)
    if kind == COLOUR and values[..., 3:].max(initial=0) > one.white:  # opacity alone has all 16 bits
        black[3:], white[3:] = 0, 65535
    shares = (values - black) / np.where(white == black, 1, white - black)
    scaled = Image.fromarray((shares.clip(0, 1) * 255).round().astype(np.uint8))
    scaled.getexif()[EXIF_ORIENTATION] = _orientation(image)
    return scaled


# ----------------------------------------------------------------------------------------------------- 8 bits


def flatten(image: Image.Image) -> Image.Image:
    """Any Pillow mode of 8 bits as grey ("L") or colour ("RGB"), on white where it is transparent."""
    if image.mode == "I":
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    mode = "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else image.convert(mode)


def fit(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Cuts the centre to the aspect ratio height : width and resizes it."""
    if image.size != (width, height):
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
        image = image.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=REDUCING_GAP)
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return pixels[..., None]
    return pixels[..., :1] if (pixels == pixels[..., :1]).all() else pixels


def fit_array(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """The same for images that are decoded already, (n, h, w, c)."""
    if images.shape[1:3] == (height, width):
        return images
    n_channels = images.shape[-1]
    fitted = [fit(Image.fromarray(x if n_channels == 3 else x[..., 0]), height, width) for x in images]
    return with_channels(fitted, n_channels)


def with_channels(images: Iterable[np.ndarray], n_channels: int) -> np.ndarray:
    """Packs grey (h, w, 1) and colour (h, w, 3) images into one array (n, h, w, n_channels)."""
    return np.stack([converted(x, n_channels) for x in images])


def converted(x: np.ndarray, n_channels: int) -> np.ndarray:
    """One image (h, w, n_channels): colour to grey by luma, 0.299 R + 0.587 G + 0.114 B; grey to colour by
    repetition."""
    if x.shape[-1] == n_channels:
        return x
    if n_channels == 3:
        return np.repeat(x, 3, axis=-1)
    return np.asarray(Image.fromarray(np.ascontiguousarray(x)).convert("L"))[..., None]


def each_readable(names: list[str], read: Callable[[str], Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What ``read`` makes of every file, by name and in order, and the reason for each that it cannot read."""
    results: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, answer in attempts(names, read):
        if isinstance(answer, Problem):
            problems[name] = str(answer)
        else:
            results[name] = answer
    return results, problems


class Problem(str):
    """Why a file cannot be read."""


AT_ONCE = 16
"""Files that a thread reads before it hands over: less would spend more time on handing over than on small files."""


def attempts(names: list[str], read: Callable[[str], Any], threads: int | None = None) -> Iterator[tuple[str, Any]]:
    """Every file with what ``read`` makes of it, or the ``Problem``, in order and not many ahead of the caller."""
    threads = threads or min(8, os.cpu_count() or 1)
    parts = [names[i : i + AT_ONCE] for i in range(0, len(names), AT_ONCE)]

    def attempt(name: str) -> tuple[str, Any]:
        try:
            return name, read(name)
        except Exception as error:  # decoders answer a broken file with almost any exception
            return name, problem(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF and palettes; the bomb warning has become Unreadable
        if threads == 1:
            yield from map(attempt, names)
            return
        with ThreadPoolExecutor(threads) as pool:  # decoders release the interpreter's lock
            for i in range(0, len(parts), 2 * threads):
                for answers in pool.map(lambda part: [attempt(name) for name in part], parts[i : i + 2 * threads]):
                    yield from answers


def problem(error: Exception) -> Problem:
    """What is wrong with a file, by what its decoder says."""
    if isinstance(error, Unreadable):
        return Problem(str(error))
    if isinstance(error, Image.DecompressionBombError):
        return Problem("too large, perhaps a decompression bomb")
    return Problem("without permission to read" if isinstance(error, PermissionError) else "broken or truncated")
