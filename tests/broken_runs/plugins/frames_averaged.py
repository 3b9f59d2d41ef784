"""A network that returns the mean over the frames of a clip."""

from dataclasses import dataclass

from torch import Tensor, nn

from bowerbird import registry
from bowerbird.nets.spacetime import SpaceTimeConfig, SpaceTimeUNet
from bowerbird.spec import Spec


@registry.nets.register("spacetime-averaged")
@dataclass(frozen=True)
class AveragedConfig(SpaceTimeConfig):
    def denoiser(self, spec: Spec, channels_out: int) -> nn.Module:
        return Averaged(self, spec, channels_out)


class Averaged(SpaceTimeUNet):
    def forward(self, *inputs: Tensor) -> Tensor:
        clip = super().forward(*inputs)
        return clip.mean(2, keepdim=True).expand_as(clip)
