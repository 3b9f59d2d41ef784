"""The parent's side: starts the child, sends it executions, collects their facts, and outlives whatever happens there.

The parent imports no torch.  A child that dies, hangs or floods its output costs one execution and no more: facts are
read from a file that the fork appends to, up to the last whole line.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import bowerbird
from bowerbird.reading.facts import FactStore
from bowerbird.reading.running.guards import scrubbed
from bowerbird.reading.running.request import Request

MOST_BYTES = 60_000_000
START_S = 120.0
MORE_TIMES = 6
"""How often half of the wall time is added for a program that computes, on a machine that has little time for it."""


class Child:
    """A warm child process as a context; ``execute`` runs one request in a fork of it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bowerbird-"))
        self.process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._ready = False
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Starts the process; it loads torch while the parent goes on."""
        if self.process is not None and self.process.poll() is None:
            return
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        environment = scrubbed(dict(os.environ), str(home))
        package = str(Path(bowerbird.__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package, environment.get("PYTHONPATH"))))
        self._buffer, self._ready = b"", False
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bowerbird.reading.running.child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(self.folder / "stderr").open("wb"),
            env=environment, cwd=self.folder, start_new_session=True,
        )  # fmt: skip

    def stop(self) -> None:
        """Ends the process and everything in its session."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self.process = None

    def scratch(self) -> Path:
        """A new empty folder for one execution."""
        self._count += 1
        folder = self.folder / f"scratch-{self._count}"
        folder.mkdir()
        return folder

    def execute(self, request: Request, wall_s: float) -> tuple[FactStore, str]:
        """Runs a request and returns its facts, and what ended it where that was not the program itself."""
        self.start()
        why = self._converse(request, wall_s)
        return _read(Path(request.results)), why

    def _converse(self, request: Request, wall_s: float) -> str:
        if not self._ready:
            self._ready = self._answer(START_S) is not None
        if not self._ready:
            words = self._last_words()
            self.stop()
            return f"the child process could not start: {words}"
        assert self.process is not None and self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request.to_json()).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            self.stop()
            return "the child process died"
        started = self._answer(30.0)
        ended = self._answer(wall_s)
        for _ in range(MORE_TIMES):
            before = _cpu_s(started)
            if ended is None:
                ended = self._answer(wall_s / 2)
            if ended is not None or _cpu_s(started) <= before + 0.02 * wall_s:
                break
        if ended is None:
            if started and started.get("started"):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(started["started"], signal.SIGKILL)
            if self._answer(5.0) is None:
                self.stop()
            return f"it was stopped after {wall_s:.0f} s"
        status = ended.get("status", 0)
        if status == -signal.SIGKILL or status == -signal.SIGXCPU:
            return "it was stopped: it used more time or memory than it may"
        return "" if status == 0 else f"its process ended with status {status}"

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        """The next line that the child says, or None when it says nothing in time."""
        assert self.process is not None and self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        until = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                return None
            more = os.read(descriptor, 65536)
            if not more:
                return None
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer = json.loads(line)
        return answer if isinstance(answer, dict) else None

    def _last_words(self) -> str:
        lines = (self.folder / "stderr").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no message"


def _cpu_s(started: dict[str, Any] | None) -> float:
    """The processor time that a fork has used so far; it has its own limit of that."""
    try:
        fields = Path(f"/proc/{(started or {}).get('started')}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def _read(path: Path) -> FactStore:
    """The facts of a result file, up to the last whole line."""
    store = FactStore()
    if not path.is_file():
        return store
    with path.open("rb") as file:
        data = file.read(MOST_BYTES)
    for line in data.split(b"\n")[:-1]:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        store.add(
            row["kind"], row["topic"], row["subject"], row["value"], file=row["file"], line=row["line"], run=row["run"]
        )
    return store
