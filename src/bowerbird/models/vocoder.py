"""A vocoder: the waveform of a spectrogram, whose phases it invents (Vocos: Siuzdak 2023, arXiv:2306.00814).

Notation: s a log-mel spectrogram, y its waveform, S_w the short-time Fourier transform with a Hann window of w samples
and a hop of w/4.  The generator works at the rate of the frames of s, which makes it hundreds of times cheaper than one
that works at the rate of the samples (HiFi-GAN: Kong et al. 2020, arXiv:2010.05646):

    m, φ = net(s)                         for each frame and frequency
    G(s) = S⁻¹( exp(3.45 m) · (cos πφ + i sin πφ) )

    R_w = | |S_w(y)| - |S_w(G(s))| |_F / | |S_w(y)| |_F  +  E| ln|S_w(y)| - ln|S_w(G(s))| |     Yamamoto et al. 2020,
                                                                                    arXiv:1910.11480, equations 4 to 6
    G moves down   spectral_weight · mean_w R_w                                          without a discriminator
    G moves down   g(D(G(s))) + spectral_weight · mean_w R_w                             with one
    D moves down   d(D(y), D(G(s)))

D is one network for each w, which sees ln|S_w| as a picture; d and g are hinge losses (Lim & Ye 2017,
arXiv:1705.02894), as in Vocos.  Magnitudes below ``FLOOR`` count as ``FLOOR``: what cannot be heard needs no logarithm.

Where we differ from Vocos: its loss of mel bands is R_w over several w, which also says which phases fit together, and
D does without the loss of features.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from bowerbird import config
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, GenerativeModel, Loss, Piece, Positional, evaluating
from bowerbird.nets.conditioning import Given
from bowerbird.nets.convnext import ColumnNet
from bowerbird.nets.roles import NetConfig
from bowerbird.ranges import Count, NonNegative, Whole
from bowerbird.registry import families
from bowerbird.spec import Spec, Tensors

SPECTROGRAM = "spectrogram"
HOPS_PER_WINDOW = 4
FLOOR = 1e-3
"""-80 dB of a window whose sine of full scale is about 10."""
HALF_RANGE = 3.45
"""ln 10^1.5, or 30 dB: what 1 means in s, so that it means the same in m."""
LARGEST = 6.0
"""Of ln|S|: no frequency of a waveform of full scale reaches exp(6)."""

Waves = Float[Tensor, "n 1 samples"]
Spectrograms = Float[Tensor, "n 1 mel frames"]
Scalar = Float[Tensor, ""]


def transform(y: Waves, window: int) -> Complex[Tensor, "n bins frames"]:
    """S_w(y) / √w, so that noise is equally loud at every w."""
    hann = torch.hann_window(window, device=y.device)
    found = torch.stft(y[:, 0].float(), window, window // HOPS_PER_WINDOW, window=hann, return_complex=True)
    return found / window**0.5


def magnitude(y: Waves, window: int) -> Float[Tensor, "n bins frames"]:
    """|S_w(y)|, at least ``FLOOR``; its gradient is finite where the spectrum is zero."""
    spectrum = transform(y, window)
    return (spectrum.real.square() + spectrum.imag.square()).clamp(min=FLOOR**2).sqrt()


def spectral_convergence(real: Float[Tensor, "n b f"], fake: Float[Tensor, "n b f"]) -> Scalar:
    """||Y| - |G||_F / ||Y||_F: 0 for the same magnitudes, about 1 for silence."""
    return (real - fake).norm() / real.norm()


def log_distance(real: Float[Tensor, "n b f"], fake: Float[Tensor, "n b f"]) -> Scalar:
    """E|ln|Y| - ln|G||; 0.115 is one decibel."""
    return (real.log() - fake.log()).abs().mean()


def hinge(logits: Tensor, sign: float) -> Scalar:
    """E max(0, 1 - sign · D): sign 1 for real waveforms, -1 for generated ones."""
    return F.relu(1 - sign * logits).mean()


class Synthesis(nn.Module):
    """G: s → y.  The hop is what the shapes of both say, and the window of the inverse transform four of them."""

    def __init__(self, shape: tuple[int, ...], n_samples: int, channels: int, n_blocks: int):
        super().__init__()
        _, n_mels, frames = shape
        self.n_samples, self.hop = n_samples, n_samples // frames
        self.window = HOPS_PER_WINDOW * self.hop
        self.net = ColumnNet(n_mels, channels, n_blocks, 2 * (self.window // 2 + 1))

    def forward(self, s: Spectrograms) -> Waves:
        spectrum = torch.complex(*self.spectrum(s))
        hann = torch.hann_window(self.window, device=s.device)
        y = torch.istft(spectrum, self.window, self.hop, window=hann, length=self.n_samples)
        return y[:, None]

    def spectrum(self, s: Spectrograms) -> tuple[Float[Tensor, "n bins columns"], Float[Tensor, "n bins columns"]]:
        """Its real and its imaginary part."""
        columns = F.pad(s[:, 0], (0, 1), mode="replicate")  # frames lie at 0, hop, 2 hop … and at the very end
        m, phase = self.net(columns).float().transpose(1, 2).chunk(2, dim=1)
        size = (HALF_RANGE * m).clamp(max=LARGEST).exp()
        return size * (torch.pi * phase).cos(), size * (torch.pi * phase).sin()


class RealSynthesis(nn.Module):
    """G for runtimes without complex numbers: S⁻¹ as a transposed convolution, of which frame k of bin b adds

        c_b / w · hann(i) · (Re S cos(2π b i / w) - Im S sin(2π b i / w))        at sample k · hop + i - w/2,

    c_b = 1 for the first and the last bin and 2 for the others, divided by the sum of the squared windows there.
    """

    waves: Tensor
    squares: Tensor

    def __init__(self, synthesis: Synthesis):
        super().__init__()
        self.synthesis, window = synthesis, synthesis.window
        bins, i = torch.arange(window // 2 + 1)[:, None], torch.arange(window)
        hann, angle = torch.hann_window(window), 2 * torch.pi * (bins * i % window) / window
        share = torch.where((bins == 0) | (bins == window // 2), 1.0, 2.0) / window * hann
        frames = torch.ones(1, 1, synthesis.n_samples // synthesis.hop + 1)
        self.register_buffer("waves", torch.cat([share * angle.cos(), -share * angle.sin()])[:, None])
        self.register_buffer("squares", self._added(frames, hann.square()[None, None]))

    def forward(self, s: Spectrograms) -> Waves:
        return self._added(torch.cat(self.synthesis.spectrum(s), 1), self.waves) / self.squares

    def _added(self, frames: Float[Tensor, "n rows frames"], waves: Float[Tensor, "rows 1 window"]) -> Waves:
        g = self.synthesis
        return F.conv_transpose1d(frames, waves, stride=g.hop)[..., g.window // 2 :][..., : g.n_samples]


@families.register("vocoder")
@dataclass(frozen=True)
class VocoderConfig(config.ModelConfig):
    """Hyperparameters of a vocoder."""

    channels: Count = 128
    """Features of each frame in the generator."""
    blocks: Count = 4
    """ConvNeXt blocks of the generator."""
    windows: tuple[Count, ...] = (128, 256, 512)
    """Windows of the spectra that are compared, in samples; multiples of 4."""
    discriminator: NetConfig | None = None
    """Tells spectra of recordings from generated ones: patchgan, convnet or mlp (None: learn by spectra alone)."""
    alone: Whole = 0
    """Steps before the discriminator joins in, of which each costs a third."""
    spectral_weight: NonNegative = 10.0
    """Weight of the distance between spectra."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.windows or any(window % HOPS_PER_WINDOW for window in self.windows):
            raise ValueError("model.windows needs at least one window, each a multiple of 4, such as [128, 256, 512].")

    def build(self, spec: Spec) -> "Vocoder":
        return Vocoder(self, spec)


