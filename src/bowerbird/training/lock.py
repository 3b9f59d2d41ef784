"""One writer per run folder: a second trainer is refused and told the host and the process of the first.

The operating system's lock on the file ``.lock`` decides.  The system gives it up when its holder dies, by ``kill -9``
too, and over NFS it holds between hosts.  Where the file system knows no locks, the file's content decides: a holder on
this host whose process is gone is stale; a holder on another host is believed.
"""

import contextlib
import errno
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from bowerbird.errors import BowerbirdError

fcntl: ModuleType | None
msvcrt: ModuleType | None
try:
    import fcntl
except ImportError:
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

NAME = ".lock"
_PART = re.compile(r"\..+\.(\d+)\.part")
_TEMPORARY = re.compile(r"\.tmp\w{6}")
"""What safetensors writes to before it renames the file; whoever holds the lock is the only one to write any."""
_FAR = 1 << 30
"""Windows lets nobody read a byte that is locked, so it is one far behind the holder's name."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other trainer writes to the folder; BowerbirdError with the name of the one that does."""
    path = folder / NAME
    file = _acquired(path)
    try:
        _write(file, {"host": socket.gethostname(), "pid": os.getpid()})
        yield
    finally:
        _write(file, {})
        with contextlib.suppress(OSError):  # Windows deletes no open file: it stays, empty
            path.unlink()
        file.close()


def sweep(folder: Path) -> None:
    """Deletes the unfinished files that killed writers on this host have left; to be called by the lock's holder."""
    for place in (folder, folder / "state", folder / "samples"):
        for path in place.glob(".*"):
            part = _PART.fullmatch(path.name)
            if (part and not _alive(int(part[1]))) or _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)


def ours(path: Path) -> bool:
    """Whether a file is one that a killed trainer leaves in a folder that does not hold a run yet."""
    return path.name == NAME or bool(_PART.fullmatch(path.name))


def _acquired(path: Path) -> IO[str]:
    """The file, which is ours now; another one may have been put in its place before we had it."""
    while True:
        file = _opened(path)
        if _taken(file):
            holder = _holder(file)
            file.close()
            raise BowerbirdError(
                f"{path.parent} is being written by {holder}; wait until it ends, or stop it. If it no longer runs, "
                f"delete {path}."
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()


def _opened(path: Path) -> IO[str]:
    try:
        return open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="utf-8", errors="replace")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BowerbirdError(f"{path.parent} cannot be written to: {error.strerror}.") from error


def _taken(file: IO[str]) -> bool:
    """Whether another process holds the file; if not, this one does now."""
    free = _lock(file)
    if free is not None:
        return not free
    holder = _read(file)
    if not holder:
        return False
    return holder.get("host") != socket.gethostname() or (holder.get("pid") != os.getpid() and _alive(holder["pid"]))


def _lock(file: IO[str]) -> bool | None:
    """Whether the system gave us its lock; None where it has none to give."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            file.seek(_FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            return None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        return None
    return True


def _holder(file: IO[str]) -> str:
    holder = _read(file)
    here = holder.get("host") == socket.gethostname()
    host = "this machine" if here else f"the host {holder.get('host', '(unknown)')}"
    return f"process {holder.get('pid', '(unknown)')} on {host}"


def _read(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        found = json.loads(file.read(4096))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("pid"), int) else {}


def _write(file: IO[str], holder: dict[str, Any]) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(holder) if holder else "")
    file.flush()


def _alive(pid: int) -> bool:
    """Whether this process exists here; where one cannot ask without harm (Windows), it is taken to."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def held(folder: Path) -> bool:
    """Whether a process says that it writes to the folder now; only asks, and keeps no trainer from starting."""
    try:
        file = open(folder / NAME, encoding="utf-8", errors="replace")
    except OSError:
        return False
    with file:
        holder = _read(file)
    return bool(holder) and (holder.get("host") != socket.gethostname() or _alive(holder["pid"]))
