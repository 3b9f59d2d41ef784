"""Check of the exercise on speech."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bowerbird.reading.learn.checks import Observation, checks, seen

WINDOW, HOP, SAMPLES = 256, 64, 4096


def stft(samples: Tensor) -> Tensor:
    return torch.stft(samples, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)


def istft(spectrum: Tensor) -> Tensor:
    return torch.istft(spectrum, WINDOW, HOP, window=torch.hann_window(WINDOW), length=SAMPLES)


def voice() -> Tensor:
    """A tone that rises, with harmonics."""
    t = torch.arange(SAMPLES) / 8000
    phase = 2 * math.pi * (150 * t + 120 * t**2)
    return torch.stack([torch.sin(k * phase) / k for k in range(1, 8)]).sum(0) * torch.hann_window(SAMPLES)


def error(samples: Tensor, magnitude: Tensor) -> float:
    """Relative error of the magnitudes of the samples' spectrum."""
    return ((stft(samples).abs() - magnitude).norm() / magnitude.norm()).item()


@checks("griffin-lim")
def griffin_lim(answer: Any) -> Iterator[Observation]:
    magnitude = stft(voice()).abs()
    found = answer.griffin_lim(magnitude, stft, istft, 60)
    real = not torch.is_complex(found) and tuple(found.shape) == (SAMPLES,)
    yield seen(real, "shape", shape=tuple(found.shape), samples=SAMPLES)
    after = error(found, magnitude)
    yield seen(after < 0.25, "close", percent=100 * after)
    torch.manual_seed(1)
    few = error(answer.griffin_lim(magnitude, stft, istft, 2), magnitude)
    torch.manual_seed(1)
    many = error(answer.griffin_lim(magnitude, stft, istft, 80), magnitude)
    yield seen(many < 0.8 * few, "falls", few=100 * few, many=100 * many)
    level = (found.norm() / voice().norm()).item()
    yield seen(0.8 < level < 1.2, "level", level=level)
