"""The parent's side: starts the child, sends it executions, collects their facts, and outlives whatever happens there.

The parent imports no torch.  A child that dies, hangs or floods its output costs one execution and no more: facts are
read from a file that the fork appends to, up to the last whole line.  They were written in a process that runs a
stranger's code: a row that is not in form is left out, and what is in form may still be forged.
"""

import atexit
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
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

import bowerbird
from bowerbird.errors import BowerbirdError
from bowerbird.reading.facts import FactStore, Kind
from bowerbird.reading.running.guards import require_forks, scrubbed
from bowerbird.reading.running.request import UNCONFINED, Request
from bowerbird.reading.source import printable

MOST_BYTES = 60_000_000
START_S = 120.0
LARGEST_SCRATCH = 2**30
MOST_FILES = 20_000
"""What an execution may leave in its scratch folder."""
WROTE_TOO_MUCH = "it was stopped: it wrote too much"
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
        self.environment: dict[str, str] = {}
        self.cpu_s = self.last_cpu_s = 0.0
        """The processor time that all executions took, and the last one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def tidy(self) -> None:
        """Removes what executions have left."""
        for left in self.folder.iterdir():
            if left.is_dir() and left.name != "home":
                shutil.rmtree(left, ignore_errors=True)

    def end(self) -> None:
        """Ends the process and removes its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Starts the process; it loads torch while the parent goes on."""
        if self.process is not None and self.process.poll() is None:
            return
        require_forks()
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        self.environment = scrubbed(dict(os.environ))
        package = str(Path(bowerbird.__file__).parents[1])
        path = os.pathsep.join(filter(None, (package, self.environment.get("PYTHONPATH"))))
        self._buffer, self._ready = b"", False
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bowerbird.reading.running.child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(self.folder / "stderr").open("wb"),
            env=self.environment | {"HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": path},
            cwd=self.folder, start_new_session=True,
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
        request = replace(request, unconfined=os.environ.get("BOWERBIRD_UNCONFINED") == "1")
        why = self._converse(request, wall_s)
        facts = received(Path(request.results), request)
        if why == _NOT_CONFINED:
            stands = facts.first("run.unconfined")
            raise BowerbirdError(
                f"This machine cannot confine a stranger's program ({stands['why'] if stands else 'no reason given'}); "
                "run it in a container, and say BOWERBIRD_UNCONFINED=1 there."
            )
        return facts, why

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
        fork = self._fork(self._answer(30.0))
        self.last_cpu_s = 0.0
        scratch = Path(request.scratch)
        ended = self._waited(wall_s, scratch)
        for _ in range(MORE_TIMES):
            before = _cpu_s(fork)
            if ended is None:
                ended = self._waited(wall_s / 2, scratch)
            if ended is not None or _cpu_s(fork) <= before + 0.02 * wall_s:
                break
        self._account(ended, _cpu_s(fork))
        if ended is None or ended is _FULL:
            if fork:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(fork, signal.SIGKILL)
            if not fork or self._answer(5.0) is None:
                self.stop()
            return WROTE_TOO_MUCH if ended else f"it was stopped after {wall_s:.0f} s"
        return WROTE_TOO_MUCH if _overflows(scratch) else _ending(ended.get("status"))

    def _account(self, ended: dict[str, Any] | None, so_far: float) -> None:
        """Adds the processor time of an execution: as the child says when it has ended, else what was seen."""
        told = (ended or {}).get("cpu_s")
        self.last_cpu_s = float(told) if isinstance(told, int | float) and told >= 0 else so_far
        self.cpu_s += self.last_cpu_s

    def _fork(self, started: dict[str, Any] | None) -> int:
        """The fork that runs the program, 0 where none is known: it must be a child of ours and lead its own group."""
        pid = (started or {}).get("started")
        if not isinstance(pid, int) or isinstance(pid, bool) or pid < 2 or self.process is None:
            return 0
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0
        return pid if int(fields[1]) == self.process.pid else 0

    def _waited(self, seconds: float, scratch: Path) -> dict[str, Any] | None:
        """The child's next line, None when there is none in time, ``_FULL`` when the scratch folder overflows."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            answer = self._answer(min(left, 0.5))
            if answer is not None or (self.process is not None and self.process.poll() is not None):
                return answer
            if _overflows(scratch):
                return _FULL
        return None

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
        try:
            answer = json.loads(line)
        except ValueError:
            return None
        return answer if isinstance(answer, dict) else None

    def _last_words(self) -> str:
        lines = (self.folder / "stderr").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no message"


_idle: list[Child] = []


@contextlib.contextmanager
def warm(child: Child | None = None) -> Iterator[Child]:
    """The ``child`` that is given, or one of this process's own, which then waits for the next who asks.

    A start takes two seconds.  A child that was left by an exception, or started in another environment, is not reused.
    """
    if child is not None:
        yield child
        return
    environment = scrubbed(dict(os.environ))
    own = next((one for one in _idle if one.process is None or one.environment == environment), None) or Child()
    _idle[:] = [one for one in _idle if one is not own]
    try:
        yield own
    except BaseException:
        own.end()
        raise
    own.tidy()
    _idle.append(own)


@atexit.register
def end_idle() -> None:
    """Ends the children that wait."""
    while _idle:
        _idle.pop().end()


_FULL: dict[str, Any] = {"full": True}
_NOT_CONFINED = "it was not run: the kernel cannot confine it"


def _ending(status: Any) -> str:
    """Why an execution ended, empty where it ended as it should."""
    if status in (-signal.SIGKILL, -signal.SIGXCPU):
        return "it was stopped: it used more time or memory than it may"
    if status == -signal.SIGSYS:
        return "it was stopped: it called the system in a way of another architecture"
    if status == UNCONFINED:
        return _NOT_CONFINED
    return "" if status == 0 else f"its process ended with status {status}"


def _overflows(scratch: Path) -> bool:
    """Whether a scratch folder holds more than it may; links are not followed."""
    size = number = 0
    for folder, _, names in os.walk(scratch):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(folder, name)).st_blocks * 512
            number += 1
            if size > LARGEST_SCRATCH or number > MOST_FILES:
                return True
    return False


def _cpu_s(fork: int) -> float:
    """The processor time that a fork has used so far; it has its own limit of that."""
    try:
        fields = Path(f"/proc/{fork}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def received(path: Path, request: Request) -> FactStore:
    """The facts of a result file, up to the last whole line; rows that are not in form are left out."""
    store = FactStore()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return store
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MOST_BYTES)
    for line in data.split(b"\n")[:-1]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if _in_form(row):
            words = {key: printable(row[key]) for key in ("topic", "subject", "file")}
            store.add(
                row["kind"], words["topic"], words["subject"][:400], _cleaned(row["value"]), file=words["file"],
                line=row["line"], run=request.run,
            )  # fmt: skip
    return store


def _in_form(row: Any) -> bool:
    if not isinstance(row, dict) or row.get("kind") not in get_args(Kind):
        return False
    line = row.get("line", 0)
    placed = line is None or (isinstance(line, int) and not isinstance(line, bool) and 0 <= line < 10**7)
    return placed and "value" in row and all(isinstance(row.get(key), str) for key in ("topic", "subject", "file"))


def _cleaned(value: Any, depth: int = 12) -> Any:
    """A value whose words can be printed; what is nested deeper than any fact of ours is dropped."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_cleaned(entry, depth - 1) for entry in value] if depth else []
    if isinstance(value, dict):
        return {printable(key): _cleaned(entry, depth - 1) for key, entry in value.items()} if depth else {}
    return value
