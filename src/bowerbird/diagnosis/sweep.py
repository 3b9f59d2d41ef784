"""A learning rate by trying: short training in which the rate grows exponentially (Smith 2017, arXiv:1506.01186).

At step i of n the rate is low · (high / low)^(i / n).  While it is too low the loss stays; where it is right the loss
falls; where it is too high the loss rises or is not finite, and the sweep ends.  Suggested is the rate at which the
smoothed loss falls most steeply over the logarithm of the rate.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bowerbird import config, machine
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.media import open_data
from bowerbird.media.medium import Opened
from bowerbird.training.budget import only
from bowerbird.training.rundir import RunDir
from bowerbird.training.trainer import Trainer

LOW, HIGH = 1e-6, 1.0
STEPS = 120
MEMORY = 0.9
"""Of the moving average of the loss."""
BEYOND = 1.5
"""The sweep ends when the smoothed loss has risen by so many times what it had fallen by."""


@dataclass(frozen=True)
class Sweep:
    """What was tried and what follows."""

    rates: list[float]
    losses: list[float]
    """Smoothed."""
    suggestion: float
    stopped: str
    """Why the sweep ended."""


def find_learning_rate(
    run: config.Run,
    *,
    data: Opened | None = None,
    steps: int = STEPS,
    low: float = LOW,
    high: float = HIGH,
) -> Sweep:
    """Trains for at most ``steps`` steps in a temporary folder and throws the weights away.

    BowerbirdError when the model is a game: its losses say nothing about the rate.
    """
    constant = replace(run.train, **only({"steps": steps}), warmup_steps=0, schedule="constant", lr=1.0)
    run = replace(run, train=constant)
    rates, losses, stopped = [], [], "all rates were tried"
    with tempfile.TemporaryDirectory(prefix="bowerbird-find-lr-") as folder:
        rundir = RunDir.create(Path(folder) / "sweep", run, machine.describe())
        trainer = Trainer(run, rundir, data or open_data(run.data), quiet=True)
        if len(trainer.players) > 1:
            names = " and ".join(trainer.players)
            raise BowerbirdError(
                f"--find-lr needs one loss that is to fall, and {names} play against each other; start from a recipe's "
                "rate and look at `bowerbird diagnose`."
            )
        (player,) = trainer.players.values()
        average = None
        for i in range(steps):
            rate = low * (high / low) ** (i / (steps - 1))
            player.lr = rate
            try:
                value = trainer.train_step()[f"{player.player}/loss"].item()
            except RunFailed:
                stopped = f"at {rate:.2g} the loss was not finite any more"
                break
            average = value if average is None else MEMORY * average + (1 - MEMORY) * value
            rates.append(rate)
            losses.append(average)
            if i > steps // 6 and average - min(losses) > BEYOND * (losses[0] - min(losses)) + 0.05 * abs(losses[0]):
                stopped = f"at {rate:.2g} the loss rose"
                break
    return Sweep(rates, losses, steepest(rates, losses), stopped)


def steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls fastest over log(rate), before its minimum, to two digits."""
    end = max(2, int(np.argmin(losses)) + 1)
    if end < 5:
        return float(f"{rates[max(0, end - 1)] / 10:.1e}")
    slope = np.gradient(np.asarray(losses[:end]), np.log(rates[:end]))
    return float(f"{rates[int(np.argmin(slope))]:.1e}")


# ------------------------------------------------------------------------------------------- pictures of it


def plot(sweep: Sweep, path: Path) -> Path:
    """The curve as a PNG."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(sweep.rates, sweep.losses, linewidth=1.6)
    axes.axvline(sweep.suggestion, linestyle="--", linewidth=1, color="grey")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss (smoothed)", title=f"suggested: {sweep.suggestion:g}")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def text_plot(sweep: Sweep, width: int = 64, height: int = 12) -> str:
    """The curve in characters: loss upwards, the logarithm of the rate to the right, | at the suggestion."""
    x = np.log(np.asarray(sweep.rates))
    y = np.asarray(sweep.losses)
    grid = np.linspace(x[0], x[-1], width)
    line = np.interp(grid, x, y)
    low, high = float(line.min()), float(line.max())
    level = np.round((line - low) / max(high - low, 1e-12) * (height - 1)).astype(int)
    mark = int(np.argmin(np.abs(grid - np.log(sweep.suggestion))))
    rows = []
    for row in reversed(range(height)):
        cells = ["•" if level[i] == row else "|" if i == mark else " " for i in range(width)]
        label = f"{high:9.4g}" if row == height - 1 else f"{low:9.4g}" if row == 0 else " " * 9
        rows.append(f"{label} {''.join(cells)}".rstrip())
    left, right = f"{sweep.rates[0]:.0e}", f"{sweep.rates[-1]:.0e}"
    rows.append(" " * 10 + left + right.rjust(width - len(left)))
    return "\n".join(rows)
