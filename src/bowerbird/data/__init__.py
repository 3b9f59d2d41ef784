"""Data: where examples come from, in which order they are seen, and what shape they have.

Importing this package imports no torch, so that the data sets can be listed quickly; ``open_data`` does when it is
first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bowerbird.data.images import ImageData, ImageSet
    from bowerbird.data.opening import open_data
    from bowerbird.data.tokens import TokenData, TokenSet

__all__ = ["ImageData", "ImageSet", "TokenData", "TokenSet", "open_data"]

_WHERE = {
    "ImageData": "images",
    "ImageSet": "images",
    "TokenData": "tokens",
    "TokenSet": "tokens",
    "open_data": "opening",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"bowerbird.data.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
