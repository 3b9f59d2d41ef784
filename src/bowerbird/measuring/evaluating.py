"""Cheap evaluations while a model trains: few samples, few sampler steps, and scores that few samples do not bias.

The kernel distance decides which weights are the best so far: it is unbiased, and its error is known.  FID∞ stands
beside it where the features have few enough dimensions for the number of samples.  Both are read as a curve, not as
results: a full measurement uses more samples and the sampler's own number of steps.
"""

from bowerbird import config
from bowerbird.data.fetch import cache_folder
from bowerbird.errors import BowerbirdError
from bowerbird.generating import draw
from bowerbird.measuring.extractors import find_extractor
from bowerbird.media.image.imageset import ImageData, to_uint8
from bowerbird.media.medium import Opened
from bowerbird.metrics.cache import FeatureCache
from bowerbird.metrics.chosen import subset
from bowerbird.metrics.infinity import frechet_infinity
from bowerbird.metrics.kid import kid
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
        self.train = train
        self.extractor = find_extractor("auto", data.classes)
        reference = FeatureCache(cache_folder()).of(self.extractor, subset(data.val.images, N_REFERENCE))
        self.reference, self.gaussian = reference.all(), reference.gaussian()

    def __call__(self, model: GenerativeModel) -> dict[str, float]:
        """``kid`` and its standard error; FID∞ with enough samples.  Always the same noise and labels."""
        options = with_steps(model, self.train.evaluate_steps)
        drawn = draw(model, self.train.evaluate_samples, seed=self.train.seed, options=options, shown=False)
        features = self.extractor.features(to_uint8(drawn.x))
        if not bool(features.isfinite().all()):
            return {"kid": float("inf")}
        found = kid(samples=features, reference=self.reference)
        scores = {"kid": found.value, "kid_stderr": found.spread}
        if len(features) >= 2 * self.extractor.dimension:
            scores["fid_infinity"] = frechet_infinity(samples=features, reference=self.gaussian).value
        return scores


def evaluator(data: Opened, train: config.Train) -> InTraining | None:
    """What a run asks for: None without ``train.evaluate_every``."""
    return InTraining(data, train) if train.evaluate_every else None
