"""The signals of a run: everything that rules look at, and nothing else.

    metrics.jsonl    what the trainer logs: losses, the families' own scalars, gradient norms
    signals.jsonl    what ``Watch`` adds: one JSON object per line, of four kinds,
                     {"step", "facts": …}    once: the data as the model sees them, the schedule, the first loss
                     {"step", "used", …}     at logged steps: layers, waiting, weights; now and then samples and losses
                     {"step", "failure": …}  where a NaN came from

Rules see them as ``Signals``; numbers of one name over the steps are a ``Series``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bowerbird import config
from bowerbird.training import salvage
from bowerbird.training.rundir import RunDir

FILE = "signals.jsonl"
EARLY, YOUNG = 0.3, 200
"""Part of the budget, and steps, before which samples are not judged."""


@dataclass(frozen=True)
class Series:
    """A number over the steps, where it is finite."""

    name: str
    steps: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    def tail(self, share: float) -> "Series":
        """The last part of the series, at least one value where there is one."""
        start = min(math.floor(len(self) * (1 - share)), max(0, len(self) - 1))
        return Series(self.name, self.steps[start:], self.values[start:])

    def head(self, share: float) -> "Series":
        stop = max(1, math.ceil(len(self) * share))
        return Series(self.name, self.steps[:stop], self.values[:stop])

    def after(self, step: int) -> "Series":
        kept = self.steps >= step
        return Series(self.name, self.steps[kept], self.values[kept])

    @property
    def median(self) -> float:
        return float(np.median(self.values)) if len(self) else math.nan

    @property
    def first(self) -> float:
        return float(self.values[0]) if len(self) else math.nan

    @property
    def last(self) -> float:
        return float(self.values[-1]) if len(self) else math.nan


@dataclass
class Signals:
    """A run so far."""

    run: config.Run
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of metrics.jsonl."""
    probes: list[dict[str, Any]] = field(default_factory=list)
    """Of signals.jsonl, without facts and failures."""
    facts: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, Any] | None = None

    def add(self, row: dict[str, Any]) -> None:
        """A line of signals.jsonl."""
        if "facts" in row:
            self.facts = row["facts"]
        elif "failure" in row:
            self.failure = row
        else:
            self.probes.append(row)

    def series(self, name: str) -> Series:
        """A column of metrics.jsonl."""
        return _series(name, ((row["step"], row.get(name)) for row in self.rows))

    def probed(self, name: str) -> Series:
        """A number of signals.jsonl by its path, such as samples.diversity."""
        return _series(name, ((row["step"], _at(row, name)) for row in self.probes))

    @property
    def step(self) -> int:
        """The last step that anything is known of."""
        steps = [rows[-1]["step"] for rows in (self.rows, self.probes) if rows]
        return max([*steps, self.failure["step"] if self.failure else 0])

    @property
    def used(self) -> float:
        """The part of the budget that was used when the last signal was written."""
        return float(self.probes[-1].get("used", 1.0)) if self.probes else 1.0

    @property
    def samples_count(self) -> bool:
        """Whether the run is old enough for its samples to be judged."""
        return self.used >= EARLY and self.step >= YOUNG

    @property
    def players(self) -> list[str]:
        logged = [name.removesuffix("/loss") for row in self.rows for name in row if name.endswith("/loss")]
        seen = [name for row in self.probes for name in row.get("layers", {})]
        return list(dict.fromkeys([*logged, *seen]))

    @property
    def games(self) -> list[tuple[str, str]]:
        """Every discriminator with the generator that it judges, in the order of the losses.

        A discriminator is a player that logs how often it is right.
        """
        judges = [player for player in self.players if len(self.series(f"{player}/accuracy"))]
        others = [player for player in self.players if player not in judges]
        return [(judge, others[min(i, len(others) - 1)]) for i, judge in enumerate(judges)] if others else []

    @property
    def is_game(self) -> bool:
        """Players with opposed losses."""
        return bool(self.games)

    @property
    def family(self) -> str:
        return str(config.to_table(self.run)["model"].get("family", ""))

    def option(self, name: str, default: Any = None) -> Any:
        """A hyperparameter of the model, where the family has it."""
        return getattr(self.run.model, name, default)


def _at(row: dict[str, Any], path: str) -> Any:
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _series(name: str, pairs: Iterator[tuple[int, Any]]) -> Series:
    kept = [(step, value) for step, value in pairs if isinstance(value, int | float) and math.isfinite(value)]
    steps, values = ([pair[i] for pair in kept] for i in (0, 1))
    return Series(name, np.asarray(steps, dtype=int), np.asarray(values, dtype=float))


def read_signals(folder: Path | str) -> Signals:
    """The signals of a run folder; of a run that was not watched only what the trainer logs."""
    rundir = RunDir.open(folder)
    by_step = {row["step"]: row for row in rundir.metrics() if "step" in row and "event" not in row}
    signals = Signals(rundir.config(), rows=[by_step[step] for step in sorted(by_step)])
    for row in read_lines(rundir.path / FILE):
        signals.add(row)
    return signals


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All complete lines; one that a crash cut short or that is damaged is left out."""
    return salvage.json_rows(path)
