"""An execution of the answer to an exercise: confined as any program is, then asked by the check of the exercise."""

import os
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from bowerbird.reading.learn.checks import check_of
from bowerbird.reading.learn.exercise import seen_in
from bowerbird.reading.running import kernel
from bowerbird.reading.running.guards import Guard, limit
from bowerbird.reading.running.recorder import Recorder
from bowerbird.reading.running.request import UNCONFINED, Request
from bowerbird.reading.wording import LANGUAGES

CPU_S = 20.0
MEMORY_BYTES = 2 * 2**30


class Answered:
    """``execute`` runs the answer and its check, and records every observation as ``learn.seen``, at last the end."""

    def __init__(self, request: Request) -> None:
        self.request, self.exercise = request, str(request.wanted)
        descriptor = os.open(request.results, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.recorder = Recorder(descriptor, set(request.texts), request.run)
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)  # the first one loads much from files
        self.check, self.words = check_of(self.exercise), seen_in(self.exercise)

    def execute(self) -> None:
        scratch = Path(self.request.scratch)
        os.chdir(scratch)
        (scratch / self.request.main).write_text(self.request.texts[self.request.main], encoding="utf-8")
        limit(MEMORY_BYTES, CPU_S)
        against = kernel.confine(scratch, kernel.packages())
        if against:
            self.recorder("run.unconfined", "kernel", {"why": against}, line=None, file="")
            self.recorder.flush()
            if not self.request.unconfined:
                raise SystemExit(UNCONFINED)
        Guard(scratch, lambda what, detail: None).arm()
        try:
            self._observe()
        except (Exception, SystemExit) as error:
            self._failed(error)
        self.recorder("learn.end", self.exercise, {}, line=None, file="")
        self.recorder.flush()

    def _observe(self) -> None:
        answer, main = ModuleType("answer"), self.request.main
        answer.__file__ = main
        exec(compile(self.request.texts[main], main, "exec"), answer.__dict__)
        torch.manual_seed(0)
        for seen in self.check(answer):
            self._say(bool(seen.ok), seen.key, **seen.values)

    def _say(self, ok: bool, key: str, **values: Any) -> None:
        told: dict[str, Any] = {lang: self.words[key][lang].format(**values) for lang in LANGUAGES}
        self.recorder("learn.seen", key, {"ok": ok, **told}, line=None, file="")

    def _failed(self, error: BaseException) -> None:
        """An exception as an observation, at the last line of the answer that it passed through."""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == self.request.main]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        self._say(False, "unusable" if line is None else "raised", line=line, error=f"{type(error).__name__}: {error}")
