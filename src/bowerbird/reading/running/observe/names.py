"""Finds the user's own names for live objects: the variables that hold them."""

import sys
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any

from torch import nn

from bowerbird.reading.running.recorder import Recorder


class Names:
    """Names of modules and optimisers by identity, and every module that was created with its place."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.created: list[tuple[nn.Module, str, int | None]] = []
        self.namespaces: list[dict[str, Any]] = []
        self._parents: dict[int, tuple[nn.Module, str]] = {}
        self._known: dict[int, tuple[str, weakref.ref[Any]]] = {}
        self._final: set[int] = set()
        self._counted = -1

    def forget_after(self, count: int) -> None:
        """Forgets all modules but the first ``count``: those of an attempt that led nowhere."""
        for module, _, _ in self.created[count:]:
            self._known.pop(id(module), None)
        del self.created[count:]

    def modules(self) -> list[nn.Module]:
        """Every module that the program made, in order of creation; they are kept alive, so that they can be judged."""
        return [module for module, _, _ in self.created]

    def place(self, module: nn.Module) -> tuple[str, int | None]:
        """File and line at which a module was created."""
        return next(((file, line) for made, file, line in self.created if made is module), ("", None))

    def parent(self, module: nn.Module) -> tuple[nn.Module, str] | None:
        """The module that holds this one, and under which name."""
        if id(module) not in self._parents or self._counted != len(self.created):
            self._counted = len(self.created)
            self._parents = {
                id(child): (holder, name)
                for holder in self.modules()
                for name, child in getattr(holder, "_modules", {}).items()
                if child is not None
            }
        return self._parents.get(id(module))

    def root(self, module: nn.Module) -> tuple[nn.Module, str]:
        """The outermost module around this one, and the path to it."""
        path: list[str] = []
        seen = {id(module)}
        while (found := self.parent(module)) is not None and id(found[0]) not in seen:
            module = found[0]
            seen.add(id(module))
            path.insert(0, found[1])
        return module, ".".join(path)

    def of_module(self, module: nn.Module) -> str:
        """``generator`` or ``generator.model.0``: the root's name and the path."""
        root, path = self.root(module)
        name = self.of(root)
        return f"{name}.{path}" if path else name

    def of(self, thing: Any) -> str:
        """The user's name for an object: a global before a local, the outermost local first, else its class."""
        known = self._known.get(id(thing))
        if known is not None and known[1]() is thing and id(thing) in self._final:
            return known[0]
        found = self._search(thing)
        if found is None and known is not None and known[1]() is thing:
            return known[0]
        name = self._unique(found or type(thing).__name__, thing)
        try:
            self._known[id(thing)] = (name, weakref.ref(thing))
            if found:
                self._final.add(id(thing))
        except TypeError:
            pass
        return name

    def _unique(self, name: str, thing: Any) -> str:
        taken = {n for key, (n, ref) in self._known.items() if key != id(thing) and ref() is not None}
        number, candidate = 2, name
        while candidate in taken:
            candidate, number = f"{name}#{number}", number + 1
        return candidate

    def _search(self, thing: Any) -> str | None:
        spaces = [*self.namespaces, *reversed(list(self._frames()))]
        for space in spaces:
            for name, value in list(space.items()):
                if value is thing and name != "self" and not name.startswith("__"):
                    return name
        for space in spaces:
            for name, value in list(space.items()):
                if name.startswith("__"):
                    continue
                found = _inside(value, thing)
                if found:
                    return f"{name}{found}"
        return None

    def _frames(self) -> Iterator[dict[str, Any]]:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if self.recorder.is_user_code(frame.f_code) and frame.f_code.co_name != "__init__":
                yield frame.f_locals
            elif self.recorder.is_user_code(frame.f_code):
                yield {k: v for k, v in frame.f_locals.items() if not isinstance(frame.f_locals.get("self"), nn.Module)}
            frame = frame.f_back


def _inside(value: Any, thing: Any) -> str | None:
    if isinstance(value, list | tuple):
        return next((f"[{i}]" for i, entry in enumerate(value[:32]) if entry is thing), None)
    if isinstance(value, dict):
        return next((f"[{key!r}]" for key, entry in list(value.items())[:32] if entry is thing), None)
    if isinstance(value, nn.Module) or isinstance(value, type) or type(value).__module__ in ("builtins", "torch"):
        return None
    attributes = getattr(value, "__dict__", None)
    if not isinstance(attributes, dict) or len(attributes) > 64:
        return None
    return next((f".{name}" for name, entry in list(attributes.items()) if entry is thing), None)