class Vocoder(GenerativeModel):
    """A generator G of waveforms and, where it is asked for, a discriminator D of their spectra."""

    def __init__(self, config: VocoderConfig, spec: Spec):
        super().__init__()
        shape, n_samples = checked(spec, max(config.windows))
        self.config = config
        self.spec = replace(spec, given={SPECTROGRAM: spec.given[SPECTROGRAM]})
        self.G = Synthesis(shape, n_samples, config.channels, config.blocks)
        if config.discriminator is not None:
            self.D = nn.ModuleList(
                config.discriminator.encoder(picture_of(spec, window, n_samples), 1) for window in config.windows
            )

    @property
    def players(self) -> dict[str, nn.Module]:
        return {name: getattr(self, name) for name in ("D", "G") if hasattr(self, name)}

    @property
    def sampling_network(self) -> nn.Module:
        return self.G

    @property
    def pieces(self) -> dict[str, Piece]:
        real = RealSynthesis(self.G)
        return {"generator": Piece(Positional(real, real), dict(self.spec.given), "waveform")}

    def procedure(self) -> dict[str, Any]:
        return {"kind": "vocode", "piece": "generator"}

    def losses(self, batch: Batch) -> Iterator[Loss]:
        real, fake = batch.x, self.G(batch.given[SPECTROGRAM])
        spectra = [(magnitude(real, window), magnitude(fake, window)) for window in self.config.windows]
        convergence = torch.stack([spectral_convergence(*pair) for pair in spectra]).mean()
        distance = torch.stack([log_distance(*pair) for pair in spectra]).mean()
        value = self.config.spectral_weight * (convergence + distance)
        logs = {"convergence": convergence, "log_distance": distance} | heard(real, fake)
        if hasattr(self, "D") and batch.step >= self.config.alone:
            yield self.discriminator_loss([(a, b.detach()) for a, b in spectra])
            fooled = torch.stack([-logits.mean() for logits in self.judged([b for _, b in spectra])]).mean()
            value, logs = value + fooled, logs | {"fooled": fooled}  # D has been stepped, and G has not
        yield Loss("G", value, {name: log.detach() for name, log in logs.items()})

    def judged(self, spectra: list[Tensor]) -> list[Tensor]:
        """The logits of each network of D."""
        return [D(one.log()[:, None], {}).float() for D, one in zip(self.D, spectra, strict=True)]

    def discriminator_loss(self, spectra: list[tuple[Tensor, Tensor]]) -> Loss:
        real, fake = (self.judged(list(side)) for side in zip(*spectra, strict=True))
        parts = [hinge(a, 1) + hinge(b, -1) for a, b in zip(real, fake, strict=True)]
        pairs = [*zip(real, fake, strict=True)]
        logs = {
            "real_logits": torch.stack([a.mean() for a, _ in pairs]).mean(),
            "fake_logits": torch.stack([b.mean() for _, b in pairs]).mean(),
            "accuracy": torch.stack([(a > b).float().mean() for a, b in pairs]).mean(),  # places ordered rightly
        }
        return Loss("D", torch.stack(parts).mean(), {name: log.detach() for name, log in logs.items()})

    @torch.no_grad()
    def sample(self, n: int, given: Given | None = None, options: Any = None, generator: Draws | None = None) -> Waves:
        """The waveforms of n spectrograms, within full scale; nothing is drawn at random."""
        asked = dict(given or {})
        shape = self.spec.given[SPECTROGRAM].shape  # type: ignore[union-attr]
        found = asked.get(SPECTROGRAM)
        if found is None or found.shape != (n, *shape):
            given_shape = "none were given" if found is None else f"what was given has the shape {tuple(found.shape)}"
            wanted = "x".join(map(str, shape[1:]))
            raise BowerbirdError(f"A vocoder needs {n} spectrograms of {wanted} numbers, and {given_shape}.")
        self.requested(n, asked, generator or Draws(0))  # refuses what the model does not take
        with evaluating(self.G):
            return self.G(found.to(self.device)).clamp(-1, 1)


