"""Watches a training loop that is not ours and writes what it sees like a run of ours.

The optimisers tell when they step (torch's own hooks): gradients are complete before, weights have moved after.  Losses
come from whoever drives the loop.  Nothing here changes the training: random states and modes are put back, gradients
and weights are only read.  Each step waits once for the device, to see whether the gradients are finite.
"""

import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bowerbird import config, machine
from bowerbird.diagnosis import samples
from bowerbird.diagnosis.finding import Finding
from bowerbird.diagnosis.layerwatch import LayerWatch
from bowerbird.diagnosis.record import Record
from bowerbird.diagnosis.rules.latent import ACTIVE_NATS
from bowerbird.diagnosis.signals import YOUNG, Signals
from bowerbird.diagnosis.watch import EARLY_STEPS
from bowerbird.eightbit import to_uint8
from bowerbird.errors import BowerbirdError
from bowerbird.integrations.players import Game, Player, players_of
from bowerbird.media.image.pictures import sheet
from bowerbird.metrics.measurement import Measurement
from bowerbird.report.run import write_run_report
from bowerbird.training.nonfinite import Origin, explain_gradient, explain_weights
from bowerbird.training.rundir import RunDir

FEWEST_REAL = 64
"""Real examples below which samples are not compared with them."""


@dataclass(frozen=True)
class Probes:
    """What a loop may be asked about its model now and then; the module that is trained is handed to each."""

    sample: Callable[[Any, int], Tensor] | None = None
    """(module, n) → n pictures, float in [-1, 1], (n, c, h, w).  Of a GAN that has a discriminator module they are seen
    as they are made, and this is needed for a sheet only."""
    real: Tensor | None = None
    """Training pictures that samples are compared with, in the same range: some hundreds."""
    posterior: Callable[[Any], tuple[Tensor, Tensor]] | None = None
    """(module) → mean and log-variance of the codes of a few fixed examples, each (n, n_latent)."""
    measure: Callable[[Any], Sequence[Measurement]] | None = None
    """(module) → measurements, asked for at the end, for the report: see ``bowerbird.measuring.plain``."""
    every: int = 100
    """Steps between two of the first three."""


@dataclass(frozen=True)
class Foreign(config.ModelConfig):
    """Stands for a model that is not ours in what the rules look at."""

    n_latent: int = 0


