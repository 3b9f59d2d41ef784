"""A training split of ten images, or of the first 1,500 tokens of a text."""

from typing import Any

from bowerbird.api import training
from bowerbird.media.image.imageset import ImageData, ImageSet

_open_data = training.open_data


def open_data(data: Any) -> Any:
    opened = _open_data(data)
    train = opened.train
    if isinstance(opened, ImageData):
        given = {name: one[:10].clone() for name, one in train.given.items()}
        opened.train = ImageSet(train.images[:10].clone(), given)
    else:
        train.tokens = train.tokens[:1500].clone()
    return opened


training.open_data = open_data
