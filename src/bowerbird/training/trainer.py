"""The trainer: players, losses, averages, precision, budgets, checkpoints.  It knows no family.

One step takes each loss that the model yields, runs backward for that loss's player alone, steps that player, and only
then asks for the next loss.  Everything random in a step follows from (seed, step) and the order of examples from
(seed, epoch, position), so a run that is killed and resumed ends bit for bit where an uninterrupted one does.
"""

import hashlib
import math
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from bowerbird import config, machine
from bowerbird.data import order
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.models.base import Batch, GenerativeModel
from bowerbird.training.clock import Clock
from bowerbird.training.energy import EnergyMeter
from bowerbird.training.nonfinite import Origin, explain_gradient, explain_loss
from bowerbird.training.observer import Observer
from bowerbird.training.optimizers import MovingAverage, PlayerOptimizer, learning_rate
from bowerbird.training.preflight import Preflight, preflight, require_room
from bowerbird.training.progress import Progress
from bowerbird.training.rundir import RunDir, explaining_full_disk

VALIDATION_EXAMPLES = 512
"""Evenly spaced over the validation split."""


Evaluate = Callable[[GenerativeModel], dict[str, float]]
"""Scores of a model by name; the first decides which weights are best, and is better when lower."""


Preview = Callable[[GenerativeModel, Path], object]
"""Writes a few samples of a model into files whose names begin with the path."""


