"""Moving pictures, beside real clips and beside two that need no model.

Each metric has the value of the model's clips, and, as parts of its name, those of two baselines, which begin with the
first frames that the model was given, or with those of real clips where it was given none:

    first_repeated      the first frame, all the time
    nearest_training    the training clip whose first frame is nearest to it
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from bowerbird import registry
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.context import Context, Moving, all_of, with_extractor
from bowerbird.measuring.metric import Metric
from bowerbird.metrics.averages import ratio
from bowerbird.metrics.cache import FeatureSet
from bowerbird.metrics.digits import DigitNet, as_scanned
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


SURE = 0.9
"""Probability from which the first frame shows a digit."""


@registry.metrics.register("digit_kept")
class DigitKept(Metric):
    title = "digits that stay what they were"
    better = "higher"
    reading = (
        "of clips whose first frame shows one digit, at most half as large as the frame, the share whose last frame "
        "(.middle: whose middle one) the digit classifier still calls as it called the first; .real: of real clips, "
        "which the classifier does not call alike in all frames either"
    )
    needs = ("clips",)

    def compute(self, context: Context) -> list[Measurement]:
        moving: Moving = context["clips"]
        if moving.samples.shape[1] != 1:
            raise BowerbirdError("digit_kept is of clips in grey.")
        found = []
        for side, clips in (("", moving.samples), ("real", moving.reference)):
            kept = _kept(clips)
            for name, share in (("", kept[:, -1]), ("middle", kept[:, kept.shape[1] // 2])):
                p = float(share.mean()) if len(share) else float("nan")
                part = "_".join(filter(None, (side, name)))
                error = (p * (1 - p) / max(1, len(share))) ** 0.5
                found.append(self.measurement(p, moving.protocol, error, part=part))
        return found


def _kept(clips: UInt8[Tensor, "n 1 f h w"]) -> Float[Tensor, "m f"]:
    """1 where a frame is called as the first one, for clips whose first frame shows one digit."""
    net = DigitNet.load()
    x, sides = as_scanned(clips[:, :, 0])
    p, called = net(x).softmax(1).max(1)
    one = (p >= SURE) & (sides > 0) & (sides <= max(clips.shape[-2:]) / 2)
    frames, _ = as_scanned(as_frames(clips[one]))
    return (net(frames).argmax(1).view(-1, clips.shape[2]) == called[one, None]).float()


def _beside_real(metric: Metric, moving: Moving, of: Callable[[Tensor], Tensor]) -> list[Measurement]:
    """Means over clips relative to the mean over real clips, whose own error is not counted."""
    real = float(of(moving.reference).mean())
    found = []
    for part, clips in {"": moving.samples, **moving.baselines}.items():
        value, stderr = ratio(of(clips).numpy(), np.full(len(clips), real))
        found.append(metric.measurement(value, moving.protocol, stderr, part=part))
    return found
