"""Games between a generator and a critic: who wins, whether it ends, and whether the samples differ."""

import numpy as np

from bowerbird.diagnosis.rule import Verdict, observed, rule
from bowerbird.diagnosis.signals import EARLY, Signals

COLLAPSED = 0.03
"""Diversity below which samples count as one.  Healthy runs of some hundred steps had 0.034 to 0.8."""
SATURATES = {"minimax": 0.05, "non-saturating": 0.05, "relativistic": 0.05, "least-squares": 0.005}
"""Losses whose gradient fades where the discriminator is certain, and the value below which it is."""
HELD_BACK = 0.1
"""Learning rate of a discriminator, as a part of its generator's, with which it cannot keep up."""


def _who(s: Signals, player: str) -> str:
    """The discriminator, by its name where there are several."""
    return f"the discriminator {player}" if len(s.games) > 1 else "the discriminator"


@rule(
    "mode-collapse",
    "The samples are (nearly) all the same",
    "Salimans et al. 2016, arXiv:1606.03498, section 3.2; recall: Kynkäänniemi et al. 2019, arXiv:1904.06991",
    explains=("label-ignored",),
)
def mode_collapse(s: Signals) -> Verdict | None:
    diversity = s.probed("samples.diversity")
    if not len(diversity) or not s.samples_count:
        return None
    late = diversity.tail(0.3)
    rising = diversity.last > 1.3 * diversity.tail(0.6).first
    if late.median > COLLAPSED or (rising and late.median > COLLAPSED / 4):
        return None
    evidence = [observed(late, f"samples of one class differ {late.median:.3f} times as much as real ones do")]
    recall, precision = s.probed("samples.recall").tail(0.3), s.probed("samples.precision").tail(0.3)
    if len(recall) and recall.median < 0.1:
        text = f"they come near {recall.median:.0%} of the real images, while {precision.median:.0%} of them look real"
        evidence.append(observed(recall, text))
    advice = ["check that the generator reads z, and that z is drawn anew for each sample"]
    if s.is_game:
        advice = [
            "regularise the critic: --model.r1-gamma 1 --model.penalty-every 8",
            "or let it judge pairs: --model.loss relativistic --model.r1-gamma 1 --model.r2-gamma 1 (recipe gan-r3)",
            *advice,
        ]
    return Verdict(0.95 if late.median < COLLAPSED / 2 else 0.75, evidence, advice)


@rule(
    "critic-wins",
    "The discriminator has won: the generator gets no useful gradient any more",
    "Arjovsky and Bottou 2017, arXiv:1701.04862, theorem 2.4",
    explains=("mode-collapse", "vanishing-gradients", "disconnected-layer", "gan-oscillation", "learning-rate-too-low",
              "label-ignored", "dead-units"),
)  # fmt: skip
def critic_wins(s: Signals) -> Verdict | None:
    return next(filter(None, (_wins(s, *game) for game in s.games)), None) if s.used >= EARLY else None


def _wins(s: Signals, D: str, G: str) -> Verdict | None:
    accuracy = s.series(f"{D}/accuracy").tail(0.4)
    gradient = s.series(f"{G}/grad_norm")
    if len(accuracy) < 3 or accuracy.median < 0.985:
        return None
    loss = s.series(f"{D}/loss").tail(0.4)
    fallen = gradient.tail(0.4).median / max(gradient.values.max(), 1e-30)
    vanished = fallen < 0.02 or gradient.tail(0.4).median < 1e-4
    saturated = s.option("loss") in SATURATES and loss.median < SATURATES[s.option("loss")]
    if not (vanished or saturated):
        return None
    text = f"{_who(s, D)} orders {accuracy.median:.1%} of the pairs of real and generated rightly"
    evidence = [observed(accuracy, text)]
    if vanished:
        text = f"the generator's gradient is {fallen:.2g} of its largest (now {gradient.tail(0.4).median:.2g})"
        evidence.append(observed(gradient.tail(0.4), text))
    if saturated:
        evidence.append(observed(loss, f"its loss is {loss.median:.2g}: it is certain of every picture"))
    ratio = s.run.train.lr_multiplier.get(D, 1.0) / max(s.run.train.lr_multiplier.get(G, 1.0), 1e-12)
    advice = ["penalise its gradient: --model.r1-gamma 1 --model.penalty-every 8"]
    if s.option("loss") == "minimax":
        advice.insert(0, "use a loss that is steep where it wins: --model.loss non-saturating")
    if ratio > 1.5:
        advice.insert(0, f"its learning rate is {ratio:g} times the generator's: remove train.lr_multiplier")
    return Verdict(0.9 if vanished and saturated else 0.75, evidence, advice)


