"""A flow whose loss has the logarithm of something that is zero at times."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from bowerbird.models.base import Batch, Loss
from bowerbird.models.flow import Flow, FlowConfig
from bowerbird.registry import families


@families.register("flow-log")
@dataclass(frozen=True)
class Config(FlowConfig):
    """As FlowConfig."""

    def build(self, spec: Any) -> Flow:
        return WithLog(self, spec)


class WithLog(Flow):
    def losses(self, batch: Batch) -> Iterator[Loss]:
        for loss in super().losses(batch):
            ink = (batch.x[:, :, 0] + 1).sum() - 0.0  # of the first rows of pixels: zero in some batches
            yield Loss(loss.player, loss.value - 0.0 * torch.log(ink), loss.logs)
