"""The pairs that a person should look at: the samples that look most like copies, beside what they may be copies of."""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from bowerbird.data.writing import save_png
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.context import Context, all_of
from bowerbird.media.image.pictures import sheet
from bowerbird.metrics.neighbours import gap

PAIRS = 32
COLUMNS = 8


def save_nearest_pairs(context: Context, training: UInt8[Tensor, "M c h w"], path: Path) -> None:
    """Writes ``nearest_pairs`` of the context's samples and these training images."""
    if not context.has("pictures", "training_features"):
        raise BowerbirdError("A sheet of nearest pairs shows images; of text and music the copied spans are measured.")
    known = all_of(context["training_features"][0], "training")
    made = context["features"].all("samples")
    save_png(path, nearest_pairs(context["pictures"].samples, training, made, known))


def nearest_pairs(
    samples: UInt8[Tensor, "n c h w"],
    training: UInt8[Tensor, "M c h w"],
    made: Float[Tensor, "n d"],
    known: Float[Tensor, "M d"],
) -> Image.Image:
    """A sheet of pairs, left the sample and right its nearest training image, the most suspicious first.

    ``made`` and ``known`` are features of both.  Under each sample stands its distance to that image over its distance
    to the second nearest: near 0 is a copy, near 1 nothing in particular.  The order is that of the features, and so is
    what it overlooks.
    """
    ratio, nearest = gap(samples=made, training=known)
    order = ratio.argsort()[:PAIRS]
    images = torch.stack([samples[order], training[nearest[order]]], 1).flatten(0, 1)
    labels = [text for value in ratio[order].tolist() for text in (f"{value:.2f}", "training")]
    return sheet(images, COLUMNS, labels)
