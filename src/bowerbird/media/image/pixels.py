"""One image file → uint8 pixels of the wanted size: decode, composite, crop, resize.

Grey stays one channel, everything else becomes RGB; transparency is composited on white; 16-bit grey is divided by
257 and rounded; photographs are turned upright as their EXIF tag says; of several frames the first counts.

Then the centre is cut to the target's aspect ratio and resized by Pillow's Lanczos filter, which widens with the
reduction and so does not alias.  An image that already has the target size keeps its pixels untouched.
"""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BufferedIOBase, BytesIO
from typing import IO, Any, cast

import numpy as np
from PIL import Image, ImageFile, ImageOps

RESIZE = "centre crop, Lanczos (Pillow, reducing_gap 3)"
"""The resizer, as protocols state it."""
REDUCING_GAP = 3.0
"""Strong reductions first average whole blocks, down to this many times the target (far faster, same look)."""
EXIF_ORIENTATION = 0x0112


class TooLarge(Exception):
    """More pixels than Pillow lets a file unpack to: perhaps a decompression bomb."""


def opened(file: BufferedIOBase | BytesIO) -> ImageFile.ImageFile:
    """The image with only its header read; TooLarge before any pixel is unpacked."""
    image = Image.open(cast(IO[bytes], file))
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise TooLarge
    return image


def upright_size(file: BufferedIOBase) -> tuple[int, int]:
    """(height, width) as it will be seen, from the header alone."""
    return seen_size(opened(file))


def seen_size(image: Image.Image) -> tuple[int, int]:
    """The same of an image that was opened."""
    turned = "exif" in image.info and image.getexif().get(EXIF_ORIENTATION, 1) >= 5
    return (image.width, image.height) if turned else (image.height, image.width)


def decode(file: BufferedIOBase, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 1) when the pixels are grey, else (height, width, 3)."""
    return decode_opened(opened(file), height, width)


def decode_opened(image: Image.Image, height: int, width: int) -> np.ndarray:
    """The same of an image of which only the header was read."""
    wanted = int(REDUCING_GAP * max(height, width))
    image.draft(None, (wanted, wanted))  # lets libjpeg skip detail that the reduction would average away
    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    return fit(flatten(image), height, width)


def as_stored(content: bytes) -> np.ndarray:
    """The image of a file in its own size, upright: uint8 (h, w, 1) when the pixels are grey, else (h, w, 3)."""
    image: Image.Image = opened(BytesIO(content))
    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    image = flatten(image)
    return fit(image, image.height, image.width)


def flatten(image: Image.Image) -> Image.Image:
    """Any Pillow mode as 8-bit grey ("L") or colour ("RGB"), on white where it is transparent."""
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.float64).clip(0, 65535)
        return Image.fromarray((wide / 257).round().astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined white")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


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
        warnings.simplefilter("ignore")  # odd EXIF and palettes; the bomb warning has become TooLarge
        if threads == 1:
            yield from map(attempt, names)
            return
        with ThreadPoolExecutor(threads) as pool:  # decoders release the interpreter's lock
            for i in range(0, len(parts), 2 * threads):
                for answers in pool.map(lambda part: [attempt(name) for name in part], parts[i : i + 2 * threads]):
                    yield from answers


def problem(error: Exception) -> Problem:
    """What is wrong with a file, by what its decoder says."""
    if isinstance(error, TooLarge | Image.DecompressionBombError):
        return Problem("too large, perhaps a decompression bomb")
    return Problem("broken or truncated")


def reasons(problems: dict[str, str]) -> str:
    """How many files have which problem, and the name of the first."""
    if not problems:
        return ""
    counts = ", ".join(f"{count} {reason}" for reason, count in Counter(problems.values()).most_common())
    return f"{counts}; first: {next(iter(problems))}"
