"""Where a NaN or an infinity came from: the first module or parameter, named."""

from typing import Any

import torch
from torch import Tensor, nn

from bowerbird.models.base import Batch, GenerativeModel
from bowerbird.optimizers import PlayerOptimizer


def explain_loss(model: GenerativeModel, batch: Batch, player: str) -> str:
    """One sentence on why ``player``'s loss is not finite, found by running the batch again under hooks."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not _finite(value):
            return f"the weights '{name}' are no longer finite ({_kind(value)}), so {player}'s loss is not either."
    if not _finite(batch.x):
        return f"the batch itself holds values that are not finite ({_kind(batch.x)})."
    if culprit := _first_bad_module(model, batch, player):
        name, module, output = culprit
        return (
            f"{player}'s loss is not finite; the first module to produce such values ({_kind(output)}, "
            f"{str(output.dtype).removeprefix('torch.')}) was '{name}' ({type(module).__name__})."
        )
    return f"{player}'s loss is not finite although every module's output is: the loss formula itself overflowed."


def explain_gradient(player: PlayerOptimizer) -> str:
    """One sentence naming the first parameter whose gradient is not finite."""
    for name, p in player.named_parameters.items():
        if p.grad is not None and not _finite(p.grad):
            return f"the gradient of {player.player}'s parameter '{name}' is not finite ({_kind(p.grad)})."
    return f"the norm of {player.player}'s gradient overflowed although each entry is finite."


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
