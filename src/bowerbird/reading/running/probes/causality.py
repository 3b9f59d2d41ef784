"""Probes of sequence models: who sees whom, what the targets are, and whether a cache changes the answer."""

import inspect
import re
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe


def tokens_of(given: tuple[tuple[Any, ...], dict[str, Any]] | None) -> list[tuple[int, torch.Tensor]]:
    """The arguments that are sequences of tokens."""
    if given is None:
        return []
    return [
        (i, a)
        for i, a in enumerate(given[0])
        if isinstance(a, torch.Tensor)
        and a.dtype == torch.long
        and a.ndim == 2
        and min(a.shape) >= 1
        and max(a.shape) >= 4
    ]


def scores_of(out: Any, shape: torch.Size) -> torch.Tensor | None:
    """The first output with one vector per token, as (d0, d1, width)."""
    for tensor in tensors(out):
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        if tensor.ndim == 3 and tensor.shape[:2] == shape:
            return tensor
        if tensor.ndim == 2 and tensor.shape[0] == shape[0] * shape[1] and tensor.shape[1] > 1:
            return tensor.view(*shape, tensor.shape[1])
        if tensor.ndim == 3 and tensor.shape[0] == shape[0] and tensor.shape[2] == shape[1]:
            return tensor.transpose(1, 2)
    return None


