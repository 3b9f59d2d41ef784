"""The denoising as a film: what the sampler holds after every step, from noise to picture."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bowerbird.data.writing import save_png
from bowerbird.eightbit import to_uint8
from bowerbird.generating import Samples
from bowerbird.media.image.pictures import picture
from bowerbird.samplers.integrate import observed
from bowerbird.studio.drawing import Drawing
from bowerbird.studio.language import Refusal

MOST_FRAMES = 48
AT_MOST = 4
"""Pictures that a film shows side by side."""


@dataclass(frozen=True)
class Film:
    """Samples and every state on the way to them, (frames, n, c, h, w) in [-1, 1]."""

    samples: Samples
    frames: Tensor

    def strip(self) -> Image.Image:
        """A frame below the other, each with its pictures side by side."""
        rows = [torch.cat(list(to_uint8(frame)), dim=2) for frame in self.frames]
        return picture(torch.cat(rows, dim=1))

    def save(self, folder: Path) -> Path:
        return save_png(folder / "film.png", self.strip())


def filmed(drawing: Drawing, run: Path, n: int | None, seed: int, given: dict, options: dict) -> Film:
    """Generates under observation, in the thread of models; Refusal for a model that takes no steps."""
    seen: list[Tensor] = []

    def see(_t: float, x: Tensor, _denoised: Tensor) -> None:
        seen.append(x.detach().float().cpu())

    with observed(see):
        samples = drawing.generate(run, min(n or AT_MOST, AT_MOST), seed, given, options)
    if not seen:
        raise Refusal("refused.film")
    kept = torch.linspace(0, len(seen) - 1, min(len(seen), MOST_FRAMES)).round().long().tolist()
    frames = torch.stack([within_range(seen[i]) for i in kept[:-1]] + [samples.x.float()])
    return Film(samples, frames)


def within_range(x: Tensor) -> Tensor:
    """Noise reaches beyond [-1, 1]; scaled so that its spread can be seen, pictures are as they are."""
    return x / x.abs().amax().clamp(min=1.0)
