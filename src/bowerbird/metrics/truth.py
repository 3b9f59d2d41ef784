"""How far pictures lie from the true ones, where each has a counterpart: translations, colourings, enlargements.

    L1                 mean |x - y| of values in [-1, 1]
    feature distance   Σ_i ‖f(x_i) - f(y_i)‖ / Σ_i ‖f(y_i) - f(y_j)‖,   j another picture than i

0 is the truth.  1 is no nearer to it than another true picture is, in the features f of an extractor.  Those are pooled
over the picture, so a small shift costs nothing.  LPIPS, which papers print, weighs unpooled features of several layers
of another network: its values do not compare with these.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bowerbird.metrics.averages import Average, mean
from bowerbird.metrics.scores import mean_distance

SPAN = 127.5
"""Grey levels to values that span [-1, 1]."""


def l1(made: UInt8[Tensor, "n c h w"], truth: UInt8[Tensor, "n c h w"]) -> Average:
    """Mean absolute difference of values in [-1, 1], from 0 to 2, and its standard error over pictures."""
    return mean(((made.double() - truth.double()).abs().mean((1, 2, 3)) / SPAN).numpy())


def feature_distance(made: Float[Tensor, "n d"], truth: Float[Tensor, "n d"]) -> Average:
    """Mean distance of features to those of the truth over that between two true pictures, n ≥ 2; standard error.

    The error is that of the numerator.  Not a number where all true pictures have the same features.
    """
    apart, _ = mean_distance(truth)
    if apart == 0:
        return torch.nan, None
    return mean(((made.double() - truth.double()).norm(dim=1) / apart).numpy())
