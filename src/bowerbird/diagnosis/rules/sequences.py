"""Sequences of tokens: losses that are impossible for a model that predicts the next token honestly."""

import math

from bowerbird.diagnosis.finding import Evidence
from bowerbird.diagnosis.rule import Verdict, observed, rule
from bowerbird.diagnosis.signals import Signals

LEARNED = ("overfitting", "learning-rate-too-high", "learning-rate-too-low", "memorisation")


@rule(
    "vocabulary",
    "The loss at the start is far from that of a uniform guess",
    "Karpathy 2019, A recipe for training neural networks (verify the loss at initialisation)",
    explains=("learning-rate-too-high", "exploding-gradients", "learning-rate-too-low", "dead-units"),
)
def vocabulary(s: Signals) -> Verdict | None:
    tokens, first = s.facts.get("tokens"), s.facts.get("first_loss")
    if not tokens or first is None or not math.isfinite(first):
        return None
    uniform = tokens["uniform_nll"]
    if 0.6 * uniform < first < 1.5 * uniform + 0.5:
        return None
    text = f"it is {first:.3g} nats per token; log of the {tokens['vocabulary']:.0f} tokens is {uniform:.3g}"
    advice = ["check the size of the vocabulary, the shift of targets by one, and the scale of the first logits"]
    if first > uniform:
        advice = ["start with smaller logits: initialise the output layer (or tied embedding) with std 0.02", *advice]
    return Verdict(0.93, [Evidence("facts.first_loss", text, 0, 0, first)], advice)


@rule(
    "padding-counted",
    "Padding counts in the loss",
    "Vaswani et al. 2017, arXiv:1706.03762, section 5.1 (batches padded to one length)",
    explains=(*LEARNED, "target-leak"),
)
def padding_counted(s: Signals) -> Verdict | None:
    tokens = s.facts.get("tokens")
    if not tokens or tokens["counted_padding"] < 0.01:
        return None
    share = tokens["counted_padding"]
    text = f"{share:.0%} of the tokens that the loss counts are padding, which is no achievement to predict"
    advice = ["leave padding out of batch.counted, or ignore its index in cross_entropy"]
    return Verdict(0.95, [Evidence("facts.tokens", text, 0, 0, share)], advice)


@rule(
    "target-leak",
    "The model sees the token that it is to predict",
    "Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3 (masking the future)",
    explains=LEARNED,
)
def target_leak(s: Signals) -> Verdict | None:
    tokens = s.facts.get("tokens")
    nll = s.series("model/nll_per_token")
    if not tokens or len(nll) < 3:
        return None
    late = nll.tail(0.2)
    held = s.probed("losses.held").tail(0.3)
    leaking = late.median < 0.06 * tokens["uniform_nll"]
    held_too = len(held) > 0 and held.median < 0.2 * tokens["uniform_nll"]
    if not leaking or not held_too:
        return None
    evidence = [
        observed(late, f"{late.median:.2g} nats per token, where a uniform guess has {tokens['uniform_nll']:.3g}"),
        observed(held, f"and on examples never trained on {held.median:.2g}: nothing is that predictable"),
    ]
    advice = ["check the causal mask (is_causal=True) and that inputs are x[:, :-1] for targets x[:, 1:]"]
    return Verdict(0.9, evidence, advice)
