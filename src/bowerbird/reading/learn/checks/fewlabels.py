"""Check of the exercise on few labels."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from bowerbird.reading.learn.checks import Observation, checks


@checks("sure-labels")
def sure_labels(answer: Any) -> Iterator[Observation]:
    weak, strong = (4 * torch.randn(40, 5)).requires_grad_(), torch.randn(40, 5).requires_grad_()
    probability, label = weak.detach().softmax(1).max(1)
    sure = probability >= 0.95
    wanted = (F.cross_entropy(strong, label, reduction="none") * sure).mean().item()
    loss = answer.consistency(weak, strong, 0.95)
    yield Observation(
        abs(loss.item() - wanted) < 1e-4,
        f"With {int(sure.sum())} sure ones among 40 pictures the loss is {loss.item():.4g}; it should be {wanted:.4g}.",
        f"40 张图中有 {int(sure.sum())} 张确信，损失为 {loss.item():.4g}；应为 {wanted:.4g}。",
    )
    gradients = torch.autograd.grad(loss, (weak, strong), allow_unused=True)
    to_weak, to_strong = (0.0 if one is None else one.norm().item() for one in gradients)
    yield Observation(
        to_weak == 0,
        f"The gradient that reaches the slightly changed pictures has norm {to_weak:.3g}; it should be 0.",
        f"到达轻微变换图片的梯度范数为 {to_weak:.3g}；应为 0。",
    )
    yield Observation(
        to_strong > 0,
        f"The gradient that reaches the strongly changed pictures has norm {to_strong:.3g}; it should not be 0.",
        f"到达强烈变换图片的梯度范数为 {to_strong:.3g}；不应为 0。",
    )
    none = float(answer.consistency(torch.zeros(6, 5), torch.randn(6, 5), 0.95))
    yield Observation(
        none == 0,
        f"Where the model is sure of no picture, the loss is {none:.3g}; it should be 0.",
        f"模型对任何图片都不确信时，损失为 {none:.3g}；应为 0。",
    )