class Examples(Protocol):
    """A split, as the trainer needs it."""

    @property
    def lengths(self) -> Tensor | None:
        """Size of each example, where batches of like sizes are cheaper; else None."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, device: torch.device) -> dict[str, Any]:
        """The fields of a ``Batch`` for these examples, on the device."""


class TrainingData(Protocol):
    """An opened source, as the trainer needs it; every medium opens one."""

    @property
    def spec(self) -> Any: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def train(self) -> Examples: ...

    @property
    def val(self) -> Examples: ...

    def summary(self) -> str: ...


class Interrupted(BowerbirdError):
    """Ctrl-C or SIGTERM arrived; the run was saved."""

    def __init__(self, signum: int, step: int, folder: Path):
        super().__init__(f"Stopped at step {step}; everything is saved. Continue with: bowerbird resume {folder}")
        self.exit_status = 128 + signum


@dataclass(frozen=True)
class TrainResult:
    """Where a run is and what it has cost so far."""

    folder: Path
    step: int
    examples: int
    seconds: float
    """Wall-clock time in optimiser steps: without data preparation, sample grids and checkpoints."""
    flops: float
    parameters: int
    finished: bool
    joules: float = 0.0
    """Energy of the training, see ``energy``."""
    energy: str = ""
    """How it is known."""
    compute_seconds: float | None = None
    """CPU time of all threads in optimiser steps, or time on the accelerator, see ``clock``; None: not counted."""
    running_seconds: float | None = None
    """The part of ``seconds`` in which the thread that trains was running."""


def train(
    run: config.Run,
    folder: Path,
    data: TrainingData,
    *,
    quiet: bool = False,
    evaluate: Evaluate | None = None,
    preview: Preview | None = None,
    observer: Observer | None = None,
) -> TrainResult:
    """Trains ``run`` from the beginning into ``folder``, which must not hold a run yet."""
    _check(run.train)
    run = replace(run, train=_resolve(run))
    with explaining_full_disk(folder):
        rundir = RunDir.create(
            folder, run, machine.describe() | {"data": data.summary(), "fingerprint": data.fingerprint}
        )
        return Trainer(run, rundir, data, quiet, evaluate, preview, observer).run_to_the_end()


def resume(
    folder: Path,
    data: TrainingData,
    *,
    quiet: bool = False,
    evaluate: Evaluate | None = None,
    preview: Preview | None = None,
    observer: Observer | None = None,
) -> TrainResult:
    """Continues the run in ``folder`` exactly where its last checkpoint left it."""
    rundir = RunDir.open(folder)
    run = rundir.config()
    if rundir.status().get("finished"):
        return TrainResult(folder=rundir.path, **rundir.status())
    with explaining_full_disk(folder):
        trainer = Trainer(run, rundir, data, quiet, evaluate, preview, observer)
        if rundir.status():
            trainer.load_checkpoint()
        else:
            rundir.truncate_metrics(0)  # killed before the first checkpoint: all steps will be logged again
        return trainer.run_to_the_end()


def _check(train: config.Train) -> None:
    if not any((train.steps, train.examples, train.seconds, train.compute_seconds, train.flops)):
        raise BowerbirdError("No budget is set; add one, for example --budget 10m or --train.steps 10000.")


def _resolve(run: config.Run) -> config.Train:
    """Settles every choice left open by asking this machine and this network, so that run.toml says what was done."""
    train = run.train
    device = machine.resolve_device(train.device)
    precision, channels_last = train.precision, train.channels_last
    if precision == "auto":
        precision = "bf16" if machine.bf16_is_faster(device.type) else "fp32"
    if channels_last is None:
        channels_last = getattr(getattr(run.model, "net", None), "channels_last", False)
    return replace(
        train,
        device=str(device),
        precision=precision,
        channels_last=channels_last,
        threads=train.threads or machine.idle_cores(),
    )


class Trainer:
    def __init__(
        self,
        run: config.Run,
        rundir: RunDir,
        data: TrainingData,
        quiet: bool,
        evaluate: Evaluate | None = None,
        preview: Preview | None = None,
        observer: Observer | None = None,
    ):
        self.config = run.train
        self.evaluate = evaluate
        self.preview = preview
        self.rundir = rundir
        self.data = data
        self.observer = observer or Observer()
        self.device = machine.resolve_device(self.config.device)
        torch.set_num_threads(self.config.threads or machine.idle_cores())
        machine.keep_freed_memory()

        micro = self.config.batch_size // self.config.accumulate
        require_room(lambda: run.model.build(data.spec), data.spec, self.device, micro, self.config.accumulate)
        torch.manual_seed(self.config.seed)
        self.model: GenerativeModel = run.model.build(data.spec).to(self.device)
        if self.config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if self.config.compile:
            if self.model.differentiates_twice:
                raise BowerbirdError(
                    "train.compile does not work with gradient penalties, which are derivatives already; leave it out."
                )
            for network in self.model.children():
                network.compile()
        self.model.train()
        self.average = MovingAverage(self.model, self.config.ema_decay)
        self.players = {name: PlayerOptimizer(name, module, self.config) for name, module in self.model.players.items()}
        self._check_players()

        self.step = 0
        self.clock = Clock(self.device)
        self.evaluating_seconds = 0.0
        self.best = rundir.best()
        self.joules_before = 0.0
        self.meter = EnergyMeter(self.device.type)
        self.data_seconds = 0.0
        """The part of this process's steps in which they waited for their batch."""
        self.cost = self._preflight()
        self.progress = Progress(rundir, data.summary(), self._estimate(), quiet)

    def _check_players(self) -> None:
        if strange := sorted(self.config.lr_multiplier.keys() - self.players.keys()):
            raise BowerbirdError(
                f"train.lr_multiplier names the player '{strange[0]}', but the players are {', '.join(self.players)}."
            )
        if self.config.validate_every and len(self.players) > 1:
            raise BowerbirdError(
                "train.validate_every needs one loss to look at; this model has "
                f"{len(self.players)} players ({', '.join(self.players)})."
            )

    # ------------------------------------------------------------------------------------------- cost and budget

    def _preflight(self) -> Preflight:
        return preflight(
            self.model,
            lambda n: self.batch(0, n),
            self.config.batch_size // self.config.accumulate,
            self.config.accumulate,
            self.autocast,
            longest=None if self.data.train.lengths is None else self._longest,
            optimizer_bytes=sum(player.state_bytes() for player in self.players.values()),
        )

    def _longest(self, n: int) -> Batch:
        """The training examples that a batch can be padded to: no batch takes more memory than one of these."""
        lengths = self.data.train.lengths
        assert lengths is not None
        chosen = lengths.topk(min(n, len(lengths))).indices
        return Batch(**self.data.train.batch(chosen, self.device), step=self.step)

    def _estimate(self) -> str:
        c = self.config
        limits = [c.steps, c.examples and c.examples / c.batch_size, c.flops and c.flops / self.cost.flops_per_step]
        return self.cost.sentence(min((n for n in limits if n), default=None), c.seconds or c.compute_seconds)

    @property
    def examples(self) -> int:
        return self.step * self.config.batch_size

    @property
    def seconds(self) -> float:
        """Wall-clock time in optimiser steps."""
        return self.clock.seconds

    def used(self) -> float:
        """The part of the budget that is used up, in [0, 1]; of several budgets the one nearest to its end."""
        c = self.config
        parts = [
            self.step / c.steps if c.steps else 0.0,
            self.examples / c.examples if c.examples else 0.0,
            self.seconds / c.seconds if c.seconds else 0.0,
            (self.clock.compute_seconds or 0.0) / c.compute_seconds if c.compute_seconds else 0.0,
            self.step * self.cost.flops_per_step / c.flops if c.flops else 0.0,
        ]
        return min(1.0, max(parts))

    # ------------------------------------------------------------------------------------------- one step

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def batch(self, start: int, count: int) -> Batch:
        """Examples number ``start`` … ``start + count`` of the run's endless sequence."""
        train = self.data.train
        chosen = order.indices(len(train), self.config.seed, start, count, train.lengths)
        return Batch(**self.data.train.batch(chosen, self.device), step=self.step)

    def train_step(self) -> dict[str, Tensor]:
        """One pass through the model's losses; returns the scalars to log, on the device."""
        torch.manual_seed(_step_seed(self.config.seed, self.step))
        micro = self.config.batch_size // self.config.accumulate
        start = time.perf_counter()
        batches = [self.batch(self.examples + i * micro, micro) for i in range(self.config.accumulate)]
        self.data_seconds += time.perf_counter() - start
        passes = [self.model.losses(batch) for batch in batches]
        rate = learning_rate(self.config, self.step, self.used())
        logs: dict[str, Tensor] = {}
        while turn := self._backward(passes, batches, logs):
            player, losses = turn
            norm = player.gradient_norm()
            *sound, sound_norm = torch.stack([*losses, norm]).isfinite().tolist()  # where a step waits for the device
            if not all(sound):
                raise self._failure(explain_loss(self.model, batches[sound.index(False)], player.player))
            with self.observer.update(player):
                if sound_norm:
                    player.step(rate, norm)
            if not sound_norm:
                raise self._failure(explain_gradient(player))
            player.zero_grad()
            logs[f"{player.player}/grad_norm"] = norm
        self.step += 1
        self.average.update(self.step)
        logs["lr"] = torch.tensor(self.config.lr * rate)
        return logs

    def _backward(
        self, passes: list[Iterator], batches: list[Batch], logs: dict[str, Tensor]
    ) -> tuple[PlayerOptimizer, list[Tensor]] | None:
        """Advances every micro-batch by one loss and accumulates its gradients: whose they are, and the losses.

        None when there is no further loss.
        """
        found: list[Tensor] = []
        for losses, batch in zip(passes, batches, strict=True):
            with self.autocast():
                loss = next(losses, None)
            if loss is None:
                return None
            player = self.players[loss.player]
            torch.autograd.backward(loss.value / len(passes), inputs=player.parameters)
            found.append(loss.value.detach().float())
            scalars = {f"{loss.player}/loss": loss.value} | {f"{loss.player}/{k}": v for k, v in loss.logs.items()}
            for name, value in scalars.items():
                share = value.detach().float() / len(passes)
                logs[name] = share if batch is batches[0] else logs[name] + share
        return player, found

    def _failure(self, origin: Origin) -> RunFailed:
        self.observer.failed(self, origin)
        saved = self.rundir.status().get("step")
        kept = f"The checkpoint of step {saved} is kept" if saved is not None else "There was no checkpoint yet"
        return RunFailed(
            f"Training stopped at step {self.step}: {origin.sentence()} {kept}. Resuming would repeat the same steps: "
            f"start again from {self.rundir.run_toml} with a lower --train.lr (now {self.config.lr:g}), with "
            "--train.clip-norm, or with --train.precision fp32."
        )

    # ------------------------------------------------------------------------------------------- the loop

    def run_to_the_end(self) -> TrainResult:
        recent: list[float] = []
        self.observer.begin(self)
        with self.progress, _catching_signals() as caught:
            while self.used() < 1:
                before = self.seconds
                with self.clock.step(), self.observer.step(self):
                    logs = self.train_step()
                recent.append(self.seconds - before)
                if self.config.validate_every and self.step % self.config.validate_every == 0:
                    logs |= self._validation()
                finished = self.used() >= 1
                evaluated = self._evaluation(finished)
                logs |= evaluated
                if evaluated or finished or self.step % self.config.log_every == 0:
                    self._log(logs, recent)
                    recent = []
                self.progress.advance(self.used(), self.step, self.clock, logs)
                if finished or (self.config.sample_every and self.step % self.config.sample_every == 0):
                    self._preview()
                if finished or caught or self.step % self.config.checkpoint_every == 0:
                    self.save_checkpoint()
                if caught and not finished:
                    raise Interrupted(caught[0], self.step, self.rundir.path)
        return self.result()

    def result(self) -> TrainResult:
        return TrainResult(folder=self.rundir.path, **self._counters())

    def _log(self, logs: dict[str, Tensor], recent: list[float]) -> None:
        row: dict[str, Any] = {"step": self.step, "examples": self.examples, "seconds": round(self.seconds, 3)}
        if self.clock.compute_seconds is not None:
            row["compute_seconds"] = round(self.clock.compute_seconds, 3)
        row |= {name: float(f"{value:.6g}") for name, value in self._fetched(logs).items()}
        row["examples_per_second"] = round(self.config.batch_size * len(recent) / sum(recent), 1)
        row["memory_gb"] = round(machine.memory_in_use(self.device) / 1e9, 3)
        self.progress.record(row)
        self.observer.logged(self, row)

    def _fetched(self, logs: dict[str, Tensor]) -> dict[str, float]:
        """The scalars as numbers, in one transfer from the device."""
        values = torch.stack([value.to(self.device, torch.float32) for value in logs.values()])
        return dict(zip(logs, values.tolist(), strict=True))

    def _validation(self) -> dict[str, Tensor]:
        """Losses of the averaged weights on validation examples that are the same every time."""
        examples = torch.linspace(0, len(self.data.val) - 1, min(len(self.data.val), VALIDATION_EXAMPLES)).long()
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        torch.manual_seed(self.config.seed)
        with self.average.applied(), torch.no_grad():
            for chosen in examples.split(self.config.batch_size):
                batch = Batch(**self.data.val.batch(chosen, self.device), step=self.step)
                with self.autocast():
                    losses = list(self.model.losses(batch))
                for loss in losses:
                    share = len(chosen) / len(examples) / len(losses)
                    sums[f"{loss.player}/val_loss"] = sums[f"{loss.player}/val_loss"] + share * loss.value.float().cpu()
        return dict(sums)

    def _evaluation(self, finished: bool) -> dict[str, Tensor]:
        """Scores of the averaged weights when they are due; the best weights so far are kept.

        Evaluations that would exceed their share of the time are left out, the one at the end never is.
        """
        every, share = self.config.evaluate_every, self.config.evaluate_share
        due = finished or (every and self.step % every == 0 and self.evaluating_seconds <= share * self.seconds)
        if not every or self.evaluate is None or not due:
            return {}
        start = time.perf_counter()
        with self.average.applied():
            scores = self.evaluate(self.model)
            score = next(iter(scores.values()))
            if math.isfinite(score) and (self.best is None or score < self.best[1]):
                self.best = (self.step, score)
                self.rundir.save_best(_contiguous(self.model.weights()), self.data.spec, self.step, score)
        self.evaluating_seconds += time.perf_counter() - start
        return {f"eval/{name}": torch.tensor(value) for name, value in scores.items()}

    def _preview(self) -> None:
        if self.preview is None:
            return
        stem = self.rundir.samples / f"step-{self.step:08d}"
        with self.average.applied(), torch.no_grad(), self.autocast():
            self.preview(self.model, stem)

    # ------------------------------------------------------------------------------------------- checkpoints

    def _counters(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "examples": self.examples,
            "flops": self.step * self.cost.flops_per_step,
            "parameters": self.cost.parameters,
            "finished": self.used() >= 1,
            "joules": self.joules_before + self.meter.joules(),
            "energy": self.meter.source,
            **self.clock.counters(),
        }

    def save_checkpoint(self) -> None:
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average/{name}": value for name, value in self.average.average.items()}
        for player in self.players.values():
            tensors |= {f"optimizer/{name}": value for name, value in player.state().items()}
        with self.average.applied():
            weights, adapters = _contiguous(self.model.weights()), _contiguous(self.model.adapters())
            self.rundir.save_model(weights, self.data.spec, self.step, adapters)
        self.rundir.save_state(_contiguous(tensors), self._counters())

    def load_checkpoint(self) -> None:
        tensors = self.rundir.load_state()

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v.to(self.device) for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model/"))
        for name, value in part("average/").items():
            self.average.average[name].copy_(value)
        for player in self.players.values():
            player.load_state(part("optimizer/"))
        status = self.rundir.status()
        self.step = status["step"]
        self.clock.load(status)
        self.joules_before = status.get("joules", 0.0)
        self.rundir.truncate_metrics(self.step)


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous() for name, value in tensors.items()}


def _step_seed(seed: int, step: int) -> int:
    """A 63-bit seed for one step; hashed, because neighbouring seeds of Mersenne Twister start alike."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def _catching_signals() -> Iterator[list[int]]:
    """Inside, Ctrl-C and SIGTERM only append to the list; a second one acts at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def catch(signum: int, _frame: Any) -> None:
        caught.append(signum)
        signal.signal(signum, before[signum])

    before: dict[int, Any] = {signum: signal.signal(signum, catch) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
