"""Media: one folder each.  A medium opens files as examples, writes and previews what models make, names its metrics.

Importing this package imports no torch; ``open_data`` does when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bowerbird.media.opening import open_data

__all__ = ["open_data"]


def __getattr__(name: str) -> Any:
    if name == "open_data":
        return importlib.import_module("bowerbird.media.opening").open_data
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
