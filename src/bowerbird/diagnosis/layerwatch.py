"""Gradients, updates and idle units by layer, seen while an optimiser steps.

A layer is a weight matrix or kernel of a module (a recurrent one owns several); embeddings are left out, since rows of
absent tokens have no gradient for a good reason.  Of each layer, in the order of the network:

    gradient     root mean square of the gradient before clipping
    update       ‖new - old‖ / ‖old‖ of the weights in one step
    unfed        1 where the weight's gradient is zero and the bias's is not: all that comes in is zero
    idle         share of units (rows of the weight) whose gradient is exactly zero: dead ReLUs, unreached parts
"""

from typing import Any

import torch
from torch import Tensor, nn

from bowerbird.training.optimizers import PlayerOptimizer

MOST_LAYERS = 24
"""Layers watched per player; of more, evenly spaced ones with the first and the last."""


class LayerWatch:
    """The layers of one player's module."""

    def __init__(self, module: nn.Module):
        found: dict[str, tuple[nn.Parameter, nn.Parameter | None]] = {}
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Embedding):
                continue
            own = dict(layer.named_parameters(recurse=False))
            for key, weight in own.items():
                if key.startswith("weight") and weight.ndim >= 2 and weight.requires_grad:
                    path = name if key == "weight" else f"{name}.{key}"
                    found[path] = weight, own.get(key.replace("weight", "bias"))
        names = list(found)
        if len(names) > MOST_LAYERS:
            names = [names[round(i * (len(names) - 1) / (MOST_LAYERS - 1))] for i in range(MOST_LAYERS)]
        self.layers = {name: found[name] for name in names}

    @property
    def weights(self) -> list[nn.Parameter]:
        return [weight for weight, _ in self.layers.values()]

    @torch.no_grad()
    def before(self) -> tuple[Tensor, list[Tensor]]:
        """Gradient, idle share and whether it is unfed, of each layer, (layers, 3), and copies of the weights."""
        rows = []
        for weight, bias in self.layers.values():
            if weight.grad is None:
                rows.append(torch.tensor([0.0, 1.0, 0.0]))
                continue
            gradient = weight.grad.float().flatten(1)
            row_norms = torch.linalg.vector_norm(gradient, dim=1)
            rms = torch.linalg.vector_norm(row_norms) / gradient.numel() ** 0.5
            unfed = (rms == 0) & (bias.grad.any() if bias is not None and bias.grad is not None else False)
            rows.append(torch.stack([rms, (row_norms == 0).float().mean(), unfed.float()]).cpu())
        return torch.stack(rows), [weight.detach().clone() for weight in self.weights]

    @torch.no_grad()
    def after(self, seen: tuple[Tensor, list[Tensor]]) -> dict[str, dict[str, float]]:
        gradients, old = seen
        new = [weight.detach() for weight in self.weights]
        moved = torch._foreach_norm(torch._foreach_sub(new, old))
        sizes = torch._foreach_norm(old)
        ratios = torch.stack(list(moved)) / torch.stack(list(sizes)).clamp(min=1e-12)
        return {
            name: {"gradient": _short(row[0]), "idle": _short(row[1]), "unfed": row[2], "update": _short(ratio)}
            for name, row, ratio in zip(self.layers, gradients.tolist(), ratios.tolist(), strict=True)
        }


def watched_layers(players: dict[str, PlayerOptimizer], modules: dict[str, nn.Module]) -> dict[str, LayerWatch]:
    """A watch for each player that has layers at all."""
    watches = {name: LayerWatch(modules[name]) for name in players}
    return {name: watch for name, watch in watches.items() if watch.weights}


def _short(value: Any) -> float:
    return float(f"{float(value):.4g}")


class BatchNormWatch:
    """How far the statistics of a training batch lie from the running ones that evaluation uses.

    mean over channels of |mean_batch - mean_running| / std_running + |log(std_batch / std_running)|, largest layer.
    """

    def __init__(self, modules: list[nn.Module]):
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        self.layers = [m for m in modules if isinstance(m, kinds) and m.track_running_stats]
        self.distances: dict[int, float] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> "BatchNormWatch":
        self._handles = [layer.register_forward_pre_hook(self._look) for layer in self.layers]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def _look(self, layer: Any, inputs: tuple[Tensor, ...]) -> None:
        if not layer.training:
            return
        x = inputs[0].float().transpose(0, 1).flatten(1)
        std = (layer.running_var + layer.eps).sqrt()
        shift = ((x.mean(1) - layer.running_mean) / std).abs().mean()
        spread = ((x.var(1) + layer.eps).sqrt() / std).log().abs().mean()
        self.distances[id(layer)] = float(shift + spread)

    def largest(self) -> float | None:
        return _short(max(self.distances.values())) if self.distances else None
