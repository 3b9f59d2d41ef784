"""Optimisation: learning rates, gradients by layer, units that do nothing."""

from collections.abc import Iterator

import numpy as np

from bowerbird.diagnosis.finding import Evidence
from bowerbird.diagnosis.rule import Verdict, observed, rule
from bowerbird.diagnosis.signals import YOUNG, Series, Signals
from bowerbird.report.numbers import part_of

WARM = 10
"""Steps in which networks that start at zero have no gradients to judge."""
FAST, SLOW = 0.15, 3e-5
"""Changes of a layer's weights in one step, as parts of their size, that are hardly ever right."""


def layer_table(s: Signals, player: str, name: str, since: int = WARM + 1) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Steps, layer names and one number for each, (steps, layers); empty where nothing was seen."""
    rows = [row for row in s.probes if row["step"] >= since and player in row.get("layers", {})]
    if not rows:
        return np.zeros(0, int), [], np.zeros((0, 0))
    names = list(rows[0]["layers"][player])
    table = [[row["layers"][player].get(layer, {}).get(name, np.nan) for layer in names] for row in rows]
    return np.array([row["step"] for row in rows]), names, np.array(table, dtype=float)


@rule(
    "disconnected-layer",
    "A part of the network gets no gradient at all",
    "Rumelhart et al. 1986 (no path, no gradient); PyTorch: Tensor.detach, torch.no_grad",
    explains=("dead-units", "posterior-collapse", "mode-collapse", "vanishing-gradients", "label-ignored",
              "learning-rate-too-low", "overfitting"),
)  # fmt: skip
def disconnected_layer(s: Signals) -> Verdict | None:
    for player in s.players:
        steps, names, gradient = layer_table(s, player, "gradient")
        if len(steps) < 3:
            continue
        silent = (gradient == 0).all(0)
        if 0 < silent.sum() < len(names):
            which = [name for name, zero in zip(names, silent, strict=True) if zero]
            text = f"{player}: the gradient of {_listed(which)} is exactly zero at every logged step"
            series = Series(f"layers.{player}.{which[0]}.gradient", steps, gradient[:, names.index(which[0])])
            advice = ["look for detach(), no_grad() or a rounding between this part and the loss"]
            return Verdict(0.93, [observed(series, text)], advice)
    return None


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@rule(
    "dead-units",
    "Units that never fire, and so never learn",
    "Lu et al. 2020, arXiv:1903.06733 (dying ReLU); Maas et al. 2013 (leaky ReLU)",
    explains=("mode-collapse", "posterior-collapse", "vanishing-gradients", "label-ignored", "learning-rate-too-low",
              "disconnected-layer"),
)  # fmt: skip
def dead_units(s: Signals) -> Verdict | None:
    for player in s.players:
        steps, names, idle = layer_table(s, player, "idle")
        if len(steps) < 3:
            continue
        _, _, unfed = layer_table(s, player, "unfed")
        starving = [name for name, always in zip(names, (unfed == 1).mean(0) > 0.8, strict=True) if always]
        if starving:
            series = Series(f"layers.{player}.{starving[0]}.unfed", steps, unfed[:, names.index(starving[0])])
            text = f"every input of {player}'s {_listed(starving)} is zero: no unit before it fires"
            return Verdict(0.94, [observed(series, text)], _reviving(s))
        late = np.median(idle[len(idle) // 2 :], axis=0)
        dead = [i for i in range(len(names)) if 0.5 < late[i] < 1.0]
        if not dead:
            continue
        worst = max(dead, key=lambda i: late[i])
        series = Series(f"layers.{player}.{names[worst]}.idle", steps, idle[:, worst]).tail(0.5)
        text = f"{late[worst]:.0%} of the units of {player}'s '{names[worst]}' have no gradient in a whole batch"
        return Verdict(0.85, [observed(series, text)], _reviving(s))
    return None


def _reviving(s: Signals) -> list[str]:
    return [
        "use an activation with a slope on both sides (LeakyReLU, SiLU), or He initialisation with zero biases",
        f"and a lower learning rate: --train.lr {s.run.train.lr / 3:.2g}",
    ]


def depth_ratio(gradient: np.ndarray) -> float:
    """Median gradient of the first quarter of the layers over that of the last, median over the steps."""
    quarter = max(1, gradient.shape[1] // 4)
    first, last = np.median(gradient[:, :quarter], axis=1), np.median(gradient[:, -quarter:], axis=1)
    kept = (first > 0) & (last > 0) & np.isfinite(first) & np.isfinite(last)
    return float(np.median(first[kept] / last[kept])) if kept.any() else float("nan")


def _by_depth(s: Signals, player: str) -> Iterator[tuple[Series, float, list[str]]]:
    """The ratio of each stack of at least five layers (an encoder, a decoder), with the names of its ends."""
    failed = s.failure is not None  # then there may be nothing but the first steps
    steps, names, gradient = layer_table(s, player, "gradient", since=0 if failed else WARM + 1)
    if len(steps) < (1 if failed else 3):
        return
    early = gradient[: max(3, len(steps) // 2)]
    for stack in dict.fromkeys(name.partition(".")[0] for name in names):
        inside = [i for i, name in enumerate(names) if name.partition(".")[0] == stack]
        if len(inside) >= 5:
            series = Series(f"layers.{player}.{stack}.*.gradient", steps, gradient[:, inside[0]])
            yield series, min(depth_ratio(early[:, inside]), 1e30), [names[inside[0]], names[inside[-1]]]


@rule(
    "vanishing-gradients",
    "The gradient dies on its way to the first layers",
    "Glorot and Bengio 2010; Hochreiter 1991; He et al. 2015, arXiv:1502.01852 (initialisation)",
    explains=("learning-rate-too-low", "mode-collapse", "posterior-collapse", "label-ignored", "critic-loses",
              "critic-wins", "kl-scale"),
)  # fmt: skip
def vanishing_gradients(s: Signals) -> Verdict | None:
    for player in s.players:
        for series, ratio, (first, last) in _by_depth(s, player):
            if not ratio < 1e-3:
                continue
            text = f"{player}: near '{first}' it is {ratio:.1g} of what it is near '{last}'"
            advice = [
                "initialise for the activation (He for ReLU, Glorot for tanh), avoid sigmoids between layers",
                "add residual connections or normalisation, as convnet, unet and transformer have",
            ]
            return Verdict(0.88, [observed(series, text, ratio)], advice)
    return None


@rule(
    "exploding-gradients",
    "The gradient grows without bound, through the layers or in bursts",
    "Pascanu et al. 2013, arXiv:1211.5063 (clipping)",
    explains=("non-finite", "learning-rate-too-high", "mode-collapse", "posterior-collapse", "label-ignored",
              "gan-oscillation", "critic-wins", "kl-scale"),
)  # fmt: skip
def exploding_gradients(s: Signals) -> Verdict | None:
    advice = [
        "clip: --train.clip-norm 1",
        "initialise so that each layer keeps the size of what passes through it, or normalise between layers",
    ]
    if s.failure is not None and s.failure["failure"]["what"] == "norm":
        where, step = s.failure["failure"]["player"], s.failure["step"]
        text = f"the norm of {where}'s gradient overflowed float32, every single entry being finite"
        confidence = 0.7 if _steps_too_far(s) else 0.95
        return Verdict(confidence, [Evidence(f"{where}/grad_norm", text, step, step)], advice)
    first, best = s.facts.get("first_loss"), s.series("model/loss")
    if first is not None and len(best) > 2 and not s.facts.get("tokens") and first > 100 * max(abs(best.last), 1.0):
        # A loss in large units begins as high without any fault, so the gradient has to say the same.
        if (gradient := _first_gradient(s, "model")) > TAME:
            text = (
                f"before the first step the loss was {first:.3g}, later {best.last:.3g}: what passes the layers grows"
            )
            also = f"at the first step the gradient had a root mean square of {gradient:.2g} in the median layer"
            seen = [Evidence("facts.first_loss", text, 0, 0, first), Evidence("layers.model", also, 1, 1, gradient)]
            return Verdict(0.85, seen, advice)
    for player in s.players:
        for series, ratio, (bottom, top) in _by_depth(s, player):
            if ratio > 300:
                text = f"{player}: near '{bottom}' it is {ratio:.3g} times what it is near '{top}'"
                return Verdict(0.88, [observed(series, text, ratio)], advice)
        norm = s.series(f"{player}/grad_norm").after(WARM)
        if len(norm) < 10 or s.is_game:
            continue
        bursts = norm.values > 100 * norm.median
        if 2 <= bursts.sum() < 0.3 * len(norm):
            peak = float(norm.values.max())
            text = f"{player}: its norm is {norm.median:.2g} at most steps and {peak:.2g} in {bursts.sum()} of them"
            return Verdict(0.75, [observed(norm, text, peak)], advice)
    return None


TAME = 1e3
"""Root mean square of a gradient above which it is large before anything was learnt."""


def _first_gradient(s: Signals, player: str) -> float:
    """Root mean square of the median layer's gradient at the first step that was watched; 0 where none was."""
    _, _, gradient = layer_table(s, player, "gradient", since=0)
    return float(np.median(gradient[0])) if len(gradient) else 0.0


