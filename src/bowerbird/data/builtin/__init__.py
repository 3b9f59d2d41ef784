"""The data that ships inside the package: a pack per name, its licence beside it.  Imports neither torch nor numpy
until a pack is loaded."""

import io
import lzma
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def path(name: str) -> Path:
    """The pack's file."""
    return next(FOLDER.glob(f"{name}.*.xz"))


def licence(name: str) -> Path:
    """The licence and attribution of a pack."""
    return FOLDER / f"{name}.LICENCE.txt"


def load(name: str) -> dict[str, Any]:
    """The arrays of a pack of images: ``images`` uint8 (n, h, w, c), ``split`` and label columns as strings (n,)."""
    import numpy as np

    with np.load(io.BytesIO(lzma.decompress(path(name).read_bytes())), allow_pickle=False) as pack:
        return {key: pack[key] for key in pack.files}
