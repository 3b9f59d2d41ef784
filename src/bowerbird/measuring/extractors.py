"""Which network features come from: by name, by file, or by what the data are and which weights are on this machine."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from bowerbird.data.fetch import locate
from bowerbird.metrics.features import Extractor, Precision, extractor

FETCHED = ("inception-2015", "efficientnet-lite0")
"""Extractors whose weights `data get` fetches, the preferred one first."""


def find_extractor(
    name: str, classes: Sequence[str] = (), device: str | torch.device = "cpu", precision: Precision = "fp32"
) -> Extractor:
    """The extractor of that name, or ``name:FILE`` with the file of its weights.

    ``auto`` is the shipped one for digits (recognised by ``classes``), else the first of ``inception-2015`` and
    ``efficientnet-lite0`` whose weights are present, else the shipped one.
    """
    name, _, file = name.partition(":")
    if name == "auto":
        present = [weighted for weighted in FETCHED if locate(weighted) is not None]
        name = "digits" if as_digits(classes) is not None or not present else present[0]
    weights = Path(file).expanduser() if file else locate(name) if name in FETCHED else None
    return extractor(name, weights=weights, device=device, precision=precision)


def as_digits(classes: Sequence[str]) -> Int[Tensor, " k"] | None:
    """The digit that each class stands for, or None when the classes are not digits."""
    if not classes or any(name not in "0123456789" or len(name) != 1 for name in classes):
        return None
    return torch.tensor([int(name) for name in classes])
