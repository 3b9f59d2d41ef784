"""Latent variables: whether they carry anything, and whether the two terms of the bound speak the same unit.

Codebooks: whether their codes are used.
"""

from bowerbird.diagnosis.rule import Verdict, observed, rule
from bowerbird.diagnosis.signals import Signals

ACTIVE_NATS = 0.01
"""A latent dimension counts as active when its KL is above this (as in the family vae)."""
COLLAPSED = 0.25
"""Perplexity of a codebook, as a part of the number of its codes, below which it has collapsed."""


@rule(
    "posterior-collapse",
    "The latent variables carry nothing: the posterior has collapsed to the prior",
    "Bowman et al. 2016, arXiv:1511.06349; Lucas et al. 2019, arXiv:1911.02469 (too wide a likelihood)",
    explains=("mode-collapse", "learning-rate-too-low", "label-ignored"),
)
def posterior_collapse(s: Signals) -> Verdict | None:
    kl, n_latent = s.series("model/kl"), s.option("n_latent", 0)
    active = s.series("model/active_units").tail(0.4)
    if len(kl) < 3 or not n_latent or s.used < 0.3:
        return None
    late = kl.tail(0.4)
    share = active.median / n_latent if len(active) else float(late.median > 0.1 * n_latent)
    if share > 0.1 and late.median > 0.02 * n_latent:
        return None
    evidence = [observed(late, f"the KL of all {n_latent} dimensions together is {late.median:.2g} nats")]
    if len(active):
        evidence.append(observed(active, f"{active.median:.0f} of {n_latent} dimensions carry over {ACTIVE_NATS} nats"))
    largest = s.probed("kl.largest").tail(0.3)
    if len(largest):
        evidence.append(observed(largest, f"the most used dimension carries {largest.median:.2g} nats"))
    advice = ["let the KL come in slowly: --model.kl-warmup-steps 1000, or spare the first nats: --model.free-bits 0.1"]
    if s.option("beta", 1.0) > 1:
        advice.insert(0, f"the KL is weighted by {s.option('beta'):g}: --model.beta 1")
    scale = s.series("model/scale").tail(0.4)
    if len(scale) and scale.median > 0.5:
        advice.insert(0, f"the likelihood's scale is {scale.median:.2g} in images of [-1, 1]: let it be learned")
    return Verdict(0.9, evidence, advice)


@rule(
    "kl-scale",
    "KL and reconstruction are not on one scale",
    "Kingma and Welling 2014, arXiv:1312.6114, equation 3 (both are sums over dimensions); "
    "Higgins et al. 2017 (beta-VAE)",
    explains=("posterior-collapse", "mode-collapse", "vanishing-gradients", "learning-rate-too-low", "label-ignored"),
)
def kl_scale(s: Signals) -> Verdict | None:
    nll, kl, dims = s.series("model/nll"), s.series("model/kl"), s.facts.get("dims", 0)
    n_latent = s.option("n_latent", 0)
    if len(nll) < 3 or len(kl) < 3 or not dims or not n_latent:
        return None
    beta, late = s.option("beta", 1.0), kl.tail(0.4)
    per_number = nll.head(0.3).median / dims
    if 0 <= per_number < 0.004 and nll.head(0.3).first < 0.05 * dims:
        text = (
            f"the reconstruction term is {nll.head(0.3).median:.3g} nats per image of {dims} numbers: a mean, not a sum"
        )
        evidence = [
            observed(nll.head(0.3), text),
            observed(late, f"beside a KL that is summed, {late.median:.3g} nats"),
        ]
        return Verdict(
            0.95, evidence, ["sum the reconstruction over the numbers of an image: .flatten(1).sum(1).mean()"]
        )
    if beta > 4 and s.used >= 0.2:
        active = s.series("model/active_units").tail(0.4)
        if late.median < 0.05 * n_latent or (len(active) and active.median < 0.3 * n_latent):
            text = f"weighted by beta = {beta:g}, the KL is down to {late.median:.2g} nats in {n_latent} dimensions"
            return Verdict(0.92, [observed(late, text)], ["weight it as the bound does: --model.beta 1"])
    if beta < 0.1 and s.used >= 0.2 and late.median > 4 * n_latent:
        text = (
            f"weighted by beta = {beta:g}, the KL has grown to {late.median:.0f} nats in {n_latent} dimensions: codes "
            "lie where the prior never samples"
        )
        return Verdict(0.85, [observed(late, text)], ["weight it as the bound does: --model.beta 1"])
    return None


@rule(
    "codebook-collapse",
    "The codebook has collapsed: a few codes stand for everything",
    "van den Oord et al. 2017, arXiv:1711.00937; Dhariwal et al. 2020, arXiv:2005.00341, section 3.1 (restarts)",
    explains=("mode-collapse", "learning-rate-too-low", "label-ignored"),
)
def codebook_collapse(s: Signals) -> Verdict | None:
    n_codes, late = s.option("n_codes", 0), s.series("autoencoder/perplexity").tail(0.4)
    if len(late) < 3 or not n_codes or s.used < 0.3 or late.median > COLLAPSED * n_codes:
        return None
    evidence = [observed(late, f"of {n_codes} codes as many are in use as {late.median:.1f} that are used alike")]
    used = s.series("autoencoder/usage").tail(0.4)
    if len(used):
        evidence.append(observed(used, f"{used.median:.0%} of the codes are chosen at all often"))
    restarts = s.series("autoencoder/restarts").tail(0.4)
    if s.option("restart_below") == 0:
        advice = ["let codes that nothing chooses begin anew: --model.restart-below 0.1"]
    else:
        if len(restarts):
            evidence.append(observed(restarts, f"{restarts.median:.0f} codes have begun anew, and were not kept"))
        advice = ["the encoder may run ahead of its codes: a lower --train.lr, or --model.codebook-decay 0.95"]
    return Verdict(0.9, evidence, [*advice, f"or have fewer of them: --model.n-codes {max(2, n_codes // 4)}"])
