"""Where a program's tensors stand: weights, buffers and tables, each as a few numbers that tell two versions apart.

A tensor is told by its norm and by three projections on fixed random signs: two tensors whose projections agree are the
same with a probability that grows with their size, and the difference of projections measures their distance.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import nn

PROJECTIONS = 3
MOST_TENSORS = 300
MOST_ELEMENTS = 30_000_000


def told(tensor: torch.Tensor) -> list[float]:
    """Norm and projections."""
    flat = tensor.detach().reshape(-1)
    flat = (flat.real if flat.is_complex() else flat).to(torch.float64)
    if not flat.numel() or flat.numel() > MOST_ELEMENTS:
        return []
    signs = _signs(flat.numel())
    return [float(torch.linalg.vector_norm(flat)), *(float(flat @ row) for row in signs)]


@lru_cache(maxsize=64)
def _signs(size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    draw = torch.randint(0, 2, (PROJECTIONS, size), generator=generator, dtype=torch.int8)
    return draw.to(torch.float64).mul_(2).sub_(1)


def of_module(
    module: nn.Module, start: dict[str, torch.Tensor] | None, buffers_before: dict[str, list[float]] | None
) -> dict[str, Any]:  # fmt: skip
    """Parameters and buffers in order of registration, with where they started."""
    rows = []
    for name, parameter in list(module.named_parameters())[:MOST_TENSORS]:
        first = (start or {}).get(name)
        same = first is not None and first.shape == parameter.shape
        began = told(first) if first is not None and same else None
        rows.append({"name": name, "shape": list(parameter.shape), "now": told(parameter), "start": began})
    buffers = [
        {
            "name": name,
            "shape": list(buffer.shape),
            "now": told(buffer),
            "ends": ends(buffer),
            "start": (buffers_before or {}).get(name),
        }
        for name, buffer in list(module.named_buffers())[:MOST_TENSORS]
    ]
    return {"class": type(module).__name__, "parameters": rows, "buffers": buffers}


def ends(tensor: torch.Tensor) -> list[float]:
    """First, middle and last element of a table."""
    flat = tensor.detach().reshape(-1)
    if not flat.numel() or flat.is_complex():
        return []
    return [float(flat[0]), float(flat[flat.numel() // 2]), float(flat[-1])]


def loose(spaces: list[dict[str, Any]], files: set[str], user: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that are no module's: under a name of the program, or in an object of one of its classes."""
    seen: set[int] = set()
    for space in spaces:
        for name, value in list(space.items()):
            if not name.startswith("__"):
                yield from _within(name, value, 3, seen, user)


def _within(name: str, value: Any, depth: int, seen: set[int], user: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if id(value) in seen or depth == 0 or isinstance(value, nn.Module | type):
        return
    if isinstance(value, torch.Tensor):
        if not value.requires_grad and value.numel():
            seen.add(id(value))
            yield name, value
        return
    if isinstance(value, dict):
        entries = [(f"{name}[{key}]", entry) for key, entry in list(value.items())[:MOST_TENSORS]]
    elif isinstance(value, list | tuple):
        entries = [(f"{name}[{place}]", entry) for place, entry in enumerate(value[:MOST_TENSORS])]
    elif user(type(value)) is not None:
        entries = [(f"{name}.{key}", entry) for key, entry in list(vars(value).items())]
    else:
        return
    seen.add(id(value))
    for inner, entry in entries:
        yield from _within(inner, entry, depth - 1, seen, user)
