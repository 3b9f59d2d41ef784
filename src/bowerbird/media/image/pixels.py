"""One image file → uint8 pixels of the wanted size: decode, composite, crop, resize.

Grey stays one channel, everything else becomes RGB; transparency is composited on white; 16-bit grey is divided by
257 and rounded; photographs are turned upright as their EXIF tag says; of several frames the first counts.

Then the centre is cut to the target's aspect ratio and resized by Pillow's Lanczos filter, which widens with the
reduction and so does not alias.  An image that already has the target size keeps its pixels untouched.
"""

import os
import warnings
from collections.abc import Callable, Iterable
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
    image = opened(file)
    turned = "exif" in image.info and image.getexif().get(EXIF_ORIENTATION, 1) >= 5
    return (image.width, image.height) if turned else (image.height, image.width)


def decode(file: BufferedIOBase, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 1) when the pixels are grey, else (height, width, 3)."""
    image: Image.Image = opened(file)
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
    """Packs grey (h, w, 1) and colour (h, w, 3) images into one array (n, h, w, n_channels).

    Colour to grey by luma, 0.299 R + 0.587 G + 0.114 B; grey to colour by repetition.
    """

    def converted(x: np.ndarray) -> np.ndarray:
        if x.shape[-1] == n_channels:
            return x
        if n_channels == 3:
            return np.repeat(x, 3, axis=-1)
        return np.asarray(Image.fromarray(np.ascontiguousarray(x)).convert("L"))[..., None]

    return np.stack([converted(x) for x in images])


def each_readable(names: list[str], read: Callable[[str], Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What ``read`` makes of every file, by name and in order, and the reason for each that it cannot read."""

    def attempt(name: str) -> tuple[Any, str]:
        try:
            return read(name), ""
        except (TooLarge, Image.DecompressionBombError):
            return None, "too large, perhaps a decompression bomb"
        except Exception:  # decoders answer a broken file with almost any exception
            return None, "broken or truncated"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF and palettes; the bomb warning has become TooLarge
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoders release the interpreter's lock
            answers = dict(zip(names, pool.map(attempt, names), strict=True))
    results = {name: result for name, (result, problem) in answers.items() if not problem}
    return results, {name: problem for name, (_, problem) in answers.items() if problem}
