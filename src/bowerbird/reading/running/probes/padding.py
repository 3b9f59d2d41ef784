"""Probes of padding: whether it changes answers, and how much attention falls on it."""

import re
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.causality import run_once, tokens_of
from bowerbird.reading.running.tracing import traced


@probe("padding")
def padding(live: Live) -> None:
    """Adds padding to a batch of padded sequences and looks whether the answers change."""
    for trace in traced(live):
        sequences = tokens_of((trace.args, trace.kwargs))
        if not sequences:
            continue
        place, ids = sequences[0]
        pad = _pad_of(live, trace.module)
        if pad is None or not bool((ids[:, -1] == pad).any()) or bool((ids[:, 0] == pad).any()):
            continue
        if not bool((ids != pad).any()):
            continue
        more = torch.full((ids.shape[0], 3), pad, dtype=ids.dtype)
        args = list(trace.args)
        args[place] = torch.cat([ids, more], dim=1)
        with live.frozen(trace.module):
            trace.module.eval()
            try:
                wide = tensors(run_once(live, trace.module, args, trace.kwargs))
            except Exception:  # its positions or masks do not reach that far
                continue
        pairs = [
            (a, b)
            for a, b in zip(tensors(trace.out), wide, strict=False)
            if a.shape == b.shape and a.is_floating_point()
        ]
        if not pairs or pairs[0][0].ndim > 2 or not bool((pairs[0][0] + pairs[0][1]).isfinite().all()):
            continue
        a, b = pairs[0]
        change = float((a - b).abs().max() / (a.abs().max() + 1e-9))
        means = [
            {"line": o.line, "file": o.file}
            for o in trace.ops
            if o.name == "mean" and o.line and o.operands()[0].ndim == 3
        ]
        value = {"change": change, "pad": pad, "means": means[:3]}
        live.record("probe.padding", trace.name, value, at=type(trace.module))


def _pad_of(live: Live, module: nn.Module) -> int | None:
    for embed in module.modules():
        if isinstance(embed, nn.Embedding) and embed.padding_idx is not None:
            return int(embed.padding_idx)
    for name, value in live.namespace.items():
        if re.fullmatch(r"(PAD|pad|PAD_IDX|pad_idx|PAD_ID|pad_id|pad_token(_id)?|padding_idx|PAD_TOKEN)", name):
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return None


@probe("masks")
def masks(live: Live) -> None:
    """How much of the attention falls on padding."""
    for trace in traced(live):
        pad = _pad_of(live, trace.module)
        for _, ids in tokens_of((trace.args, trace.kwargs)):
            if pad is None or not bool((ids == pad).any()) or not bool((ids != pad).any()):
                continue
            hidden = ids == pad
            for op in trace.ops:
                if op.name != "softmax" or not isinstance(op.out, torch.Tensor) or op.out.ndim != 4:
                    continue
                if op.out.shape[-1] != ids.shape[1] or op.out.shape[0] != ids.shape[0]:
                    continue
                weights = op.out.mean(dim=(1, 2))
                rows = hidden.any(1)
                on_pad = float((weights * hidden)[rows].sum(-1).mean())
                value = {
                    "on_padding": on_pad,
                    "share": float(hidden[rows].float().mean()),
                    "nan": bool(op.out.isnan().any()),
                }
                live.record(
                    "probe.padding_weight",
                    f"{trace.name} argument of {list(ids.shape)}",
                    value,
                    line=op.line,
                    file=op.file,
                )
                break
    for path, module in live.modules().items():
        given = live.inputs(module)
        if given is None:
            continue
        for name, mask in given[1].items():
            if (
                name.endswith("key_padding_mask")
                and isinstance(mask, torch.Tensor)
                and mask.dtype == torch.bool
                and mask.ndim == 2
            ):
                first, last = float(mask[:, 0].float().mean()), float(mask[:, -1].float().mean())
                keys: dict[str, Any] = {
                    "hidden_first": first,
                    "hidden_last": last,
                    "share": float(mask.float().mean()),
                    "name": name,
                }
                live.record("probe.key_padding", path, keys, at=module)
