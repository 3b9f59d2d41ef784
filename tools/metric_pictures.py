"""Draws the pictures of docs/metrics.md from our own runs and from CIFAR-10.

    python tools/metric_pictures.py n          Fréchet and kernel distance against the number of images
    python tools/metric_pictures.py truncation RUN     precision, recall and diversity of a GAN with truncated latents

The first needs `bowerbird data get cifar10` and `inception-2015`, and minutes for the features the first time.
"""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

import bowerbird
from bowerbird.config import Data
from bowerbird.data.fetch import cache_folder
from bowerbird.draws import Draws
from bowerbird.eightbit import to_uint8
from bowerbird.measuring.extractors import find_extractor
from bowerbird.measuring.selftest import cifar_halves
from bowerbird.media import open_data
from bowerbird.metrics.cache import FeatureCache
from bowerbird.metrics.chosen import subset
from bowerbird.metrics.frechet import fit_gaussian, frechet_distance
from bowerbird.metrics.infinity import frechet_infinity
from bowerbird.metrics.kid import kid
from bowerbird.metrics.prdc import prdc
from bowerbird.metrics.scores import diversity

IMAGES = Path(__file__).parents[1] / "docs" / "images"
RED, BLUE, GREY = "#c0392b", "#2463a8", "#777777"


def axes(n: int = 1) -> tuple[Figure, list]:
    figure = Figure(figsize=(3.6 * n, 2.7), dpi=110, layout="constrained")
    panels = [figure.add_subplot(1, n, i + 1) for i in range(n)]
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    return figure, panels


def against_n() -> None:
    """Real test images against real training images: what is seen is nothing but the number of images."""
    extractor, cache = find_extractor("inception-2015"), FeatureCache(cache_folder())
    training, test = (cache.of(extractor, images).all() for images in cifar_halves())
    reference = fit_gaussian(training)
    sizes = [250, 500, 1000, 2000, 3000, 4000, 5000]
    distances, kernels = [], []
    for n in sizes:
        part = subset(test, n)
        distances.append(frechet_distance(fit_gaussian(part), reference))
        kernels.append(kid(samples=part, reference=training[:2500]))
        print(n, distances[-1], kernels[-1])
    limit = frechet_infinity(samples=test, reference=reference)
    print("infinity", limit)
    figure, (left, right) = axes(2)
    left.plot(sizes, distances, "o-", color=RED, markersize=3)
    left.axhline(limit.value, color=GREY, linestyle=":", linewidth=1)
    left.text(5000, limit.value + 3, f"n → ∞: {limit.value:.1f}", ha="right", fontsize=8, color=GREY)
    left.set(xlabel="test images", ylabel="FID", ylim=(0, None))
    values, errors = zip(*kernels, strict=True)
    right.errorbar(sizes, [1e3 * v for v in values], [2e3 * e for e in errors], fmt="o-", color=BLUE, markersize=3)
    right.axhline(0, color=GREY, linewidth=0.8)
    right.set(xlabel="test images", ylabel="KID · 1,000, ± 2 errors")
    figure.savefig(IMAGES / "metrics-n.png")


@torch.no_grad()
def truncated(run: str, n: int = 1000) -> None:
    """A GAN whose latents are scaled by ψ ≤ 1: samples come nearer to the typical, and to one another."""
    model, data = bowerbird.load(run), open_data(Data(source="digits"))
    extractor = find_extractor("digits")
    reference = extractor.features(subset(data.test.images, n))
    shares, found = [0.3, 0.5, 0.7, 0.85, 1.0, 1.2], []
    for psi in shares:
        draws = Draws(0)
        given = model.requested(n, None, draws)
        z = psi * draws.randn(n, model.config.n_latent)
        parts = torch.arange(n).split(250)
        x = torch.cat([model.G(z[part], {name: value[part] for name, value in given.items()}) for part in parts])
        features = extractor.features(to_uint8(x))
        scores = prdc(samples=features, reference=reference)
        distance = frechet_distance(fit_gaussian(features), fit_gaussian(reference))
        found.append((scores.precision, scores.recall, diversity(samples=features, reference=reference)[0], distance))
        print(psi, found[-1])
    figure, (left, right) = axes(2)
    for row, name, colour in ((0, "precision", BLUE), (1, "recall", RED), (2, "diversity", GREY)):
        left.plot(shares, [f[row] for f in found], "o-", color=colour, markersize=3, label=name)
    left.legend(frameon=False, fontsize=8)
    left.set(xlabel="ψ", ylim=(0, 1.12))
    right.plot(shares, [f[3] for f in found], "o-", color=BLUE, markersize=3)
    right.set(xlabel="ψ", ylabel="Fréchet distance", ylim=(0, None))
    figure.savefig(IMAGES / "metrics-truncation.png")


if __name__ == "__main__":
    what, *arguments = sys.argv[1:] or ["help"]
    pictures = {"n": against_n, "truncation": truncated}
    if what not in pictures:
        sys.exit(__doc__)
    pictures[what](*arguments)
