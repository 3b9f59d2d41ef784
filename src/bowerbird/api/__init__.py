"""The verbs of Bowerbird: the only door for the command line, the server and notebooks.

import bowerbird
run = bowerbird.train("flow", data="photos", budget="10m")
bowerbird.sample(run, n=64)
bowerbird.measure(run)
"""

from typing import TYPE_CHECKING, Any

from bowerbird import machine
from bowerbird.api.exchange import export, exports_of, import_model, verify
from bowerbird.api.judging import compare, diagnose, measure, self_test
from bowerbird.api.programs import ask, conversation, mcp, read
from bowerbird.api.sampling import (
    actions_of,
    chat,
    edit,
    generate,
    inputs_of,
    labeller,
    load,
    options_of,
    sample,
    say,
    stylise,
)
from bowerbird.api.training import find_lr, resume, train

if TYPE_CHECKING:
    from bowerbird.reading.check import check
    from bowerbird.reading.history.track import track

__all__ = [
    "actions_of",
    "ask",
    "chat",
    "check",
    "compare",
    "conversation",
    "diagnose",
    "edit",
    "export",
    "exports_of",
    "find_lr",
    "generate",
    "import_model",
    "info",
    "inputs_of",
    "labeller",
    "load",
    "mcp",
    "measure",
    "options_of",
    "read",
    "resume",
    "sample",
    "say",
    "self_test",
    "stylise",
    "track",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    """``check`` and ``track`` are those of the reading room, which is entered when it is needed."""
    if name == "check":
        from bowerbird.reading.check import check

        return check
    if name == "track":
        from bowerbird.reading.history.track import track

        return track
    raise AttributeError(f"module 'bowerbird.api' has no attribute '{name}'")


def info() -> dict[str, Any]:
    """This machine: processor, memory, accelerator, and whether bf16 is faster here."""
    return machine.describe()
