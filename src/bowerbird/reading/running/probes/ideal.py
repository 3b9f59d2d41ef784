"""Samplers against the truth: the network is replaced by the best answer there is for data that are Gaussian.

Trained on ``x_t = a x + b e`` to answer ``p x + q e``, for x ~ N(m, s²) the best answer is the same mixture of

    E[x | x_t] = m + a s² (x_t - a m) / (a² s² + b²)        E[e | x_t] = (x_t - a E[x | x_t]) / b

so what a right sampler draws has mean m and deviation s, up to the error of its steps.
"""

import builtins
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running import rewrite
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.denoising import denoisers, place_of
from bowerbird.reading.running.probes.path import Followed
from bowerbird.reading.running.probes.samplers import arguments_for, loops
from bowerbird.reading.running.probes.subjects import tell

MEAN, DEVIATION = 0.2, 0.3
COUNT, LEAST_CALLS = 16, 18


@probe("ideal", late=True)
def ideal(live: Live) -> None:
    """Records ``property.sampler`` for the first sampler that runs on a path that training was seen to follow."""
    path, nets = live.cache.get("path"), denoisers(live)
    if path is None or not nets or min(abs(a) for a, *_ in path.rows) > 0.2:
        return  # where much signal is left at the end, no sampler starts where training ended
    for name, function, _ in loops(live):
        arguments = arguments_for(live, function, nets, count=COUNT)
        drawn = _drawn(live, path, list(nets.values()), function, arguments) if arguments is not None else None
        if drawn is None or any("guid" in word or "cfg" in word for word in arguments or ()):
            continue
        mean, deviation = float(drawn.mean()), float(drawn.std())
        spaces = [(MEAN, DEVIATION), ((MEAN - path.offset) / path.scale, DEVIATION / abs(path.scale))]
        holds = any(abs(mean - m) < 0.35 * s and 0.65 < deviation / s < 1.5 for m, s in spaces)
        said = (
            f"given the best answers for data with mean {spaces[-1][0]:.2g} and deviation {spaces[-1][1]:.2g}, it "
            f"draws with mean {mean:.2g} and deviation {deviation:.2g}"
        )
        file, line = place_of(function)
        tell(live, "sampler", name, holds, said, file, line)
        return


def _drawn(
    live: Live, path: Followed, nets: list[nn.Module], function: Callable[..., Any], arguments: dict[str, Any]
) -> torch.Tensor | None:
    """What a sampler draws with the best answers; None where it fails, or asks too seldom to be judged."""
    asked: list[float] = []

    def best(*args: Any, **kwargs: Any) -> torch.Tensor:
        x, *others = tensors((args, kwargs))
        numbers = [v for v in (*args, *kwargs.values()) if isinstance(v, int | float) and not isinstance(v, bool)]
        times = [t for t in others if t.ndim < 2]
        time = float(times[0].flatten()[0]) if times else float(numbers[0])
        asked.append(time)
        a, b, p, q = path.at(time)
        data = MEAN + a * DEVIATION**2 * (x - a * MEAN) / (a * a * DEVIATION**2 + b * b)
        return p * data + q * (x - a * data) / (b if abs(b) > 1e-3 else 1e-3)

    with live.frozen(*live.roots.values()), torch.no_grad(), _whole_loops():
        for net in nets:
            object.__setattr__(net, "forward", best)
        live.seed(11)
        try:
            out = tensors(live.call(function, **arguments))
        except Exception:  # it wants other arguments, or an answer of another shape
            return None
        finally:
            for net in nets:
                net.__dict__.pop("forward", None)
    known = [t for t in out if t.is_floating_point() and t.numel() >= 100 and bool(t.isfinite().all())]
    return known[-1].float() if known and len(set(asked)) >= LEAST_CALLS else None


@contextlib.contextmanager
def _whole_loops() -> Iterator[None]:
    """Inside, no loop of the program is cut short."""
    kept = {name: getattr(builtins, name) for name in (rewrite.FOR, rewrite.WHILE)}
    setattr(builtins, rewrite.FOR, lambda items, *_: items)
    setattr(builtins, rewrite.WHILE, lambda *_: lambda: True)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(builtins, name, value)
