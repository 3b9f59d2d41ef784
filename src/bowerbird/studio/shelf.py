"""The runs that there are: those that ship with the package, and every run folder below the studio's own."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bowerbird import api
from bowerbird.errors import BowerbirdError
from bowerbird.report.run import findings_of, measurement_row, merged_steps
from bowerbird.spec import Field, Spec
from bowerbird.studio.language import Gone, Refusal
from bowerbird.training import salvage
from bowerbird.training.rundir import RunDir

SHIPPED = "shipped"
"""First part of the keys of shipped runs."""
DEEPEST = 3
"""Folders below the studio's in which a run is looked for: a comparison has its own folders."""


@dataclass(frozen=True)
class Shelved:
    """One run.  ``key`` names it in addresses; it never becomes a path by itself."""

    key: str
    folder: Path
    settings: Mapping[str, Any] = field(repr=False)
    """What run.toml says, as ``salvage.settings`` reads it."""

    @property
    def title(self) -> str:
        return str(self.settings.get("title") or self.name)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def family(self) -> str:
        return str(self.settings["model"].get("family", ""))

    @property
    def source(self) -> str:
        return str(self.settings["data"].get("source", ""))

    @property
    def shipped(self) -> bool:
        return self.key.startswith(f"{SHIPPED}/")

    @property
    def ready(self) -> bool:
        """Whether it holds a model that can be used."""
        return (self.folder / "model.safetensors").is_file()

    @cached_property
    def spec(self) -> Spec:
        """What its model makes, and from what; BowerbirdError if it holds none."""
        folder = RunDir.open(self.folder)
        if not self.ready:
            raise Refusal("refused.no_model", run=self.key)
        return folder.spec_of(folder.model_file)

    @cached_property
    def inputs(self) -> dict[str, Field]:
        return api.inputs_of(self.folder)

    @property
    def medium(self) -> str:
        try:
            return self.spec.medium
        except BowerbirdError:
            return ""

    def status(self) -> dict[str, Any]:
        """Counters of the last checkpoint; empty before the first."""
        with contextlib.suppress(OSError, BowerbirdError):
            return RunDir(self.folder).status()
        return {}

    def steps(self) -> list[dict[str, Any]]:
        """The logged steps in order."""
        with contextlib.suppress(OSError):
            return merged_steps(RunDir(self.folder).metrics())
        return []

    def findings(self) -> list[dict[str, Any]]:
        with contextlib.suppress(OSError):
            return findings_of(self.folder)
        return []

    def measurements(self) -> list[dict[str, Any]]:
        """What was measured of it, as reports show it."""
        found = salvage.objects(salvage.json_object(self.folder / "measurements.json").get("measurements"))
        rows: list[dict[str, Any]] = []
        for one in found:
            with contextlib.suppress(TypeError, ValueError, KeyError, AttributeError, BowerbirdError):
                rows.append(measurement_row(one))
        return rows

    def previews(self) -> dict[int, Path]:
        """What was previewed while it trained, by step."""
        files = sorted((self.folder / "samples").glob("step-*.*"))
        return {
            int(file.stem[5:]): file for file in files if file.stem[5:].isdigit() and file.suffix in (".png", ".txt")
        }

    def written(self) -> float:
        """When it last wrote something, in seconds."""
        times = [(self.folder / name) for name in ("metrics.jsonl", "model.safetensors", "run.toml")]
        return max((path.stat().st_mtime for path in times if path.is_file()), default=0.0)


class Shelf:
    """Finds runs.  Nothing is remembered: a run that is deleted is gone at the next look."""

    def __init__(self, folder: Path, shipped: Mapping[str, Path]):
        self.folder, self.shipped = folder, dict(shipped)
        self.starting: dict[str, Shelved] = {}
        """Runs whose training has begun but has not made their folder yet, or failed before."""

    def all(self) -> list[Shelved]:
        """Those of the folder, the latest first."""
        found = [self._shelved(path.parent) for path in self._found()]
        return sorted((run for run in found if run), key=lambda run: -run.written())

    def get(self, key: str) -> Shelved:
        """BowerbirdError if there is no such run, or no longer."""
        first, _, name = key.partition("/")
        if first == SHIPPED and name in self.shipped:
            return Shelved(key, self.shipped[name], salvage.settings(self.shipped[name] / "run.toml"))
        for path in self._found():
            if path.parent.relative_to(self.folder).as_posix() == key:
                self.starting.pop(key, None)
                return self._shelved(path.parent) or _gone(key)
        return self.starting.get(key) or _gone(key)

    def at_once(self, name: str) -> Shelved | None:
        """A shipped run; None where the package has none of this name."""
        return self.get(f"{SHIPPED}/{name}") if name in self.shipped else None

    def by_name(self, sentence: str) -> str:
        """A sentence with the names of runs in place of the paths of their folders, which are nobody's business."""
        for name, folder in self.shipped.items():
            sentence = sentence.replace(str(folder), name)
        for folder in (self.folder, self.folder.resolve()):
            sentence = sentence.replace(f"{folder}{os.sep}", "")
        return sentence

    def _found(self) -> list[Path]:
        patterns = ["/".join(["*"] * depth + ["run.toml"]) for depth in range(1, DEEPEST + 1)]
        return [path for pattern in patterns for path in self.folder.glob(pattern)]

    def _shelved(self, folder: Path) -> Shelved | None:
        with contextlib.suppress(OSError):
            return Shelved(folder.relative_to(self.folder).as_posix(), folder, salvage.settings(folder / "run.toml"))
        return None


def _gone(key: str) -> Shelved:
    raise Gone("gone.run", run=key)
