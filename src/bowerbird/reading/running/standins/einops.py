"""``rearrange``, ``repeat``, ``reduce`` and their layers for torch tensors, where einops is not installed.

A pattern names axes: ``"b (h d) n -> b h n d"``; parentheses join axes, ``...`` stands for the axes that are not named.
"""

import math
import re
from typing import Any

import torch
from torch import nn

einsum = torch.einsum


_LOOSE = "…"  # axes that are not named, each for itself; within parentheses they are joined


def _parsed(side: str) -> list[list[str]]:
    tokens = re.findall(r"\([^)]*\)|\.\.\.|\w+", side)
    return [t[1:-1].split() if t.startswith("(") else [_LOOSE if t == "..." else t] for t in tokens]


def _split(x: torch.Tensor, groups: list[list[str]], sizes: dict[str, int]) -> tuple[torch.Tensor, list[str]]:
    """Takes joined axes apart; returns the tensor and the name of each axis."""
    if [_LOOSE] in groups:
        place = groups.index([_LOOSE])
        extra = [[f"...{i}"] for i in range(x.ndim - len(groups) + 1)]
        groups = [*groups[:place], *extra, *groups[place + 1 :]]
    if len(groups) != x.ndim:
        raise ValueError(f"the pattern names {len(groups)} axes, the tensor has {x.ndim}")
    shape: list[int] = []
    names: list[str] = []
    for size, group in zip(x.shape, groups, strict=True):
        known = math.prod(sizes.get(n, 1) if not n.isdigit() else 1 for n in group)
        for name in group:
            if name.isdigit():
                continue
            length = sizes.get(name, size // max(known, 1))
            if name in sizes and len(group) == 1 and size != sizes[name]:
                raise ValueError(f"axis {name} has length {size}, not {sizes[name]}")
            sizes[name] = length
            shape.append(length)
            names.append(name)
    return x.reshape(shape), names


def _expand(groups: list[list[str]], names: list[str]) -> list[list[str]]:
    dots = [n for n in names if n.startswith("...")]
    out: list[list[str]] = []
    for group in groups:
        if group == [_LOOSE]:
            out += [[d] for d in dots]
        else:
            out.append([m for n in group for m in (dots if n == "..." else [n])])
    return out


def rearrange(tensor: Any, pattern: str, **lengths: int) -> torch.Tensor:
    """Moves, splits and joins axes."""
    return reduce(tensor, pattern, "", **lengths)


def reduce(tensor: Any, pattern: str, reduction: str, **lengths: int) -> torch.Tensor:
    """Axes that the right side does not name are reduced: mean, sum, max or min."""
    x = torch.stack(list(tensor)) if isinstance(tensor, list | tuple) else tensor
    left, right = pattern.split("->")
    sizes = dict(lengths)
    x, names = _split(x, _parsed(left), sizes)
    groups = _expand(_parsed(right), names)
    wanted = [n for group in groups for n in group if not n.isdigit()]
    gone = [i for i, n in enumerate(names) if n not in wanted]
    if gone and reduction:
        x = getattr(x, "a" + reduction if reduction in ("max", "min") else reduction)(gone)
    names = [n for n in names if n in wanted]
    x = x.permute([names.index(n) for n in wanted if n in names])
    return x.reshape([math.prod(sizes[n] for n in group if not n.isdigit()) for group in groups])


def repeat(tensor: torch.Tensor, pattern: str, **lengths: int) -> torch.Tensor:
    """Axes that only the right side names are repeated."""
    left, right = pattern.split("->")
    sizes = dict(lengths)
    x, names = _split(tensor, _parsed(left), sizes)
    groups = _expand(_parsed(right), names)
    wanted = [n if not n.isdigit() else f"#{n}" for group in groups for n in group]
    sizes |= {n: int(n[1:]) for n in wanted if n.startswith("#")}
    new = [n for n in wanted if n not in names]
    x = x.reshape(*x.shape, *(1 for _ in new)).expand(*x.shape, *(sizes[n] for n in new))
    names = names + new
    x = x.permute([names.index(n) for n in wanted])
    flat = [[n if not n.isdigit() else f"#{n}" for n in group] for group in groups]
    return x.reshape([math.prod(sizes[n] for n in group) for group in flat])


def pack(tensors: list[torch.Tensor], pattern: str) -> tuple[torch.Tensor, list[Any]]:
    """Joins tensors along the axis that ``*`` stands for."""
    axis = pattern.split().index("*")
    after = len(pattern.split()) - axis - 1
    shapes = [t.shape[axis : t.ndim - after] for t in tensors]
    flat = [t.reshape(*t.shape[:axis], -1, *t.shape[t.ndim - after :]) for t in tensors]
    return torch.cat(flat, axis), shapes


def unpack(tensor: torch.Tensor, shapes: list[Any], pattern: str) -> list[torch.Tensor]:
    """The inverse of ``pack``."""
    axis = pattern.split().index("*")
    parts = tensor.split([math.prod(s) for s in shapes], axis)
    return [p.reshape(*p.shape[:axis], *s, *p.shape[axis + 1 :]) for p, s in zip(parts, shapes, strict=True)]


class Rearrange(nn.Module):
    """``rearrange`` as a layer."""

    def __init__(self, pattern: str, **lengths: int) -> None:
        super().__init__()
        self.pattern, self.lengths = pattern, lengths

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rearrange(x, self.pattern, **self.lengths)


class Reduce(nn.Module):
    """``reduce`` as a layer."""

    def __init__(self, pattern: str, reduction: str, **lengths: int) -> None:
        super().__init__()
        self.pattern, self.reduction, self.lengths = pattern, reduction, lengths

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return reduce(x, self.pattern, self.reduction, **self.lengths)


class torch_layers:
    """What ``einops.layers.torch`` holds."""

    Rearrange, Reduce = Rearrange, Reduce


layers = type("layers", (), {"torch": torch_layers})
