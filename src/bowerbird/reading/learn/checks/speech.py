"""Check of the exercise on speech."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bowerbird.reading.learn.checks import Observation, checks

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
    yield Observation(
        real,
        f"The result has shape {tuple(found.shape)}; it should be {SAMPLES} real samples.",
        f"结果形状为 {tuple(found.shape)}；应为 {SAMPLES} 个实数样本。",
    )
    after = error(found, magnitude)
    yield Observation(
        after < 0.25,
        f"After 60 steps the magnitudes are off by {100 * after:.0f} %; it should be less than 25 %.",
        f"60 步之后，幅度相差 {100 * after:.0f}%；应小于 25%。",
    )
    torch.manual_seed(1)
    few = error(answer.griffin_lim(magnitude, stft, istft, 2), magnitude)
    torch.manual_seed(1)
    many = error(answer.griffin_lim(magnitude, stft, istft, 80), magnitude)
    yield Observation(
        many < 0.8 * few,
        f"The magnitudes are off by {100 * few:.0f} % after 2 steps and {100 * many:.0f} % after 80; it should fall.",
        f"2 步后幅度相差 {100 * few:.0f}%，80 步后为 {100 * many:.0f}%；步数应有帮助。",
    )
    level = (found.norm() / voice().norm()).item()
    yield Observation(
        0.8 < level < 1.2,
        f"The result is {level:.2f} times as loud as the recording; it should be about 1.",
        f"结果的响度是录音的 {level:.2f} 倍；应约为 1。",
    )
