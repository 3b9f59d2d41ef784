"""Train, measure and compare generative models from Python: the verbs of the command line, under the same names.

    import bowerbird
    run = bowerbird.train(bowerbird.config.load("flow"), "runs/flow")
    bowerbird.sample(run, n=64)
    model = bowerbird.load(run)

Nothing heavy is loaded before the first verb is used.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bowerbird.errors import BowerbirdError, RunFailed

if TYPE_CHECKING:
    from bowerbird import config
    from bowerbird.api import (
        ask,
        chat,
        compare,
        diagnose,
        edit,
        export,
        generate,
        import_model,
        info,
        load,
        measure,
        read,
        resume,
        sample,
        say,
        stylise,
        train,
        verify,
    )
    from bowerbird.config import recipe, recipes
    from bowerbird.reading.check import check
    from bowerbird.reading.history.track import track
    from bowerbird.reading.learn.learning import learn

__version__ = "0.1.0"

__all__ = [
    "BowerbirdError",
    "RunFailed",
    "ask",
    "chat",
    "check",
    "compare",
    "config",
    "diagnose",
    "edit",
    "export",
    "generate",
    "import_model",
    "info",
    "learn",
    "load",
    "measure",
    "read",
    "recipe",
    "recipes",
    "resume",
    "sample",
    "say",
    "stylise",
    "track",
    "train",
    "verify",
]

_WHERE = {
    "bowerbird.api": (
        "ask",
        "chat",
        "compare",
        "diagnose",
        "edit",
        "export",
        "generate",
        "import_model",
        "info",
        "load",
        "measure",
        "read",
        "resume",
        "sample",
        "say",
        "stylise",
        "train",
        "verify",
    ),
    "bowerbird.config": ("recipe", "recipes"),
    "bowerbird.reading.check": ("check",),
    "bowerbird.reading.history.track": ("track",),
    "bowerbird.reading.learn.learning": ("learn",),
}
_VERBS = {verb: module for module, verbs in _WHERE.items() for verb in verbs}


def __getattr__(name: str) -> Any:
    if name == "config":
        return importlib.import_module("bowerbird.config")
    if name not in _VERBS:
        raise AttributeError(f"module 'bowerbird' has no attribute '{name}'")
    return getattr(importlib.import_module(_VERBS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps its verbs: importing ``bowerbird.export`` would put the subpackage in the place of the verb."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _VERBS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