def _steps_too_far(s: Signals) -> bool:
    """Gradients were tame at first, and then a step changed most weights by much: it is the weights that exploded."""
    for player in s.players:
        _, _, update = layer_table(s, player, "update", since=0)
        if len(update) and _first_gradient(s, player) < TAME and np.median(update, axis=1).max() > FAST:
            return True
    return False


@rule(
    "learning-rate-too-high",
    "The learning rate is too high",
    "Smith 2017, arXiv:1506.01186 (range test); Bengio 2012, arXiv:1206.5533, section 3.1",
    explains=("non-finite", "mode-collapse", "posterior-collapse", "dead-units", "label-ignored", "ema-stale",
              "overfitting", "exploding-gradients", "kl-scale", "batch-statistics", "memorisation",
              "vanishing-gradients", "disconnected-layer"),
)  # fmt: skip
def learning_rate_too_high(s: Signals) -> Verdict | None:
    rate, evidence = s.run.train.lr, []
    for player in s.players:
        steps, _names, update = layer_table(s, player, "update", since=0)
        if not len(steps):
            return None
        series = Series(f"layers.{player}.*.update", steps, np.median(update, axis=1))
        peak, grown = float(series.values.max()), _growth(s.probed(f"weights.{player}"))
        loss = s.series(f"{player}/loss")
        harm = _not_learned(s, loss)
        if not peak > FAST or not (harm or grown > 3):
            return None  # one fast player of a game is a matter of balance
        text = f"a single step changed {player}'s weights by {part_of(peak)} their size; 0.1% to 1% is usual"
        evidence.append(observed(series, text, peak))
        if harm and len(loss):
            evidence.append(observed(loss.tail(0.5), harm))
        if grown > 3:
            weights = s.probed(f"weights.{player}")
            evidence.append(observed(weights, f"the norm of the weights is {grown:.3g} times the first", weights.last))
    if not evidence:
        return None
    advice = [
        f"lower it: --train.lr {rate / 10:.2g} (now {rate:g}), or look for it: --find-lr",
        "warm it up: --train.warmup-steps 100",
    ]
    return Verdict(0.92, evidence, advice)


