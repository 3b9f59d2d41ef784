"""Probes of the forward process: what multiplies data and noise, whether the inverses undo it, what is predicted."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.denoising import Watch, bound_callables, denoisers, place_of
from bowerbird.reading.running.probes.diffusion import bars

_NOISING = re.compile(
    r"^(q_sample|noise_images?|add_noise|forward_diffusion(_sample)?|diffuse|q_xt|noise_image|noising|perturb(_input)?|forward_process|forward_noise|get_noisy_image)$"
)


class FixedNoise(TorchFunctionMode):
    """Every normal draw is one number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ("randn", "randn_like", "normal", "normal_") and isinstance(
            out, torch.Tensor
        ):
            return torch.full_like(out, self.value)
        return out


@probe("diffusion_forward", cheap=True)
def forward_process(live: Live) -> None:
    """What multiplies the data and the noise when they are mixed, and whether the inverses undo it."""
    bar = bars(live)
    for name, function, owner in bound_callables(live, _NOISING):
        words = [
            p.name
            for p in inspect.signature(function).parameters.values()
            if p.default is inspect.Parameter.empty or re.search("noise|eps", p.name)
        ]
        steps = len(bar) if bar is not None else 20
        step = max(1, min(steps // 3, steps - 1))
        results = {}
        try:
            for data, noise in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
                results[data, noise] = _mixed(live, function, words, data, noise, step)
        except Exception:  # it takes other arguments
            continue
        zero, of_data, of_noise = results[0.0, 0.0], results[1.0, 0.0], results[0.0, 1.0]
        a, s = float((of_data - zero).mean()), float((of_noise - zero).mean())
        spread = float((of_data - zero).std() + (of_noise - zero).std())
        if not spread <= 1e-4 or not abs(s) >= 1e-9 or not abs(a) < 1e6:
            continue
        file, line = place_of(function)
        known = float(bar[step]) if bar is not None and step < len(bar) else None
        value = {"signal": a, "noise": s, "sum_of_squares": a * a + s * s, "t": step, "bar": known}
        live.record("probe.noising", name, value, line=line, file=file)
        if abs(a * a + s * s - 1) < 1e-3:
            _inverses(live, owner, a, s, step)


def _mixed(
    live: Live, function: Callable[..., Any], words: list[str], data: float, noise: float, step: int
) -> torch.Tensor:
    arguments: dict[str, Any] = {}
    for place, word in enumerate(words):
        if place == 0:
            arguments[word] = torch.full((2, 1, 4, 4), data)
        elif re.fullmatch(r"t|ts|time_?steps?|time|step|steps|noise_level", word):
            arguments[word] = torch.full((2,), step)
        elif re.search("noise|eps", word):
            arguments[word] = torch.full((2, 1, 4, 4), noise)
        else:
            raise ValueError(word)
    with FixedNoise(noise), torch.no_grad():
        out = live.call(function, **arguments)
    return next(t for t in tensors(out) if t.shape == (2, 1, 4, 4)).double()


_INVERSES = {
    "x0 from noise": re.compile(
        r"^predict_(x_?start|start|x_?0|xstart)_from_(noise|eps)|^(get_)?x_?0_from_(noise|eps)$"
    ),
    "noise from x0": re.compile(r"^predict_(noise|eps)_from_(x_?start|start|x_?0|xstart)"),
    "x0 from v": re.compile(r"^predict_(x_?start|start|x_?0)_from_v$"),
    "v": re.compile(r"^predict_v$|^get_v(elocity)?$"),
}


def _inverses(live: Live, owner: Any, a: float, s: float, step: int) -> None:
    generator = torch.Generator().manual_seed(3)
    x0, noise = (torch.randn(2, 1, 4, 4, generator=generator) * 0.5 for _ in range(2))
    mixed, velocity = a * x0 + s * noise, a * noise - s * x0
    time = torch.full((2,), step)
    calls = {
        "x0 from noise": ((mixed, time, noise), x0),
        "noise from x0": ((mixed, time, x0), noise),
        "x0 from v": ((mixed, time, velocity), x0),
        "v": ((x0, time, noise), velocity),
    }
    errors: dict[str, tuple[float, Any]] = {}
    for what, pattern in _INVERSES.items():
        for name, function, other in bound_callables(live, pattern):
            if owner is not None and other is not None and type(other) is not type(owner):
                continue
            try:
                with torch.no_grad():
                    out = live.call(function, *calls[what][0])
            except Exception:  # its arguments are in another order
                continue
            if isinstance(out, torch.Tensor) and out.shape == x0.shape:
                errors[name] = (float((out - calls[what][1]).abs().max()), function)
    live.cache["velocity_is_standard"] = next((e[0] < 1e-3 for n, e in errors.items() if n.endswith("_v")), None)
    for name, (error, function) in errors.items():
        file, line = place_of(function)
        live.record("probe.inverse", name, {"error": error, "t": step}, line=line, file=file)


@probe("diffusion_target")
def target_of_training(live: Live) -> None:
    """What the network is asked to predict, and the range of the data, from one training call of the whole process."""
    nets = denoisers(live)
    for name, root in live.roots.items():
        inside = [m for m in root.modules() if any(m is n for n in nets.values()) and m is not root]
        given = live.inputs(root)
        if not inside or given is None:
            continue
        with live.frozen(root), torch.no_grad():
            root.train()
            watch = Watch(live, inside, scale=1.0)
            with watch:
                try:
                    live.call(root, *given[0], **given[1])
                except Exception:  # it wants other arguments now
                    continue
        steps = [e for e in watch.events if e.what == "net"]
        losses = [e for e in watch.events if e.what == "loss"]
        if not steps or not losses:
            continue
        mixed, target, time = steps[-1].value, losses[-1].value, steps[-1].time
        draws = [e.value for e in watch.events if e.what == "draw" and e.value.shape == mixed.shape]
        if target.shape != mixed.shape or not draws or not bool((mixed + target).isfinite().all()):
            continue
        _identify_target(live, name, mixed, target, draws[0], time, losses[-1].line, losses[-1].file)


def _identify_target(
    live: Live,
    name: str,
    mixed: torch.Tensor,
    target: torch.Tensor,
    noise: torch.Tensor,
    time: Any,
    line: int | None,
    file: str,
) -> None:
    columns = torch.stack([noise[0].flatten(), mixed[0].flatten()], 1).double()
    solution = torch.linalg.lstsq(columns, target[0].flatten().double()[:, None])
    fitted = (columns @ solution.solution).flatten()
    residual = float((fitted - target[0].flatten().double()).abs().max())
    p, q = (float(v) for v in solution.solution.flatten())
    value: dict[str, Any] = {
        "of_noise": p,
        "of_input": q,
        "residual": residual,
        "standard_v": live.cache.get("velocity_is_standard"),
    }
    bar = bars(live)
    if bar is not None and isinstance(time, torch.Tensor) and not time.is_floating_point() and int(time[0]) < len(bar):
        a, s = float(bar[int(time[0])].sqrt()), float((1 - bar[int(time[0])]).clamp(min=0).sqrt())
        x0 = (mixed[0].double() - s * noise[0].double()) / max(a, 1e-6)
        value |= {"signal": a, "noise": s, "velocity": [1 / a, -s / a] if a > 1e-6 else None}
        if a > 0.2:
            value |= {"least": float(x0.min()), "most": float(x0.max())}
    live.record("probe.target", name, value, line=line, file=file)
