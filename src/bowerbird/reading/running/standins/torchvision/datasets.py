"""Data sets by their real names and lengths, with stand-in pictures of the real size, range and label type."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from bowerbird.reading.running.standins import pictures

CLASSES = tuple("zero one two three four five six seven eight nine".split())


class StandIn(Dataset[Any]):
    """``length`` examples; ``size``, ``channels`` and ``n_classes`` are those of the real set."""

    stand_in = True
    size, channels, n_classes = 28, 1, 10
    lengths = (60_000, 10_000)

    def __init__(
        self, root: Any = None, train: Any = True, transform: Any = None, target_transform: Any = None, *args: Any,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        if callable(train):  # ImageFolder(root, transform)
            train, transform = True, train
        split = kwargs.get("split", train)
        self.train = split in (True, "train", "all", "unlabeled", "train+unlabeled", "balanced", "letters")
        self.root, self.transform, self.target_transform = root, transform, target_transform
        self.length = self.lengths[0 if self.train else 1]
        self.classes = list(CLASSES[: self.n_classes])
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
        self.attr_names = ["attribute"] * 40

    def __len__(self) -> int:
        return self.length

    def raw(self, index: int) -> tuple[np.ndarray, int]:
        """Bytes and class of one picture."""
        start = 0 if self.train else 5
        return pictures.picture(
            int(index) + start, size=self.size, channels=self.channels, classes=min(self.n_classes, 10)
        )

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if index >= self.length * 1000:
            raise IndexError(index)
        array, label = self.raw(index)
        image: Any = Image.fromarray(array)
        if self.transform is not None:
            image = self.transform(image)
        target = self.label(label)
        return image, target if self.target_transform is None else self.target_transform(target)

    def label(self, number: int) -> Any:
        return number

    @property
    def data(self) -> Any:
        found = np.stack([self.raw(i)[0] for i in range(min(self.length, 2048))])
        return torch.from_numpy(found) if self.channels == 1 else found

    @property
    def targets(self) -> Any:
        found = [self.raw(i)[1] for i in range(min(self.length, 2048))]
        return torch.tensor(found) if self.channels == 1 else found

    train_data = test_data = data
    train_labels = test_labels = targets

    @property
    def samples(self) -> list[tuple[str, int]]:
        return [(f"{i}.png", self.raw(i)[1]) for i in range(min(self.length, 256))]

    imgs = samples


def _kind(name: str, size: int, channels: int, *lengths: int) -> type[StandIn]:
    return type(name, (StandIn,), {"size": size, "channels": channels, "lengths": lengths or StandIn.lengths})


MNIST, FashionMNIST, KMNIST, EMNIST, QMNIST = (
    _kind(name, 28, 1) for name in ("MNIST", "FashionMNIST", "KMNIST", "EMNIST", "QMNIST")
)
Omniglot, USPS = _kind("Omniglot", 105, 1), _kind("USPS", 16, 1)
CIFAR10, CIFAR100, SVHN = (_kind(name, 32, 3, 50_000, 10_000) for name in ("CIFAR10", "CIFAR100", "SVHN"))
STL10 = _kind("STL10", 96, 3, 5_000, 8_000)


class CelebA(StandIn):
    """Here 64×64, three channels, forty binary attributes."""

    size, channels, lengths = 64, 3, (162_770, 19_962)

    def label(self, number: int) -> Any:
        return (torch.arange(40) * (number + 1)) % 2


class LSUN(CelebA):
    """Here 64×64, three channels."""

    def label(self, number: int) -> Any:
        return number


class Flowers102(LSUN):
    """Here 64×64, three channels."""

    lengths = (1_020, 6_149)


class ImageFolder(LSUN):
    """A folder of pictures, here 64×64, three channels, two classes."""

    n_classes, lengths = 2, (2_000, 2_000)


DatasetFolder, ImageNet = ImageFolder, LSUN


class FakeData(StandIn):
    """Noise of the size that is asked for."""

    channels, n_classes = 3, 10

    def __init__(
        self, size: int = 1000, image_size: Any = (3, 224, 224), num_classes: int = 10, transform: Any = None,
        target_transform: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(None, True, transform, target_transform)
        self.size, self.channels, self.length = image_size[-1], image_size[0], size


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (LSUN,), {})
