"""Images in [0, 1] instead of [-1, 1]."""

from typing import Any

from bowerbird.media.image.imageset import ImageSet

_batch = ImageSet.batch


def batch(self: ImageSet, *args: Any) -> dict[str, Any]:
    fields = _batch(self, *args)
    x = fields["x"]
    return fields | {"x": (x + 1) / 2}


ImageSet.batch = batch  # type: ignore[method-assign]
