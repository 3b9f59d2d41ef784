"""The digits as TensorFlow's tutorials handed them out: what old programs of PyTorch take from that package."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from bowerbird.reading.running.standins import pictures
from bowerbird.reading.running.standins.anything import Anything

EXAMPLES = 1024


class Split:
    """Flat pictures in [0, 1] with labels, in batches that go round and round."""

    def __init__(self, start: int, one_hot: bool) -> None:
        found = [pictures.picture(start + i, size=28, channels=1) for i in range(EXAMPLES)]
        self.images = np.stack([array.reshape(-1) for array, _ in found]).astype(np.float32) / 255
        numbers = np.array([label for _, label in found])
        self.labels = np.eye(10)[numbers] if one_hot else numbers
        self.num_examples, self._next = EXAMPLES, 0

    def next_batch(self, batch_size: int, *args: Any, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
        """The next examples."""
        places = np.arange(self._next, self._next + batch_size) % EXAMPLES
        self._next += batch_size
        return self.images[places], self.labels[places]


def _read_data_sets(folder: Any = None, *args: Any, one_hot: bool = False, **kwargs: Any) -> SimpleNamespace:
    train, test = Split(0, one_hot), Split(5, one_hot)
    return SimpleNamespace(train=train, test=test, validation=test)


examples = SimpleNamespace(
    tutorials=SimpleNamespace(
        mnist=SimpleNamespace(input_data=SimpleNamespace(read_data_sets=_read_data_sets, DataSet=Split))
    )
)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return Anything(f"tensorflow.{name}")
