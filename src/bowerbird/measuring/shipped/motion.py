"""Moving pictures, beside real clips and beside two that need no model.

Each metric has the value of the model's clips, and, as parts of its name, those of two baselines, which begin with the
first frames that the model was given, or with those of real clips where it was given none:

    first_repeated      the first frame, all the time
    nearest_training    the training clip whose first frame is nearest to it
"""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from bowerbird import registry
from bowerbird.measuring.context import Context, Moving, all_of, with_extractor
from bowerbird.measuring.metric import Metric
from bowerbird.metrics.averages import ratio
from bowerbird.metrics.cache import FeatureSet
from bowerbird.metrics.frechet import fit_gaussian, frechet_distance
from bowerbird.metrics.measurement import Measurement
from bowerbird.metrics.motion import as_frames, change, residual


def _features(context: Context) -> dict[str, Tensor]:
    """Features (n, f, d) of every frame: of the model's clips "", of the baselines, and of real clips "real"."""
    moving: Moving = context["clips"]
    extractor = context["extractor"]
    found = {}
    for name, clips in {"": moving.samples, **moving.baselines, "real": moving.reference}.items():
        rows = all_of(FeatureSet.of(extractor, as_frames(clips)), f"{name or 'generated'} frames".replace("_", " "))
        found[name] = rows.unflatten(0, (len(clips), -1))
    return found


class _OfFeatures(Metric):
    needs = ("clips", "extractor")
    better, default = "lower", True
    of: Callable[[Tensor], Tensor]

    def compute(self, context: Context) -> list[Measurement]:
        features = {name: type(self).of(one).flatten(0, 1) for name, one in context.once(_features).items()}
        real = fit_gaussian(features.pop("real"))
        protocol = with_extractor(context["clips"].protocol, context["extractor"])
        return [
            self.measurement(frechet_distance(fit_gaussian(one), real), protocol, part=name)
            for name, one in features.items()
        ]


@registry.metrics.register("frechet_frames")
class FrechetFrames(_OfFeatures):
    title = "Fréchet distance of frames"
    reading = (
        "squared distance between two Gaussians fitted to the features of all frames of generated and of real clips; "
        "it says what frames look like and nothing of their order"
    )
    of = staticmethod(lambda features: features)


@registry.metrics.register("frechet_motion")
class FrechetMotion(_OfFeatures):
    title = "Fréchet distance of changes"
    reading = (
        "the same of the differences between the features of neighbouring frames: for clips that stand still it is the "
        "whole variance of the real changes"
    )
    of = staticmethod(lambda features: features.diff(dim=1))


@registry.metrics.register("motion_ratio")
class MotionRatio(Metric):
    title = "amount of motion"
    reading = (
        "mean squared difference of neighbouring frames over that of real clips: 1 moves as much as they do, 0 stands "
        "still"
    )
    needs = ("clips",)
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        return _beside_real(self, context["clips"], change)


@registry.metrics.register("warping_ratio")
class WarpingRatio(Metric):
    title = "what motion does not explain"
    reading = (
        "mean squared difference of neighbouring frames that is left when every block of 8x8 pixels may come from up "
        "to 4 pixels away, over that of real clips: 1 changes as they do, more flickers or dissolves"
    )
    needs = ("clips",)
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        return _beside_real(self, context["clips"], residual)


def _beside_real(metric: Metric, moving: Moving, of: Callable[[Tensor], Tensor]) -> list[Measurement]:
    """Means over clips relative to the mean over real clips, whose own error is not counted."""
    real = float(of(moving.reference).mean())
    found = []
    for part, clips in {"": moving.samples, **moving.baselines}.items():
        value, stderr = ratio(of(clips).numpy(), np.full(len(clips), real))
        found.append(metric.measurement(value, moving.protocol, stderr, part=part))
    return found
