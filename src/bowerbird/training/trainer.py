"""The trainer: players, losses, averages, precision, budgets, checkpoints.  It knows no family.

One step takes each loss that the model yields, runs backward for that loss's player alone, steps that player, and only
then asks for the next loss.  Everything random in a step follows from (seed, step) and the order of examples from
(seed, epoch, position), so a run that is killed and resumed ends bit for bit where an uninterrupted one does.
"""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bowerbird import config, machine
from bowerbird.data import builtin, order
from bowerbird.data.catalogue import data_record
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.models.base import Batch, GenerativeModel
from bowerbird.training import changes, saving, starting
from bowerbird.training.clock import Clock
from bowerbird.training.energy import EnergyMeter
from bowerbird.training.handed import Evaluate, Preview, TrainingData, TrainResult
from bowerbird.training.nonfinite import Origin, explain_gradient, explain_loss
from bowerbird.training.observer import Observer
from bowerbird.training.optimizers import MovingAverage, PlayerOptimizer, learning_rate
from bowerbird.training.preflight import Preflight, preflight, require_room
from bowerbird.training.progress import Progress
from bowerbird.training.resolving import check, resolved
from bowerbird.training.rundir import RunDir, explaining_full_disk
from bowerbird.training.stopping import Interrupted, catching_signals
from bowerbird.training.validation import VALIDATION_EXAMPLES, evaluation, validation_losses

LICENCE = "DATA-LICENCE.txt"
"""Of a run on data that ship with Bowerbird: their licence and attribution."""

__all__ = ["VALIDATION_EXAMPLES", "Interrupted", "Trainer", "TrainingData", "resume", "train"]


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
    check(run.train)
    run, rundir = resolved(run), RunDir(folder)
    with explaining_full_disk(folder), rundir.starting():
        trainer = Trainer(run, rundir, data, quiet, evaluate, preview, observer)
        rundir.begin(run, _environment(trainer, run.data.source))
        _keep_licence(rundir, run.data.source)
        return trainer.run_to_the_end()


def resume(
    folder: Path,
    data: TrainingData,
    *,
    run: config.Run | None = None,
    accept_changes: bool = False,
    quiet: bool = False,
    evaluate: Evaluate | None = None,
    preview: Preview | None = None,
    observer: Observer | None = None,
) -> TrainResult:
    """Continues the run in ``folder`` exactly where its last checkpoint left it.

    ``run``: other settings to go on with, such as a larger budget; they are written into run.toml.  BowerbirdError if
    run.toml or the data are not those of the checkpoint, unless ``accept_changes``.
    """
    rundir = RunDir.open(folder)
    with explaining_full_disk(folder), rundir.going_on():
        there, saved = rundir.config(), rundir.saved_state()
        run = there if run is None else resolved(run)
        check(run.train)
        made = changes.to_go_on(folder, saved.record if saved else {}, there, run, data, accept_changes)
        if not saved and rundir.model_file.is_file():
            raise BowerbirdError(
                f"{folder} has a model but no training state (state/state.safetensors is missing), so it cannot go on "
                f"where it was; start a new run from its weights: bowerbird train {rundir.run_toml} --start {folder} "
                "--out NEW"
            )
        if saved and saved.counters["finished"] and not made and rundir.model_file.is_file():
            return TrainResult(folder=rundir.path, **saved.counters)
        trainer = Trainer(run, rundir, data, quiet, evaluate, preview, observer)
        if saved:
            saving.restore(trainer, saved)
            if not rundir.model_file.is_file():  # killed between the first state and the first weights
                trainer.save_checkpoint()
        else:
            rundir.truncate_metrics(0)  # killed before the first checkpoint: all steps will be logged again
        if made or run != there or not saved:
            _record_changes(trainer, run, made)
        del saved  # its tensors are the file itself, mapped into memory
        return trainer.run_to_the_end()


def is_finished(rundir: RunDir) -> bool:
    """Whether there is nothing left to do: the budget is used up, and run.toml is as it was then."""
    if not (rundir.status().get("finished") and rundir.model_file.is_file()):
        return False
    there = rundir.config()
    return not changes.settings_changed(changes.settings_of(rundir.record(), otherwise=there), there)


