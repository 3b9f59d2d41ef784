"""A generator whose waveforms are divided by 32,768, as if they were whole numbers of 16 bits."""

from torch import Tensor

from bowerbird.models.vocoder import Synthesis

_forward = Synthesis.forward


def forward(self: Synthesis, s: Tensor) -> Tensor:
    return _forward(self, s) / 32768


Synthesis.forward = forward  # type: ignore[method-assign]
