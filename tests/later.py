"""Large modules of others, loaded where a test first asks them for something: each worker imports every test file."""

from importlib import import_module
from typing import Any


class later:
    """The module of this name, which is imported when it is first asked for an attribute."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # which pytest asks of everything that a test file holds
            raise AttributeError(attribute)
        return getattr(import_module(self._name), attribute)
