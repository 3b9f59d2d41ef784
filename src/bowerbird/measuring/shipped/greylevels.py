"""Metrics of pixels, which need no network: how far samples lie from real pictures, and reconstructions from theirs."""

from dataclasses import replace

from torch import Tensor

from bowerbird import registry
from bowerbird.measuring.context import Context, Counterparts, Sides
from bowerbird.measuring.metric import Metric
from bowerbird.metrics import averages
from bowerbird.metrics.chosen import subset
from bowerbird.metrics.measurement import Measurement, settings
from bowerbird.metrics.pixelwise import PROJECTIONS, WINDOW, psnr, sliced_wasserstein, ssim

MOST = 10_000
"""Most images of each side that are projected."""


@registry.metrics.register("sliced_wasserstein")
class SlicedWasserstein(Metric):
    unit, better, title = "grey levels", "lower", "sliced Wasserstein"
    reading = "distance of pixels along random directions; sees brightness, colour and layout, and hardly any detail"
    needs = ("pictures",)
    fewest = 10

    def by_default(self, context: Context) -> bool:
        """Where there are no features to tell more."""
        return not context.has("features")

    def compute(self, context: Context) -> list[Measurement]:
        pictures: Sides[Tensor] = context["pictures"]
        samples, reference = pictures.samples, pictures.reference
        n = min(len(samples), len(reference), MOST)
        value, stderr = sliced_wasserstein(samples=subset(samples, n), reference=subset(reference, n))
        parameters = settings({"projections": PROJECTIONS})
        protocol = replace(pictures.protocol, n_generated=n, n_reference=n, dtype="float32", parameters=parameters)
        return [self.measurement(value, protocol, stderr)]


@registry.metrics.register("psnr")
class PeakSignalToNoise(Metric):
    unit, better, title = "dB", "higher", "PSNR"
    reading = "of reconstructions of the reference images: their mean squared error in decibels"
    needs = ("reconstructions",)
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        pairs: Counterparts = context["reconstructions"]
        decibels, error = psnr(pairs.truth, pairs.made)
        return [self.measurement(decibels, pairs.protocol, error)]


@registry.metrics.register("ssim")
class StructuralSimilarity(Metric):
    """Nothing for images that are smaller than its window."""

    better, title = "higher", "SSIM"
    reading = "of reconstructions: likeness of local structure, 1 for equal images"
    needs = ("reconstructions",)
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        pairs: Counterparts = context["reconstructions"]
        if min(pairs.truth.shape[2:]) < WINDOW:
            return []
        value, stderr = averages.mean(ssim(pairs.truth, pairs.made).numpy(force=True))
        return [self.measurement(value, pairs.protocol, stderr)]
