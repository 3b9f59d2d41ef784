"""Features of reference images on disk: computed once per extractor and set of images, continued after interruption.

Layout, under the cache folder:

    features/<extractor>-<key>/00000.npy, 00001.npy …   float32, 1,000 rows each (the last: fewer), in order
    features/<extractor>-<key>/gaussian.safetensors     float64 ``mean`` (d) and ``covariance`` (d, d) of all rows

``key`` is ``Extractor.key(images)``: a hash of the weights, the resizer, the arithmetic and the pixels themselves, so a
cached file can be old but never wrong.  A file that is unreadable or of another shape is computed again; a cache that
cannot be written costs time, but is no error.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bowerbird.metrics.features import Extractor, Progress, silent
from bowerbird.metrics.frechet import Gaussian, Moments, fit_gaussian

CHUNK = 1000
"""Images per file."""


class FeatureCache:
    """Reads features from a folder, and computes and stores those that are missing."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, extractor: Extractor, images: UInt8[Tensor, "n c h w"]) -> Path:
        """The folder of these images' features."""
        return self.folder / "features" / f"{extractor.name}-{extractor.key(images)}"

    def features(
        self, extractor: Extractor, images: UInt8[Tensor, "n c h w"], *, progress: Progress = silent
    ) -> Float[Tensor, "n d"]:
        """``extractor.features(images)``; ``progress`` hears of all images, computed or read."""
        return torch.cat(list(self._chunks(extractor, images, self.path(extractor, images), progress)))

    def gaussian(
        self, extractor: Extractor, images: UInt8[Tensor, "n c h w"], *, progress: Progress = silent
    ) -> Gaussian:
        """The Gaussian of these images' features, without holding all of them in memory."""
        if len(images) <= extractor.dimension:
            return fit_gaussian(self.features(extractor, images, progress=progress))
        folder = self.path(extractor, images)
        stored = folder / "gaussian.safetensors"
        with suppress(OSError, SafetensorError, KeyError):
            table = load_file(stored)
            gaussian = Gaussian(len(images), table["mean"], full=table["covariance"])
            progress(len(images))
            return gaussian
        moments = Moments(extractor.dimension)
        for part in self._chunks(extractor, images, folder, progress):
            moments.update(part)
        gaussian = moments.gaussian()
        table = {"mean": gaussian.mean, "covariance": gaussian.covariance}
        _write(stored, lambda path: save_file(table, path))
        return gaussian

    def _chunks(self, extractor: Extractor, images: Tensor, folder: Path, progress: Progress) -> Iterator[Tensor]:
        for number, images_here in enumerate(images.split(CHUNK)):
            path = folder / f"{number:05d}.npy"
            part = _read(path, (len(images_here), extractor.dimension))
            if part is None:
                part = extractor.features(images_here, progress=progress)
                _store(path, part)
            else:
                progress(len(images_here))
            yield part


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(array) if array.shape == shape and array.dtype == np.float32 else None


def _store(path: Path, features: Tensor) -> None:
    def save(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.save(file, features.numpy(), allow_pickle=False)

    _write(path, save)


def _write(path: Path, save: Callable[[Path], None]) -> None:
    """Saves under a temporary name and renames, so that a reader never sees half a file."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError):
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
