"""A network without attention among the frames of a clip: each is drawn from noise of its own."""

from dataclasses import dataclass

from torch import nn

from bowerbird import registry
from bowerbird.nets.spacetime import SpaceTimeBlock, SpaceTimeConfig
from bowerbird.spec import Spec


@registry.nets.register("spacetime-apart")
@dataclass(frozen=True)
class ApartConfig(SpaceTimeConfig):
    def denoiser(self, spec: Spec, channels_out: int) -> nn.Module:
        net = super().denoiser(spec, channels_out)
        for block in net.modules():
            if isinstance(block, SpaceTimeBlock):
                block.in_time = nn.Identity()  # type: ignore[assignment]
        return net
