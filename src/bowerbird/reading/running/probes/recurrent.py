"""Probes of recurrent networks: whether examples of a batch stay apart."""

from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe


@probe("recurrent_mixing")
def mixing(live: Live) -> None:
    """Exchanges one example along the first axis for another and looks which answers move."""
    for name, root in live.roots.items():
        layers = {p: m for p, m in root.named_modules() if isinstance(m, nn.RNNBase)}
        given = live.inputs(root)
        if (
            not layers
            or given is None
            or not given[0]
            or not isinstance(given[0][0], torch.Tensor)
            or given[0][0].ndim < 2
        ):
            continue
        entry = given[0][0]
        if entry.shape[0] < 3 or torch.equal(entry[0], entry[1]):
            continue
        changed = entry.clone()
        changed[0] = entry[1]
        with live.frozen(root), torch.no_grad():
            root.eval()
            try:
                before, after = (_first(live, root, x, given) for x in (entry, changed))
            except Exception:  # it keeps a state that no longer fits
                continue
        if before is None or after is None or before.shape != after.shape or before.shape[0] != entry.shape[0]:
            continue
        moved = (before - after).abs().flatten(1).amax(1)
        inner = next((live.inputs(m) for m in layers.values() if live.inputs(m) is not None), None)
        path, layer = next(iter(layers.items()))
        value = {
            "mixed": bool((moved[1:] > 1e-6).any()), "in": list(entry.shape), "out": list(before.shape), "layer": path,
            "batch_first": layer.batch_first, "layer_in": list(inner[0][0].shape) if inner and hasattr(inner[0][0], "shape") else None,
            "targets": [list(loss["target"].shape) for loss in live.losses[:2]],
        }  # fmt: skip
        live.record(
            "probe.mixing", name, value, line=live.names.place(layer)[1], file=live.names.place(layer)[0] or live.main
        )


def _first(live: Live, root: nn.Module, entry: torch.Tensor, given: Any) -> torch.Tensor | None:
    live.seed(0)
    out = tensors(live.call(root, entry, *given[0][1:], **given[1]))
    return next((t for t in out if t.is_floating_point() and t.ndim >= 1), None)