def _growth(norms: Series) -> float:
    """Last norm of the weights over that before training, or the first one known."""
    return norms.last / max(norms.first, 1e-12) if len(norms) else 1.0


def _not_learned(s: Signals, loss: Series) -> str:
    """Says how the loss fails to fall; empty when it falls."""
    if s.failure is not None:
        return f"the loss was {loss.last:.3g} before it was not finite any more"
    if len(loss) < 3:
        return ""
    start = s.facts.get("first_loss") or loss.first
    best, late = float(loss.values.min()), loss.tail(0.4).median
    if late > start - 0.02 * abs(start):
        return f"the loss is {late:.3g} and was {start:.3g} before training"
    if late > best + 0.5 * (start - best):
        return f"the loss has gone up from {best:.3g} to {late:.3g}"
    return ""


@rule(
    "learning-rate-too-low",
    "The learning rate is too low",
    "Bengio 2012, arXiv:1206.5533, section 3.1; Smith 2017, arXiv:1506.01186 (range test)",
    explains=("ema-stale", "label-ignored", "mode-collapse", "critic-loses", "posterior-collapse"),
)
def learning_rate_too_low(s: Signals) -> Verdict | None:
    rate = s.run.train.lr
    if s.used < 0.2:
        return None
    evidence = []
    for player in s.players:
        steps, _names, update = layer_table(s, player, "update")
        series = Series(f"layers.{player}.*.update", steps, np.median(update, axis=1) if len(steps) else np.zeros(0))
        if len(series) < 3 or series.head(0.7).median > SLOW:
            return None  # one slow player of a game is a matter of balance
        text = f"a step changes {player}'s weights by {series.median:.1g} of their size; 1e-3 is usual"
        loss = s.series(f"{player}/loss")
        evidence += [observed(series, text), observed(loss, f"the loss went from {loss.first:.4g} to {loss.last:.4g}")]
    if not evidence:
        return None
    advice = f"raise it: --train.lr {rate * 10:.2g} (now {rate:g}), or look for it: --find-lr"
    return Verdict(0.85, evidence, [advice])


@rule(
    "barely-trained",
    "The budget ended before the model had learnt much",
    "Hoffmann et al. 2022, arXiv:2203.15556 (what a budget buys)",
    explains=("ema-stale",),
)
def barely_trained(s: Signals) -> Verdict | None:
    if not s.probes or s.used < 1 or s.failure is not None or s.step >= YOUNG or s.run.train.start:
        return None
    loss = s.series(f"{s.players[0]}/loss") if s.players else Series("loss", np.zeros(0), np.zeros(0))
    if not s.is_game and len(loss) > 3 and not loss.tail(0.25).median < loss.tail(0.5).first:
        return None  # it has settled
    text = f"the run ended after {s.step} steps"
    advice = [
        "train longer: --budget 10m, or several thousand --train.steps",
        "or make each step cheaper: a smaller --data.size or network",
    ]
    return Verdict(0.6, [Evidence("step", text, 0, s.step, float(s.step))], advice)
