"""The data that ships inside the package: a pack per name, its licence beside it.  Imports neither torch nor numpy
until a pack is loaded."""

from pathlib import Path
from typing import Any

from bowerbird.data import packs

FOLDER = Path(__file__).parent


def path(name: str) -> Path:
    """The pack's file."""
    return next(FOLDER.glob(f"{name}.*.xz"))


def licence(name: str) -> Path:
    """The licence and attribution of a pack."""
    return FOLDER / f"{name}.LICENCE.txt"


def load(name: str) -> dict[str, Any]:
    """The arrays of a pack of images: ``images`` uint8 (n, h, w, c), ``split`` and label columns as strings (n,)."""
    return packs.read(path(name))
