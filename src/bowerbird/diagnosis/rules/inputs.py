"""What goes in: the range of the data, the noise at the end of the schedule, labels."""

from bowerbird.diagnosis.finding import Evidence
from bowerbird.diagnosis.rule import Verdict, observed, rule
from bowerbird.diagnosis.signals import Signals


def _fact(text: str, signal: str, value: float) -> Evidence:
    return Evidence(f"facts.{signal}", text, 0, 0, value)


@rule(
    "data-range",
    "The data do not lie in the range that the model's output has",
    "Radford et al. 2016, arXiv:1511.06434, section 4 (images scaled to the range of tanh)",
    explains=("critic-wins", "critic-loses", "mode-collapse", "gan-oscillation", "learning-rate-too-high", "kl-scale",
              "exploding-gradients", "dead-units", "vanishing-gradients", "posterior-collapse", "label-ignored",
              "learning-rate-too-low", "non-finite", "noise-schedule"),
)  # fmt: skip
def data_range(s: Signals) -> Verdict | None:
    data = s.facts.get("data")
    if not data or data["finite"] < 1 or not data.get("bounded", 1):
        return None
    low, high = data["min"], data["max"]
    reached = s.probed("samples.min"), s.probed("samples.max")
    outside = low < -1.05 or high > 1.05
    half = low > -0.05 and high > 0.3
    narrow = not outside and not half and high - low < 0.35
    if not (outside or half or narrow):
        return None
    evidence = [_fact(f"training images lie between {low:.3g} and {high:.3g}; [-1, 1] is the contract", "data", high)]
    if len(reached[0]):
        text = f"samples lie between {reached[0].median:.3g} and {reached[1].median:.3g}"
        evidence.append(observed(reached[0], text))
    advice = ["scale the images to [-1, 1]: x / 127.5 - 1 for bytes, 2 x - 1 for numbers in [0, 1]"]
    return Verdict(0.7 if narrow else 0.97, evidence, advice)


@rule(
    "noise-schedule",
    "The noise schedule does not reach pure noise",
    "Lin et al. 2024, arXiv:2305.08891 (zero terminal signal-to-noise ratio)",
    explains=("label-ignored", "mode-collapse", "learning-rate-too-low"),
)
def noise_schedule(s: Signals) -> Verdict | None:
    noise = s.facts.get("noise")
    if not noise or noise["signal_to_noise"] < 0.05:
        return None
    ratio = noise["signal_to_noise"]
    text = (
        f"at t = 1 the data still have {ratio:.2g} times the spread of the noise (alpha = {noise['alpha']:.3g}, "
        f"sigma = {noise['sigma']:.3g}), but sampling starts from pure noise"
    )
    advice = ["use a schedule that ends in noise: --model.schedule cosine, or raise its largest beta or sigma"]
    return Verdict(min(0.95, 0.6 + ratio), [_fact(text, "noise", ratio)], advice)


@rule(
    "label-ignored",
    "The samples do not follow the label that they are asked for",
    "Odena et al. 2017, arXiv:1610.09585 (class accuracy of samples)",
)
def label_ignored(s: Signals) -> Verdict | None:
    accuracy, real = s.probed("samples.label_accuracy"), s.probed("samples.real_accuracy")
    n_classes = s.facts.get("n_classes", 0)
    if not len(accuracy) or n_classes < 2 or s.used < 0.5 or not s.samples_count:
        return None
    late, chance = accuracy.tail(0.2), 1 / n_classes
    if real.median < 2.5 * chance or late.median > max(1.7 * chance, chance + 0.07):
        return None
    legible = [s.probed(f"samples.{name}").tail(0.2).median for name in ("precision", "recall")]
    if min(legible) < 0.05:  # nothing to be recognised in samples of nothing, or of a blurred mean
        return None
    evidence = [
        observed(late, f"a simple classifier sees the class asked for in {late.median:.0%} of the samples"),
        observed(real.tail(0.2), f"and in {real.median:.0%} of real images; chance is {chance:.0%}"),
    ]
    advice = [
        "check that labels go with their images, and that the network uses the label that it is given",
        "for diffusion and flow: --model.label-dropout 0.1, and guidance above 1 when sampling",
    ]
    return Verdict(0.8, evidence, advice)


@rule(
    "labels-shuffled",
    "The labels do not go with their images",
    "Northcutt et al. 2021, arXiv:2103.14749 (label errors); Zhang et al. 2017, arXiv:1611.03530 (random labels)",
    explains=("label-ignored",),
)
def labels_shuffled(s: Signals) -> Verdict | None:
    accuracy, n_classes = s.probed("samples.real_accuracy"), s.facts.get("n_classes", 0)
    if not len(accuracy) or n_classes < 2:
        return None
    n_train, n_held = s.facts.get("examples", (0, 0))
    chance = 1 / n_classes
    spread = (chance * (1 - chance) / max(n_held, 1)) ** 0.5
    if n_train < 30 * n_classes or n_held < 100 or accuracy.median > chance + 2 * spread:
        return None
    text = (
        f"a simple classifier fitted to {n_train} training images sees the class of {accuracy.median:.0%} of held-out "
        f"ones; chance is {chance:.0%}"
    )
    advice = ["look at images beside their labels; where classes differ in ways no pixel average shows, ignore this"]
    return Verdict(0.6, [observed(accuracy, text)], advice)
