"""Probes of attention and of sequence models: what the weights sum to, how scores are scaled, who can see what."""

import re
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.tracing import Op, Traced, contraction, scalar, traced

_SHAPE = frozenset("view reshape transpose permute contiguous clone unsqueeze squeeze flatten swapaxes movedim t mT "
                   "__getitem__ expand split chunk unbind float to type_as".split())  # fmt: skip
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
    seen: set[tuple[str, int | None]] = set()
    for trace in traced(live):
        for op in trace.ops:
            if op.name != "softmax" or not isinstance(op.out, torch.Tensor) or op.out.ndim < 2:
                continue
            if (op.file, op.line) in seen or op.line is None:
                continue
            found = _weights(op, trace)
            if found is None:
                continue
            seen.add((op.file, op.line))
            scores = _scores(op)
            live.record("probe.attention", trace.name, {**found, **scores}, line=op.line, file=op.file)


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
        "dim": dim if isinstance(dim, int) else None, "shape": list(op.out.shape), "sums_to_one": _whole(weights, axes),
        "axis": axes[0], "least": float(sums.min()), "most": float(sums.max()), "keys": length,
        "changed_after": masked.line if masked is not None else None,
        "kept_before": bool(op.out.shape == weights.shape and _whole(op.out, axes)),
        "nan": bool(op.out.isnan().any()), "use": use.line, "function": op.function,
    }  # fmt: skip


def _scores(op: Op) -> dict[str, Any]:
    """From the softmax back to queries and keys: the factor of their product, and what masked it."""
    factor, scaled_at, masks = 1.0, None, []
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
                "factor": factor * mine * other, "width": found.width, "scaled_at": scaled_at, "product": at.line,
                "masks": masks, "shape_of_queries": list(found.left.shape), "heads": _heads(found.left, found.width) or heads,
                "keys_made_by": _views(at),
            }  # fmt: skip
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
        return {"value": value, "share": share, "discarded": False}
    if op.name == "where":
        numbers = [scalar(a) for a in op.args[1:3]]
        value = next((n for n in numbers if n is not None), None)
        return {"value": value, "share": None}
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
    return queries.shape[1] if queries.ndim == 4 and queries.shape[-1] == width else None


def _views(product: Op) -> list[str]:
    return [p.name for p in product.parents]


def _mixed(before: list[int], after: list[int]) -> bool:
    """Whether a reshape gives numbers other axes: neither merges neighbours nor splits one axis, block by block."""
    old, new = [n for n in before if n != 1], [n for n in after if n != 1]
    i = j = 0
    while i < len(old) and j < len(new):
        left, right, a, b = old[i], new[j], 1, 1
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
        if a > 1 and b > 1:
            return True
        i, j = i + 1, j + 1
    return False


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
            if contraction(heir) is not None and (heir.name != "linear"):
                return "an operand of attention"
            if heir.name == "scaled_dot_product_attention":
                return "an operand of attention"
            if heir.name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
                return "the input of a recurrent layer"
        front = [h for h in heirs if h.name in _SHAPE and h.name not in ("transpose", "permute") or h.name in _SCALES]
        front += [h for h in heirs if h.name in ("transpose", "permute")]
    return ""


def _descends(op: Op, weights: set[int]) -> bool:
    front = [op]
    for _ in range(6):
        if any(id(t) in weights for f in front for t in f.operands()):
            return True
        front = [p for f in front for p in f.parents if p.name in (*_MASKS, *_SCALES, *_SHAPE, "dropout")]
    return False


# --- who can see what


def _tokens(given: tuple[tuple[Any, ...], dict[str, Any]] | None) -> list[tuple[int, torch.Tensor]]:
    """The arguments that are sequences of tokens."""
    if given is None:
        return []
    return [(i, a) for i, a in enumerate(given[0]) if isinstance(a, torch.Tensor) and a.dtype == torch.long
            and a.ndim == 2 and min(a.shape) >= 1 and max(a.shape) >= 4]  # fmt: skip


def _scores_of(out: Any, shape: torch.Size) -> torch.Tensor | None:
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


def _run(live: Live, module: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> Any:
    live.seed(0)
    with torch.no_grad():
        return live.call(module, *args, **kwargs)


@probe("causality")
def causality(live: Live) -> None:
    """Changes one token and looks which positions of the output move."""
    for name, module in live.roots.items():
        given = live.inputs(module)
        sequences = _tokens(given)
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
            "class": type(module).__name__, "argument": place, "sequences": len(sequences), "shape": list(ids.shape),
            "shift": _shift(live, ids), "generates": any(hasattr(module, n) for n in ("generate", "sample", "greedy_decode")),
        }  # fmt: skip
        live.record("probe.causality", name, found, line=live.line_of(type(module)))


