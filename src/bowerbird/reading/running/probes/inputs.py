"""Which inputs a network heeds: each argument is exchanged in turn and the outputs are compared.

In evaluation mode and with the same random numbers, an argument whose exchange changes no output is ignored.
"""

from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe

LARGEST = 30_000_000
MOST_MODULES = 24


@probe("inputs")
def heeded_inputs(live: Live) -> None:
    """Records ``probe.inputs`` for each of the user's modules: per argument its name, and how far the output moved."""
    for path, module in list(live.user_modules().items())[:MOST_MODULES]:
        kept = live.inputs(module)
        if kept is None or sum(p.numel() for p in module.parameters()) > LARGEST:
            continue
        args, kwargs = kept
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        rows = [
            {"argument": key, "dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape), **moved}
            for key, value in given.items()
            if isinstance(value, torch.Tensor) and (moved := _moved(live, module, given, key)) is not None
        ]
        if rows:
            live.record("probe.inputs", path, {"class": type(module).__name__, "arguments": rows},
                        at=type(module))  # fmt: skip


def _moved(live: Live, module: nn.Module, given: dict[Any, Any], key: Any) -> dict[str, float] | None:
    other = _exchanged(given[key])
    if other is None:
        return None
    before = _outputs(live, module, given)
    after = _outputs(live, module, {**given, key: other})
    if before is None or after is None or [t.shape for t in before] != [t.shape for t in after]:
        return None
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a.is_floating_point() and torch.isfinite(a).all()]
    if not pairs:
        return None
    moved = max(float((a - b).abs().max()) for a, b in pairs)
    size = max(float(a.abs().max()) for a, _ in pairs)
    return {"moved": moved, "size": size}


def _exchanged(value: torch.Tensor) -> torch.Tensor | None:
    """Another value of the same kind: other numbers of the same range, other labels among those that occur."""
    if not value.numel():
        return None
    if value.is_floating_point():
        other = value + (value.std() + 0.1 if value.numel() > 1 else 0.5) * torch.randn_like(value)
        low, high = value.min(), value.max()
        return other.clamp(float(low), float(high)) if low < high else other
    if value.dtype in (torch.int64, torch.int32):
        first, last = int(value.min()), int(value.max())
        return first + last - value if first < last else None
    return None


def _outputs(live: Live, module: nn.Module, given: dict[Any, Any]) -> list[torch.Tensor] | None:
    args = [value for key, value in given.items() if isinstance(key, int)]
    kwargs = {key: value for key, value in given.items() if not isinstance(key, int)}
    with live.frozen(module), torch.no_grad():
        module.eval()
        live.seed(1)
        try:
            return [t.detach().clone() for t in tensors(live.call(module, *args, **kwargs))]
        except Exception:  # the user's forward, in a mode that it was not run in
            return None