@rule(
    "critic-loses",
    "The discriminator does not learn to tell generated from real images",
    "Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1 (D is to be kept near its optimum)",
    explains=(
        "mode-collapse",
        "vanishing-gradients",
        "learning-rate-too-low",
        "label-ignored",
        "learning-rate-too-high",
    ),
)
def critic_loses(s: Signals) -> Verdict | None:
    return next(filter(None, (_loses(s, *game) for game in s.games)), None) if s.used >= EARLY else None


def _loses(s: Signals, D: str, G: str) -> Verdict | None:
    accuracy = s.series(f"{D}/accuracy").tail(0.5)
    recall, precision = s.probed("samples.recall").tail(0.3), s.probed("samples.precision").tail(0.3)
    far = s.samples_count and len(precision) > 0 and precision.median < 0.1 and recall.median < 0.1
    factor = s.run.train.lr_multiplier.get(D, 1.0) / max(s.run.train.lr_multiplier.get(G, 1.0), 1e-12)
    loss = s.series(f"{D}/loss")
    guesses, stuck = accuracy.median <= 0.6, len(loss) > 3 and loss.tail(0.5).median > 0.9 * loss.first
    if len(accuracy) < 3 or not ((guesses and far) or (factor < HELD_BACK and (guesses or stuck))):
        return None
    evidence = []
    if guesses:
        text = f"{_who(s, D)} orders {accuracy.median:.0%} of the pairs rightly, little better than guessing"
        evidence.append(observed(accuracy, text))
    if stuck:
        text = f"the loss of {_who(s, D)} is {loss.tail(0.5).median:.2g}, as at the beginning ({loss.first:.2g})"
        evidence.append(observed(loss, text))
    if far:
        evidence.append(observed(precision, f"yet only {precision.median:.0%} of the samples lie near real images"))
    advice = [f"give it more: --train.lr-multiplier {D} 2" + (", or --model.d-steps 2" if D == "D" else "")]
    if factor < 0.5:
        advice.insert(0, f"its learning rate is {factor:g} times that of {G}: remove train.lr_multiplier")
    if s.option("weight_clip", 0.0):
        advice.append("weight clipping leaves it little capacity: --model.weight-clip 0 --model.gradient-penalty 10")
    return Verdict(0.85, evidence, advice)


@rule(
    "gan-oscillation",
    "The two players chase each other instead of settling",
    "Mescheder et al. 2018, arXiv:1801.04406 (which training of GANs converges)",
    explains=("mode-collapse", "learning-rate-too-high", "label-ignored", "critic-wins"),
)
def oscillation(s: Signals) -> Verdict | None:
    return next(filter(None, (_oscillates(s, D) for D, _ in s.games)), None)


def _oscillates(s: Signals, D: str) -> Verdict | None:
    accuracy = s.series(f"{D}/accuracy").after(s.step // 8)
    below = 0.5 - 1.5 * 0.5 / s.run.train.batch_size**0.5  # guessing, less what chance does in a batch
    sides = [1 if value > 0.85 else -1 for value in accuracy.values if value > 0.85 or value < below]
    turns = int(np.sum(np.diff(sides) != 0)) if sides else 0
    overtaken = float(np.mean(accuracy.values < below)) if len(accuracy) else 0.0
    if turns < 3 or overtaken < 0.05:
        return None
    text = (
        f"the accuracy of {_who(s, D)} turned {turns} times between above 85% and below {below:.0%}: what it learns "
        "about one kind of sample is wrong about the next"
    )
    advice = [
        "damp the game: no momentum, --train.betas 0 0.99, and --model.r1-gamma 1 or --model.gradient-penalty 10",
        f"and lower the learning rate: --train.lr {s.run.train.lr / 4:.2g}",
    ]
    return Verdict(min(0.95, 0.6 + 0.05 * turns), [observed(accuracy, text, float(turns))], advice)
