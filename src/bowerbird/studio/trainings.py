"""Trainings that the studio started: each is ``bowerbird train`` in a process of its own, ended by a signal.

A signal lets a training finish its step and save everything, so pausing, stopping and closing the studio lose nothing;
going on is ``bowerbird resume``.  What a training says last before it fails is what the page shows.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bowerbird import config
from bowerbird.errors import BowerbirdError
from bowerbird.studio.language import Refusal
from bowerbird.studio.shelf import Shelf, Shelved
from bowerbird.training import lock, salvage

State = Literal["starting", "training", "stopping", "paused", "stopped", "finished", "failed", "elsewhere", "empty"]
MOST_AT_ONCE = 2
"""Trainings that run side by side: more would only slow one another down."""
CLOSING_S = 20.0
"""How long the studio waits for trainings to save when it closes."""


@dataclass
class Training:
    """A child process and what it said last."""

    process: subprocess.Popen[str]
    said: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    stopping: bool = False
    for_good: bool = False
    """The visitor wants no more of it; it can go on all the same."""

    def listen(self) -> None:
        """Keeps the last lines; in a thread of its own, so that the child never waits for a reader."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.strip():
                self.said.append(line.strip())

    @property
    def ended_well(self) -> bool:
        """Whether it came to its end, or saved and left; or was stopped before it had anything to save."""
        code = self.process.returncode
        return code in (0, 128 + signal.SIGTERM, 128 + signal.SIGINT) or (self.stopping and code == -signal.SIGTERM)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def failure(self) -> BowerbirdError:
        """The sentence that it said last, without the program's name."""
        said = re.sub(r"^bowerbird: ", "", next(iter(reversed(self.said)), ""))
        return BowerbirdError(said) if said else Refusal("live.ended", status=self.process.returncode)


class Trainings:
    """All of them, by the keys of their runs."""

    def __init__(self, shelf: Shelf):
        self.shelf = shelf
        self._begun: dict[str, Training] = {}
        self._lock = threading.Lock()

    def start(self, recipe: str, settings: Mapping[str, str], flags: Sequence[str] = ()) -> str:
        """Starts training a recipe into a new folder and returns its key."""
        with self._lock:
            self._require_room()
            self.shelf.folder.mkdir(parents=True, exist_ok=True)
            key = self._free(Path(recipe).stem)
            folder = self.shelf.folder / key
            table = salvage.settings(config.find(recipe))
            self.shelf.starting[key] = Shelved(key, folder, table)
            named = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
            self._begin(key, ["train", recipe, "--out", str(folder), *named, *flags])
        return key

    def resume(self, run: Shelved, budget: str | None = None) -> None:
        """Goes on with a run that was paused or stopped."""
        with self._lock:
            if self.state(run)[0] in ("starting", "training", "stopping"):
                raise Refusal("refused.training", run=run.key)
            self._require_room()
            self._begin(run.key, ["resume", str(run.folder), *(["--budget", budget] if budget else [])])

    def stop(self, run: Shelved, *, for_good: bool = False) -> None:
        """Asks a training to save and end; it does so after its step."""
        training = self._begun.get(run.key)
        if training is None or not training.alive:
            raise Refusal("refused.not_training", run=run.key)
        if not training.stopping:  # a second signal would end it at once
            training.stopping, training.for_good = True, for_good
            training.process.send_signal(signal.SIGTERM)

    def state(self, run: Shelved) -> tuple[State, BowerbirdError | None]:
        """Where a run stands, and why it failed."""
        training = self._begun.get(run.key)
        if training is not None and training.alive:
            if training.stopping:
                return "stopping", None
            return ("training" if (run.folder / "run.toml").is_file() else "starting"), None
        status = run.status()
        if status.get("finished"):
            return "finished", None
        if training is not None and not training.ended_well:
            return "failed", training.failure
        if not run.shipped and lock.held(run.folder):
            return "elsewhere", None
        if not status:
            return "empty", None
        return ("stopped" if training is not None and training.for_good else "paused"), None

    def close(self) -> None:
        """Lets every training save and end."""
        alive = [training for training in self._begun.values() if training.alive]
        for training in alive:
            if not training.stopping:
                training.process.send_signal(signal.SIGTERM)
        for training in alive:
            try:
                training.process.wait(CLOSING_S)
            except subprocess.TimeoutExpired:
                training.process.kill()

    def _require_room(self) -> None:
        alive = [key for key, training in self._begun.items() if training.alive]
        if len(alive) >= MOST_AT_ONCE:
            raise Refusal("refused.room", runs=", ".join(alive))

    def _free(self, name: str) -> str:
        number = 1
        while (self.shelf.folder / f"{name}-{number:03d}").exists() or f"{name}-{number:03d}" in self.shelf.starting:
            number += 1
        return f"{name}-{number:03d}"

    def _begin(self, key: str, words: list[str]) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "bowerbird", *words, "--quiet"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"}, start_new_session=True,
        )  # fmt: skip
        training = self._begun[key] = Training(process)
        threading.Thread(target=training.listen, daemon=True).start()
