"""The machinery around the model: waiting for data, values that are not finite."""

from bowerbird.diagnosis.finding import Evidence
from bowerbird.diagnosis.rule import Verdict, observed, rule
from bowerbird.diagnosis.signals import Signals


@rule(
    "data-starved",
    "Training waits for its data",
    "Mohan et al. 2021, arXiv:2007.06775 (data stalls in training)",
)
def data_starved(s: Signals) -> Verdict | None:
    share = s.probed("data_share")
    late = share.tail(0.7)
    if len(share) < 3 or late.median < 0.4:
        return None
    text = f"{late.median:.0%} of the time of a step goes into making its batch"
    advice = ["decode and resize once, ahead of training (as built-in data are); make the data smaller: --data.size"]
    return Verdict(min(0.95, 0.5 + late.median / 2), [observed(late, text)], advice)


@rule(
    "non-finite",
    "A value became NaN or infinite",
    "Micikevicius et al. 2018, arXiv:1710.03740 (ranges of number formats)",
)
def non_finite(s: Signals) -> Verdict | None:
    if s.failure is None:
        return None
    origin, step = s.failure["failure"], s.failure["step"]
    where = f"{origin['what']} {origin['name']}".strip()
    evidence = [Evidence(where, origin["sentence"].rstrip("."), step, step)]
    advice = {
        "batch": ["clean the data: some examples hold values that are not finite"],
        "module": [
            f"look at what '{origin['name']}' divides by or takes the logarithm, root or exponential of",
            "try --train.precision fp32",
        ],
        "loss": ["keep logarithms, roots and exponentials of the loss away from 0 and overflow"],
    }.get(origin["what"], ["lower --train.lr, add --train.clip-norm 1, or try --train.precision fp32"])
    return Verdict(0.9, evidence, advice)
