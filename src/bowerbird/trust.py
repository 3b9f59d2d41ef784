"""Whose code may run: a plugin that a recipe or a run folder names is somebody's Python file.

A file is trusted when the user named it (``--plugin FILE``), allowed it (``--allow-plugin``, ``allow_plugin=True``, or
the environment variable BOWERBIRD_ALLOW_PLUGIN), or did so before and neither its path nor its content has changed
since.  What was allowed is remembered as hashes in ``$BOWERBIRD_CONFIG/trusted-plugins`` (the folder is
~/.config/bowerbird unless it is set).
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from bowerbird.errors import BowerbirdError

ENVIRONMENT = "BOWERBIRD_ALLOW_PLUGIN"
_allowed = ContextVar("plugins allowed", default=False)


@contextlib.contextmanager
def allowing(allow: bool = True) -> Iterator[None]:
    """Inside, plugins that recipes and runs name may be loaded; False leaves it as it is outside."""
    token = _allowed.set(allow or _allowed.get())
    try:
        yield
    finally:
        _allowed.reset(token)


def require(plugin: Path, where: str) -> None:
    """BowerbirdError, which names the file, unless the user trusts the plugin that ``where`` names."""
    if _allowed.get() or os.environ.get(ENVIRONMENT, "0") not in ("", "0") or _fingerprint(plugin) in _remembered():
        return
    raise BowerbirdError(
        f"{where} names the plugin {plugin}, whose code would run on this machine; read it, and if you trust it, add "
        "--allow-plugin (in Python allow_plugin=True)."
    )


def remember(plugin: Path) -> None:
    """Trusts this file at this path with this content from now on, where the user's settings can be written."""
    line = _fingerprint(plugin)
    if line in _remembered():
        return
    with contextlib.suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        with open(_file(), "a", encoding="ascii") as file:
            file.write(line + "\n")


def _fingerprint(plugin: Path) -> str:
    try:
        content = plugin.read_bytes()
    except OSError:
        return ""
    return hashlib.sha256(os.fsencode(plugin.resolve()) + b"\0" + content).hexdigest()


def _remembered() -> set[str]:
    try:
        return set(_file().read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return set()


def _file() -> Path:
    folder = os.environ.get("BOWERBIRD_CONFIG") or os.path.expanduser("~/.config/bowerbird")
    return Path(folder) / "trusted-plugins"
