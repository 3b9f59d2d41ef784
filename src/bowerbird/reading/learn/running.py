"""Runs answers to exercises in a process of their own, with limits, and reports what was observed.

The parent loads no torch.  The child loads it once and forks for every answer, so that each has its own memory and its
own limits (CPU seconds, address space, file size) and is confined as a program that is checked is: no network, no
processes, no files outside an empty folder.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import bowerbird
from bowerbird.errors import BowerbirdError
from bowerbird.reading.learn.exercise import Exercise
from bowerbird.reading.running.guards import require_forks, scrubbed
from bowerbird.reading.source import printable
from bowerbird.reading.wording import Language

WALL_S = 60.0
"""Most seconds per answer, over all of which torch is loaded once."""


@dataclass(frozen=True)
class Seen:
    """One observation in both languages; ``ok``: it is as it should be."""

    ok: bool
    en: str
    zh: str

    def text(self, lang: Language = "en") -> str:
        return self.en if lang == "en" else self.zh


@dataclass(frozen=True)
class Verdict:
    """What running an answer showed."""

    exercise: str
    observations: tuple[Seen, ...]

    @property
    def passed(self) -> bool:
        return bool(self.observations) and all(seen.ok for seen in self.observations)

    @property
    def wrong(self) -> list[Seen]:
        return [seen for seen in self.observations if not seen.ok]


def check_answer(found: Exercise, source: str) -> Verdict:
    """Runs one answer and its check."""
    return check_answers([(found, source)])[0]


def check_answers(answers: list[tuple[Exercise, str]], wall_s: float = WALL_S) -> list[Verdict]:
    """Runs several answers, each in a fork of one child."""
    require_forks()
    home = Path(tempfile.mkdtemp(prefix="bowerbird-learn-"))
    free = os.environ.get("BOWERBIRD_UNCONFINED") == "1"
    rows = [{"exercise": f.id, "source": s, "file": f.file_name, "unconfined": free} for f, s in answers]
    request = json.dumps(rows)
    environment = scrubbed(dict(os.environ), str(home))
    package = str(Path(bowerbird.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package, environment.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "bowerbird.reading.learn.child", str(home)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment, cwd=home, start_new_session=True,
    )  # fmt: skip
    try:
        said, complaints = process.communicate(request.encode(), timeout=wall_s * (1 + len(answers)))
    except subprocess.TimeoutExpired:
        said, complaints = b"", b"it took too long"
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(home, ignore_errors=True)
    lines = said.decode(errors="replace").splitlines()
    if len(lines) != len(answers):
        last = complaints.decode(errors="replace").strip().splitlines()
        raise BowerbirdError(f"The process that checks exercises did not answer: {last[-1] if last else 'no message'}.")
    return [Verdict(found.id, _seen(line)) for (found, _), line in zip(answers, lines, strict=True)]


def _seen(line: str) -> tuple[Seen, ...]:
    """What an answer's process said, which may be anything: only rows in form are observations."""
    try:
        rows = json.loads(line)
    except (ValueError, RecursionError):
        rows = None
    found = [
        Seen(row["ok"] is True, printable(str(row["en"])), printable(str(row["zh"])))
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and {"ok", "en", "zh"} <= row.keys()
    ]
    return tuple(found) or (Seen(False, "Its process said nothing that can be read.", "它的进程没有给出可读的结果。"),)
