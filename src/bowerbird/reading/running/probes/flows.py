"""Changes of variables: whether a log-determinant is that of the Jacobian, and whether an inverse undoes the map.

z, s = f(x)    s = log |det ∂z/∂x|, by automatic differentiation of each example
z, q = f(x, p)   q = p - log |det ∂z/∂x| is right, too: a log-density that is carried along
g(f(x)) = x    for a method, or a flag of the same method, that says it goes back
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import torch

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.subjects import Subject, answer, subjects, tell, trace

WIDEST = 64
_BACK = re.compile(r"^(inverse|reverse|invert|inv|backwards?|_?inverse_\w+|reverse_\w+|un\w+|de\w+|from_\w+)$", re.I)
_FLAG = re.compile(r"^(reverse|inverse|rev|inv|invert|reversed)$", re.I)


@probe("jacobian", late=True)
def jacobian(live: Live) -> None:
    """Records ``property.jacobian`` for each subject that answers with its input's size and a number per example."""
    for subject in subjects(live):
        main = next(((n, t) for n, t in subject.tensors.items() if t.is_floating_point() and t.ndim > 1), None)
        if main is None or not 1 < main[1][0].numel() <= WIDEST or main[1].shape[0] < 2:
            continue
        rows = [row for shaken in (0.05, 0.1) for row in _pairs(live, subject, *main, shaken)]
        said = _compared(rows, _carries(live, subject, main[1].shape[0])) if len(rows) >= 4 else None
        if said is not None:
            seen = trace(live, subject)
            made = [op for op in seen[1] if seen[0][1] is op.out and op.line is not None] if seen else []
            place = (made[0].file, made[0].line) if made else (subject.file, subject.line)
            tell(live, "jacobian", subject.name, not said, said or "it is that of the Jacobian", *place)


def _carries(live: Live, subject: Subject, batch: int) -> bool:
    """Whether the number of each example is one that was given, changed: with the given one it grows by as much."""
    given = {n: t for n, t in subject.tensors.items() if t.is_floating_point() and t.numel() == batch}
    before = answer(live, subject) if given else None
    for name, numbers in given.items():
        after = answer(live, subject, {name: numbers + 1.0})
        if (
            before
            and after
            and len(before) == len(after) == 2
            and bool(((after[1] - before[1]) - 1).abs().max() < 1e-3)
        ):
            return True
    return False


def _pairs(live: Live, subject: Subject, name: str, x: torch.Tensor, shaken: float) -> Iterator[tuple[float, float]]:
    """The number that was answered for each of two examples, and the log-determinant of their Jacobians."""
    out = answer(live, subject, shaken=shaken)
    size, batch = x[0].numel(), x.shape[0]
    if not out or len(out) != 2 or out[0].numel() != x.numel() or out[1].numel() != batch:
        return
    if not out[1].is_floating_point() or out[0].shape[0] != batch:
        return
    for row in range(2):
        columns = []
        for start in range(0, size, batch):  # as many directions at once as there are examples
            step = torch.zeros(batch, size, dtype=x.dtype)
            some = range(start, min(start + batch, size))
            for place, direction in enumerate(some):
                step[place, direction] = 1e-3
            base = x[row : row + 1].expand(x.shape)
            ends = [answer(live, subject, {name: base + s * step.view(x.shape)}, shaken=shaken) for s in (1, -1)]
            if not ends[0] or not ends[1]:
                return
            columns += list((ends[0][0] - ends[1][0]).reshape(batch, size)[: len(some)] / 2e-3)
        yield float(out[1].flatten()[row]), float(torch.linalg.slogdet(torch.stack(columns).double()).logabsdet)


def _compared(rows: list[tuple[float, float]], carried: bool) -> str | None:
    """What is wrong with the numbers; empty where they are right, None where they are nothing of the kind.  A density
    that is ``carried`` through changes by what the Jacobian gives, with the other sign."""
    told, true = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    if not bool(true.isfinite().all()) or float(true.std()) < 1e-3:
        return None
    for sign in (1, -1) if carried else (1,):
        if float((told - sign * true).abs().max()) < 0.02 * (1 + float(true.abs().max())):
            return ""
    factor = float((told * true).sum() / true.square().sum())
    if float((told - factor * true).abs().max()) < 0.02 * (abs(factor) * float(true.abs().max())) and factor:
        return f"it is {factor:.3g} times the log-determinant of the Jacobian ({told[0]:.4g} for {true[0]:.4g})"
    offset = told - true
    if float(offset.std()) < 0.02 * float(true.std()):
        return f"it differs from the log-determinant of the Jacobian by {float(offset.mean()):.4g} throughout"
    return None


@probe("inverses", late=True)
def inverses(live: Live) -> None:
    """Records ``property.inverse`` for each module with a method or a flag that goes back."""
    for subject in subjects(live):
        x = next((t for t in subject.tensors.values() if t.is_floating_point() and t.ndim > 1), None)
        if subject.module is None or x is None:
            continue
        out = answer(live, subject, shaken=0.05)
        if not out or out[0].shape != x.shape or not bool(out[0].isfinite().all()):
            continue
        for name, back in _ways_back(live, subject, x, out[0]):
            error = float((back - x).abs().max() / (x.abs().max() + 1e-9))
            alike = float(torch.corrcoef(torch.stack([back.flatten(), x.flatten()]))[0, 1])
            if math.isfinite(error) and (error < 1e-2 or alike > 0.5):
                said = f"{name} misses what it should restore by {error:.2g} of its size"
                file, line = (
                    live.place_of(getattr(subject.module, name)) if hasattr(subject.module, name) else ("", None)
                )
                tell(live, "inverse", f"{subject.name}.{name}", error < 1e-2, said, file or subject.file,
                     line or subject.line)  # fmt: skip


def _ways_back(live: Live, subject: Subject, x: torch.Tensor, z: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    first = next(name for name, value in subject.given.items() if value is x)
    flags = [n for n in subject.body.co_varnames[: subject.body.co_argcount] if _FLAG.match(n)]
    methods = [n for n, f in vars(type(subject.module)).items() if _BACK.match(n) and callable(f)]
    given: dict[str, Any] = {**subject.given, first: z}
    calls = [(flag, lambda g, f=flag: subject.call({**g, f: not g.get(f, False)})) for flag in flags]
    calls += [(n, lambda g, n=n: getattr(subject.module, n)(*g.values())) for n in methods]
    for name, call in calls:
        other = Subject(name, subject.file, subject.line, given, call, subject.body, subject.module, subject.around)
        found = tensors(answer(live, other, shaken=0.05))
        if found and found[0].shape == x.shape:
            yield name, found[0]
