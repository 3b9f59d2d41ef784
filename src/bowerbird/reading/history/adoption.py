"""Matched weights: the modules of one version start with the weights of the other, built in whatever order."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Kept = dict[str, torch.Tensor]


class Adoption:
    """At the first use of any module, all roots that exist are kept, and take over what another version kept."""

    def __init__(self, roots: Callable[[], dict[str, nn.Module]], other: list[dict[str, Any]] | None) -> None:
        self.roots = roots
        self.other = other
        self.kept: list[dict[str, Any]] = []
        self._met: dict[int, nn.Module] = {}

    def meet(self) -> None:
        """Called before any use; keeps and adopts the roots that are new."""
        for name, root in self.roots().items():
            if id(root) in self._met:
                continue
            self._met[id(root)] = root
            if self.other is not None:
                self._adopt(name, root)
            state = {key: value.detach().clone() for key, value in root.named_parameters()}
            self.kept.append({"name": name, "class": type(root).__name__, "state": state})

    def _adopt(self, name: str, root: nn.Module) -> None:
        own: Kept = dict(root.named_parameters())
        shapes = _shapes(own)
        fitting = [row for row in self.other or [] if _shapes(row["state"]) == shapes]
        if not fitting or not own:
            return
        best = max(fitting, key=lambda row: (row["name"] == name, row["class"] == type(root).__name__))
        if self.other is not None:
            self.other.remove(best)
        with torch.no_grad():
            for key, value in matched(own, best["state"]):
                own[key].copy_(value)


def matched(own: Kept, other: Kept) -> list[tuple[str, torch.Tensor]]:
    """Which tensor of the other version goes where: by name where all names and shapes agree, else by shape."""
    if own.keys() == other.keys() and all(own[key].shape == other[key].shape for key in own):
        return [(key, other[key]) for key in own]
    waiting: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for value in other.values():
        waiting.setdefault(tuple(value.shape), []).append(value)
    return [(key, waiting[tuple(value.shape)].pop(0)) for key, value in own.items()]


def _shapes(state: Kept) -> list[tuple[int, ...]]:
    return sorted(tuple(value.shape) for value in state.values())
