"""Names for everything that can be chosen: families, networks, media and metrics.

Built-in names are stored as ``module:attribute`` and imported when first asked for, so that listing them imports no
torch.  Other packages add theirs through entry points, single files through ``--plugin FILE`` and the decorator
``@families.register("name")``.
"""

import importlib
import importlib.util
import pkgutil
import sys
import threading
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar

from bowerbird import trust
from bowerbird.errors import BowerbirdError, unknown

C = TypeVar("C", bound=type)


class Registry:
    """A table from names to configuration classes."""

    def __init__(self, kind: str, group: str, builtin: dict[str, str]):
        """``builtin``: where each name is, as ``module:attribute``, or as a module that registers it when imported."""
        self.kind = kind
        self._where = builtin | {entry.name: entry.value for entry in entry_points(group=group)}
        self._classes: dict[str, type] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator: makes the class known as ``name`` for the rest of this process."""

        def add(cls: C) -> C:
            self._classes[name] = cls
            return cls

        return add

    def names(self) -> list[str]:
        return sorted(self._where.keys() | self._classes.keys())

    def get(self, name: str) -> type:
        if name not in self._classes:
            if name not in self._where:
                raise unknown(self.kind, name, self.names())
            module, _, attribute = self._where[name].partition(":")
            imported = importlib.import_module(module)
            if attribute:
                self._classes[name] = getattr(imported, attribute)
        return self._classes[name]

    def find(self, cls: type) -> str | None:
        """The name under which ``cls`` is registered, or None."""
        named = (name for name, known in self._classes.items() if known is cls)
        where = f"{cls.__module__}:{cls.__qualname__}"
        return next(named, None) or next((name for name, place in self._where.items() if place == where), None)

    def name_of(self, cls: type) -> str:
        """The name under which ``cls`` is registered; BowerbirdError if it is not."""
        if (name := self.find(cls)) is not None:
            return name
        raise BowerbirdError(f"{cls.__name__} is not a registered {self.kind}; decorate it with @register('name').")


def _files(package: str, registry: str) -> dict[str, str]:
    """The files of a package that register something; each is named after what it registers."""
    found = Path(__file__).parent.joinpath(package).glob("*.py")
    mark = f"@{registry}.register("
    return {path.stem: f"bowerbird.{package}.{path.stem}" for path in found if mark in path.read_text(encoding="utf-8")}


class FolderRegistry(Registry):
    """A registry whose built-in classes are those that the modules of one package register when they are imported.

    They are imported when a name is first asked for, in alphabetical order, and listed in the order of their files.
    What a class is registered as becomes its ``name``.
    """

    def __init__(self, kind: str, group: str, package: str):
        super().__init__(kind, group, {})
        self._package = package
        self._found = False
        self._finding = threading.RLock()

    def register(self, name: str) -> Callable[[C], C]:
        """As that of every registry; a name that another module has taken is refused."""
        self._find()

        def add(cls: C) -> C:
            taken = self._classes.get(name)
            if taken is not None and taken.__module__ != cls.__module__:
                raise BowerbirdError(f"There is a {self.kind} '{name}' already; give yours another name.")
            type.__setattr__(cls, "name", name)
            self._classes[name] = cls
            return cls

        return add

    def names(self) -> list[str]:
        """The built-in ones first, each file's in its order."""
        added = set(self.added())
        return [*(name for name in self._classes if name not in added), *self.added()]

    def added(self) -> list[str]:
        """Those of plugins and other packages."""
        self._find()
        ours = f"{self._package}."
        loaded = [name for name, known in self._classes.items() if not known.__module__.startswith(ours)]
        return [*loaded, *sorted(self._where.keys() - self._classes.keys())]

    def get(self, name: str) -> type:
        self._find()
        if name in self._classes:
            return self._classes[name]
        return self.register(name)(super().get(name))  # of an entry point, whose module need not register it

    def _find(self) -> None:
        with self._finding:  # of another thread the names wait until all are there
            if not self._found:
                self._found = True
                for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
                    importlib.import_module(f"{self._package}.{module.name}")


def _folders(package: str) -> dict[str, str]:
    """Every folder of a package registers what it is named after."""
    found = Path(__file__).parent.joinpath(package).glob("*/__init__.py")
    return {path.parent.name: f"bowerbird.{package}.{path.parent.name}" for path in found}


families = Registry("family", "bowerbird.families", _files("models", "families"))
nets = Registry("net", "bowerbird.nets", _files("nets", "nets"))
exports = Registry("export format", "bowerbird.exports", _files("export", "exports"))
actions = Registry("action", "bowerbird.actions", _files("editing", "actions"))
media = Registry("medium", "bowerbird.media", _folders("media"))

metrics = FolderRegistry("metric", "bowerbird.metrics", "bowerbird.measuring.shipped")


def load_plugin(path: Path, named_by: str = "") -> None:
    """Runs a Python file once, so that what it registers can be named.

    ``named_by`` is the recipe or run.toml that names it, which is not enough for its code to run: BowerbirdError unless
    the user trusts the file (see ``trust``).  Without it, the user named the file, and trusts it from now on.
    """
    path = Path(path).resolve()
    name = f"bowerbird_plugin_{path.stem}"
    if name in sys.modules and Path(str(sys.modules[name].__file__)) == path:
        return
    if not path.is_file():
        named = f", which {named_by} names," if named_by else ""
        raise BowerbirdError(f"The plugin file {path}{named} does not exist.")
    if named_by:
        trust.require(path, named_by)
    trust.remember(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BowerbirdError(f"The plugin {path} is not a Python file (its name must end in .py).")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BowerbirdError(f"The plugin {path} could not be loaded: {type(error).__name__}: {error}.") from error
