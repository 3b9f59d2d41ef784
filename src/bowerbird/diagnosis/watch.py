"""Watching a run while it trains: extra signals, findings as soon as they can be told, the origin of a failure.

What it costs.  At logged steps gradients and updates are looked at by layer, which is a pass over the weights.  Two
probes need the network: a few samples (``samples``), and the loss on a few fixed examples in evaluation mode.  They
come when all of them so far stay under a share of the run's floating-point operations (1 % and 0.5 %), counted
beforehand, so that the same run always has the same signals; and once more at the end.  Samples are not drawn before
they are judged: from step YOUNG on.

Nothing here changes training: random states and buffers are put back, gradients are only read.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from bowerbird import machine
from bowerbird.diagnosis import samples
from bowerbird.diagnosis.facts import N_EXAMPLES, facts_of
from bowerbird.diagnosis.layerwatch import BatchNormWatch, LayerWatch, watched_layers
from bowerbird.diagnosis.record import Record
from bowerbird.diagnosis.signals import FILE, YOUNG, Signals, read_lines
from bowerbird.media.image.imageset import ImageData
from bowerbird.media.speech.soundset import SoundData
from bowerbird.media.video.clipset import ClipData
from bowerbird.models.base import Batch, Infers
from bowerbird.training.nonfinite import Origin
from bowerbird.training.observer import Observer
from bowerbird.training.optimizers import PlayerOptimizer
from bowerbird.training.trainer import Trainer

SHARE_OF_SAMPLES, SHARE_OF_LOSSES = 0.01, 0.005
"""Of the run's operations."""
N_FIXED = 64
"""Most examples whose loss is followed."""
EARLY_STEPS = (1, 2, 3, 5)
"""Looked at too, whatever is logged: some runs do not live longer."""


class Watch(Observer):
    """Writes signals.jsonl and diagnosis.json, and says on the terminal what it finds, each cause once."""

    def begin(self, trainer: Trainer) -> None:
        self.file = trainer.rundir.path / FILE
        kept = [row for row in read_lines(self.file) if row["step"] <= trainer.step and "failure" not in row]
        trainer.rundir.write_lines(FILE, kept)
        rows = [row for row in trainer.rundir.metrics() if "event" not in row]
        signals = Signals(trainer.rundir.config(), rows=rows)
        for row in kept:
            signals.add(row)
        self.record = Record(trainer.rundir, signals, trainer.progress.say)
        self.seen: dict[str, dict[str, Any]] = {}
        self.waited = (0.0, 0.0)
        modules = trainer.model.players
        self.layers: dict[str, LayerWatch] = watched_layers(trainer.players, modules)
        self.norms = BatchNormWatch(_evaluated_modules(trainer))
        with _untouched(trainer):
            self.probes = _Probes(trainer)
            if trainer.step == 0:
                facts = facts_of(trainer.model, trainer.data.spec, _first_examples(trainer)) | {
                    "examples": samples.compared(trainer.data)
                }
                self.record.write({"step": 0, "facts": facts | self.probes.first_loss(trainer)})
                self.record.write({"step": 0, "used": 0.0, "weights": _weight_norms(trainer)})

    @contextmanager
    def step(self, trainer: Trainer) -> Iterator[None]:
        ahead = trainer.step + 1
        logged = ahead % trainer.config.log_every == 0
        self.active = logged or ahead in EARLY_STEPS
        with self.norms if self.active and not trainer.config.compile else ExitStack():
            yield
        if self.active and not logged and trainer.used() < 1:
            self.record.write({"step": trainer.step, "used": round(trainer.used(), 4), **self._layers()})

    @contextmanager
    def update(self, player: PlayerOptimizer) -> Iterator[None]:
        watch = self.layers.get(player.player) if self.active else None
        if watch is None:
            yield
            return
        before = watch.before()
        yield
        self.seen[player.player] = watch.after(before)

    def logged(self, trainer: Trainer, row: dict[str, Any]) -> None:
        self.record.signals.rows.append(row)
        ended = trainer.used() >= 1
        signals: dict[str, Any] = {"step": trainer.step, "used": round(trainer.used(), 4)}
        signals["data_share"] = self._waiting(trainer)
        signals["weights"] = _weight_norms(trainer)
        signals |= self._layers()
        if (distance := self.norms.largest()) is not None:
            signals["batch_norm"] = distance
        with _untouched(trainer):
            signals |= self.probes.due(trainer, ended)
        self.record.write(signals)
        self.record.judge_if_due(trainer.step, ended)

    def failed(self, trainer: Trainer, origin: Origin) -> None:
        if self.seen:
            self.record.write({"step": trainer.step, "used": round(trainer.used(), 4), **self._layers()})
        table = {"step": trainer.step, "failure": vars(origin) | {"sentence": origin.sentence()}}
        self.record.write(table)
        self.record.judge(trainer.step)

    # ------------------------------------------------------------------------------------------- inside

    def _layers(self) -> dict[str, Any]:
        seen, self.seen = self.seen, {}
        return {"layers": seen} if seen else {}

    def _waiting(self, trainer: Trainer) -> float:
        """The part of the time since the last line in which steps waited for data."""
        data, total = trainer.data_seconds - self.waited[0], trainer.seconds - self.waited[1]
        self.waited = (trainer.data_seconds, trainer.seconds)
        return round(data / total, 4) if total > 0 else 0.0


