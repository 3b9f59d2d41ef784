"""What diffusion and flow share around the network: labels, guidance, and the spread of training times.

A label may be hidden in training (number ``n_classes`` stands for "no label"), so that one network knows both the
conditional and the unconditional answer, and sampling can go past the first, away from the second.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bowerbird.errors import BowerbirdError

Network = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t of shape (n,)) → output."""


def without_classes(spec: Any) -> Any:
    """The spec as an unconditional network sees it."""
    return dataclasses.replace(spec, classes=(), class_counts=())


def labels_for(
    n: int, cond: Int[Tensor, " n"] | None, spec: Any, n_classes: int, generator: torch.Generator | None
) -> Int[Tensor, " n"] | None:
    """The labels of n samples: those asked for, else drawn as often as in the training data; None without labels."""
    if not n_classes:
        if cond is not None:
            raise BowerbirdError("This model was trained without labels, so it cannot sample by label.")
        return None
    return spec.draw_labels(n, generator) if cond is None else cond


def drop_labels(label: Int[Tensor, " n"], n_classes: int, probability: float) -> Int[Tensor, " n"]:
    """Hides each label with this probability, by the number that means "no label"."""
    hidden = torch.rand(label.shape, device=label.device) < probability
    return torch.where(hidden, n_classes, label)


def stratified_uniform(n: int) -> Float[Tensor, " n"]:
    """n numbers in (0, 1), one uniform in each of n equal intervals, float64 on the CPU.

    Each is uniform only over its own interval; a shuffled batch makes the pair (example, time) uniform, and the mean
    over the batch varies less than with independent times.
    """
    u = (torch.arange(n, dtype=torch.float64) + torch.rand(n, dtype=torch.float64)) / n
    return u.clamp(1e-6, 1 - 1e-6)


def guided(
    network: nn.Module,
    label: Int[Tensor, " n"] | None,
    guidance: float,
    *,
    n_classes: int,
    label_dropout: float,
    channels: int,
) -> Network:
    """(x_t, t) → output in float32 with classifier-free guidance: y_none + guidance (y_label - y_none).

    Ho & Salimans 2022, eq. 6, with guidance = 1 + their w: 1 is the plain conditional network and costs one row per
    sample, any other value two, in one doubled batch.  Only the first ``channels`` are extrapolated; others
    (a learned variance) are the conditional network's.
    """
    if guidance == 1:
        return lambda x_t, t: network(x_t, t, label).float()
    if label is None:
        raise BowerbirdError(f"guidance = {guidance} needs a model trained with labels; this one has none.")
    if label_dropout == 0:
        raise BowerbirdError(f"guidance = {guidance} needs a model trained with label_dropout above 0, such as 0.1.")
    both = torch.cat([label, torch.full_like(label, n_classes)])

    def output(x_t: Tensor, t: Tensor) -> Tensor:
        y_label, y_none = network(torch.cat([x_t, x_t]), torch.cat([t, t]), both).float().chunk(2)
        y = y_none + guidance * (y_label - y_none)
        return y if y.shape[1] == channels else torch.cat([y[:, :channels], y_label[:, channels:]], 1)

    return output
