"""Measures samples and models: every number comes back as a ``Measurement`` with its protocol.

``images`` draws pictures and compares them with pictures, ``sequences`` does so with texts, translations and music.
``measure_model`` takes either, as the data are.
"""

from bowerbird.generating import draw
from bowerbird.measuring.folders import measure_folder
from bowerbird.measuring.images import (
    as_digits,
    find_extractor,
    measure_image_model,
)
from bowerbird.measuring.models import measure_model
from bowerbird.measuring.sequences import draw_tokens
from bowerbird.metrics.images import measure_images
from bowerbird.metrics.table import table

__all__ = [
    "as_digits",
    "draw",
    "draw_tokens",
    "find_extractor",
    "measure_folder",
    "measure_image_model",
    "measure_images",
    "measure_model",
    "table",
]
