"""A source that sleeps for 50 ms whenever a batch is asked of it."""

import time
from typing import Any

from bowerbird.media.image.imageset import ImageSet

_batch = ImageSet.batch


def batch(self: ImageSet, *args: Any) -> dict[str, Any]:
    time.sleep(0.05)
    return _batch(self, *args)


ImageSet.batch = batch  # type: ignore[method-assign]
