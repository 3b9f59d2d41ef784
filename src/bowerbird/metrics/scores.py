"""Scores that look at the samples alone, or at how far apart they are.

    inception score   exp E_x KL(p(y|x) ‖ p(y)), p(y) = E_x p(y|x)      (Salimans et al. 2016, arXiv:1606.03498)

is high when a classifier is sure of each sample and all classes occur: at most the number of classes.  It never sees
real images, and means something only where the classifier's classes are those of the data.

    diversity         E d(x, x') over pairs of samples, divided by the same of real images

is 1 for samples as varied as the data, 0 for one sample again and again.  d is the Euclidean distance in an extractor's
features; LPIPS, which papers average in the same way, weighs several layers of another network, so values are not
LPIPS.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.errors import BowerbirdError

PARTNERS = 20
"""Pairs per image."""


def inception_score(log_probabilities: Float[Tensor, "n k"]) -> tuple[float, float]:
    """The score of n ≥ 2 samples in [1, k], and its standard error to first order (over all, without splits)."""
    if len(log_probabilities) < 2:
        raise BowerbirdError("An Inception Score needs at least 2 samples.")
    log_p = log_probabilities.double()
    p = log_p.exp()
    each = (p * (log_p - p.mean(0).log())).nan_to_num().sum(1)  # 0 log 0 = 0
    score = float(each.mean().exp())
    return score, score * float(each.std() / len(each) ** 0.5)


def mean_distance(features: Float[Tensor, "n d"], seed: int = 0) -> tuple[float, float]:
    """Mean Euclidean distance between two different rows (n ≥ 2), over ``PARTNERS`` pairs of each; standard error."""
    n = len(features)
    if n < 2:
        raise BowerbirdError("Diversity needs at least 2 images.")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    x = features[order]
    shifts = range(1, min(PARTNERS, n - 1) + 1)
    distance = torch.stack([(x - x.roll(shift, 0)).double().square().sum(1).sqrt() for shift in shifts]).mean(0)
    # Each pair counts for both of its images, hence the 2 (variance of a U-statistic to first order).
    return float(distance.mean()), 2 * float(distance.std() / n**0.5)


def diversity(*, samples: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]) -> tuple[float, float]:
    """Mean distance between samples over that between real images, with its standard error; NaN for equal real ones."""
    (made, made_error), (real, real_error) = mean_distance(samples), mean_distance(reference)
    if real == 0:
        return float("nan"), float("nan")
    ratio = made / real
    return ratio, ((made_error / real) ** 2 + (ratio * real_error / real) ** 2) ** 0.5
