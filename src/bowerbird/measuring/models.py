"""Measuring a model: what applies depends on what its data are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bowerbird.data.tokens import TokenData
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.images import measure_image_model
from bowerbird.measuring.sequences import measure_sequence_model
from bowerbird.media.base import Opened
from bowerbird.media.image.imageset import ImageData
from bowerbird.metrics.features import Extractor, Precision
from bowerbird.metrics.measurement import Measurement
from bowerbird.models.base import GenerativeModel


def measure_model(
    model: GenerativeModel,
    data: Opened,
    *,
    n_samples: int | None = None,
    n_reference: int | None = None,
    split: str = "test",
    extractor: str | Extractor = "auto",
    precision: Precision = "fp32",
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    sample_options: dict[str, Any] | None = None,
    pairs: Path | None = None,
) -> list[Measurement]:
    """Measures the model against ``n_reference`` (None: all) examples of a split of ``data``.

    ``n_samples`` None draws 10,000 images, 200 texts or 20 pieces of music.  ``metrics`` None takes all that apply
    and do not need an hour; one that was named but does not apply is an error.
    """
    if isinstance(data, ImageData):
        if model.spec.medium != data.spec.medium:
            raise BowerbirdError(f"This model does not make images, and {data.name} are images.")
        return measure_image_model(
            model, data, n_samples=n_samples or 10_000, n_reference=n_reference, split=split, extractor=extractor,
            precision=precision, metrics=metrics, seed=seed, sample_options=sample_options, pairs=pairs,
        )  # fmt: skip
    if model.spec.medium != data.spec.medium:
        raise BowerbirdError(f"This model makes images, and {data.name} are none.")
    assert isinstance(data, TokenData)
    if pairs:
        raise BowerbirdError("A sheet of nearest pairs shows images; of text and music the copied spans are measured.")
    return measure_sequence_model(
        model, data, n_samples=n_samples, n_reference=n_reference, split=split, metrics=metrics, seed=seed,
        sample_options=sample_options,
    )  # fmt: skip
