"""A rollout that takes rows that are frames, clip by clip, for rows frame by frame: a reshape of the right shape."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bowerbird import registry
from bowerbird.models.rollout import Rollout, RolloutConfig
from bowerbird.spec import Spec


@registry.families.register("rollout-mixed")
@dataclass(frozen=True)
class MixedConfig(RolloutConfig):
    def build(self, spec: Spec) -> "Mixed":
        return Mixed(self, spec)


class Mixed(Rollout):
    def sample(self, n: int, *arguments: Any, **named: Any) -> Tensor:
        rows = super().sample(n, *arguments, **named).transpose(1, 2).flatten(0, 1)
        return rows.unflatten(0, (-1, n)).permute(1, 2, 0, 3, 4)
