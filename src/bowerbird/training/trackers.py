"""Where the numbers of a run go besides metrics.jsonl: TensorBoard's events, Weights & Biases, Trackio.

TensorBoard writes whenever it is installed, since it only writes files into the run's folder.  The others are asked for
by ``train.trackers``.  Both stay on this machine unless their own settings say otherwise: WANDB_MODE=online sends to
their server, and Trackio sends where it is told to.
"""

import importlib
import importlib.util
import os
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from bowerbird import config
from bowerbird.errors import BowerbirdError
from bowerbird.training import salvage
from bowerbird.training.rundir import RunDir

PROJECT = "bowerbird"


class Tracker(Protocol):
    def record(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def require_installed(names: Iterable[str]) -> None:
    """BowerbirdError for a tracker whose package is missing, before anything was trained."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise BowerbirdError(f"train.trackers names {name}, which is not installed: pip install {name}")


def trackers_of(rundir: RunDir) -> list[Tracker]:
    """Those of a run, which go on where they were when it is resumed."""
    wanted = [OF_NAME[name](rundir) for name in rundir.config().train.trackers]
    found: list[Tracker | None] = [_tensorboard(rundir), *wanted]
    return [tracker for tracker in found if tracker is not None]


def _tensorboard(rundir: RunDir) -> Tracker | None:
    try:
        return TensorBoard(rundir)
    except ImportError:  # the extra ``track`` is not installed
        return None


class TensorBoard:
    def __init__(self, rundir: RunDir):
        from torch.utils.tensorboard import SummaryWriter

        self.events = SummaryWriter(str(rundir.path / "tensorboard"), purge_step=rundir.status().get("step"))

    def record(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.events.add_scalar(name, value, step)

    def close(self) -> None:
        self.events.close()


class WandB:
    """Weights & Biases; offline, into the run's folder, unless WANDB_MODE says otherwise."""

    def __init__(self, rundir: RunDir):
        self.run = importlib.import_module("wandb").init(
            project=PROJECT, name=rundir.path.resolve().name, id=_id_of(rundir), resume="allow", dir=str(rundir.path),
            config=config.flat(config.to_table(rundir.config())), mode=os.environ.get("WANDB_MODE", "offline"),
        )  # fmt: skip

    def record(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        self.run.finish()


class Trackio:
    """Trackio; into its database on this machine unless its own variables say otherwise."""

    def __init__(self, rundir: RunDir):
        self.run = importlib.import_module("trackio").init(
            project=PROJECT, name=f"{rundir.path.resolve().name}-{_id_of(rundir)}", resume="allow", embed=False,
            config=config.flat(config.to_table(rundir.config())),
        )  # fmt: skip

    def record(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        self.run.finish()


OF_NAME: dict[str, Any] = {"wandb": WandB, "trackio": Trackio}


def _id_of(rundir: RunDir) -> str:
    """What a run is called outside its folder, drawn once."""
    known = salvage.json_object(rundir.path / "tracking.json").get("id")
    if not isinstance(known, str):
        known = secrets.token_hex(4)
        rundir.write_json("tracking.json", {"id": known})
    return known
