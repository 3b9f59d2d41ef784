"""Whether the examples of a batch are independent: one of them is changed, and the answers to the others must stay.

The batch is the first axis of pictures; of sequences and vectors it may be the first or the second.  A network couples
examples on purpose where it compares them (a mean, a deviation, a product); what is told are operations that nobody
means to reach across a batch: a softmax, a cumulative sum, a sort, a reshape that gives numbers other owners.
"""

from collections.abc import Iterator

import torch

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.subjects import Subject, exchanged, moved, subjects, tell, trace
from bowerbird.reading.running.tracing import Op

COUPLING = frozenset(
    "softmax log_softmax softmin gumbel_softmax cumsum cumprod logcumsumexp sort argsort topk view reshape flatten "
    "unflatten normalize flip roll".split()
)
REDUCING = frozenset("mean sum var std max min amax amin norm prod logsumexp".split())
"""Reductions that were given no axis, so that they reach over the batch, too."""


@probe("independence")
def independence(live: Live) -> None:
    """Records ``property.independence`` for each module and function that was given a batch."""
    coupled: list[str] = []
    lines: set[int | None] = set()
    inner_first = sorted(subjects(live), key=lambda s: (s.module is None, -s.name.count(".")))
    for subject in inner_first:
        found = _examined(live, subject)
        if found is None or any(inner.startswith(f"{subject.name}.") for inner in coupled):
            continue  # what is inside it is told there
        op = found if isinstance(found, Op) else None
        if op is not None and not _unmeant(op):
            continue
        if op is not None and op.line in lines:
            continue
        said = "changing one example changes the output of no other"
        if op is not None:
            coupled.append(subject.name)
            lines.add(op.line)
            said = f"changing one example changes the outputs of others, from `{op.name}` at line {op.line} on"
        line = subject.line if op is None else _axis_given(live, subject, op) or op.line
        tell(live, "independence", subject.name, op is None, said, (op.file if op else "") or subject.file, line,
             mixes=op is not None and op.name in COUPLING, module=subject.module is not None)  # fmt: skip


def _unmeant(op: Op) -> bool:
    return op.name in COUPLING or (op.name in REDUCING and op.argument(1, "dim") is None and "axis" not in op.kwargs)


def _axis_given(live: Live, subject: Subject, op: Op) -> int | None:
    """Where an operation that is a layer was given its axis: where the layer was made."""
    inside = subject.module.modules() if subject.module is not None else ()
    layers = [m for m in inside if type(m).__name__.lower() == op.name.replace("_", "")]
    return live.line_of(layers[0]) if layers else None


def _examined(live: Live, subject: Subject) -> Op | bool | None:
    """The operation that couples examples; True where none does, None where that cannot be asked."""
    first = next(iter(subject.tensors.items()), None)
    if first is None or first[1].ndim < 2 or (subject.module is None and subject.batch() is None):
        return None
    results = [_along(live, subject, *first, axis) for axis in _axes(first[1], subject.module is None)]
    if True in results:
        return True
    return next((found for found in results if found is not None), None)


def _axes(x: torch.Tensor, plain: bool) -> list[int]:
    """The axes that may be the batch's."""
    sequences = not plain and (x.ndim == 3 or (x.ndim == 2 and not x.is_floating_point()))
    return [axis for axis in ((0, 1) if sequences else (0,)) if 2 <= x.shape[axis] <= 4096]


def _along(live: Live, subject: Subject, name: str, x: torch.Tensor, axis: int) -> Op | bool | None:
    size, other = x.shape[axis], exchanged(x, axis)
    one, two = (trace(live, subject, {name: value}) if value is not None else None for value in (x, other))
    if one is None or two is None or [o.name for o in one[1]] != [o.name for o in two[1]]:
        return None
    outs = list(zip(one[0], two[0], strict=False))
    told = [pair for pair in outs if pair[0].ndim and pair[0].shape == pair[1].shape and _divided(pair[0], size)]
    if not told or len(told) < len(outs) or not any(moved(a, b).any() for a, b in told):
        return None
    if all(_own(a, b, size) for a, b in told):
        return True
    return next(_couplings(one[1], two[1], size), None)


def _couplings(before: list[Op], after: list[Op], size: int) -> Iterator[Op]:
    """The operations that are given examples apart and give them mixed."""
    for one, other in zip(before, after, strict=True):
        pairs = list(zip(one.operands(), other.operands(), strict=False))
        outs = list(zip(tensors(one.out), tensors(other.out), strict=False))
        if any(a.shape != b.shape for a, b in (*pairs, *outs)):
            return
        if all(_own(a, b, size) for a, b in pairs) and not all(_own(a, b, size) for a, b in outs):
            yield one


def _divided(tensor: torch.Tensor, size: int) -> bool:
    """Whether an axis may be that of the batch, alone or merged with another."""
    return any(n % size == 0 for n in tensor.shape)


def _own(a: torch.Tensor, b: torch.Tensor, size: int) -> bool:
    """Whether what moved belongs to the first example along some axis: its rows, or its share of a merged axis."""
    differs = moved(a, b)
    if not bool(differs.any()):
        return True
    for axis, n in enumerate(a.shape):
        if n % size:
            continue
        rows = differs.movedim(axis, 0).reshape(n, -1).any(1)
        if not bool(rows[n // size :].any()) or not bool(rows.view(-1, size)[:, 1:].any()):
            return True
    return False
