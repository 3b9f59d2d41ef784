"""A flow that minimises the logarithm of its error above a floor, which it one day reaches."""

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
            yield Loss(loss.player, torch.log(loss.value - 1.15), loss.logs)
