"""Loaders and batches: every DataLoader gives a few batches, in this process; its first batch is recorded."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from bowerbird.reading.running.observe.names import Names
from bowerbird.reading.running.putting import put
from bowerbird.reading.running.recorder import Recorder, summary
from bowerbird.reading.running.standins import pictures
from bowerbird.reading.running.standins.anything import Anything

BATCHES = 4
BATCHES_BY_HAND = 40
TOKENS = 48
"""How many tokens stand-in texts have; a vocabulary that is made up has more."""


SMALLEST_SHORTENED = 24
"""A data set of so few examples was made to be walked whole."""


class Shortened(Dataset[Any]):
    """The first ``length`` examples of a data set; everything else is that of the whole."""

    def __init__(self, whole: Any, length: int) -> None:
        self.__dict__["whole"], self.__dict__["length"] = whole, length

    def __len__(self) -> int:
        return int(self.length)

    def __getitem__(self, index: Any) -> Any:
        return self.whole[index]

    def __getattr__(self, name: str) -> Any:
        if name in ("whole", "length") or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        return getattr(self.__dict__["whole"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["whole"], name, value)


class Images(Dataset[Any]):
    """Tensors of stand-in pictures in [-1, 1] with labels: what a loader that nobody defined gives."""

    def __init__(self, shape: tuple[int, ...], low: float = -1.0) -> None:
        self.shape, self.low = shape, low

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        return image(index, self.shape, self.low)


def image(index: int, shape: tuple[int, ...], low: float) -> tuple[torch.Tensor, Any]:
    """One stand-in picture as a tensor between ``low`` and 1, and its class; of a shape of one axis, so many tokens and
    those that follow them."""
    if len(shape) == 1:
        ids = torch.randint(1, TOKENS, (shape[0] + 1,), generator=torch.Generator().manual_seed(index))
        return ids[:-1], ids[1:]
    channels, size, _ = shape
    array, label = pictures.picture(index, size=size, channels=channels)
    tensor = torch.from_numpy(np.ascontiguousarray(array)).float() / 255
    tensor = tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    return tensor * (1 - low) + low, label


def prepare() -> None:
    """Draws the digits once, before the first fork."""
    pictures.digits()


def install(
    recorder: Recorder, replace: Callable[[str, str], None], names: Names, shape: tuple[int, ...] | None
) -> None:
    """Patches DataLoader: no worker processes, few batches, the first one recorded."""
    create, iterate = DataLoader.__init__, DataLoader.__iter__

    def created(loader: DataLoader[Any], dataset: Any, *args: Any, **kwargs: Any) -> None:
        settings = dict(zip(_POSITIONAL, args, strict=False)) | kwargs
        if isinstance(dataset, Anything):
            replace("a data set", "its class is not there; stand-in images were taken")
            dataset = Images(shape or (3, 64, 64))
        if isinstance(dataset, Images):
            settings["collate_fn"] = gathered
        for name in ("num_workers", "pin_memory", "prefetch_factor", "persistent_workers", "multiprocessing_context",
                     "pin_memory_device", "timeout"):  # fmt: skip
            settings.pop(name, None)
        told = {
            "batch_size": settings.get("batch_size", 1), "shuffle": settings.get("shuffle"),
            "drop_last": settings.get("drop_last", False), "dataset": type(dataset).__name__,
            "len": len(dataset) if isinstance(dataset, Sized) and not isinstance(dataset, IterableDataset) else None,
        }  # fmt: skip
        create(loader, _short(dataset, settings, replace), **settings)
        recorder("data.loader", type(dataset).__name__, told)

    def iterated(loader: DataLoader[Any]) -> Iterator[Any]:
        batches: Iterator[Any] = iterate(loader)
        first = not getattr(loader, "_bowerbird_seen", False)
        loader.__dict__["_bowerbird_seen"] = True
        return Batches(_recorded(batches, recorder, names, loader) if first else batches, lambda: iterate(loader))

    put(DataLoader, __init__=created)
    put(DataLoader, __iter__=iterated)
    put(Dataset, __init_subclass__=classmethod(functools.partial(_watched, recorder, replace, shape or (3, 64, 64))))


def _watched(
    recorder: Recorder, replace: Callable[[str, str], None], shape: tuple[int, ...], kind: type, **_: Any
) -> None:  # fmt: skip
    """A data set of the program's whose files are not there becomes one of stand-in pictures."""
    super(Dataset, kind).__init_subclass__()  # type: ignore[misc]
    create = kind.__dict__.get("__init__")
    if not recorder.is_project_code(getattr(create, "__code__", None)):
        return

    def created(dataset: Any, *args: Any, **kwargs: Any) -> None:
        try:
            create(dataset, *args, **kwargs)  # type: ignore[misc]
        except OSError as error:
            replace(f"data set {kind.__name__}", f"{type(error).__name__}; stand-in pictures of {shape} took its place")
            dataset.__class__ = Images
            Images.__init__(dataset, shape)

    put(kind, __init__=functools.wraps(create)(created))  # type: ignore[arg-type]