def run_once(live: Live, module: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> Any:
    live.seed(0)
    with torch.no_grad():
        return live.call(module, *args, **kwargs)


@probe("causality")
def causality(live: Live) -> None:
    """Changes one token and looks which positions of the output move."""
    for name, module in live.roots.items():
        given = live.inputs(module)
        sequences = tokens_of(given)
        if given is None or not sequences or sum(p.numel() for p in module.parameters()) > 30_000_000:
            continue
        place, ids = sequences[-1] if len(sequences) == 2 and not _labels(given, sequences) else sequences[0]
        with live.frozen(module):
            module.eval()
            try:
                found = _flow(live, module, given, place, ids)
            except Exception:  # the model cannot be asked in this way
                continue
        if found is None:
            continue
        found |= {
            "argument": place,
            "sequences": len(sequences),
            "shape": list(ids.shape),
            "shift": _shift(live, ids),
            "generates": any(hasattr(module, n) for n in ("generate", "greedy_decode")) and not _timed(module),
        }
        live.record("probe.causality", name, found, at=type(module))


def _timed(module: nn.Module) -> bool:
    """Whether a model is told a time: then it denoises and may see everything."""
    words = inspect.signature(inspect.unwrap(type(module).forward)).parameters
    return any(re.fullmatch(r"t|time_?steps?|time|sigma", word) for word in words)


def _labels(given: Any, sequences: list[tuple[int, torch.Tensor]]) -> bool:
    """Whether the second sequence is what the first is to become: labels, not another input."""
    first, second = sequences[0][1], sequences[1][1]
    if first.shape != second.shape:
        return False
    return any(_moved(first, second, axis) in (0, 1, 2) for axis in (0, 1))


def _flow(live: Live, module: nn.Module, given: Any, place: int, ids: torch.Tensor) -> dict[str, Any] | None:
    args, kwargs = list(given[0]), given[1]
    base = scores_of(run_once(live, module, args, kwargs), ids.shape)
    if base is None:
        return None
    if not bool(base.isfinite().all()):
        return {"nan": True}
    again = scores_of(run_once(live, module, args, kwargs), ids.shape)
    if again is None or not torch.equal(again, base):
        return {"random": True}
    rows, columns = ids.shape
    cell = (rows // 2, columns // 2)
    changed = ids.clone()
    most = int(ids.max())
    old = int(ids[cell])
    others = [int(v) for v in ids.unique() if int(v) != old] or [0 if old else min(1, most)]
    changed[cell] = others[-1]
    args[place] = changed
    moved = (scores_of(run_once(live, module, args, kwargs), ids.shape) - base).abs().amax(-1)  # type: ignore[operator]
    scale = float(base.abs().max()) + 1e-9
    far = moved > 1e-5 * scale
    along = {
        "row_before": bool(far[cell[0], : cell[1]].any()),
        "row_after": bool(far[cell[0], cell[1] + 1 :].any()),
        "column_before": bool(far[: cell[0], cell[1]].any()),
        "column_after": bool(far[cell[0] + 1 :, cell[1]].any()),
        "itself": bool(far[cell]),
        "effect_before": float(moved[cell[0], : cell[1]].max()) / scale if cell[1] else 0.0,
        "cell": list(cell),
    }
    return along


def _moved(ids: torch.Tensor, target: torch.Tensor, axis: int) -> int | None:
    """By how much a target of (almost) the same shape is ahead of the input along an axis; None if it is not."""
    other = 1 - axis
    if ids.shape[other] != target.shape[other] or ids.unique().numel() < 2:
        return None
    for shift in (1, 0, 2, -1):
        if shift >= 0:
            length = min(ids.shape[axis] - shift, target.shape[axis])
            left, right = (
                target.narrow(axis, 0, length) if length > 0 else None,
                ids.narrow(axis, shift, length) if length > 0 else None,
            )
        else:
            length = min(ids.shape[axis], target.shape[axis] + shift)
            left, right = (
                (target.narrow(axis, -shift, length), ids.narrow(axis, 0, length)) if length > 0 else (None, None)
            )
        if left is None or right is None or length < 2 or left.numel() < 6:
            continue
        known = left >= 0
        if bool(known.any()) and bool((left[known] == right[known]).all()):
            return shift
    return None


def _shift(live: Live, ids: torch.Tensor) -> dict[str, Any] | None:
    """By how much the targets of the first cross-entropy are ahead of these tokens."""
    for loss in live.losses:
        target = loss["target"]
        if loss["name"] not in ("cross_entropy", "nll_loss") or target.is_floating_point():
            continue
        for axis in (1, 0):
            for length in (ids.shape[axis], ids.shape[axis] - 1):
                shape = list(ids.shape)
                shape[axis] = length
                if length < 2 or target.numel() != shape[0] * shape[1]:
                    continue
                moved = _moved(ids, target.reshape(shape), axis)
                if moved is not None:
                    return {"by": moved, "axis": axis, "line": loss["line"]}
    return None


_CACHE = re.compile(r"cache|past|kv|mems?$", re.I)


@probe("cache")
def cached_decoding(live: Live) -> None:
    """The last position with a cache of what came before, against the whole sequence at once."""
    for name, module in live.roots.items():
        given = live.inputs(module)
        sequences = tokens_of(given)
        forward = inspect.unwrap(type(module).forward)
        words = [p for p in inspect.signature(forward).parameters if _CACHE.search(p) and not re.search("use", p)]
        if given is None or len(sequences) != 1 or not words:
            continue
        ids = sequences[0][1][:2, :8]
        flags = {p: True for p in inspect.signature(forward).parameters if re.fullmatch("use_(kv_)?cache", p)}
        with live.frozen(module):
            module.eval()
            try:
                whole = run_once(live, module, [ids], flags)
                head = run_once(live, module, [ids[:, :-1]], flags)
                cache = head[-1]
                last = run_once(live, module, [ids[:, -1:]], {**flags, words[0]: cache})
            except Exception:  # the cache is handed over in another way
                continue
        a, b = tensors(whole)[0][:, -1], tensors(last)[0][:, -1]
        if a.shape == b.shape:
            change = float((a - b).abs().max() / (a.abs().max() + 1e-9))
            live.record("probe.cache", name, {"change": change, "argument": words[0]}, at=type(module))


@probe("targets", cheap=True)
def padded_targets(live: Live) -> None:
    """How much of the targets of a cross-entropy is padding that it does not ignore."""
    named = {
        n: v
        for n, v in live.namespace.items()
        if re.fullmatch(r"(?i)(tgt_|trg_)?pad(ding)?(_?(idx|id|token(_id)?|index))?", n)
        and isinstance(v, int)
        and not isinstance(v, bool)
    }
    if not named:
        return
    name, pad = next(iter(named.items()))
    for loss in live.losses:
        target = loss["target"]
        if loss["name"] not in ("cross_entropy", "nll_loss") or target.is_floating_point() or target.numel() < 8:
            continue
        value = {
            "pad": pad,
            "name": name,
            "share": float((target == pad).float().mean()),
            "ignored": loss["kwargs"].get("ignore_index", -100) == pad,
            "reduction": str(loss["kwargs"].get("reduction", "mean")),
            "weighted": loss["kwargs"].get("weight") is not None,
        }
        live.record("probe.padded_targets", loss["name"], value, line=loss["line"], file=loss["file"])


@probe("raster")
def masked_convolutions(live: Live) -> None:
    """Changes one pixel of a network of masked convolutions: the outputs up to that pixel must not move."""
    for name, module in live.roots.items():
        given = live.inputs(module)
        masked = [m for m in module.modules() if re.search(r"mask\w*conv|causal\w*conv2d", type(m).__name__, re.I)]
        if given is None or not masked or not given[0] or not isinstance(given[0][0], torch.Tensor):
            continue
        picture = given[0][0]
        if picture.ndim != 4 or not picture.is_floating_point() or min(picture.shape[2:]) < 4:
            continue
        row, column = picture.shape[2] // 2, picture.shape[3] // 2
        changed = picture.clone()
        changed[:, :, row, column] += 0.5
        with live.frozen(module):
            module.eval()
            try:
                outs = [tensors(run_once(live, module, [x, *given[0][1:]], given[1]))[0] for x in (picture, changed)]
            except Exception:  # it cannot be asked again
                continue
        if outs[0].shape[-2:] != picture.shape[-2:]:
            continue
        moved = (outs[0] - outs[1]).abs().flatten(0, -3).amax(0) > 1e-6
        before = bool(moved[:row].any()) or bool(moved[row, :column].any())
        place = live.names.place(masked[0])
        value = {"before": before, "itself": bool(moved[row, column]), "class": type(module).__name__}
        live.record("probe.raster", name, value, line=place[1], file=place[0] or live.main)
