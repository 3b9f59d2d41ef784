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


Compute = Callable[[slice, Progress], Tensor]
"""Features of the images in a range of rows, float32; calls its second argument as it goes."""


class FeatureSet:
    """Features of n images, computed when they are first asked for, in chunks; kept on disk if there is a ``folder``.

    ``gaussian`` holds one chunk at a time in memory; ``all`` holds everything, once.
    """

    def __init__(self, n: int, dimension: int, compute: Compute, folder: Path | None = None):
        self.n = n
        self.dimension = dimension
        self.folder = folder
        self._compute = compute
        self._all: Tensor | None = None

    @classmethod
    def of(cls, extractor: Extractor, images: UInt8[Tensor, "n c h w"], folder: Path | None = None) -> "FeatureSet":
        """Features of images in memory."""
        return cls(
            len(images),
            extractor.dimension,
            lambda rows, progress: extractor.features(images[rows], progress=progress),
            folder,
        )

    def all(self, progress: Progress = silent) -> Float[Tensor, "n d"]:
        """Every row; ``progress`` hears of all images, computed or read."""
        if self._all is None:
            self._all = torch.cat(list(self._chunks(progress)))
        else:
            progress(self.n)
        return self._all

    def gaussian(self, progress: Progress = silent) -> Gaussian:
        """The Gaussian of all rows; with at most as many rows as dimensions it keeps them."""
        if self._all is not None or self.n <= self.dimension:
            return fit_gaussian(self.all(progress))
        stored = self.folder and self.folder / "gaussian.safetensors"
        if stored:
            with suppress(OSError, SafetensorError, KeyError):
                table = load_file(stored)
                gaussian = Gaussian(self.n, table["mean"], full=table["covariance"])
                progress(self.n)
                return gaussian
        moments = Moments(self.dimension)
        for part in self._chunks(progress):
            moments.update(part)
        gaussian = moments.gaussian()
        if stored:
            table = {"mean": gaussian.mean, "covariance": gaussian.covariance}
            _write(stored, lambda path: save_file(table, path))
        return gaussian

    def _chunks(self, progress: Progress) -> Iterator[Tensor]:
        for number, start in enumerate(range(0, self.n, CHUNK)):
            rows = slice(start, min(start + CHUNK, self.n))
            path = self.folder and self.folder / f"{number:05d}.npy"
            part = _read(path, (rows.stop - start, self.dimension)) if path else None
            if part is not None:
                progress(len(part))
            else:
                part = self._compute(rows, progress)
                if path:
                    _store(path, part)
            yield part


class FeatureCache:
    """Feature sets that read from a folder, and compute and store what is missing there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, extractor: Extractor, images: UInt8[Tensor, "n c h w"]) -> Path:
        """The folder of these images' features."""
        return self.place(extractor, extractor.key(images))

    def place(self, extractor: Extractor, key: str) -> Path:
        return self.folder / "features" / f"{extractor.name}-{key}"

    def of(self, extractor: Extractor, images: UInt8[Tensor, "n c h w"]) -> FeatureSet:
        """The features of images in memory, remembered for next time."""
        return FeatureSet.of(extractor, images, self.path(extractor, images))


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
