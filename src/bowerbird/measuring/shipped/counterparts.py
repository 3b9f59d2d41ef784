"""How far pictures that were made from others lie from the true ones.

Protocols have, as 'source', the value of the pictures that they were made from, untouched: what doing nothing reaches.
"""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from bowerbird import registry
from bowerbird.measuring.context import Context, Counterparts, with_extractor
from bowerbird.measuring.metric import Metric
from bowerbird.metrics.averages import Average, mean
from bowerbird.metrics.measurement import Measurement, Protocol, settings
from bowerbird.metrics.pixelwise import WINDOW, ssim
from bowerbird.metrics.truth import feature_distance, l1


def protocol_beside_source(pairs: Counterparts, distance: Callable[[Tensor, Tensor], Average]) -> Protocol:
    """With what the sources have, where they are of the truth's size."""
    if pairs.source is None or pairs.source.shape != pairs.truth.shape:
        return pairs.protocol
    value, _ = distance(pairs.source, pairs.truth)
    return replace(pairs.protocol, parameters=settings({**dict(pairs.protocol.parameters), "source": round(value, 6)}))


@registry.metrics.register("l1")
class L1(Metric):
    better, title = "lower", "L1 to the truth"
    reading = (
        "mean absolute difference to the true picture, of values in [-1, 1]; 'source' has that of the source itself"
    )
    needs = ("counterparts",)
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        pairs: Counterparts = context["counterparts"]
        value, stderr = l1(pairs.made, pairs.truth)
        return [self.measurement(value, protocol_beside_source(pairs, l1), stderr)]


def mean_ssim(made: Tensor, truth: Tensor) -> Average:
    return mean(ssim(truth, made).numpy())


@registry.metrics.register("ssim_to_truth")
class StructuralSimilarityToTruth(Metric):
    """Nothing for pictures that are smaller than its window."""

    better, title = "higher", "SSIM to the truth"
    reading = "likeness of local structure to that of the true picture, 1 for equal pictures"
    needs = ("counterparts",)
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        pairs: Counterparts = context["counterparts"]
        if min(pairs.truth.shape[2:]) < WINDOW:
            return []
        value, stderr = mean_ssim(pairs.made, pairs.truth)
        return [self.measurement(value, protocol_beside_source(pairs, mean_ssim), stderr)]


@registry.metrics.register("feature_distance")
class FeatureDistance(Metric):
    better, title = "lower", "feature distance to the truth"
    reading = "in an extractor's features, over the distance between two true pictures; 0 is the truth; it is not LPIPS"
    needs = ("counterparts", "extractor")
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        pairs: Counterparts = context["counterparts"]
        features = context["extractor"].features
        truth = features(pairs.truth)

        def distance(images: Tensor, _truth: Tensor) -> Average:
            return feature_distance(features(images), truth)

        value, stderr = distance(pairs.made, pairs.truth)
        protocol = with_extractor(protocol_beside_source(pairs, distance), context["extractor"])
        return [self.measurement(value, protocol, stderr)]
