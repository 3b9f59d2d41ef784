"""Data: where examples come from, in which order they are seen, and what shape they have.

Importing this package imports no torch, so that the data sets can be listed quickly; ``open_data`` does when it is
first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bowerbird.data.images import ImageData, ImageSet, open_data

__all__ = ["ImageData", "ImageSet", "open_data"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("bowerbird.data.images"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
