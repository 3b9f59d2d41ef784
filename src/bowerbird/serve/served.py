"""A run that is served: its model in memory, loaded again when the file in its folder changes."""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bowerbird import api
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import GenerativeModel, Joins
from bowerbird.spec import Spec, Tensors, Tokens

LOG = logging.getLogger("bowerbird.serve")
LOOK_EVERY_S = 1.0
"""Seconds between looks at the file of a model."""


class Served:
    """A run folder under the name that clients know it by."""

    def __init__(self, name: str, folder: Path | str, device: str = "auto", *, allow_plugin: bool = False):
        self.name, self.folder, self.device = name, Path(folder), device
        self.stamp = self._stamp()
        self.model: GenerativeModel = api.load(self.folder, device, allow_plugin=allow_plugin)
        self.labeller = api.labeller(self.folder)
        self.loaded_at = time.time()
        self._looked = time.monotonic()

    @property
    def spec(self) -> Spec:
        return self.model.spec

    @property
    def options(self) -> type:
        """The dataclass of its sampling options."""
        return self.model.Options

    @property
    def joins(self) -> bool:
        """Whether its samples are sequences that join others under way."""
        return isinstance(self.model, Joins) and isinstance(self.spec.target, Tokens)

    @property
    def pixels(self) -> int:
        """Pixels of a sample; 0 where it is no picture."""
        target = self.spec.target
        return target.shape[-1] * target.shape[-2] if isinstance(target, Tensors) and len(target.shape) > 1 else 0

    def _stamp(self) -> tuple[int, int, int]:
        """Changes whenever the model's file is replaced; a folder that is gone keeps the last."""
        try:
            state = os.stat(self.folder / "model.safetensors")
        except OSError:
            return getattr(self, "stamp", (0, 0, 0))
        return state.st_mtime_ns, state.st_size, state.st_ino

    def changed(self) -> bool:
        """Whether the file is another than was loaded; looks at most every ``LOOK_EVERY_S``."""
        if time.monotonic() - self._looked < LOOK_EVERY_S:
            return False
        self._looked = time.monotonic()
        return self._stamp() != self.stamp

    def reload(self) -> None:
        """Takes the model that is in the folder now; one that cannot be loaded leaves the old one in use."""
        self.stamp = self._stamp()
        try:
            self.model, self.labeller = api.load(self.folder, self.device), api.labeller(self.folder)
        except (BowerbirdError, OSError) as error:
            LOG.warning("reload failed", extra={"run": self.name, "error": type(error).__name__})
            return
        self.loaded_at = time.time()
        LOG.info("reloaded", extra={"run": self.name})

    def about(self) -> Mapping[str, Any]:
        """What samples say about where they come from: a name, never a path."""
        return {"generated_by": self.name}


def named(runs: list[str]) -> dict[str, Path]:
    """Folders by the names that clients use: FOLDER, or NAME=FOLDER; BowerbirdError where two have one name."""
    found: dict[str, Path] = {}
    for word in runs:
        name, equals, folder = word.partition("=")
        name, path = (
            (name, Path(folder)) if equals and not Path(word).exists() else (Path(word).resolve().name, Path(word))
        )
        if name in found:
            raise BowerbirdError(f"Two runs are named {name}; give one of them another name: OTHER={path}.")
        found[name] = path
    return found