_POSITIONAL = (
    "batch_size shuffle sampler batch_sampler num_workers collate_fn pin_memory drop_last timeout worker_init_fn"
).split()


def _short(dataset: Any, settings: dict[str, Any], replace: Callable[[str, str], None]) -> Any:
    size = settings.get("batch_size", 1) or 1
    if settings.get("sampler") is not None or settings.get("batch_sampler") is not None:
        return dataset
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__") or not isinstance(size, int):
        return dataset
    length = BATCHES * size
    if len(dataset) <= SMALLEST_SHORTENED:
        return dataset
    if getattr(dataset, "stand_in", False) and not hasattr(dataset, "indices"):
        dataset.length = length if length < len(dataset) or len(dataset) < size else len(dataset)
        return dataset
    if len(dataset) > length + size:
        replace("shorter epochs", f"a loader gives {BATCHES} batches of its data set")
        return Shortened(dataset, length)
    return dataset


def _recorded(batches: Any, recorder: Recorder, names: Names, loader: Any) -> Iterator[Any]:
    for number, batch in enumerate(batches):
        if number == 0:
            parts = list(batch.values()) if isinstance(batch, dict) else batch
            parts = (
                [parts] if isinstance(parts, torch.Tensor) else list(parts) if isinstance(parts, list | tuple) else []
            )
            recorder("data.batch", names.of(loader), {"parts": [summary(p) for p in parts[:6]]})
        yield batch


class Batches:
    """The iterator of a loader, with ``next()`` as older versions had it.

    A program that asks for its length draws batches by hand, a number of them in each round (``n_critic``): it gets
    enough for several rounds, beginning anew where the data end.
    """

    def __init__(self, batches: Iterator[Any], again: Callable[[], Iterator[Any]]) -> None:
        self.batches, self.again = batches, again
        self.left = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __len__(self) -> int:
        self.left = self.left or BATCHES_BY_HAND
        return BATCHES_BY_HAND

    def __next__(self) -> Any:
        self.left -= 1
        try:
            return next(self.batches)
        except StopIteration:
            if self.left <= 0:
                raise
        self.batches = self.again()
        return next(self.batches)

    next = __next__


class Batch(list[Any]):
    """Pictures and labels that can also be asked for by name (``batch["image"]``), or taken for pictures."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self[0], name)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(1 if any(word in key.lower() for word in _LABELS) else 0)
        return super().__getitem__(key)


_LABELS = ("label", "target", "class", "y", "gt", "mask")


class Loader:
    """A loader that nobody defined: a few batches of pictures and labels, of the size that is asked for."""

    def __init__(self, shape: tuple[int, ...], batch_size: int, low: float = -1.0) -> None:
        self.batch_size = batch_size
        self.dataset = Shortened(Images(shape, low), BATCHES * batch_size)

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        for start in range(0, BATCHES * self.batch_size, self.batch_size):
            rows = [self.dataset[i] for i in itertools.islice(itertools.count(start), self.batch_size)]
            yield gathered(rows)


def gathered(rows: list[tuple[torch.Tensor, Any]]) -> Batch:
    """Examples as one batch."""
    return Batch([torch.stack([picture for picture, _ in rows]), torch.stack([torch.as_tensor(y) for _, y in rows])])
