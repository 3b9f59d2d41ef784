"""Probes of padding: whether it changes answers, and how much attention falls on it."""

import inspect
import re
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.causality import run_once, tokens_of
from bowerbird.reading.running.tracing import Op, Traced, traced


@probe("padding")
def padding(live: Live) -> None:
    """An example alone and unpadded against the same example in its padded batch."""
    for trace in traced(live):
        pad = _pad_of(live, trace.module) or 0
        batches = [x for x in tensors(trace.args) if x.ndim >= 2 and min(x.shape[:2]) >= 2]
        found = [(x, axis, lengths) for x in batches[:1] for axis in (1, 0)
                 if (lengths := _lengths(x, pad, axis)) is not None]  # fmt: skip
        if found:
            with live.frozen(trace.module):
                trace.module.eval()
                try:
                    value = _alone(live, trace, *found[0])
                except Exception:  # the model does not take a batch of one
                    value = None
            if value is not None:
                file, line = _place(trace)
                live.record("probe.padding", trace.name, value, line=line, file=file or None)


def _lengths(x: torch.Tensor, pad: int, axis: int) -> torch.Tensor | None:
    """The lengths of padded sequences: every row ends with padding alone, one is full, and they differ."""
    rows = x.movedim(axis, 1)
    empty = (rows == pad) if rows.ndim == 2 else (rows == 0).flatten(2).all(-1)
    lengths = rows.shape[1] - empty.flip(1).long().cumprod(1).sum(1)
    inside = torch.arange(rows.shape[1])[None] < lengths[:, None]
    clean = rows.ndim > 2 or not bool((empty & inside).any())
    differ = int(lengths.min()) < int(lengths.max()) == rows.shape[1]
    return lengths if clean and differ and int(lengths.min()) >= 1 else None


def _alone(live: Live, trace: Traced, x: torch.Tensor, axis: int, lengths: torch.Tensor) -> dict[str, Any] | None:
    """By how much the answer to the shortest example differs; None where there is none for a whole example."""
    row, size = int(lengths.argmin()), len(lengths)
    length = int(lengths[row])
    names = [*inspect.signature(trace.module.forward).parameters]

    def cut(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return type(value)(map(cut, value)) if type(value) in (list, tuple) else value
        if value.ndim >= 2 and value.shape[axis] == x.shape[axis] and value.shape[1 - axis] == size:
            return value.narrow(1 - axis, row, 1).narrow(axis, 0, length)
        if value.ndim >= 1 and value.shape[0] == size:
            return value[row : row + 1]
        return value.narrow(1, row, 1) if value.ndim == 3 and value.shape[1] == size else value

    whole = next(iter(tensors(trace.out)), None)
    kwargs = {key: cut(value) for key, value in trace.kwargs.items()}
    single = next(iter(tensors(run_once(live, trace.module, list(map(cut, trace.args)), kwargs))), None)
    if whole is None or single is None or not whole.is_floating_point() or whole.shape[:1] != (size,):
        return None
    if whole.ndim > 2 or single.shape != whole[row : row + 1].shape:
        return None
    change = float((whole[row] - single[0]).abs().max() / (whole.abs().max() + 1e-9))
    told = any(re.search("len|mask", name) for name in (*names[: len(trace.args)], *trace.kwargs))
    return {"change": change, "row": row, "length": length, "padded_to": x.shape[axis], "told": told}


_LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def _place(trace: Traced) -> tuple[str, int | None]:
    """Where the positions of a sequence become one: a mean, a last step, else a recurrent layer's final state."""
    for wanted in (_pools, lambda op: op.name in _LAYERS):
        places = [(op.file, op.line) for op in trace.ops if op.line is not None and wanted(op)]
        if places:
            return places[-1]
    return "", None


def _pools(op: Op) -> bool:
    if op.name == "__getitem__" and op.operands()[0].ndim == 3:
        at = op.args[1]
        return any(isinstance(i, int) and i == -1 for i in (at if isinstance(at, tuple) else (at,)))
    return op.name == "mean" and op.operands()[0].ndim == 3


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
