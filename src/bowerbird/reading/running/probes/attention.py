"""Probes of attention: what the weights sum to, how scores are scaled, and reshapes in the place of transpositions."""

import itertools
import operator
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.tracing import Op, Traced, contraction, scalar, traced

_SHAPE = frozenset(
    "view reshape transpose permute contiguous clone unsqueeze squeeze flatten swapaxes movedim t mT "
    "__getitem__ expand split chunk unbind float to type_as".split()
)
_MASKS = frozenset("masked_fill masked_fill_ where".split())
_SUMS = frozenset("add __add__ __radd__ add_ __iadd__ sub __sub__".split())
_SCALES = frozenset("mul __mul__ __rmul__ mul_ __imul__ div __truediv__ div_ __itruediv__".split())
_DIVISIONS = frozenset("div __truediv__ div_ __itruediv__".split())


def _whole(tensor: torch.Tensor, axes: tuple[int, ...]) -> bool:
    """Whether a tensor of weights sums to one (or, where all is masked, to nothing) over these axes."""
    sums = tensor.float().sum(dim=axes)
    return bool(((sums - 1).abs().lt(2e-3) | sums.abs().lt(1e-6)).all())


@probe("attention")
def attention(live: Live) -> None:
    """Every softmax whose result is contracted with values."""
    found: dict[tuple[str, int], tuple[str, dict[str, Any]]] = {}
    for trace in traced(live):
        widths = sorted({m.in_features for m in trace.module.modules() if isinstance(m, nn.Linear)})
        for op in trace.ops:
            if op.name != "softmax" or not isinstance(op.out, torch.Tensor) or op.out.ndim < 2 or op.line is None:
                continue
            weights = _weights(op, trace)
            if weights is None:
                continue
            value = {**weights, **_scores(op), "widths": widths[:20]}
            known = found.setdefault((op.file, op.line), (trace.name, value))[1]
            if not _hides(known) and _hides(value):
                known["masks"] = value["masks"]
    for (file, line), (name, value) in found.items():
        live.record("probe.attention", name, value, line=line, file=file)


def _hides(value: dict[str, Any]) -> bool:
    """Whether a mask hid something in a call of attention."""
    return any(mask.get("share") for mask in value["masks"])


def _weights(op: Op, trace: Traced) -> dict[str, Any] | None:
    """How the weights of a softmax are used: along which axis they are summed, and whether they sum to one there."""
    carriers: dict[int, Op] = {id(op.out): op}
    after: list[Op] = []
    start = trace.ops.index(op)
    for later in trace.ops[start + 1 : start + 60]:
        held = [t for t in later.operands() if id(t) in carriers]
        if not held:
            continue
        found = contraction(later)
        if found is not None:
            weights = held[0]
            if any(isinstance(t, nn.Parameter) for t in (found.left, found.right)):
                return None
            axes = found.left_axes if weights is found.left else found.right_axes
            return _verdict(op, weights, axes, after, later)
        if later.name in ("mul", "__mul__", "__rmul__") and isinstance(later.out, torch.Tensor):
            total = next((o for o in trace.heirs(later) if o.name == "sum"), None)
            axis = total.argument(1, "dim") if total is not None else None
            if isinstance(axis, int) and held[0].ndim == later.out.ndim and later.out.numel() > held[0].numel():
                return _verdict(op, held[0], (axis,), after, later)
        if (
            isinstance(later.out, torch.Tensor)
            and later.out.numel() == op.out.numel()
            and later.out.is_floating_point()
        ):
            carriers[id(later.out)] = later
            after.append(later)
    return None


def _verdict(op: Op, weights: torch.Tensor, axes: tuple[int, ...], after: list[Op], use: Op) -> dict[str, Any]:
    dim = op.argument(1, "dim")
    masked = next((o for o in after if o.name in (*_MASKS, *_SCALES) and len(o.operands()) > 1), None)
    sums = weights.float().sum(dim=axes)
    length = 1
    for axis in axes:
        length *= weights.shape[axis]
    return {
        "dim": dim if isinstance(dim, int) else None,
        "shape": list(op.out.shape),
        "sums_to_one": _whole(weights, axes),
        "axis": axes[0],
        "least": float(sums.min()),
        "most": float(sums.max()),
        "keys": length,
        "changed_after": masked.line if masked is not None else None,
        "kept_before": bool(op.out.shape == weights.shape and _whole(op.out, axes)),
        "nan": bool(op.out.isnan().any()),
        "use": use.line,
        "function": op.function,
    }


def _scores(op: Op) -> dict[str, Any]:
    """From the softmax back to queries and keys: the factor of their product, and what masked it."""
    masks: list[Any] = []
    factor, scaled_at = 1.0, None
    at: Op | None = op
    for _ in range(14):
        parents = [p for p in at.parents if p is not at] if at is not None else []
        at = _main(parents, at)
        if at is None:
            return {"masks": masks}
        found = contraction(at)
        if found is not None:
            mine, where = _scale_of_operand(at, found.left)
            other, where_too = _scale_of_operand(at, found.right)
            scaled_at = scaled_at or where or where_too
            heads = found.left.shape[1] if found.left.ndim == 4 else 1
            return {
                "factor": factor * mine * other,
                "width": found.width,
                "scaled_at": scaled_at,
                "product": at.line,
                "masks": masks,
                "heads": _heads(found.left, found.width) or heads,
            }
        if at.name in _SCALES:
            number = next((n for n in map(scalar, at.args[:2]) if n is not None), None)
            if number:
                factor = factor / number if at.name in _DIVISIONS else factor * number
                scaled_at = scaled_at or at.line
        if at.name in _MASKS or (at.name in _SUMS and len(at.operands()) > 1):
            masks.append({"line": at.line, "name": at.name, **_filled(at)})
    return {"masks": masks}


