"""A source that sleeps for 50 ms whenever a batch is asked of it."""

import time
from typing import Any

from torch import Tensor

from bowerbird.media.image.imageset import ImageSet

_batch = ImageSet.batch


def batch(self: ImageSet, *args: Any) -> dict[str, Tensor]:
    time.sleep(0.05)
    return _batch(self, *args)


ImageSet.batch = batch  # type: ignore[method-assign]