def heard(real: Waves, fake: Waves) -> dict[str, Tensor]:
    """What tells silent, clipped and collapsed output: level beside the recordings' in dB, share of samples beyond full
    scale, and how much waveforms differ in loudness from moment to moment, relative to the recordings."""
    level = 20 * ((fake.square().mean() + 1e-12).sqrt() / (real.square().mean() + 1e-12).sqrt()).log10()
    return {
        "level_db": level,
        "beyond_full_scale": (fake.abs() > 1).float().mean() - (real.abs() > 1).float().mean(),
        "dynamics": loudness(fake).std() / loudness(real).std().clamp(min=1e-6),
    }


def loudness(y: Waves, moment: int = 64) -> Float[Tensor, "n moments"]:
    """Of stretches of so many samples."""
    return F.avg_pool1d(y.square(), min(moment, y.shape[-1]))[:, 0].clamp(min=0).sqrt()


def picture_of(spec: Spec, window: int, n_samples: int) -> Spec:
    """ln|S_w| of a waveform as D sees it."""
    shape = (1, window // 2 + 1, n_samples // (window // HOPS_PER_WINDOW) + 1)
    return replace(spec, target=Tensors(shape, None), given={})


def checked(spec: Spec, window: int) -> tuple[tuple[int, ...], int]:
    """The shape of a spectrogram and the samples of its waveform; BowerbirdError where there is no such pair."""
    field, target = spec.given.get(SPECTROGRAM), spec.target
    if not isinstance(field, Tensors) or not isinstance(target, Tensors) or len(target.shape) != 2:
        raise BowerbirdError(
            "The family vocoder learns waveforms of spectrograms; give it recordings, with "
            "--data.speech.target waveform."
        )
    frames, n_samples = field.shape[2], target.shape[1]
    if n_samples % frames or n_samples <= window:
        raise BowerbirdError(
            f"Examples of {n_samples:,} samples are too short for a window of {window}; set model.windows, or "
            "--data.speech.seconds."
        )
    return field.shape, n_samples
