"""The pairs that a person should look at: the samples that look most like copies, beside what they may be copies of."""

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from bowerbird.media.image.pictures import sheet
from bowerbird.metrics.cache import FeatureCache, FeatureSet
from bowerbird.metrics.features import Extractor
from bowerbird.metrics.neighbours import gap

PAIRS = 32
COLUMNS = 8


def nearest_pairs(
    samples: UInt8[Tensor, "n c h w"], training: UInt8[Tensor, "M c h w"], extractor: Extractor, cache: FeatureCache
) -> Image.Image:
    """A sheet of pairs, left the sample and right its nearest training image, the most suspicious first.

    Under each sample stands its distance to that image over its distance to the second nearest: near 0 is a copy,
    near 1 nothing in particular.  The order is that of the extractor's features, and so is what it overlooks.
    """
    made, known = FeatureSet.of(extractor, samples).all(), cache.of(extractor, training).all()
    ratio, nearest = gap(samples=made, training=known)
    order = ratio.argsort()[:PAIRS]
    images = torch.stack([samples[order], training[nearest[order]]], 1).flatten(0, 1)
    labels = [text for value in ratio[order].tolist() for text in (f"{value:.2f}", "training")]
    return sheet(images, COLUMNS, labels)
