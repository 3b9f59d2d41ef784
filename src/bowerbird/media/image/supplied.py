"""Pictures that a user supplies for a model to start from: files, folders, or arrays, resized to fit."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from bowerbird.data import files
from bowerbird.data.files import opener
from bowerbird.data.kinds import SUFFIXES, is_zip
from bowerbird.data.listing import image_files
from bowerbird.eightbit import to_float
from bowerbird.errors import BowerbirdError
from bowerbird.media.image import pixels

MIDDLE = 128
"""Of 8 bits: where black ends and white begins."""


def supplied(sources: list[Any], shape: tuple[int, ...]) -> tuple[Float[Tensor, "n c h w"], list[str]]:
    """Pictures in [-1, 1] of this shape, and the names of their files without suffix (none for arrays).

    Each source is a uint8 array (h, w, c), a file, a folder or a zip.  A warning says what was resized;
    BowerbirdError for what cannot be read.
    """
    if all(isinstance(one, np.ndarray) for one in sources):
        return _fitted([np.atleast_3d(one) for one in sources], shape), []
    arrays: list[np.ndarray] = []
    names: list[str] = []
    for one in sources:
        found = as_stored(Path(one).expanduser())
        arrays += found.values()
        names += [str(Path(name).with_suffix("")) for name in found]
    return _fitted(arrays, shape), names


def exact(sources: list[Any], shape: tuple[int, ...]) -> tuple[UInt8[np.ndarray, "n c h w"], list[str]]:
    """Pictures as they are, for what must give them back to the last bit: nothing is resized or converted.

    BowerbirdError names the first that has another size, or pixels of another kind.
    """
    if all(isinstance(one, np.ndarray) for one in sources):
        arrays, names = [np.atleast_3d(one) for one in sources], []
    else:
        paths = [path for one in sources for path in _files(Path(one).expanduser())]
        arrays, names = [_pixels(path, shape[0]) for path in paths], [path.stem for path in paths]
    channels, height, width = shape
    for i, one in enumerate(arrays):
        if one.shape != (height, width, channels):
            size = f"{one.shape[1]}x{one.shape[0]} with {one.shape[2]} channel(s)"
            raise BowerbirdError(
                f"{names[i] if names else f'Picture {i}'} is {size}; this run takes exactly {width}x{height} with "
                f"{channels}, because a resized picture could not be given back as it was."
            )
    return np.stack(arrays).transpose(0, 3, 1, 2).copy(), names


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise BowerbirdError(f"The source {path} does not exist; give a picture or a folder of pictures.")
    if path.is_file():
        return [path]
    if not (names := image_files(files.Folder(path)).names):
        raise BowerbirdError(f"{path} holds no pictures ({', '.join(SUFFIXES)}).")
    return [path / name for name in names]


def _pixels(path: Path, channels: int) -> UInt8[np.ndarray, "h w c"]:
    try:
        with Image.open(path) as image:
            kept = {1: ("1", "L"), 3: ("RGB", "P") if "transparency" not in image.info else ("RGB",)}[channels]
            if image.mode not in kept:
                raise BowerbirdError(
                    f"{path} has pixels of the kind {image.mode}, which cannot be given back exactly by a run of "
                    f"{'grey' if channels == 1 else 'colour'} pictures of 8 bits; convert it."
                )
            return np.atleast_3d(np.asarray(image.convert("L" if channels == 1 else "RGB")))
    except (OSError, SyntaxError, ValueError) as error:
        raise BowerbirdError(f"{path} cannot be read as a picture: it is damaged or of an unknown kind.") from error


def as_stored(path: Path) -> dict[str, np.ndarray]:
    """A picture, or those of a folder or zip, by name: uint8 (h, w, 1 or 3) in their own sizes."""
    if not path.exists():
        raise BowerbirdError(f"The source {path} does not exist; give a picture or a folder of pictures.")
    single = path.is_file() and not is_zip(path)
    where = files.Folder(path.parent) if single else files.open_files(path)
    names = [path.name] if single else image_files(where).names
    if not names:
        raise BowerbirdError(f"{path} holds no pictures ({', '.join(SUFFIXES)}).")
    ranges = pixels.Ranges(names, partial(opener, where))
    found, problems = pixels.each_readable(names, opener(where, partial(pixels.as_stored, ranges=ranges)))
    if problems:
        name, why = next(iter(problems.items()))
        raise BowerbirdError(f"{path if single else path / name} cannot be read as a picture: it is {why}.")
    for said in pixels.described(ranges, pixels.each_readable(names, opener(where, pixels.header))[0]):
        warnings.warn(f"{path.name}: {said}.", stacklevel=5)
    return found


def _fitted(arrays: list[np.ndarray], shape: tuple[int, ...]) -> Float[Tensor, "n c h w"]:
    channels, height, width = shape
    if channels == 1 and any(one.shape[2] == 3 for one in arrays):
        raise BowerbirdError(
            "A source is in colour (3 channels), but this run takes grey pictures (1 channel); convert it."
        )
    other = {one.shape[:2] for one in arrays} - {(height, width)}
    if other:
        example = "{1}x{0}".format(*sorted(other)[0])
        n = sum(one.shape[:2] != (height, width) for one in arrays)
        warnings.warn(
            f"{n} of {len(arrays)} pictures were centre-cropped and resized to {width}x{height}, one from {example}.",
            stacklevel=4,
        )
    one_size = [pixels.fit_array(one[None], height, width)[0] for one in arrays]
    return to_float(torch.from_numpy(pixels.with_channels(one_size, channels).transpose(0, 3, 1, 2).copy()))


def mask_from(given: Path | str | np.ndarray, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """Where the picture of a mask is white, or transparent if it has any transparency; an array (h, w) says it itself.

    BowerbirdError for a mask of another size or one that cannot be read.
    """
    marked = given if isinstance(given, np.ndarray) else _marked(Path(given).expanduser())
    if marked.shape != (height, width):
        found = "x".join(map(str, reversed(marked.shape)))
        raise BowerbirdError(f"The mask is {found} pixels, but the pictures are {width}x{height}; make both alike.")
    return marked.astype(bool)


def _marked(path: Path) -> Bool[np.ndarray, "h w"]:
    if not path.is_file():
        raise BowerbirdError(f"The mask {path} does not exist; give a picture.")
    try:
        with open(path, "rb") as file:
            return covered(pixels.opened(file))
    except Exception as error:  # decoders answer a broken file with almost any exception
        raise BowerbirdError(f"The mask {path} cannot be read as a picture: it is {pixels.problem(error)}.") from error


def covered(mask: Image.Image) -> Bool[np.ndarray, "h w"]:
    """Where it is transparent, if it has any transparency, else where it is white."""
    if mask.has_transparency_data:
        return np.asarray(mask.convert("RGBA"))[..., 3] < MIDDLE
    return np.asarray(pixels.flatten(mask).convert("L")) >= MIDDLE