def _weight_norms(trainer: Trainer) -> dict[str, float]:
    """Of each player's weights."""
    with torch.no_grad():
        norms = {name: torch.nn.utils.get_total_norm(player.parameters) for name, player in trainer.players.items()}
    return {name: float(f"{norm.item():.9g}") for name, norm in norms.items()}


def _evaluated_modules(trainer: Trainer) -> list[torch.nn.Module]:
    """The modules that are used in evaluation mode: of a game what samples, else all."""
    model = trainer.model
    return list((model if len(model.players) == 1 else model.sampling_network).modules())


@contextmanager
def _untouched(trainer: Trainer) -> Iterator[None]:
    """Random states, buffers and gradients are afterwards what they were."""
    buffers = {name: value.clone() for name, value in trainer.model.named_buffers()}
    with torch.random.fork_rng(devices=[trainer.device] if trainer.device.type == "cuda" else []):
        try:
            yield
        finally:
            for name, value in trainer.model.named_buffers():
                if not torch.equal(value, buffers[name]):
                    value.copy_(buffers[name])


class _Probes:
    """The two that need the network, and when their turn is."""

    def __init__(self, trainer: Trainer):
        self.batches = _fixed_batches(trainer)
        self.reference: samples.Reference | None = None
        self.per_example = 1 / (3 * trainer.config.batch_size)  # a forward pass of one, as a part of a step
        loss_cost = 3 * min(N_FIXED, trainer.config.batch_size) * self.per_example
        self.loss_every = math.ceil(loss_cost / SHARE_OF_LOSSES) if self.batches else 0
        self.sample_every = 0
        self.last_loss = self.last_sample = trainer.step

    def first_loss(self, trainer: Trainer) -> dict[str, float]:
        """The loss of the weights that training starts from, in training mode."""
        if not self.batches:
            return {}
        return {"first_loss": _loss(trainer, self.batches["train"], keep_mode=True)}

    def due(self, trainer: Trainer, ended: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.loss_every and (ended or trainer.step // self.loss_every > self.last_loss // self.loss_every):
            self.last_loss = trainer.step
            found["losses"] = self._losses(trainer)
            if isinstance(trainer.model, Infers):
                found["kl"] = _kl_per_dimension(trainer, self.batches["held"])
        if self.reference is None and trainer.step >= YOUNG:
            self._compare_samples(trainer)
        if self.sample_every and (ended or trainer.step // self.sample_every > self.last_sample // self.sample_every):
            self.last_sample = trainer.step
            found["samples"] = self._samples(trainer)
        return found

    def _losses(self, trainer: Trainer) -> dict[str, float]:
        own = _loss(trainer, self.batches["train"])
        with trainer.average.applied():
            averaged = _loss(trainer, self.batches["train"])
            held = _loss(trainer, self.batches["held"])
        return {"own": own, "averaged": averaged, "held": held}

    def _compare_samples(self, trainer: Trainer) -> None:
        """From now on, where they are cheap: what they cost, and what they are compared with."""
        if isinstance(trainer.data, ImageData | ClipData | SoundData) and samples.is_cheap(trainer.model):
            with trainer.average.applied(), trainer.autocast():
                _, _, evaluations = samples.few(trainer.model, trainer.data, 2)
            cost = samples.N_SAMPLES * evaluations * self.per_example
            self.sample_every = math.ceil(cost / SHARE_OF_SAMPLES)
            self.reference = samples.reference(trainer.data, trainer.device, "label" in trainer.model.spec.given)

    def _samples(self, trainer: Trainer) -> dict[str, float]:
        assert self.reference is not None
        assert isinstance(trainer.data, ImageData | ClipData | SoundData)
        with trainer.average.applied(), trainer.autocast():
            x, label, _ = samples.few(trainer.model, trainer.data, samples.N_SAMPLES)
        return samples.statistics(x, label, self.reference)


def _first_examples(trainer: Trainer) -> Batch:
    """Those of the first steps; where batches hold rows of like lengths, rows of all lengths, which pad one another."""
    train = trainer.data.train
    n = min(N_EXAMPLES, len(train))
    if train.lengths is None:
        return trainer.batch(0, n)
    fields: dict[str, Any] = train.batch(torch.linspace(0, len(train) - 1, n).long(), trainer.device)
    return Batch(**fields)


def _fixed_batches(trainer: Trainer) -> dict[str, Batch]:
    """The same training and validation examples throughout; none for games and for losses that need gradients."""
    if len(trainer.players) > 1 or trainer.model.differentiates_twice:
        return {}
    n = min(N_FIXED, trainer.config.batch_size)
    found = {}
    for name, split in (("train", trainer.data.train), ("held", trainer.data.val)):
        if len(split) == 0:
            return {}
        chosen = torch.linspace(0, len(split) - 1, min(len(split), n)).long()
        fields: dict[str, Any] = split.batch(chosen, trainer.device)
        found[name] = Batch(**fields)
    return found


@torch.no_grad()
def _loss(trainer: Trainer, batch: Batch, keep_mode: bool = False) -> float:
    """The mean of the losses with the same noise every time; in evaluation mode unless ``keep_mode``."""
    training = trainer.model.training
    trainer.model.train(training and keep_mode)
    machine.seed(trainer.device, 0)
    try:
        with trainer.autocast():
            values = [loss.value.float() for loss in trainer.model.losses(batch._replace(step=trainer.step))]
    finally:
        trainer.model.train(training)
    return float(f"{torch.stack(values).mean().item():.6g}")


@torch.no_grad()
def _kl_per_dimension(trainer: Trainer, batch: Batch) -> dict[str, Any]:
    """KL(q(z|x) ‖ N(0, 1)) of each latent dimension in nats, largest first."""
    model: Any = trainer.model
    with trainer.average.applied(), trainer.autocast():
        mu, logvar = model.posterior(batch.x, batch.given)
    kl: Tensor = ((mu.square() + logvar.exp() - logvar - 1) / 2).float().mean(0)
    per_dimension = [float(f"{value:.4g}") for value in kl.sort(descending=True).values.tolist()]
    return {"largest": per_dimension[0], "median": per_dimension[len(per_dimension) // 2], "dimensions": per_dimension}
