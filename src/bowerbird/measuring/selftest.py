"""Self-test before report: no number is printed by an installation that cannot reproduce known ones.

``require_quick`` recomputes closed forms before every report.  ``self_test`` adds, where the weights of Inception and
CIFAR-10 are present, constants of the field: 5,000 training against 5,000 test images of CIFAR-10, each drawn by
``numpy.random.RandomState(2020).choice(n, 5000, replace=False)``.  The Fréchet distance of that pair is the constant of
the field's published reference test; the others were computed on the same features with independent code.
"""

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from bowerbird import config
from bowerbird.data.fetch import cache_folder, locate
from bowerbird.errors import RunFailed
from bowerbird.measuring.extractors import find_extractor
from bowerbird.media.image.sources import pictures
from bowerbird.metrics.cache import FeatureCache
from bowerbird.metrics.closed_forms import Check, batch_invariance, quick_checks
from bowerbird.metrics.frechet import frechet_distance
from bowerbird.metrics.kid import kid
from bowerbird.metrics.prdc import prdc
from bowerbird.metrics.progress_bar import progress_bar

N_EACH = 5000
FID, FID_TOLERANCE = 10.3233, 0.001
KID, KID_TOLERANCE = -2.56e-5, 1e-7
SHARES = {"precision": 0.699, "recall": 0.679, "density": 1.042, "coverage": 0.967}
"""Samples are the test images, the reference the training images; k = 3 and 5."""
SHARE_TOLERANCE = 0.001


def require_quick() -> None:
    """Raises RunFailed, naming what is wrong, when a closed form is not reproduced."""
    failed = [check for check in quick_checks(find_extractor("digits")) if not check.passed]
    if failed:
        raise RunFailed(
            f"The self-test of the metrics failed, so no number of this installation can be trusted: {failed[0].name} "
            f"gives {failed[0].found:.6g} instead of {failed[0].expected:.6g}; see bowerbird measure --self-test."
        )


def self_test() -> tuple[list[Check], list[str]]:
    """All checks that can be made here, and what is missing for the others, in words."""
    checks = quick_checks(find_extractor("digits"))
    missing = [name for name in ("inception-2015", "cifar10") if locate(name) is None]
    if missing:
        gets = " and ".join(f"bowerbird data get {name}" for name in missing)
        return checks, [f"The constants of CIFAR-10 were not checked; they need: {gets}"]
    return [*checks, *_constants()], []


def _constants() -> Iterator[Check]:
    inception = find_extractor("inception-2015")
    yield batch_invariance(inception)
    cache = FeatureCache(cache_folder())
    training, test = (cache.of(inception, images) for images in cifar_halves())
    with progress_bar("features of CIFAR-10", 2 * N_EACH) as progress:
        reference, samples = training.all(progress), test.all(progress)
    pair = "CIFAR-10, 5,000 test against 5,000 training images"
    yield Check(f"FID of {pair}", FID, frechet_distance(test.gaussian(), training.gaussian()), FID_TOLERANCE)
    yield Check(f"KID of {pair}", KID, kid(samples=samples, reference=reference).value, KID_TOLERANCE)
    found = prdc(samples=samples, reference=reference)
    for name, expected in SHARES.items():
        yield Check(f"{name} of {pair}", expected, getattr(found, name), SHARE_TOLERANCE)


def cifar_halves() -> tuple[Tensor, Tensor]:
    """The 5,000 training and 5,000 test images of the constants, uint8 (n, 3, 32, 32)."""
    found = pictures(config.Data(source="cifar10"))
    halves = []
    for split in ("train", "test"):
        images = found.images[np.flatnonzero(found.split == split)]
        chosen = np.random.RandomState(2020).choice(len(images), N_EACH, replace=False)
        halves.append(images[chosen].tensor())
    return halves[0], halves[1]
