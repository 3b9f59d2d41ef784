"""Whether the examples of a batch are independent: one of them is changed, and the answers to the others must stay.

The batch is the first axis of pictures; of sequences and vectors it may be the first or the second.  A network couples
examples on purpose where it compares them (a mean, a deviation, a product); what is told are operations that nobody
means to reach across a batch: a softmax, a cumulative sum, a sort, a reshape that gives numbers other owners.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.tracing import LARGEST, Op, trace_call

MOST_MODULES = 24
COUPLING = frozenset(
    "softmax log_softmax softmin gumbel_softmax cumsum cumprod logcumsumexp sort argsort topk view reshape flatten "
    "unflatten normalize flip roll".split()
)


@probe("independence")
def independence(live: Live) -> None:
    """Records ``property.independence`` for each of the user's modules that was given a batch."""
    coupled: list[str] = []
    modules = list(live.user_modules().items())[:MOST_MODULES]
    for path, module in sorted(modules, key=lambda entry: -entry[0].count(".")):
        found = _examined(live, path, module)
        if found is None or any(inner.startswith(f"{path}.") for inner in coupled):
            continue  # what is inside it is told there
        op = found if isinstance(found, Op) else None
        if op is not None and op.name not in COUPLING:
            continue
        said = "changing one example changes no other's answer"
        if op is not None:
            coupled.append(path)
            said = f"changing one example changes the others' answers, from `{op.name}` at line {op.line} on"
        value = {"holds": op is None, "said": said, "function": op.name if op else None}
        line = live.line_of(type(module)) if op is None else _axis_given(live, module, op) or op.line
        live.record("property.independence", path, value, line=line, file=op.file if op else None)


def _axis_given(live: Live, module: nn.Module, op: Op) -> int | None:
    """Where an operation that is a layer was given its axis: where the layer was made."""
    layers = [m for m in module.modules() if type(m).__name__.lower() == op.name.replace("_", "")]
    return live.line_of(layers[0]) if layers else None


def _examined(live: Live, path: str, module: nn.Module) -> Op | bool | None:
    """The operation that couples examples; True where none does, None where that cannot be asked."""
    given = live.inputs(module)
    if given is None or not given[0] or not isinstance(given[0][0], torch.Tensor):
        return None
    x = given[0][0]
    if sum(p.numel() for p in module.parameters()) > LARGEST or x.ndim < 2:
        return None
    results = [_along(live, path, module, given, axis) for axis in _axes(x)]
    if True in results:
        return True
    return next((found for found in results if found is not None), None)


def _axes(x: torch.Tensor) -> list[int]:
    """The axes that may be the batch's."""
    sequences = x.ndim == 3 or (x.ndim == 2 and not x.is_floating_point())
    return [axis for axis in ((0, 1) if sequences else (0,)) if 2 <= x.shape[axis] <= 4096]


def _along(live: Live, path: str, module: nn.Module, given: Any, axis: int) -> Op | bool | None:
    args, kwargs = given
    size = args[0].shape[axis]
    one = trace_call(live, path, module, args, kwargs)
    other = trace_call(live, path, module, (_changed(args[0], axis), *args[1:]), kwargs)
    if one is None or other is None or [o.name for o in one.ops] != [o.name for o in other.ops]:
        return None
    outs = list(zip(tensors(one.out), tensors(other.out), strict=False))
    told = [pair for pair in outs if pair[0].ndim and pair[0].shape == pair[1].shape and _divided(pair[0], size)]
    if not told or len(told) < len(outs) or not any(_moved(a, b).any() for a, b in told):
        return None
    if all(_own(a, b, size) for a, b in told):
        return True
    return next(_couplings(one.ops, other.ops, size), None)


def _couplings(before: list[Op], after: list[Op], size: int) -> Iterator[Op]:
    """The operations that are given examples apart and give them mixed."""
    for one, other in zip(before, after, strict=True):
        pairs = list(zip(one.operands(), other.operands(), strict=False))
        outs = list(zip(tensors(one.out), tensors(other.out), strict=False))
        if any(a.shape != b.shape for a, b in (*pairs, *outs)):
            return
        if all(_own(a, b, size) for a, b in pairs) and not all(_own(a, b, size) for a, b in outs):
            yield one


def _changed(x: torch.Tensor, axis: int) -> torch.Tensor:
    """The same batch with another first example."""
    x = x.clone()
    first = x.select(axis, 0)
    if x.is_floating_point():
        first.copy_(first.flip(-1) * 0.5 + 0.3)
    else:
        first.copy_(x.select(axis, 1) if bool((x.select(axis, 1) != first).any()) else first.roll(1, -1))
    return x


def _moved(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.is_floating_point():
        return (a - b).abs() > 1e-5 * (float(a.detach().abs().nan_to_num(0, 0, 0).max()) + 1e-9)
    return a != b


def _divided(tensor: torch.Tensor, size: int) -> bool:
    """Whether an axis may be that of the batch, alone or merged with another."""
    return any(n % size == 0 for n in tensor.shape)


def _own(a: torch.Tensor, b: torch.Tensor, size: int) -> bool:
    """Whether what moved belongs to the first example along some axis: its rows, or its share of a merged axis."""
    moved = _moved(a, b)
    if not bool(moved.any()):
        return True
    for axis, n in enumerate(a.shape):
        if n % size:
            continue
        rows = moved.movedim(axis, 0).reshape(n, -1).any(1)
        if not bool(rows[n // size :].any()) or not bool(rows.view(-1, size)[:, 1:].any()):
            return True
    return False
