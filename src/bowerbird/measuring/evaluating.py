"""Cheap evaluations while a model trains: few samples, few sampler steps, and scores that few samples do not bias.

The kernel distance decides which weights are the best so far: it is unbiased, and its error is known.  FID∞ stands
beside it where the features have few enough dimensions for the number of samples.  Both are read as a curve, not as
results: a full measurement uses more samples and the sampler's own number of steps.  Where no extractor on this machine
suits the pictures, the sliced Wasserstein distance of their pixels decides.
"""

import warnings

from jaxtyping import Float
from torch import Tensor

from bowerbird import config
from bowerbird.data.fetch import cache_folder
from bowerbird.eightbit import to_uint8
from bowerbird.errors import BowerbirdError
from bowerbird.generating import draw
from bowerbird.measuring.extractors import choose, unfit
from bowerbird.measuring.offers import INSTEAD
from bowerbird.media.image.imageset import ImageData
from bowerbird.media.medium import Opened
from bowerbird.metrics.cache import FeatureCache
from bowerbird.metrics.chosen import subset
from bowerbird.metrics.infinity import frechet_infinity
from bowerbird.metrics.kid import kid
from bowerbird.metrics.pixelwise import sliced_wasserstein
from bowerbird.models.base import GenerativeModel, with_steps

N_REFERENCE = 2000
"""Most validation images that samples are compared with."""
FEWEST_SAMPLES = 16


class InTraining:
    """Scores of a model against the validation split, the deciding one first; a callable for the trainer."""

    def __init__(self, data: Opened, train: config.Train):
        if not isinstance(data, ImageData):
            raise BowerbirdError(
                "train.evaluate_every scores images; of text and music train.validate_every follows the loss."
            )
        if train.evaluate_samples < FEWEST_SAMPLES:
            raise BowerbirdError(
                f"train.evaluate_samples = {train.evaluate_samples} must be at least {FEWEST_SAMPLES}."
            )
        self.train, self.images = train, subset(data.val.images, N_REFERENCE)
        choice = choose("auto", data)
        self.extractor = choice.load() if choice else None
        if self.extractor is None:
            warnings.warn(f"{unfit(INSTEAD)}.", stacklevel=2)
            return
        reference = FeatureCache(cache_folder()).of(self.extractor, self.images)
        self.reference, self.gaussian = reference.all(), reference.gaussian()

    def __call__(self, model: GenerativeModel) -> dict[str, float]:
        """``kid`` and its standard error, FID∞ with enough samples; else ``sliced_wasserstein`` and its error.

        Always the same noise and labels.
        """
        options = with_steps(model, self.train.evaluate_steps)
        drawn = draw(model, self.train.evaluate_samples, seed=self.train.seed, options=options, shown=False)
        if self.extractor is None:
            return self._of_pixels(drawn.x)
        features = self.extractor.features(to_uint8(drawn.x))
        if not bool(features.isfinite().all()):
            return {"kid": float("inf")}
        found = kid(samples=features, reference=self.reference)
        scores = {"kid": found.value, "kid_stderr": found.spread}
        if len(features) >= 2 * self.extractor.dimension:
            scores["fid_infinity"] = frechet_infinity(samples=features, reference=self.gaussian).value
        return scores

    def _of_pixels(self, x: Float[Tensor, "n c h w"]) -> dict[str, float]:
        if not bool(x.isfinite().all()):
            return {"sliced_wasserstein": float("inf")}
        samples = to_uint8(x)
        n = min(len(samples), len(self.images))
        value, error = sliced_wasserstein(samples=subset(samples, n), reference=subset(self.images, n))
        return {"sliced_wasserstein": value, "sliced_wasserstein_stderr": error}


def evaluator(data: Opened, train: config.Train) -> InTraining | None:
    """What a run asks for: None without ``train.evaluate_every``."""
    return InTraining(data, train) if train.evaluate_every else None
