"""What the program may not do: reach the network, start processes, write elsewhere, read secrets, take all memory.

Two layers.  The kernel refuses (see ``kernel.py``), and that is what holds.  An audit hook refuses the same in Python,
so that what was tried is named in a fact; code that means harm can go around it.
"""

import os
import shutil
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from bowerbird.errors import BowerbirdError
from bowerbird.reading.running.putting import put

_NETWORK = [f"socket.{word}" for word in "__new__ connect bind sendto getaddrinfo gethostbyname".split()]
_NETWORK += ["urllib.Request"]
_PROCESSES = "subprocess.Popen os.system os.exec os.fork os.forkpty os.posix_spawn os.spawn pty.spawn".split()
_DELETING = "os.remove os.rmdir os.rename shutil.rmtree shutil.move os.truncate os.link os.symlink".split()
_CHANGING = ("os.chmod", "os.chown", "os.mkdir", "os.utime", "os.setxattr", "os.removexattr")
_SECRET_PARTS = (".ssh", ".aws", ".gnupg", ".netrc", ".kube", ".docker", ".env", "shadow", "id_rsa", ".git-credentials")
_SECRET_FILES = ("/etc/shadow", "/etc/sudoers", "/proc/self/environ")


LARGEST_FILE = 256 * 2**20


class Refused(PermissionError):
    """The program tried something that a program under observation may not do."""


class Guard:
    """Refuses while it is armed; ``report(what, detail)`` is told of each refusal."""

    def __init__(self, scratch: Path, report: Callable[[str, str], None]) -> None:
        self.scratch = os.path.realpath(scratch)
        self.report = report
        self.armed = False
        self._busy = False
        self._hooks: dict[str, Callable[[tuple[Any, ...]], None]] = {"open": self._open, "os.kill": self._kill}
        self._hooks |= dict.fromkeys(_NETWORK, self._network) | dict.fromkeys(_PROCESSES, self._process)
        self._hooks |= dict.fromkeys(_DELETING, self._delete) | dict.fromkeys(_CHANGING, self._change)
        self._hooks |= {"os.listdir": self._list, "ctypes.dlopen": self._foreign, "ctypes.dlsym": self._foreign}

    def arm(self) -> None:
        """From now on, for the rest of the process's life; an audit hook cannot be removed."""
        self.armed = True
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        check = self._hooks.get(event)
        if check is None or not self.armed or self._busy:
            return
        self._busy = True
        try:
            check(arguments)
        finally:
            self._busy = False

    def _refuse(self, what: str, detail: Any) -> NoReturn:
        self.report(what, str(detail)[:200])
        raise Refused(f"{what} is refused to a program under observation: {str(detail)[:120]}")

    def _network(self, arguments: tuple[Any, ...]) -> None:
        self._refuse("network", arguments[1:] or arguments)

    def _process(self, arguments: tuple[Any, ...]) -> None:
        self._refuse("process", arguments[:2])

    def _kill(self, arguments: tuple[Any, ...]) -> None:
        if arguments and arguments[0] != os.getpid():
            self._refuse("signal", arguments)

    def _foreign(self, arguments: tuple[Any, ...]) -> None:
        frame = sys._getframe(3)
        if frame is not None and _is_library(frame.f_code.co_filename):
            return
        self._refuse("foreign code", arguments)

    def inside(self, path: Any) -> bool:
        """Whether a path lies in the scratch folder."""
        if isinstance(path, int):
            return True
        text = os.path.realpath(os.fsdecode(path))
        return text == self.scratch or text.startswith(self.scratch + os.sep) or text == os.devnull

    def _delete(self, arguments: tuple[Any, ...]) -> None:
        for path in arguments[:2]:
            if isinstance(path, str | bytes | os.PathLike) and not self.inside(path):
                self._refuse("deleting or moving", path)

    def _change(self, arguments: tuple[Any, ...]) -> None:
        if arguments and isinstance(arguments[0], str | bytes | os.PathLike) and not self.inside(arguments[0]):
            self._refuse("writing", arguments[0])

    def _list(self, arguments: tuple[Any, ...]) -> None:
        if arguments and isinstance(arguments[0], str) and is_secret(arguments[0]):
            self._refuse("reading secrets", arguments[0])

    def _open(self, arguments: tuple[Any, ...]) -> None:
        path, mode, flags = (*arguments, None, 0)[:3]
        if not isinstance(path, str | bytes):
            return
        text = os.fsdecode(path)
        writes = (isinstance(mode, str) and any(c in mode for c in "wax+")) or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        )
        if writes and not self.inside(text):
            self._refuse("writing", text)
        if is_secret(text):
            self._refuse("reading secrets", text)


def is_secret(path: str) -> bool:
    """Whether a file is of a kind that holds keys or passwords."""
    real = os.path.realpath(path)
    return real in _SECRET_FILES or any(part in _SECRET_PARTS for part in real.split(os.sep))


def _is_library(file: str) -> bool:
    return file.startswith((sys.prefix, sys.base_prefix, "<frozen"))


def scrubbed(environment: dict[str, str]) -> dict[str, str]:
    """The environment of the child, folders aside: what Python needs to start, and nothing that could be a secret."""
    kept = {
        k: environment[k]
        for k in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
        if k in environment
    }
    return kept | {
        "PYTHONUSERBASE": site.getuserbase(),  # packages of ``pip install --user`` lie there, whatever the home is
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONIOENCODING": "utf-8",
        "MPLBACKEND": "Agg",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "disabled",
        "CUDA_VISIBLE_DEVICES": "",
    }


def require_forks() -> None:
    """BowerbirdError where no process can be forked and limited, which is on Windows."""
    if not hasattr(os, "fork"):
        raise BowerbirdError(
            "Programs cannot be run under observation on this system, which cannot fork a process; use Linux, macOS or "
            "WSL. Training, sampling, measuring and comparing work here."
        )


def limit(memory_bytes: int, cpu_s: float) -> None:
    """Limits of the kernel: address space beyond what is mapped now, CPU seconds, file size, no core files."""
    import resource  # Windows has none, and imports this module too

    mapped = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    )
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes,) * 2)
    used = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + cpu_s) + 1, int(used + cpu_s) + 3))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def soften(scratch: Path) -> None:
    """Replaces what programs often do in passing (``os.system("mkdir …")``, ``time.sleep``) by nothing at all."""
    put(os, system=lambda command: 0)
    put(time, sleep=lambda seconds: None)
    tempfile.tempdir = str(scratch)
    put(subprocess, run=_no_process, call=lambda *a, **k: 0, check_call=lambda *a, **k: 0)
    put(subprocess, check_output=lambda *a, **k: b"")
    put(shutil, which=lambda *a, **k: None)


def _no_process(*arguments: Any, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.CompletedProcess(arguments[0] if arguments else [], 0, "", "")
