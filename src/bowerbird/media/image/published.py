"""Fetched image sets in the formats of those who published them.

A reader takes the folder of the files and returns the parts of the set: the official split, its images (n, h, w, c)
uint8, and the name of each image's class.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Part = tuple[str, np.ndarray, np.ndarray]

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The classes in the order of their numbers."""


def mnist(folder: Path) -> list[Part]:
    """The four files of MNIST."""
    parts = []
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = _idx(folder / f"{prefix}-images-idx3-ubyte")[..., None]
        parts.append((split, images, _idx(folder / f"{prefix}-labels-idx1-ubyte").astype(str)))
    return parts


def _idx(path: Path) -> np.ndarray:
    """Bytes after a header: two zeros, the type, the number of axes, then each axis as a big-endian uint32."""
    raw = np.fromfile(path, np.uint8)
    header = 4 + 4 * int(raw[3])
    return raw[header:].reshape(raw[4:header].view(">u4").tolist())


def cifar10(folder: Path) -> list[Part]:
    """Six lossless PNG files in which every row of pixels is one 32×32 image, read row by row, with lists of labels."""
    parts = []
    for split, batches in (("train", [f"data_batch_{i}" for i in range(1, 6)]), ("test", ["test_batch"])):
        pixels = np.concatenate([np.asarray(Image.open(folder / f"{batch}.png")) for batch in batches])
        numbers = json.loads((folder / f"{split}_lables.json").read_text(encoding="utf-8"))  # spelt so by its publisher
        parts.append((split, pixels.reshape(-1, 32, 32, 3), np.array(CIFAR10)[numbers]))
    return parts


READERS: dict[str, Callable[[Path], list[Part]]] = {"mnist": mnist, "cifar10": cifar10}
