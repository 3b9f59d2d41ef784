"""How near a vocoder's waveforms come to the recordings whose spectrograms it was given.

Each metric has the value of the model and, as a part of its name, that of ``griffin_lim``: the same spectrograms, made
sound by the algorithm that needs no training.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from bowerbird import registry
from bowerbird.measuring.context import Context, Vocoded
from bowerbird.measuring.metric import Metric
from bowerbird.metrics import averages
from bowerbird.metrics.measurement import Measurement

WINDOWS = (128, 256, 512)
"""In samples; a quarter of each is its hop."""


class _OfWaveforms(Metric):
    needs = ("waveforms",)
    better, default = "lower", True

    @abstractmethod
    def of(self, made: Tensor, vocoded: Vocoded) -> Tensor:
        """One number for each waveform."""

    def compute(self, context: Context) -> list[Measurement]:
        vocoded: Vocoded = context["waveforms"]
        found = []
        for part, made in vocoded.made.items():
            value, stderr = averages.mean(self.of(made, vocoded).numpy())
            found.append(self.measurement(value, vocoded.protocol, stderr, part=part))
        return found


@registry.metrics.register("mel_distance")
class MelDistance(_OfWaveforms):
    unit = "dB"
    title = "distance of mel bands"
    reading = "mean difference of the mel bands of the waveform and of the recording, where the recording is not silent"

    def of(self, made: Tensor, vocoded: Vocoded) -> Tensor:
        heard, real = vocoded.decibels(made), vocoded.decibels(vocoded.reference)
        sounds = real > real.min()
        return ((heard - real).abs() * sounds).sum((1, 2)) / sounds.sum((1, 2)).clamp(min=1)


@registry.metrics.register("spectral_convergence")
class SpectralConvergence(_OfWaveforms):
    title = "spectral convergence"
    reading = (
        "relative distance of the magnitudes of short-time spectra to the recording's, mean of three windows: 0 is "
        "equal, 1 is silence; it needs phases that fit together"
    )

    def of(self, made: Tensor, vocoded: Vocoded) -> Tensor:
        return torch.stack([_convergence(made, vocoded.reference, window) for window in WINDOWS]).mean(0)


def _convergence(made: Tensor, real: Tensor, window: int) -> Tensor:
    """||Y| - |G||_F / ||Y||_F of each row (Yamamoto et al. 2020, arXiv:1910.11480, equation 5)."""
    hann = torch.hann_window(window)
    magnitudes = (
        torch.stft(y, window, window // 4, window=hann, return_complex=True).abs().flatten(1) for y in (made, real)
    )
    ours, theirs = magnitudes
    return (ours - theirs).norm(dim=1) / theirs.norm(dim=1).clamp(min=1e-9)
