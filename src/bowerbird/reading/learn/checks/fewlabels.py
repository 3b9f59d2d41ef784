"""Check of the exercise on few labels."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from bowerbird.reading.learn.checks import Observation, checks, seen


@checks("sure-labels")
def sure_labels(answer: Any) -> Iterator[Observation]:
    weak, strong = (4 * torch.randn(40, 5)).requires_grad_(), torch.randn(40, 5).requires_grad_()
    probability, label = weak.detach().softmax(1).max(1)
    sure = probability >= 0.95
    wanted = (F.cross_entropy(strong, label, reduction="none") * sure).mean().item()
    loss = answer.consistency(weak, strong, 0.95)
    yield seen(abs(loss.item() - wanted) < 1e-4, "loss", n_sure=int(sure.sum()), loss=loss.item(), wanted=wanted)
    gradients = torch.autograd.grad(loss, (weak, strong), allow_unused=True)
    to_weak, to_strong = (0.0 if one is None else one.norm().item() for one in gradients)
    yield seen(to_weak == 0, "weak", to_weak=to_weak)
    yield seen(to_strong > 0, "strong", to_strong=to_strong)
    none = float(answer.consistency(torch.zeros(6, 5), torch.randn(6, 5), 0.95))
    yield seen(none == 0, "none", none=none)