def _record_changes(trainer: "Trainer", run: config.Run, made: list[str]) -> None:
    """Writes down what a run goes on with, so that it is asked about once."""
    trainer.rundir.write_config(run)
    trainer.rundir.write_json("environment.json", _environment(trainer, run.data.source))
    if made:
        trainer.rundir.append_metrics({"step": trainer.step, "event": "continued", "changes": "; ".join(made)})
        trainer.progress.say(f"  continues with changes: {'; '.join(made)}")
        trainer.save_checkpoint()


def _environment(trainer: "Trainer", source: str) -> dict[str, Any]:
    data = trainer.data
    start = {"start": trainer.started} if trainer.started else {}
    record = data_record(source)
    licence = record.licence if record else "not known: data of the user's own"
    return (
        machine.describe() | {"data": data.summary(), "fingerprint": data.fingerprint, "data_licence": licence} | start
    )


def _keep_licence(rundir: RunDir, source: str) -> None:
    """The licence of data that ship with Bowerbird stays with what was made of them."""
    record = data_record(source)
    if record and record.built_in:
        rundir.write_text(LICENCE, builtin.licence(record.ships_as).read_text(encoding="utf-8"))


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
        self.progress = Progress(rundir, data.summary(), quiet)
        self.device = machine.resolve_device(self.config.device)
        torch.set_num_threads(self.config.threads or machine.idle_cores())
        machine.keep_freed_memory()

        micro = self.config.batch_size // self.config.accumulate
        require_room(lambda: run.model.build(data.spec), data.spec, self.device, micro, self.config.accumulate)
        machine.seed(self.device, self.config.seed)
        self.model: GenerativeModel = run.model.build(data.spec).to(self.device)
        self.started = self._start_from(self.config.start)
        starting.freeze(self.model, self.config.freeze)
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

        self.record = changes.record_of(run, data)
        self.step = 0
        self.examples = 0
        self.flops = 0.0
        self.clock = Clock(self.device)
        self.evaluating_seconds = 0.0
        self.best = rundir.best()
        self.joules_before = 0.0
        self.meter = EnergyMeter(self.device.type)
        self.data_seconds = 0.0
        """The part of this process's steps in which they waited for their batch."""
        self.cost = self._preflight()
        self.progress.say(f"  model  {self.estimate()}")
        if self.started:
            self.progress.say(f"  start  {self.started}")

    def _start_from(self, folder: str) -> str:
        """What the first weights are taken from, in words; nothing where a checkpoint will replace them."""
        if not folder and self.model.borrowed:
            raise BowerbirdError(
                f"The {self.model.borrowed} of this model is trained by a run of its own; name that run with --start, "
                "for example --start runs/NAME-001."
            )
        if not folder or self.rundir.status():
            return ""
        return starting.start_from(self.model, self.data.spec, Path(folder))

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

    def estimate(self) -> str:
        """What a step costs and how long the run will take, in one line."""
        c = self.config
        limits = [c.steps, c.examples and c.examples / c.batch_size, c.flops and c.flops / self.cost.flops_per_step]
        return self.cost.sentence(min((n for n in limits if n), default=None), c.seconds or c.compute_seconds)

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
            self.flops / c.flops if c.flops else 0.0,
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
        machine.seed(self.device, _step_seed(self.config.seed, self.step))
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
                raise self._failure(explain_gradient(player.player, player.named_parameters))
            player.zero_grad()
            logs[f"{player.player}/grad_norm"] = norm
        self.step += 1
        self.examples += self.config.batch_size
        self.flops += self.cost.flops_per_step
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
        with self.progress, catching_signals() as caught:
            while self.used() < 1:
                before = self.seconds
                with self.clock.step(), self.observer.step(self):
                    logs = self.train_step()
                recent.append(self.seconds - before)
                if self.config.validate_every and self.step % self.config.validate_every == 0:
                    logs |= validation_losses(self)
                finished = self.used() >= 1
                evaluated = evaluation(self, finished)
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
        return TrainResult(folder=self.rundir.path, **saving.counters(self))

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

    def _preview(self) -> None:
        if self.preview is None:
            return
        stem = self.rundir.samples / f"step-{self.step:08d}"
        with self.average.applied(), torch.no_grad(), self.autocast():
            self.preview(self.model, stem)

    def save_checkpoint(self) -> None:
        saving.save(self)


def _step_seed(seed: int, step: int) -> int:
    """A 63-bit seed for one step; hashed, because neighbouring seeds of Mersenne Twister start alike."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest(), "big") >> 1
