"""Where a NaN or an infinity came from: the first module or tensor, named."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bowerbird.models.base import Batch, GenerativeModel


@dataclass(frozen=True)
class Origin:
    """The first thing that was not finite."""

    what: Literal["weights", "batch", "module", "loss", "gradient", "norm"]
    player: str
    name: str = ""
    """Of the module or the tensor."""
    kind: str = ""
    """NaN or infinite."""
    dtype: str = ""
    module: str = ""
    """Class of the module."""

    def sentence(self) -> str:
        values = f"{self.kind}, {self.dtype}"
        match self.what:
            case "weights":
                return (
                    f"the weights '{self.name}' are no longer finite ({values}), so {self.player}'s loss is not either."
                )
            case "batch":
                return f"the batch itself holds values that are not finite ({values})."
            case "module":
                return (
                    f"{self.player}'s loss is not finite; the first module to produce such values ({values}) was "
                    f"'{self.name}' ({self.module})."
                )
            case "loss":
                return (
                    f"{self.player}'s loss is not finite although every module's output is: the loss formula itself "
                    "overflowed."
                )
            case "gradient":
                return f"the gradient of {self.player}'s parameter '{self.name}' is not finite ({values})."
            case "norm":
                return f"the norm of {self.player}'s gradient overflowed although each entry is finite."


def explain_loss(model: GenerativeModel, batch: Batch, player: str) -> Origin:
    """Why ``player``'s loss is not finite, found by running the batch again under hooks."""
    if spoiled := explain_weights(model, player):
        return spoiled
    if not _finite(batch.x):
        return Origin("batch", player, "x", _kind(batch.x), _dtype(batch.x))
    if culprit := _first_bad_module(model, batch, player):
        name, module, output = culprit
        return Origin("module", player, name, _kind(output), _dtype(output), type(module).__name__)
    return Origin("loss", player)


def explain_weights(model: nn.Module, player: str) -> Origin | None:
    """The first weight or buffer that is not finite, None if all are."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not _finite(value):
            return Origin("weights", player, name, _kind(value), _dtype(value))
    return None


def explain_gradient(player: str, named_parameters: Mapping[str, nn.Parameter]) -> Origin:
    """The first parameter whose gradient is not finite."""
    for name, p in named_parameters.items():
        if p.grad is not None and not _finite(p.grad):
            return Origin("gradient", player, name, _kind(p.grad), _dtype(p.grad))
    return Origin("norm", player)


def _first_bad_module(model: GenerativeModel, batch: Batch, player: str) -> tuple[str, nn.Module, Tensor] | None:
    found: list[tuple[str, nn.Module, Tensor]] = []

    def hook(name: str) -> Any:
        def look(module: nn.Module, _inputs: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple | list) else [output]
            for tensor in tensors:
                if not found and isinstance(tensor, Tensor) and not _finite(tensor):
                    found.append((name, module, tensor))

        return look

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        for loss in model.losses(batch):
            if found or (loss.player == player and not torch.isfinite(loss.value)):
                break
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _finite(x: Tensor) -> bool:
    return not x.is_floating_point() or bool(torch.isfinite(x).all())


def _kind(x: Tensor) -> str:
    return "NaN" if bool(torch.isnan(x).any()) else "infinite"


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