def _labels(given: Any, sequences: list[tuple[int, torch.Tensor]]) -> bool:
    """Whether the second sequence is what the first is to become: labels, not another input."""
    first, second = sequences[0][1], sequences[1][1]
    if first.shape != second.shape:
        return False
    return any(_moved(first, second, axis) in (0, 1, 2) for axis in (0, 1))


def _flow(live: Live, module: nn.Module, given: Any, place: int, ids: torch.Tensor) -> dict[str, Any] | None:
    args, kwargs = list(given[0]), given[1]
    base = _scores_of(_run(live, module, args, kwargs), ids.shape)
    if base is None:
        return None
    if not bool(base.isfinite().all()):
        return {"nan": True}
    if not bool((_scores_of(_run(live, module, args, kwargs), ids.shape) == base).all()):
        return {"random": True}
    rows, columns = ids.shape
    cell = (rows // 2, columns // 2)
    changed = ids.clone()
    most = int(ids.max())
    old = int(ids[cell])
    others = [int(v) for v in ids.unique() if int(v) != old] or [0 if old else min(1, most)]
    changed[cell] = others[-1]
    args[place] = changed
    moved = (_scores_of(_run(live, module, args, kwargs), ids.shape) - base).abs().amax(-1)  # type: ignore[operator]
    scale = float(base.abs().max()) + 1e-9
    far = moved > 1e-5 * scale
    along = {
        "row_before": bool(far[cell[0], : cell[1]].any()), "row_after": bool(far[cell[0], cell[1] + 1 :].any()),
        "column_before": bool(far[: cell[0], cell[1]].any()), "column_after": bool(far[cell[0] + 1 :, cell[1]].any()),
        "itself": bool(far[cell]), "elsewhere": int(far.sum()),
        "effect_before": float(moved[cell[0], : cell[1]].max()) / scale if cell[1] else 0.0,
        "effect_column_before": float(moved[: cell[0], cell[1]].max()) / scale if cell[0] else 0.0,
        "cell": list(cell),
    }  # fmt: skip
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


@probe("padding")
def padding(live: Live) -> None:
    """Adds padding to a batch of padded sequences and looks whether the answers change."""
    for trace in traced(live):
        sequences = _tokens((trace.args, trace.kwargs))
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
                wide = tensors(_run(live, trace.module, args, trace.kwargs))
            except Exception:  # its positions or masks do not reach that far
                continue
        pairs = [
            (a, b)
            for a, b in zip(tensors(trace.out), wide, strict=False)
            if a.shape == b.shape and a.is_floating_point()
        ]
        if not pairs or pairs[0][0].ndim > 2:
            continue
        a, b = pairs[0]
        change = float((a - b).abs().max() / (a.abs().max() + 1e-9))
        means = [
            {"line": o.line, "file": o.file}
            for o in trace.ops
            if o.name == "mean" and o.line and o.operands()[0].ndim == 3
        ]
        lasts = [{"line": o.line, "file": o.file} for o in trace.ops if o.name == "__getitem__" and _takes_last(o)]
        value = {
            "change": change,
            "pad": pad,
            "means": means[:3],
            "lasts": lasts[:3],
            "padded": float((ids == pad).float().mean()),
        }
        live.record("probe.padding", trace.name, value, line=live.line_of(type(trace.module)))


def _takes_last(op: Op) -> bool:
    index = op.args[1] if len(op.args) > 1 else None
    return (
        isinstance(index, tuple)
        and -1 in [i for i in index if isinstance(i, int)]
        and isinstance(op.args[0], torch.Tensor)
        and op.args[0].ndim == 3
    )


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
        for _, ids in _tokens((trace.args, trace.kwargs)):
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
                value = {"hidden_first": first, "hidden_last": last, "share": float(mask.float().mean()), "name": name}
                live.record("probe.key_padding", path, value, line=live.line_of(module))


# --- positions


@probe("positions")
def positions(live: Live) -> None:
    """Encodings of position: identity of the sinusoid, whether they change their input, and along which axis."""
    done: set[type] = set()
    for path, module in live.user_modules().items():
        kind = type(module)
        if kind in done:
            continue
        tables = [(n, b) for n, b in [*module.named_buffers(recurse=False), *_plain(module)] if b.is_floating_point()]
        for name, table in tables:
            found = _sinusoid(table)
            if found is not None:
                done.add(kind)
                live.record("probe.sinusoid", f"{path}.{name}", found, line=live.line_of(kind))
        if re.search(r"pos", kind.__name__, re.I) and not any(True for m in module.children() if _is_big(m)):
            found = _added(live, module)
            if found is not None:
                done.add(kind)
                live.record("probe.positions", path, {**found, "class": kind.__name__}, line=live.line_of(kind))
        if re.search(r"pos|time|sinus", kind.__name__, re.I):
            _of_times(live, path, module)


def _is_big(module: nn.Module) -> bool:
    return any(isinstance(m, nn.MultiheadAttention | nn.LayerNorm | nn.Conv2d) for m in module.modules())


def _plain(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(n, v) for n, v in vars(module).items() if isinstance(v, torch.Tensor) and not n.startswith("_")]


def _of_times(live: Live, path: str, module: nn.Module) -> None:
    """A module that turns times into sinusoids, asked for times that are known."""
    for times in (torch.arange(64), torch.arange(64.0)):
        try:
            with torch.no_grad():
                out = live.call(module, times)
        except Exception:  # it takes other inputs
            continue
        if isinstance(out, torch.Tensor) and out.ndim == 2 and out.shape[0] == 64:
            found = _sinusoid(out)
            if found is not None:
                live.record("probe.sinusoid", path, {**found, "of_times": True}, line=live.line_of(type(module)))
        return


def _sinusoid(table: torch.Tensor) -> dict[str, Any] | None:
    """The squares of sine and cosine and the frequencies of a table of positions by channels; None for another table."""
    flat = table.detach().squeeze()
    if flat.ndim != 2 or flat.shape[0] < 8 or flat.shape[1] < 4 or float(flat.abs().max()) > 1.0001:
        return None
    if flat.shape[1] % 2:
        flat = flat[:, :-1]
    half = flat.shape[1] // 2
    pairs = {"interleaved": (flat[:, 0::2], flat[:, 1::2]), "halves": (flat[:, :half], flat[:, half:])}
    for order, (sine, cosine) in pairs.items():
        if float(sine[0].abs().max()) > 1e-4 or float((cosine[0] - 1).abs().max()) > 1e-4:
            sine, cosine = cosine, sine
        if float(sine[0].abs().max()) > 1e-4 or float((cosine[0] - 1).abs().max()) > 1e-4:
            continue
        error = float((sine.square() + cosine.square() - 1).abs().max())
        frequency = torch.atan2(sine[1], cosine[1]).double().abs()
        steps = frequency.clamp(min=1e-12).log().diff()
        return {
            "order": order, "identity_error": error, "channels": flat.shape[1], "first": float(frequency[0]),
            "last": float(frequency[-1]), "even": float((steps - steps.mean()).abs().max()) if half > 1 else 0.0,
            "longest": float(2 * torch.pi / frequency[-1].clamp(min=1e-12)),
        }  # fmt: skip
    return None


def _added(live: Live, module: nn.Module) -> dict[str, Any] | None:
    """What a module of positions adds to a constant input, and along which axes that varies."""
    given = live.inputs(module)
    if given is None or len(given[0]) < 1 or not isinstance(given[0][0], torch.Tensor):
        return None
    entry = given[0][0]
    if entry.ndim != 3 or not entry.is_floating_point() or min(entry.shape[:2]) < 2:
        return None
    constant = torch.randn(1, 1, entry.shape[2]).expand(entry.shape).contiguous()
    with live.frozen(module), torch.no_grad():
        module.eval()
        out = live.call(module, constant, *given[0][1:], **given[1])
    if not isinstance(out, torch.Tensor):
        return None
    if out.shape != entry.shape:
        return None
    difference = out - constant
    return {
        "changes": float(difference.abs().max()), "first_axis": float((out - out[:1]).abs().max()),
        "second_axis": float((out - out[:, :1]).abs().max()), "shape": list(entry.shape),
        "lines": sorted(_lines(live, module, given)),
    }  # fmt: skip


def _lines(live: Live, module: nn.Module, given: Any) -> set[int]:
    from bowerbird.reading.running.tracing import trace_call

    found = trace_call(live, "", module, given[0], given[1])
    return {op.line for op in found.ops if op.line is not None} if found is not None else set()


@probe("order")
def order_matters(live: Live) -> None:
    """Exchanges two early tokens: where the last output stays the same, the model knows no order."""
    for trace in traced(live):
        sequences = _tokens((trace.args, trace.kwargs))
        if len(sequences) != 1 or not any(
            o.name in ("softmax", "scaled_dot_product_attention", "multi_head_attention_forward") for o in trace.ops
        ):
            continue
        place, ids = sequences[0]
        if ids.shape[1] < 4:
            continue
        swapped = ids.clone()
        row = next((i for i in range(ids.shape[0]) if int(ids[i, 0]) != int(ids[i, 1])), None)
        if row is None:
            continue
        swapped[row, 0], swapped[row, 1] = ids[row, 1], ids[row, 0]
        args = list(trace.args)
        args[place] = swapped
        with live.frozen(trace.module):
            trace.module.eval()
            try:
                other = tensors(_run(live, trace.module, args, trace.kwargs))
            except Exception:  # it cannot be asked again
                continue
        first = _scores_of(trace.out, ids.shape)
        second = _scores_of(other, ids.shape)
        if first is not None and second is not None:
            a, b = first[row, -1], second[row, -1]
        else:
            flat = [
                (x, y)
                for x, y in zip(tensors(trace.out), other, strict=False)
                if x.ndim == 2 and x.shape[0] == ids.shape[0]
            ]
            if not flat:
                continue
            a, b = flat[0][0][row], flat[0][1][row]
        change = float((a - b).abs().max() / (a.abs().max() + 1e-9))
        live.record("probe.order", trace.name, {"change": change, "class": type(trace.module).__name__},
                    line=live.line_of(type(trace.module)))  # fmt: skip


@probe("tying")
def ties(live: Live) -> None:
    """Assignments ``self.a.weight = self.b.weight``: whether the two are one tensor in the end."""
    import ast

    from bowerbird.reading.program import dotted, targets_of
    from bowerbird.reading.running.formula import units

    for unit in units(live.files):
        for statement in unit.all(ast.Assign):
            left, right = dotted(targets_of(statement)[0]), dotted(statement.value)
            holder = unit.class_around(statement)
            if (
                not left
                or not right
                or holder is None
                or not all(n.startswith("self.") and n.endswith(".weight") for n in (left, right))
            ):
                continue
            for path, module in live.user_modules().items():
                if type(module).__name__ != holder.name:
                    continue
                pair = [_attribute(module, n) for n in (left, right)]
                if all(isinstance(t, torch.Tensor) for t in pair):
                    value = {
                        "left": left,
                        "right": right,
                        "one": pair[0] is pair[1] or pair[0].data_ptr() == pair[1].data_ptr(),
                    }
                    live.record("probe.tied", path, value, line=statement.lineno, file=unit.file)
                    break


def _attribute(thing: Any, name: str) -> Any:
    for word in name.split(".")[1:]:
        thing = getattr(thing, word, None)
    return thing


_CACHE = re.compile(r"cache|past|kv|mems?$", re.I)


@probe("cache")
def cached_decoding(live: Live) -> None:
    """The last position with a cache of what came before, against the whole sequence at once."""
    import inspect

    for name, module in live.roots.items():
        given = live.inputs(module)
        sequences = _tokens(given)
        forward = inspect.unwrap(type(module).forward)
        words = [p for p in inspect.signature(forward).parameters if _CACHE.search(p) and not re.search("use", p)]
        if given is None or len(sequences) != 1 or not words:
            continue
        ids = sequences[0][1][:2, :8]
        flags = {p: True for p in inspect.signature(forward).parameters if re.fullmatch("use_(kv_)?cache", p)}
        with live.frozen(module):
            module.eval()
            try:
                whole = _run(live, module, [ids], flags)
                head = _run(live, module, [ids[:, :-1]], flags)
                cache = head[-1]
                last = _run(live, module, [ids[:, -1:]], {**flags, words[0]: cache})
            except Exception:  # the cache is handed over in another way
                continue
        a, b = tensors(whole)[0][:, -1], tensors(last)[0][:, -1]
        if a.shape == b.shape:
            change = float((a - b).abs().max() / (a.abs().max() + 1e-9))
            live.record("probe.cache", name, {"change": change, "argument": words[0]}, line=live.line_of(type(module)))


@probe("targets")
def padded_targets(live: Live) -> None:
    """How much of the targets of a cross-entropy is padding that it does not ignore."""
    named = {n: v for n, v in live.namespace.items() if re.fullmatch(r"(?i)(tgt_|trg_)?pad(ding)?(_?(idx|id|token(_id)?|index))?", n)
             and isinstance(v, int) and not isinstance(v, bool)}  # fmt: skip
    if not named:
        return
    name, pad = next(iter(named.items()))
    for loss in live.losses:
        target = loss["target"]
        if loss["name"] not in ("cross_entropy", "nll_loss") or target.is_floating_point() or target.numel() < 8:
            continue
        value = {
            "pad": pad, "name": name, "share": float((target == pad).float().mean()),
            "ignored": loss["kwargs"].get("ignore_index", -100) == pad, "reduction": str(loss["kwargs"].get("reduction", "mean")),
            "weighted": loss["kwargs"].get("weight") is not None,
        }  # fmt: skip
        live.record("probe.padded_targets", loss["name"], value, line=loss["line"], file=loss["file"])
