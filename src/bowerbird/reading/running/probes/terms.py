"""How the terms of a loss grow with the batch: the same examples are given once, twice and three times.

A mean stays, a sum grows with the number.  A loss ``a + b n`` with both has a term that is averaged over the batch and
one that is summed over it, so that their balance depends on the batch size; one that falls was divided twice.
"""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.subjects import Given, Subject, answer, subjects, tell, trace

_DRAWS = frozenset("randn rand randn_like rand_like normal normal_ uniform_".split())
_COUNTS = frozenset("randint randint_like randperm".split())
LEAST = 0.02
"""The smallest share of a term that is told."""


class Repeated(TorchFunctionMode):
    """Example i of a draw is the same as example i + size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.drawn = size, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if not isinstance(out, torch.Tensor) or not out.ndim or out.shape[0] % self.size:
            return out
        if name in _COUNTS:
            whole = [a for a in args if isinstance(a, int)]
            return torch.full_like(out, max(whole[-1] // 2, 0)) if whole else out
        if name in _DRAWS and out.is_floating_point():
            self.drawn += 1
            make = torch.rand if ("rand" in name and "randn" not in name) or name == "uniform_" else torch.randn
            generator = torch.Generator().manual_seed(self.drawn)
            one = make((self.size, *out.shape[1:]), generator=generator).to(out)
            return out.copy_(one.repeat(out.shape[0] // self.size, *[1] * (out.ndim - 1)))
        return out


_REDUCTIONS = frozenset("mean sum prod amax amin logsumexp std var norm softmax log_softmax cumsum".split())


@probe("terms", late=True)
def terms(live: Live) -> None:
    """Records ``property.terms`` for each subject that answers with single numbers, and ``property.axis`` where one is
    reduced along an axis that is gone."""
    for subject in subjects(live):
        seen = trace(live, subject) if subject.module is None else None
        for op in seen[1] if seen is not None else ():
            first, along = next(iter(op.operands()), None), op.argument(1, "dim")
            if op.name in _REDUCTIONS and isinstance(along, int) and first is not None and not first.ndim:
                said = f"{op.name} along dim {along} reduces a single number"
                tell(live, "axis", subject.name, False, said, op.file, op.line, function=op.name, along=along)
        size = subject.batch()
        if size is None or size < 2:
            continue
        values = [_numbers(live, subject, size, times) for times in (1, 2, 3)]
        if not values[0] or len({len(v) for v in values}) > 1:
            continue
        verdicts = [found for row in zip(*values, strict=True) if (found := _grown(*row)) is not None]
        wrong = next((said for said in verdicts if said), "")
        if verdicts:
            said = wrong or "all terms are reduced over the batch alike"
            file, line = (_summed(live, subject, size) if wrong else None) or (subject.file, subject.line)
            tell(live, "terms", subject.name, not wrong, said, file, line)


def _summed(live: Live, subject: Subject, size: int) -> tuple[str, int | None] | None:
    """Where a single number first grows with the examples."""
    runs = []
    for times in (1, 2):
        with Repeated(size):
            runs.append(trace(live, subject, _again(subject, size, times)))
    for one, two in zip(runs[0][1], runs[1][1], strict=False) if runs[0] and runs[1] else ():
        if one.name == two.name and one.line is not None and _single(one.out) and _single(two.out):
            if abs(float(one.out)) > 1e-9 and abs(float(two.out) / float(one.out) - 2) < 1e-3:
                return one.file, one.line
    return None


def _single(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() == 1 and value.is_floating_point()


def _again(subject: Subject, size: int, times: int) -> Given:
    """The arguments with every example so many times."""
    changed: Given = {
        name: value.repeat(times, *[1] * (value.ndim - 1))
        for name, value in subject.tensors.items() if value.ndim and value.shape[0] == size
    }  # fmt: skip
    return changed | {n: v * times for n, v in subject.given.items() if type(v) is int and v == size and "batch" in n}


def _numbers(live: Live, subject: Subject, size: int, times: int) -> list[float]:
    with Repeated(size):
        out = answer(live, subject, _again(subject, size, times))
    numbers = [t for t in out or () if _single(t)]
    return [float(t) for t in numbers if bool(t.isfinite().all())] if len(numbers) == len(out or ()) else []


def _grown(one: float, two: float, three: float) -> str | None:
    """What is wrong with how a number grows; empty where it is a mean or a sum, None where it is neither."""
    scale = max(abs(one), abs(two), abs(three))
    if scale < 1e-6 or abs((three - two) - (two - one)) > 1e-3 * scale:
        halved = scale > 1e-6 and abs(two - one / 2) < 1e-3 * abs(one) and abs(three - one / 3) < 1e-3 * abs(one)
        return f"the same examples given twice halve it ({one:.4g} → {two:.4g})" if halved else None
    summed = two - one
    averaged = one - summed
    if min(abs(summed), abs(averaged)) < LEAST * scale:
        return ""
    return (
        f"of {one:.4g}, {averaged:.4g} is averaged over the batch and {summed:.4g} is summed over it: the same "
        f"examples given twice make {two:.4g}"
    )
