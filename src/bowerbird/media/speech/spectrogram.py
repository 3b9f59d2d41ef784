"""Sound as a picture: log-mel spectrograms, and the way back to a waveform.

    X[f, k]   short-time Fourier transform: frames of ``window`` samples, centred at k · hop, Hann, padded to ``n_fft``
    A         = 2 |X| / Σ window                    the amplitude of a sine, of full scale 1
    M         = F A²                                F: triangles on the mel scale, m(f) = 2595 log₁₀(1 + f/700)
    x         = 2 (10 log₁₀ M - bottom) / (top - bottom) - 1,   clipped to [-1, 1]

``bottom`` and ``top`` are in dB of full scale.  A recording is brought to the level ``level_db`` (root mean square)
first, so that loud and soft speakers fill the same range.  All numbers of a ``Mel`` are kept in a run's spec.

Back: A² is the non-negative least-squares solution of F A² = M, by the multiplicative steps of Lee & Seung (2001);
the phase, which x does not hold, comes from the algorithm of Griffin & Lim (1984): project on the spectrograms that
belong to a signal, put the magnitudes back, again.  With ``MOMENTUM`` it is the fast variant (Perraudin, Balazs &
Søndergaard 2013, algorithm 2), which gets closer in as many steps; 0 is the original.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from bowerbird.spec import Spec

HOPS_PER_WINDOW = 4
"""Three quarters overlap, which Griffin & Lim need."""
PHASE_STEPS = 60
MOMENTUM = 0.99
UNMIX_STEPS = 60
QUIET_DB = 6.0
"""What stays this close to the bottom is silence …"""
AFTER_S = 0.03
"""… and so much of it is kept at the end."""
FLOOR = 1e-10
PEAK = 0.9
"""Loudest sample of what is heard, of full scale 1."""


@dataclass(frozen=True)
class Mel:
    """The exact parameters of a spectrogram."""

    rate_hz: int
    n_mels: int
    frames: int
    hop: int
    """Samples from one frame to the next."""
    n_fft: int
    bottom_db: float = -60.0
    """40 dB below the level of recordings: what is softer is mostly their noise.  Of 108
    real digits whisper-base heard 102 from mel bands down to -80 dB, 106 down to -60 dB and 105 down to -50 dB."""
    top_db: float = 0.0
    level_db: float = -20.0

    @classmethod
    def of(cls, rate_hz: int, seconds: float, frame_ms: float, n_mels: int) -> "Mel":
        """For examples of at least so many seconds; a multiple of 16 frames, so that networks can halve it."""
        hop = max(1, round(rate_hz * frame_ms / 1000))
        frames = 16 * max(1, -(-round(seconds * rate_hz) // (16 * hop)))
        return cls(rate_hz, n_mels, frames, hop, 1 << (HOPS_PER_WINDOW * hop - 1).bit_length())

    @classmethod
    def from_json(cls, text: str) -> "Mel":
        return cls(**json.loads(text)["mel"])

    def beside(self, tokenizer: str = "") -> str:
        """A codec: these parameters, and the tokenizer of captions where there are any."""
        return json.dumps({"mel": dataclasses.asdict(self)} | ({"tokenizer": tokenizer} if tokenizer else {}))

    @property
    def samples(self) -> int:
        """Of the waveform of an example."""
        return self.frames * self.hop

    @property
    def seconds(self) -> float:
        return self.samples / self.rate_hz

    @cached_property
    def _window(self) -> Float[Tensor, " window"]:
        return torch.hann_window(HOPS_PER_WINDOW * self.hop)

    @cached_property
    def _filters(self) -> Float[Tensor, "mel bin"]:
        """Triangles of height 1, each from the middle of the one before to that of the one after."""
        mel = torch.linspace(0, _mel(self.rate_hz / 2), self.n_mels + 2, dtype=torch.float64)
        edges = 700 * (10 ** (mel / 2595) - 1)
        hz = torch.arange(self.n_fft // 2 + 1, dtype=torch.float64) * self.rate_hz / self.n_fft
        left, middle, right = (edges[i : i + self.n_mels, None] for i in range(3))
        triangles = torch.minimum((hz - left) / (middle - left), (right - hz) / (right - middle)).clamp(min=0)
        nearest = (hz - middle).abs().argmin(1)  # a low band can be narrower than the step between two bins
        triangles[torch.arange(self.n_mels), nearest] = triangles[torch.arange(self.n_mels), nearest].clamp(min=0.5)
        return triangles.float()

    def _transform(self, waveform: Float[Tensor, "n samples"]) -> Complex[Tensor, "n bin frames"]:
        """Frames at 0, hop, 2 hop … up to the end, one more than an example has."""
        n = len(self._window)
        return torch.stft(
            waveform, self.n_fft, self.hop, n, self._window, center=True, pad_mode="constant", return_complex=True
        )

    def _inverse(self, spectrum: Complex[Tensor, "n bin frames"]) -> Float[Tensor, "n samples"]:
        n = len(self._window)
        return torch.istft(spectrum, self.n_fft, self.hop, n, self._window, center=True, length=self.samples)

    def encoded(self, waveform: Float[Tensor, "n samples"]) -> Float[Tensor, "n mel frames"]:
        """x of waveforms of ``samples`` samples; silence is -1."""
        decibels = self.decibels(waveform)
        return (2 * (decibels - self.bottom_db) / (self.top_db - self.bottom_db) - 1).clamp(-1, 1)

    def decibels(self, waveform: Float[Tensor, "n samples"]) -> Float[Tensor, "n mel frames"]:
        """The power of the mel bands in dB of full scale, at least ``bottom_db``."""
        amplitude = 2 * self._transform(waveform).abs()[..., :-1] / self._window.sum()
        return (10 * (self._filters @ amplitude.square()).clamp(min=FLOOR).log10()).clamp(min=self.bottom_db)

    def decoded(
        self, x: Float[Tensor, "n mel frames"], steps: int = PHASE_STEPS, momentum: float = MOMENTUM
    ) -> Float[Tensor, "n samples"]:
        """Waveforms whose spectrograms come near x."""
        decibels = (x.clamp(-1, 1) + 1) / 2 * (self.top_db - self.bottom_db) + self.bottom_db
        power = 10 ** (decibels / 10) * (x > -1)
        amplitude = unmixed(power, self._filters).sqrt() * self._window.sum() / 2
        return self.with_phase(torch.nn.functional.pad(amplitude, (0, 1)), steps, momentum)

    def with_phase(
        self, magnitude: Float[Tensor, "n bin frames"], steps: int = PHASE_STEPS, momentum: float = MOMENTUM
    ) -> Float[Tensor, "n samples"]:
        """The waveforms that fast Griffin-Lim finds; every row starts from the same random phases."""
        start = 2 * torch.pi * torch.rand(magnitude.shape[1:], generator=torch.Generator().manual_seed(0))
        spectrum = torch.polar(magnitude, start.expand_as(magnitude).contiguous())
        before = torch.zeros_like(spectrum)
        for _ in range(steps):
            consistent = self._transform(self._inverse(spectrum))
            ahead = consistent + momentum * (consistent - before)
            spectrum, before = magnitude * ahead / ahead.abs().clamp(min=FLOOR), consistent
        return self._inverse(spectrum)

    def ends(self, x: Float[Tensor, "n mel frames"]) -> list[int]:
        """Of each waveform the number of samples up to the silence that it ends in, at least one frame."""
        quiet = 2 * QUIET_DB / (self.top_db - self.bottom_db) - 1
        sounds = (x.amax(1) > quiet).long() * torch.arange(1, x.shape[-1] + 1)
        after = round(AFTER_S * self.rate_hz)
        return [min(self.samples, max(1, int(last)) * self.hop + after) for last in sounds.amax(1)]


def seen(x: Tensor, spec: Spec) -> Float[Tensor, "n 1 mel frames"]:
    """The spectrograms of samples, which are spectrograms or waveforms."""
    x = x.float().cpu()
    return x if x.dim() == 4 else Mel.from_json(spec.codec).encoded(x[:, 0])[:, None]


def heard(x: Tensor, spec: Spec) -> list[Float[np.ndarray, " samples"]]:
    """The waveforms of samples in [-1, 1], each up to the silence that it ends in."""
    mel, spectrograms = Mel.from_json(spec.codec), seen(x, spec)[:, 0]
    waveforms = mel.decoded(spectrograms) if x.dim() == 4 else x[:, 0].float().cpu().clone()
    waveforms *= PEAK / waveforms.abs().amax(1, keepdim=True).clamp(min=PEAK)
    return [one[:end].numpy() for one, end in zip(waveforms, mel.ends(spectrograms), strict=True)]


def _mel(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)


def unmixed(
    power: Float[Tensor, "n mel frames"], filters: Float[Tensor, "mel bin"], steps: int = UNMIX_STEPS
) -> Float[Tensor, "n bin frames"]:
    """S ≥ 0 with filters · S ≈ power: S ← S ∘ (Fᵀ power) / (FᵀF S), which never makes the squared error larger."""
    target, gram = filters.T @ power, filters.T @ filters
    found = target / gram.sum(1, keepdim=True).clamp(min=FLOOR)
    for _ in range(steps):
        found = found * target / (gram @ found).clamp(min=FLOOR * FLOOR)
    return found
