"""What programs use of torchvision: stand-in data sets, transforms, pictures saved, a few small models."""

from bowerbird.reading.running.standins.torchvision import datasets, models, transforms, utils

__version__ = "0.0"

__all__ = ["datasets", "models", "transforms", "utils"]


def set_image_backend(*args: object) -> None:
    """Accepted."""