class LoopWatch:
    """Sees a loop from its first step to ``close``, and writes into a new folder what `bowerbird train` writes there:
    metrics.jsonl, signals.jsonl, diagnosis.json, environment.json, samples/, measurements.json, report.html."""

    def __init__(
        self,
        folder: Path | str,
        module: nn.Module,
        optimizers: Sequence[Optimizer],
        *,
        steps: int | None = None,
        batch_size: int = 1,
        probes: Probes = Probes(),
        log_every: int = 20,
        title: str = "",
    ):
        """``steps``: how many there will be; where that is not known, rules about late training speak from step 90 on.

        BowerbirdError if the folder holds something already, or if there is no optimiser.
        """
        if not optimizers:
            raise BowerbirdError("There is no optimiser to watch yet; start watching when the loop has made them.")
        self.module, self.probes, self.steps, self.log_every = module, probes, steps, log_every
        self.step, self.examples, self.batch_size, self.open = 0, 0, batch_size, True
        self.players = players_of(module, optimizers)
        self.game = Game(self.players)
        self.layers = {player.name: LayerWatch(player.module) for player in self.players}
        self.rundir = _new_folder(folder)
        self.record = Record(self.rundir, Signals(self._as_run()), _say, in_words_of_any_loop)
        self.clock = _Clock()
        self.losses: list[Tensor] = []
        self.numbers: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.seen: dict[str, dict[str, Any]] = {}
        self.row: dict[str, Any] = {}
        self.probed = 0
        self._handles = [handle for player in self.players for handle in self._hooks(player)]
        self.rundir.write_json("environment.json", machine.describe() | {"model": title or type(module).__name__})
        self.record.write({"step": 0, "facts": {"parameters": sum(p.numel() for p in module.parameters())}})
        self.record.write({"step": 0, "used": 0.0, "weights": self._weight_norms()})

    # ------------------------------------------------------------------------------------------- what a loop tells

    def batch_came(self) -> None:
        """The batch of the next step is there: the time since the last step went into waiting for it."""
        self.clock.stop_waiting()

    def backward(self, loss: Tensor) -> None:
        """A loss is about to be differentiated; it belongs to the player whose optimiser steps next."""
        self.losses.append(loss.detach().float())

    def log(self, numbers: Mapping[str, float]) -> None:
        """Numbers to record at this step.  model/loss and model/val_loss are looked at by the rules."""
        self.row = (self.row or self._new_row()) | {name: float(value) for name, value in numbers.items()}
        self.clock.start_waiting()

    def step_done(self) -> None:
        """After each step of the loop, whatever number of optimisers stepped in it."""
        if not self.open or not self.numbers:
            return
        self._flush()
        self.step += 1
        self.examples += self.batch_size
        if self._active(self.step):
            self.row = self._new_row() | self.numbers
        self.last, self.numbers = self.numbers, {}
        self.game.end_of_step()
        self.clock.start_waiting()

    def close(self) -> None:
        """Asks and judges for the last time, measures, and writes the report."""
        if self.open and self.step:
            self.row = self.row or (self._new_row() | self.last)
            self._flush(ended=True)
        self._release()
        if self.probes.measure is not None:
            with _as_it_was(self.module):
                found = self.probes.measure(self.module)
            self.rundir.write_json("measurements.json", {"measurements": [one.to_json() for one in found]})
        write_run_report(self.rundir.path)

    # ------------------------------------------------------------------------------------------- around a step

    def _active(self, step: int) -> bool:
        return step % self.log_every == 0 or step in EARLY_STEPS

    def _hooks(self, player: Player) -> list[Any]:
        before: list[Any] = []

        def look() -> None:
            before[:] = [self.layers[player.name].before()] if self._gradients(player) else []

        def pre(_optimizer: Optimizer, words: tuple[Any, ...], named: dict[str, Any]) -> Any:
            """Gradients are there, or will be when the closure that was handed to the step has run."""
            closure = next((word for word in (*words[1:], named.get("closure")) if callable(word)), None)
            if closure is None:
                look()
                return None
            return (*words[:1], _then(closure, look)), {}

        def post(_optimizer: Optimizer, _words: Any, _named: Any) -> None:
            if before:
                self.seen[player.name] = self.layers[player.name].after(before.pop())

        optimizer = player.optimizer
        return [optimizer.register_step_pre_hook(pre), optimizer.register_step_post_hook(post)]

    def _gradients(self, player: Player) -> bool:
        """Notes what is known before a player's step, and whether its layers are to be looked at."""
        gradients = [p.grad for p in player.parameters.values() if p.grad is not None]
        losses, self.losses = self.losses, []
        norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
        if not math.isfinite(norm):
            self._failed(explain_weights(self.module, player.name) or explain_gradient(player.name, player.parameters))
            return False
        self.numbers[f"{player.name}/grad_norm"] = norm
        if losses:
            self.numbers[f"{player.name}/loss"] = float(torch.stack(losses).mean())
        if (accuracy := self.game.accuracy(player.name)) is not None:
            self.numbers[f"{player.name}/accuracy"] = accuracy
        return bool(self.layers[player.name].weights) and self._active(self.step + 1)

    def _failed(self, origin: Origin) -> None:
        """Nothing that follows can be judged: the watch ends, the training goes on as its owner wants."""
        self._flush()
        self._write_signals({})
        failure = vars(origin) | {"sentence": origin.sentence()}
        self.record.write({"step": self.step, "failure": failure})
        self.record.judge(self.step)
        self._release()

    def _release(self) -> None:
        self.open = False
        self.game.close()
        for handle in self._handles:
            handle.remove()

    # ------------------------------------------------------------------------------------------- what is written

    @property
    def used(self) -> float:
        """The part of the training that is over; where its length is not known, a half of it at step YOUNG."""
        return min(1.0, self.step / self.steps) if self.steps else self.step / (self.step + YOUNG)

    def _new_row(self) -> dict[str, Any]:
        return {"step": self.step, "examples": self.examples, "seconds": round(self.clock.seconds, 3)}

    def _flush(self, ended: bool = False) -> None:
        """Writes the row of the last step that is to be recorded: it is complete when the next step has begun."""
        if not self.row:
            return
        due = ended or self.step // self.probes.every > self.probed // self.probes.every
        probed = self._probe() if due else {}
        self.rundir.append_metrics(self.row)
        self.record.signals.rows.append(self.row)
        self._write_signals(probed, ended)
        self.row = {}
        self.record.judge_if_due(self.step, ended)

    def _write_signals(self, probed: dict[str, Any], ended: bool = False) -> None:
        used = 1.0 if ended and not self.steps else round(self.used, 4)
        seen, self.seen = self.seen, {}
        signals = {"step": self.step, "used": used, "weights": self._weight_norms()} | self.clock.share()
        self.record.write(signals | ({"layers": seen} if seen else {}) | probed)

    def _weight_norms(self) -> dict[str, float]:
        with torch.no_grad():
            return {p.name: float(torch.nn.utils.get_total_norm(p.parameters.values())) for p in self.players}

    def _as_run(self) -> config.Run:
        """What the rules ask of a run's settings."""
        rates = {player.name: player.lr for player in self.players}
        highest = max([*rates.values(), 1e-12])
        multiplier = {name: rate / highest for name, rate in rates.items() if rate < highest}
        train = config.Train(lr=highest, batch_size=self.batch_size, lr_multiplier=multiplier)
        return config.Run(Foreign(), train=train)

    # ------------------------------------------------------------------------------------------- what is asked

    def _probe(self) -> dict[str, Any]:
        self.probed = self.step
        with _as_it_was(self.module):
            self._look_at_posterior()
            return self._look_at_samples()

    def _look_at_samples(self) -> dict[str, Any]:
        made, real = next(iter(self.game.made.values()), None), self.game.real
        if self.probes.sample is not None:
            x = self.probes.sample(self.module, samples.N_SAMPLES).float()
            sheet(to_uint8(x).cpu()).save(self.rundir.samples / f"step-{self.step:08d}.png")
            made = x if self.probes.real is not None else made
        real = self.probes.real if self.probes.real is not None else real
        if made is None or real is None or len(real) < FEWEST_REAL:
            return {}
        some = real[:: max(1, len(real) // samples.N_TRAIN)].float()
        return {"samples": samples.statistics(made, None, samples.reference_of(some))}

    def _look_at_posterior(self) -> None:
        if self.probes.posterior is None:
            return
        mu, logvar = self.probes.posterior(self.module)
        kl = ((mu.square() + logvar.exp() - logvar - 1) / 2).float().mean(0)
        self.row |= {"model/kl": float(kl.sum()), "model/active_units": int((kl > ACTIVE_NATS).sum())}
        signals = self.record.signals
        signals.run = replace(signals.run, model=Foreign(n_latent=len(kl)))


class _Clock:
    """Wall-clock seconds, and the part of them in which steps waited for their batch."""

    def __init__(self) -> None:
        self.began = self.window = self.idle = time.perf_counter()
        self.waited, self.asked = 0.0, False

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def start_waiting(self) -> None:
        self.idle = time.perf_counter()

    def stop_waiting(self) -> None:
        self.waited, self.asked = self.waited + time.perf_counter() - self.idle, True

    def share(self) -> dict[str, float]:
        """Since the last call; nothing where the loop does not say when batches come."""
        now = time.perf_counter()
        share = self.waited / max(now - self.window, 1e-9)
        self.window, self.waited = now, 0.0
        return {"data_share": round(share, 4)} if self.asked else {}


def _then(closure: Callable[[], Any], look: Callable[[], None]) -> Callable[[], Any]:
    def both() -> Any:
        result = closure()
        look()
        return result

    return both


def _new_folder(folder: Path | str) -> RunDir:
    rundir = RunDir(folder)
    if rundir.path.exists() and any(rundir.path.iterdir()):
        raise BowerbirdError(f"{folder} is not empty; choose a new folder for what is seen of this training.")
    rundir.samples.mkdir(parents=True, exist_ok=True)
    return rundir


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def in_words_of_any_loop(finding: Finding) -> Finding:
    """Advice names our flags; outside, the last part of each name is what the field calls the setting."""
    plain = [advice.replace(", or look for it: --find-lr", "") for advice in finding.advice]
    return replace(finding, advice=tuple(re.sub(r"--(?:\w+\.)*([\w-]+)", _setting, advice) for advice in plain))


def _setting(flag: re.Match[str]) -> str:
    return flag[1].replace("-", "_")


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Evaluation without gradients inside; afterwards modes and random states are what they were."""
    modes = {inner: inner.training for inner in module.modules()}
    devices = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)), torch.no_grad():
        try:
            module.eval()
            yield
        finally:
            for inner, training in modes.items():
                inner.training = training
