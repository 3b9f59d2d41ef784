"""Probes of recurrent networks: which axis they take for time."""

from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe

NEGLIGIBLE = 1e-5


def _recurrent(module: nn.Module) -> dict[str, nn.RNNBase]:
    return {path: layer for path, layer in module.named_modules() if isinstance(layer, nn.RNNBase)}


def _main_input(given: Any) -> tuple[int, torch.Tensor] | None:
    """The first argument that is a batch of sequences."""
    if given is None:
        return None
    for place, value in enumerate(given[0]):
        if isinstance(value, torch.Tensor) and value.ndim >= 2 and min(value.shape[:2]) >= 2:
            return place, value
    return None


def ahead(given: torch.Tensor, target: torch.Tensor) -> int | None:
    """The axis along which a target is its input one step later, or None."""
    if target.numel() != given.numel() or target.is_floating_point() != given.is_floating_point():
        return None
    for axis in (1, 0) if given.ndim > 1 else ():
        length = given.shape[axis] - 1
        later = given.narrow(axis, 1, length)
        if length >= 2 and any(torch.equal(t.narrow(axis, 0, length), later) for t in _shapes(given, target)):
            return axis
    return None


def _shapes(given: torch.Tensor, target: torch.Tensor) -> list[torch.Tensor]:
    """A flattened target in the input's shape: written row by row or, after a transposition, column by column."""
    plain = target.reshape(given.shape)
    turned = target.reshape(given.shape[1], given.shape[0], *given.shape[2:]).transpose(0, 1)
    return [plain] if target.shape == given.shape else [plain, turned]


def _batch_axis(live: Live, given: Any, x: torch.Tensor) -> tuple[int, str] | None:
    """Which axis of the input counts examples, where the program itself says so."""
    unequal = x.shape[0] != x.shape[1]
    for loss in live.losses:
        target = loss["target"]
        if not isinstance(target, torch.Tensor) or not target.ndim:
            continue
        found = ahead(x, target)
        if found is not None:
            return 1 - found, f"the targets of line {loss['line']} are the inputs one step later along axis {found}"
        answers = target.ndim == 1 or (target.ndim == 2 and target.is_floating_point())
        if answers and unequal and target.shape[0] in x.shape[:2]:
            axis = list(x.shape[:2]).index(target.shape[0])
            return axis, f"the loss of line {loss['line']} has {target.shape[0]} targets"
    for value in (*given[0], *given[1].values()):
        if isinstance(value, torch.Tensor) and value.ndim == 1 and unequal and value.shape[0] in x.shape[:2]:
            return list(x.shape[:2]).index(value.shape[0]), f"an argument has {value.shape[0]} entries, one per example"
    return None


def _changed(x: torch.Tensor, axis: int, index: int) -> torch.Tensor:
    """The input with everything at one index of an axis replaced by something else."""
    new = x.clone()
    part = new.select(axis, index)
    if x.is_floating_point():
        part.add_(x.float().std() + 0.5)
        return new
    values = x.unique()
    low, high = int(values[0]), int(values[-1])
    part.copy_(torch.where(part == high, low, high))
    return new


@probe("recurrent_axes")
def axes(live: Live) -> None:
    """Changes one index along each axis of the input: is it one time step of the layer, or one of its examples?"""
    for name, module in live.roots.items():
        given, layers = live.inputs(module), _recurrent(module)
        main = _main_input(given)
        if given is None or main is None or not layers or sum(p.numel() for p in module.parameters()) > 30_000_000:
            continue
        path, layer = next(iter(layers.items()))
        with live.frozen(module):
            module.eval()
            found = _axes(live, module, layer, given, *main)
        if found is not None:
            evidence = _batch_axis(live, given, main[1])
            found |= {"batch_axis": evidence[0] if evidence else None, "because": evidence[1] if evidence else ""}
            file, line = live.names.place(layer)
            live.record("probe.recurrent_axes", f"{name}.{path}" if path else name, found, line=line, file=file or None)


def _axes(
    live: Live, module: nn.Module, layer: nn.RNNBase, given: Any, place: int, x: torch.Tensor
) -> dict[str, Any] | None:  # fmt: skip
    heard: list[Any] = []
    hook = layer.register_forward_pre_hook(lambda _, args: heard.append(args[0] if args else None))

    def run(value: torch.Tensor) -> tuple[Any, Any]:
        heard.clear()
        args = list(given[0])
        args[place] = value
        live.seed(0)
        with torch.no_grad():
            out = live.call(module, *args, **given[1])
        return (heard[0] if heard else None), next(iter(tensors(out)), None)

    try:
        entered, out = run(x)
        if not isinstance(entered, torch.Tensor) or entered.ndim != 3:
            return None
        roles, others = {}, {}
        for axis in (0, 1):
            index = x.shape[axis] // 2
            again, moved = run(_changed(x, axis, index))
            roles[axis] = _role(entered, again, index, layer.batch_first)
            others[axis] = _others(out, moved, x.shape[axis], axis, index)
    except Exception:  # the user's forward does not take what was changed
        return None
    finally:
        hook.remove()
    return {
        "roles": [roles[0], roles[1]], "others": [others[0], others[1]], "shape": list(x.shape),
        "entered": list(entered.shape), "batch_first": layer.batch_first, "class": type(layer).__name__,
    }  # fmt: skip


def _role(before: torch.Tensor, after: Any, index: int, batch_first: bool) -> str:
    """What an index of the input is to the layer: one of its examples, one of its time steps, or neither."""
    if not isinstance(after, torch.Tensor) or after.shape != before.shape:
        return "neither"
    moved = (before - after).abs().amax(-1) > NEGLIGIBLE
    batch = 0 if batch_first else 1
    examples, times = moved.any(dim=1 - batch).nonzero().flatten(), moved.any(dim=batch).nonzero().flatten()
    if examples.tolist() == [index] and len(times) > 1:
        return "example"
    return "time" if times.tolist() == [index] and len(examples) > 1 else "neither"


def _others(before: Any, after: Any, size: int, axis: int, index: int) -> float | None:
    """How much the outputs of other indices moved, relative to the largest; None where outputs have no such axis."""
    if not isinstance(before, torch.Tensor) or before.shape != after.shape or not before.is_floating_point():
        return None
    axis = axis if before.ndim > axis and before.shape[axis] == size else 0
    if before.ndim < 1 or before.shape[axis] != size:
        return None
    keep = torch.arange(size) != index
    moved = (before - after).abs().movedim(axis, 0)[keep]
    return float(moved.max() / (before.abs().max() + 1e-9))
