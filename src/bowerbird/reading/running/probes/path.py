"""The path from data to noise that a network is trained on, and what it is asked for, whatever they are called.

In a call that trains, the draws are ours: the same noise N times e, the same time for all examples.  What the network
inside is given, and what its answer is compared with, are linear in data and noise where a path is followed:

    x_t = a(t) k x + b(t) e N + c        k: how the program scales its data
    variance preserving  a² + b² = 1     straight  a + b = 1     exploding  a = 1

and the target is the data, the noise, a N - b k x, or the velocity dx_t/dt, up to a factor.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.tracing import LARGEST

TIMES = (0.2, 0.5, 0.8)
STEP = 0.01
_NORMAL = frozenset("randn randn_like normal normal_".split())
_TIMES = frozenset("rand rand_like uniform_ randint randint_like".split())
_COMPARE = frozenset("mse_loss l1_loss smooth_l1_loss huber_loss sub __sub__ __rsub__".split())
Place = tuple[str, int | None]


@dataclass
class Seen:
    """``given`` is what the network was given, with the line that made it; ``target`` what its answer was compared
    with; ``drawn`` the line of a noise of the data's shape."""

    given: torch.Tensor | None = None
    made: Place = ("", None)
    target: torch.Tensor | None = None
    compared: Place = ("", None)
    drawn: Place = ("", None)
    whole: bool = False
    """Whether the time was drawn from real numbers."""


class Directed(TorchFunctionMode):
    """Gives normal draws ``noise`` times a fixed pattern, and draws of one number per example ``time`` of their
    range; watches for what a network that keeps the data's shape is given and compared with."""

    def __init__(self, live: Live, nets: list[nn.Module], shape: torch.Size, noise: float, time: float) -> None:
        super().__init__()
        self.live, self.shape, self.noise, self.time = live, shape, noise, time
        self.seen = Seen()
        self.answer: torch.Tensor | None = None
        self.places: dict[int, Place] = {}
        self.within = 0
        self.handles = [net.register_forward_pre_hook(self._before, with_kwargs=True) for net in nets]
        self.handles += [net.register_forward_hook(self._after) for net in nets]

    def __exit__(self, *details: Any) -> None:
        for handle in self.handles:
            handle.remove()
        super().__exit__(*details)

    def _before(self, net: nn.Module, args: Any, kwargs: Any) -> None:
        self.within += 1
        given = next(iter(tensors((args, kwargs))), None)
        if self.within == 1 and self.seen.given is None and given is not None and given.shape == self.shape:
            self.seen.given, self.seen.made = given.detach().clone(), self.places.get(id(given), ("", None))

    def _after(self, net: nn.Module, args: Any, out: Any) -> None:
        self.within -= 1
        found = next(iter(tensors(out)), None)
        if self.within == 0 and self.seen.given is not None and self.answer is None and found is not None:
            self.answer = found if found.shape == self.shape else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _COMPARE and self.answer is not None and self.seen.target is None:
            pair = [t for t in tensors((args, kwargs)) if t.shape == self.shape]
            if len(pair) == 2 and any(t is self.answer for t in pair):
                other = pair[0] if pair[1] is self.answer else pair[1]
                self.seen.target, self.seen.compared = other.detach().clone(), self.live.recorder.here()
        out = func(*args, **kwargs)
        if not isinstance(out, torch.Tensor) or self.within:
            return out
        with torch._C.DisableTorchFunction():
            out = self._drawn(name, out)
            if out.shape == self.shape:
                self.places[id(out)] = self.live.recorder.here()
        return out

    def _drawn(self, name: str, out: torch.Tensor) -> torch.Tensor:
        if name in _NORMAL and out.is_floating_point() and out.shape == self.shape:
            self.seen.drawn = self.live.recorder.here()
            return pattern(out.shape, 1).to(out) * self.noise
        if name in _TIMES and out.numel() in (1, self.shape[0]):
            self.seen.whole = out.is_floating_point()
            low, high = (0.0, 1.0) if out.is_floating_point() else (0.0, float(max(int(out.max()), 1)))
            high = self.live.cache.setdefault("times", {}).setdefault(name, high)
            return torch.full_like(out, low + self.time * (high - low))
        return out


