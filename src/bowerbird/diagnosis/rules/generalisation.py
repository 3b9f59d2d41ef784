"""The averaged weights and the data that were held out: stale averages, overfitting, copies, modes that differ."""

import numpy as np

from bowerbird.diagnosis.rule import Verdict, observed, rule
from bowerbird.diagnosis.signals import Series, Signals


def _relative(a: Series, b: Series) -> Series:
    """(a - b) / |b| of two numbers probed together."""
    return Series(a.name, a.steps, (a.values - b.values) / np.maximum(np.abs(b.values), 1e-12))


@rule(
    "overfitting",
    "The model learns its training examples by heart: the validation loss rises",
    "Goodfellow, Bengio and Courville 2016, Deep Learning, section 7.8 (early stopping)",
)
def overfitting(s: Signals) -> Verdict | None:
    held = s.series("model/val_loss")
    train = s.series("model/loss")
    if len(held) < 3:
        held, train = s.probed("losses.held"), s.probed("losses.averaged")
    if len(held) < 3 or len(train) < 3:
        return None
    best = int(held.values.argmin())
    rise, gap = held.last - held.values[best], held.last - train.tail(0.15).median
    fallen = train.first - train.tail(0.15).median
    if held.steps[best] > 0.85 * held.steps[-1] or fallen <= 0:
        return None
    if rise < 0.08 * fallen or gap < 0.15 * fallen or gap < 3 * _noise(train):
        return None
    since = held.after(int(held.steps[best]))
    evidence = [
        observed(since, f"it rose from {since.first:.4g} at its best to {since.last:.4g}", since.last),
        observed(train.tail(0.15), f"while the training loss is {train.tail(0.15).median:.4g}"),
    ]
    advice = [
        f"stop near step {held.steps[best]}, or use more data",
        "regularise: --model.net.dropout 0.2, --train.weight-decay 0.1, or a smaller network",
    ]
    return Verdict(0.9 if rise > 0.2 * fallen else 0.7, evidence, advice)


def _noise(series: Series) -> float:
    """Spread from one value to the next."""
    return float(np.median(np.abs(np.diff(series.values)))) if len(series) > 1 else 0.0


@rule(
    "memorisation",
    "The samples are copies of training images",
    "Somepalli et al. 2023, arXiv:2212.03860; Carlini et al. 2023, arXiv:2301.13188",
    explains=("mode-collapse", "overfitting"),
)
def memorisation(s: Signals) -> Verdict | None:
    nearest = s.probed("samples.nearest")
    if not len(nearest) or not s.samples_count:
        return None
    late = nearest.tail(0.2)
    if late.median > 0.5 or s.probed("samples.diversity").tail(0.2).median < 0.02:
        return None
    text = f"a sample lies {late.median:.2f} times as far from its nearest training image as training images lie apart"
    advice = ["use more images, or show them changed: --data.flip True; for a GAN --model.augment translate cutout"]
    return Verdict(0.85 if late.median < 0.3 else 0.7, [observed(late, text)], advice)


@rule(
    "ema-stale",
    "The averaged weights, which are what is used, lag behind the trained ones",
    "Karras et al. 2024, arXiv:2312.02696, section 3 (length of the average); Kingma and Ba 2015 (bias correction)",
    explains=("mode-collapse", "label-ignored", "overfitting", "learning-rate-too-low", "batch-statistics"),
)
def ema_stale(s: Signals) -> Verdict | None:
    own, averaged, first = s.probed("losses.own"), s.probed("losses.averaged"), s.facts.get("first_loss")
    if not len(own) or first is None or s.used < 0.3:
        return None
    late_own, late_averaged = own.tail(0.3), averaged.tail(0.3)
    learned = first - late_own.median
    behind = late_averaged.median - late_own.median
    if learned <= 0.02 * abs(first) or behind < 0.4 * learned:
        return None
    evidence = [
        observed(late_averaged, f"on the same examples the average has a loss of {late_averaged.median:.4g}"),
        observed(late_own, f"the weights themselves {late_own.median:.4g}; training began at {first:.4g}"),
    ]
    steps = s.step
    decay = max(0.0, 1 - 10 / max(steps, 20))
    advice = [f"shorten the average: --train.ema-decay {decay:.4g} for {steps} steps, and warm it up"]
    return Verdict(0.93, evidence, advice)


@rule(
    "batch-statistics",
    "Training and evaluation use different statistics in batch normalisation",
    "Ioffe and Szegedy 2015, arXiv:1502.03167, section 3.1; Wu and Johnson 2021, arXiv:2105.07576",
    explains=("mode-collapse", "label-ignored", "ema-stale", "overfitting", "memorisation"),
)
def batch_statistics(s: Signals) -> Verdict | None:
    distance = s.probed("batch_norm")
    if len(distance) < 3 or s.used < 0.3:
        return None
    late = distance.tail(0.5)
    if late.median < 0.6:  # 0.2 to 0.4 with batches of 32 and torch's momentum
        return None
    text = f"the statistics of a batch lie {late.median:.2g} standard deviations from the running ones"
    advice = [
        "raise the momentum of the running statistics (torch's default is 0.1) or the batch size",
        "or normalise without batches: --model.net.norm group",
    ]
    return Verdict(0.9, [observed(late, text)], advice)
