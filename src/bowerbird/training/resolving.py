"""What a run leaves open, settled before it starts, so that run.toml says what was done."""

from dataclasses import replace

from bowerbird import config, machine
from bowerbird.errors import BowerbirdError
from bowerbird.training.budget import LIMITS
from bowerbird.training.trackers import require_installed

LINES = 20
"""Fewest lines of metrics.jsonl, so that a short run has curves, too."""


def check(train: config.Train) -> None:
    """BowerbirdError for a run without an end, with far too many threads, or with a tracker that is not installed."""
    if not any(getattr(train, limit) for limit in LIMITS):
        raise BowerbirdError("No budget is set; add one, for example --budget 10m or --train.steps 10000.")
    if train.threads is not None:
        machine.require_threads(train.threads)
    require_installed(train.trackers)


def resolved(run: config.Run) -> config.Run:
    """The run with every choice left open settled by asking this machine and this network."""
    train = run.train
    device = machine.resolve_device(train.device)
    precision, channels_last = train.precision, train.channels_last
    if precision == "auto":
        precision = "bf16" if machine.bf16_is_faster(device.type) else "fp32"
    if channels_last is None:
        channels_last = getattr(getattr(run.model, "net", None), "channels_last", False)
    settled = replace(
        train,
        device=str(device),
        precision=precision,
        channels_last=channels_last,
        threads=train.threads or machine.idle_cores(),
        log_every=min(train.log_every, max(1, _steps(train) // LINES)),
    )
    return replace(run, train=settled)


def _steps(train: config.Train) -> int:
    """How many steps the budget allows at most, as far as that is known beforehand; else a large number."""
    limits = [train.steps, train.examples and train.examples // train.batch_size]
    return min((limit for limit in limits if limit), default=1 << 60)