def pattern(shape: torch.Size, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclass
class Line:
    """Of each time: the factors of data and noise."""

    a: list[float] = field(default_factory=list)
    b: list[float] = field(default_factory=list)


@probe("path")
def path(live: Live) -> None:
    """Records ``property.path`` and ``property.target`` for every root module that noises what it is given."""
    for name, root in live.roots.items():
        given = live.inputs(root)
        x = next(iter(tensors(given)), None) if given is not None else None
        if given is None or x is None or not x.is_floating_point() or x.ndim < 2 or x.shape[0] < 2:
            continue
        if live.line_of(type(root)) is None or sum(p.numel() for p in root.parameters()) > LARGEST:
            continue
        run = cache(partial(_run, live, root, given))
        with live.frozen(root):
            root.train()
            _examined(live, name, run)


def _run(live: Live, root: nn.Module, given: Any, data: float, noise: float, time: float) -> Seen:
    x = next(iter(tensors(given)))
    changed = data * pattern(x.shape, 2).abs().clamp(max=1)
    args = tuple(changed if a is x else a for a in given[0])
    kwargs = {key: changed if value is x else value for key, value in given[1].items()}
    nets = [m for m in root.modules() if m is not root]
    live.seed(0)
    with Directed(live, nets, x.shape, noise, time) as watch:
        live.call(root, *args, **kwargs)
    return watch.seen


def _examined(live: Live, name: str, run: Callable[[float, float, float], Seen]) -> None:
    given, target, velocity = Line(), Line(), Line()
    seen = run(1.0, 1.0, TIMES[-1])
    if seen.drawn[1] is None or seen.given is None:
        return
    for time in TIMES:
        for line, what in ((given, "given"), (target, "target"), (velocity, "velocity")):
            factors = _factors(run, what, time)
            if factors is None and what == "given":
                return
            if factors is not None:
                line.a.append(factors[0])
                line.b.append(factors[1])
    if max(map(abs, given.a)) < 1e-6:
        return
    noised = max(map(abs, given.b)) > 1e-6
    if noised or max(map(abs, target.b), default=0.0) > 1e-3:
        _told_path(live, name, given, seen)
    if len(target.a) == len(TIMES) and noised:
        _told_target(live, name, given, target, velocity if len(velocity.a) == len(TIMES) else None, seen)


def _factors(run: Callable[[float, float, float], Seen], what: str, time: float) -> tuple[float, float] | None:
    """The factors of data and noise; None where what is seen is no linear mixture of them."""

    def value(data: float, noise: float) -> torch.Tensor | None:
        seen = run(data, noise, time)
        if what != "velocity":
            return seen.given if what == "given" else seen.target
        later = run(data, noise, time + STEP)
        return (later.given - seen.given) / STEP if seen.whole and later.given is not None else None  # type: ignore[operator]

    zero, of_data, of_noise = value(0.0, 0.0), value(1.0, 0.0), value(0.0, 1.0)
    if zero is None or of_data is None or of_noise is None or zero.shape != of_data.shape:
        return None
    found = []
    patterns = pattern(zero.shape, 2).abs().clamp(max=1), pattern(zero.shape, 1)
    for moved, direction in zip((of_data - zero, of_noise - zero), patterns, strict=True):
        factor = float((moved * direction).sum() / direction.square().sum())
        if not math.isfinite(factor) or float((moved - factor * direction).abs().max()) > 1e-3 * (abs(factor) + 1e-3):
            return None
        found.append(factor)
    return found[0], found[1]


def _constant(values: list[float]) -> bool:
    return all(map(math.isfinite, values)) and max(values) - min(values) <= 0.02 * max(map(abs, values)) + 1e-6


def _scale(given: Line) -> tuple[str, float] | None:
    """The kind of a path and the scale of its data; None where it is of no kind that is known."""
    rows = list(zip(given.a, given.b, strict=True))
    kinds = {
        "variance preserving": [a / math.sqrt(1 - b * b) if b * b < 1 else math.nan for a, b in rows],
        "straight": [a / (1 - abs(b)) if abs(b) < 1 else math.nan for a, b in rows],
        "exploding": [a for a, _ in rows],
    }
    return next(((kind, k[0]) for kind, k in kinds.items() if _constant(k) and abs(k[0]) > 1e-6), None)


def _told_path(live: Live, name: str, given: Line, seen: Seen) -> None:
    told = "; ".join(f"{a:.3g} x + {b:.3g} noise" for a, b in zip(given.a, given.b, strict=True))
    missing = max(map(abs, given.b)) < 1e-6
    kind = None if missing else _scale(given)
    said = f"the path is {kind[0]} ({told})" if kind else f"data and noise are mixed as {told}, which is no path"
    if missing:
        said = f"the noise that line {seen.drawn[1]} draws is in the target and does not reach the network"
    value = {"holds": kind is not None, "said": said, "a": given.a, "b": given.b, "missing": missing}
    live.record("property.path", name, value, line=seen.made[1], file=seen.made[0] or None)


def _told_target(live: Live, name: str, given: Line, target: Line, velocity: Line | None, seen: Seen) -> None:
    kind = _scale(given)
    if kind is None:
        return
    k = kind[1]
    known = {
        "the noise": [(0.0, 1.0)] * len(TIMES), "the data": [(k, 0.0)] * len(TIMES),
        "v": [(-b * k, a / k) for a, b in zip(given.a, given.b, strict=True)],
        "the difference of data and noise": [(-k, 1.0)] * len(TIMES),
    }  # fmt: skip
    if velocity is not None:
        known["the velocity"] = list(zip(velocity.a, velocity.b, strict=True))
    rows = list(zip(target.a, target.b, strict=True))
    found = next((what for what, wanted in known.items() if _proportional(rows, wanted)), "")
    told = "; ".join(f"{a:.3g} x + {b:.3g} noise" for a, b in rows)
    said = f"the target is {found or f'{told}: neither data, noise, v nor velocity of the path'}"
    value = {"holds": bool(found), "said": said}
    live.record("property.target", name, value, line=seen.compared[1], file=seen.compared[0] or None)


def _proportional(rows: list[tuple[float, float]], wanted: list[tuple[float, float]]) -> bool:
    """Whether all pairs are the wanted ones times a factor that may depend on the time (a weight of the loss)."""
    return all(
        abs(a * d - b * c) <= 0.02 * math.hypot(a, b) * math.hypot(c, d) and math.hypot(a, b) > 1e-6
        for (a, b), (c, d) in itertools.zip_longest(rows, wanted, fillvalue=(0.0, 0.0))
    )
