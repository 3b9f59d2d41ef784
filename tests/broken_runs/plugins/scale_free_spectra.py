"""Spectra that are divided by their norm before they are compared, so that nothing says how loud a waveform is."""

from torch import Tensor

from bowerbird.models import vocoder

_magnitude = vocoder.magnitude


def magnitude(y: Tensor, window: int) -> Tensor:
    found = _magnitude(y, window)
    return found / found.norm(dim=(1, 2), keepdim=True)


vocoder.magnitude = magnitude  # type: ignore[assignment]