def _main(parents: list[Op], child: Op | None) -> Op | None:
    """Of the calls that made an operand, the one that goes on to the scores: the largest floating one."""
    floating = [p for p in parents if isinstance(p.out, torch.Tensor) and p.out.is_floating_point()]
    products = [p for p in floating if contraction(p) is not None]
    if products:
        return products[0]
    return max(floating, key=lambda p: p.out.numel(), default=None)


def _filled(op: Op) -> dict[str, Any]:
    """What a mask writes, and how much of the scores it hides."""
    if op.name in ("masked_fill", "masked_fill_"):
        value = scalar(op.argument(2, "value")) if not isinstance(op.argument(2, "value"), bool) else None
        mask = op.argument(1, "mask")
        share = float(mask.float().mean()) if isinstance(mask, torch.Tensor) else None
        return {"value": value, "share": share}
    low = [float(t.min()) for t in op.operands() if t.is_floating_point()]
    return {"value": min(low, default=0.0), "share": None}


def _scale_of_operand(product: Op, operand: torch.Tensor) -> tuple[float, int | None]:
    """A number that the queries or keys themselves were multiplied by."""
    factor, where = 1.0, None
    at = next((p for p in product.parents if any(t is operand for t in tensors(p.out))), None)
    for _ in range(8):
        if at is None:
            break
        if at.name in _SCALES:
            number = next((n for n in map(scalar, at.args[:2]) if n is not None), None)
            if number is None:
                break
            factor = factor / number if at.name in _DIVISIONS else factor * number
            where = where or at.line
        elif at.name not in _SHAPE:
            break
        at = at.parents[0] if at.parents else None
    return factor, where


def _heads(queries: torch.Tensor, width: int) -> int | None:
    """How many heads there are, by the smaller of the two axes that heads may have."""
    return min(queries.shape[1:3]) if queries.ndim == 4 and queries.shape[-1] == width else None


def _mixed(before: list[int], after: list[int]) -> bool:
    """Whether a reshape gives numbers other axes: no splitting of axes and merging of neighbours explains it."""
    old, new = [n for n in before if n != 1], [n for n in after if n != 1]
    i = j = 0
    while i < len(old) and j < len(new):
        left, right, a, b = old[i], new[j], 1, 1
        first = i, j
        while left != right:
            if left < right:
                i += 1
                if i >= len(old):
                    return False
                left *= old[i]
                a += 1
            else:
                j += 1
                if j >= len(new):
                    return False
                right *= new[j]
                b += 1
        if a > 1 and b > 1 and _exchanged(old[first[0] : i + 1], new[first[1] : j + 1]):
            return True
        i, j = i + 1, j + 1
    return False


def _exchanged(old: list[int], new: list[int]) -> bool:
    """Whether an axis has moved: its size is there before and after, or the borders of both do not fit together.

    ``(n, 3hc) → (nh, 3c)`` splits the second axis and merges a part of it with the first: nothing has moved.
    """
    borders = sorted({*itertools.accumulate(old, operator.mul), *itertools.accumulate(new, operator.mul)})
    return bool(set(old) & set(new)) or any(b % a for a, b in itertools.pairwise(borders))


@probe("attention_views")
def views(live: Live) -> None:
    """Reshapes beside a contraction that give numbers other axes: a view in the place of a transposition."""
    seen: set[int | None] = set()
    for trace in traced(live):
        weights = {id(op.out) for op in trace.ops if op.name == "softmax"}
        for op in trace.ops:
            if op.name not in ("view", "reshape") or op.line in seen or not isinstance(op.out, torch.Tensor):
                continue
            source = op.args[0]
            if not isinstance(source, torch.Tensor) or not _mixed(list(source.shape), list(op.out.shape)):
                continue
            role = _role(op, trace, weights)
            if role:
                seen.add(op.line)
                value = {"from": list(source.shape), "to": list(op.out.shape), "role": role}
                live.record("probe.view", trace.name, value, line=op.line, file=op.file)


def _role(op: Op, trace: Traced, weights: set[int]) -> str:
    """What a reshaped tensor is: an operand of scores, the output of attention, the input of a recurrent layer."""
    made = op.parents[0] if op.parents else None
    for _ in range(5):
        if made is None:
            break
        if contraction(made) is not None or made.name == "scaled_dot_product_attention":
            after_weights = made.name == "scaled_dot_product_attention" or _descends(made, weights)
            if after_weights:
                return "what attention gives"
            break
        if made.name not in (*_SHAPE, "dropout") or made.name in ("transpose", "permute"):
            break
        made = made.parents[0] if made.parents else None
    front = [op]
    for _ in range(4):
        heirs = [h for f in front for h in trace.heirs(f)]
        for heir in heirs:
            if weights and contraction(heir) is not None and heir.name != "linear":
                return "an operand of attention"
            if heir.name == "scaled_dot_product_attention":
                return "an operand of attention"
            if heir.name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
                return "the input of a recurrent layer"
        front = [h for h in heirs if (h.name in _SHAPE and h.name not in ("transpose", "permute")) or h.name in _SCALES]
        front += [h for h in heirs if h.name in ("transpose", "permute")]
    return ""


def _descends(op: Op, weights: set[int]) -> bool:
    front = [op]
    for _ in range(6):
        if any(id(t) in weights for f in front for t in f.operands()):
            return True
        front = [p for f in front for p in f.parents if p.name in (*_MASKS, *_SCALES, *_SHAPE, "dropout")]
    return False
