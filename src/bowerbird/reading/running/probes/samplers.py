"""A sampler as a black box: each of its steps is fitted as a sum of input, answer and noise."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.denoising import Event, Watch, bound_callables, denoisers, place_of
from bowerbird.reading.running.probes.diffusion import bars

_SAMPLERS = re.compile(
    r"^(p_sample_loop|ddpm_sample|sample|sample_images?|sampling|generate|sample_ddpm|reverse_process|p_sampling|ddpm_sampling|denoise_loop|reverse_diffusion|sample_plot_image|reverse|sample_backward|infer(ence)?)$"
)


@probe("diffusion_sampler")
def sampler_steps(live: Live) -> None:
    """Runs a sampler with answers and noise of our own, and fits each step as a sum of input, answer and noise."""
    nets = denoisers(live)
    if not nets:
        return
    for name, function, _ in bound_callables(live, _SAMPLERS):
        net = next(iter(nets.values()))
        arguments = _arguments(live, function, nets)
        if arguments is None:
            continue
        modules = list(nets.values())
        with live.frozen(*live.roots.values()), torch.no_grad():
            watch = Watch(live, modules, scale=0.1)
            live.seed(5)
            try:
                with watch:
                    out = live.call(function, **arguments)
            except Exception:  # it wants other arguments
                continue
        file, line = place_of(function)
        for kind, at, number in watch.dropped[:1]:
            live.record(
                "probe.dropped_while_sampling",
                name,
                {"function": kind, "net": type(net).__name__},
                line=number,
                file=at,
            )
        _steps(live, name, watch.events, out, file, line)
        if sum(e.what == "net" for e in watch.events) > 1:
            return


def _arguments(live: Live, function: Callable[..., Any], nets: dict[str, nn.Module]) -> dict[str, Any] | None:
    """Arguments for a sampler by their names; None where one cannot be guessed."""
    net = next(iter(nets.values()))
    given = live.inputs(net)
    size = list(given[0][0].shape[1:]) if given is not None else [1, 28, 28]
    found: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        word = parameter.name
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if re.fullmatch(r"(eps_|denoise_|score_)?(model|net|network|unet|denoiser|fn|eps_model)", word):
            found[word] = net
        elif re.fullmatch(r"n|num|n_samples?|num_samples?|batch_?size|bs|n_images|num_images|n_sample|b|amount", word):
            found[word] = 2
        elif parameter.default is not inspect.Parameter.empty:
            continue
        elif re.fullmatch(r"shape|x_shape", word):
            found[word] = (2, *size)
        elif re.fullmatch(r"size|img_shape|image_shape", word):
            found[word] = tuple(size)
        elif re.fullmatch(r"image_size|img_size|resolution|h|w", word):
            found[word] = size[-1]
        elif re.fullmatch(r"channels|c|in_channels|n_channels", word):
            found[word] = size[0]
        elif re.fullmatch(r"device|dev", word):
            found[word] = "cpu"
        elif re.fullmatch(r"labels?|y|classes|c|context", word):
            found[word] = torch.zeros(2, dtype=torch.long)
        elif word in live.namespace and not callable(live.namespace[word]):
            found[word] = live.namespace[word]
        elif re.search(r"steps|^t$|timesteps", word, re.I):
            bar = bars(live)
            found[word] = len(bar) if bar is not None else 50
        elif re.search(r"scale|guidance|^w$", word):
            found[word] = 2.0
        else:
            return None
    return found


def _steps(live: Live, name: str, events: list[Event], out: Any, file: str, line: int) -> None:
    """Groups the calls of the network by their input and fits what comes after each."""
    groups: list[list[int]] = []
    for place, event in enumerate(events):
        if event.what != "net":
            continue
        if groups and torch.equal(events[groups[-1][0]].value, event.value):
            groups[-1].append(place)
        else:
            groups.append([place])
    final = _final(out, events[groups[-1][0]].value.shape) if groups else None
    for number, group in enumerate(groups):
        last = number == len(groups) - 1
        after = final if last else events[groups[number + 1][0]].value
        here = events[group[0]]
        if after is None or after.shape != here.value.shape or not bool((after + here.value).isfinite().all()):
            continue
        start = groups[number - 1][-1] if number else -1
        stop = len(events) if last else groups[number + 1][0]
        draws = [e for e in events[start + 1 : stop] if e.what == "draw" and e.value.shape == here.value.shape]
        draws = [e for e in draws if not torch.equal(e.value, here.value)]
        answers = [events[i].out for i in group]
        found = _fit(here.value, [a for a in answers if a is not None], [d.value for d in draws], after)
        if found is None:
            continue
        made = events[groups[number + 1][0]].made if not last else here.made
        value = {
            **found,
            "last": last,
            "calls": len(group),
            "draw_line": draws[-1].line if draws else None,
            "draw_file": draws[-1].file if draws else "",
            "update_line": made[1],
            "steps": len(groups),
            **_expected(live, here.time),
            "function": name,
            "conditional": [_is_conditional(events[i].others) for i in group],
        }
        live.record("probe.sampler_step", name, value, line=line, file=file)


def _is_conditional(others: tuple[Any, ...]) -> bool:
    """Whether a call of the network was given a label: not None, and no mask of ones that hides it."""
    for other in others:
        if other is None:
            return False
        if (
            isinstance(other, torch.Tensor)
            and other.is_floating_point()
            and other.ndim == 1
            and bool((other == 1).all())
        ):
            return False
    return True


def _final(out: Any, shape: torch.Size) -> torch.Tensor | None:
    while isinstance(out, list | tuple) and out:
        like = [t for t in out if isinstance(t, torch.Tensor | np.ndarray) and tuple(t.shape) == tuple(shape)]
        out = like[-1] if like else out[-1]
    if isinstance(out, np.ndarray):
        out = torch.from_numpy(np.ascontiguousarray(out))
    return out.detach().float() if isinstance(out, torch.Tensor) and out.shape == shape else None


def _fit(
    x: torch.Tensor, answers: list[torch.Tensor], draws: list[torch.Tensor], after: torch.Tensor
) -> dict[str, Any] | None:
    if any(a.shape != x.shape for a in answers):
        return None
    columns = torch.stack(
        [t.flatten().double() for t in (x, *answers, *draws)] + [torch.ones(x.numel(), dtype=torch.float64)], 1
    )
    wanted = after.flatten().double()
    solution = torch.linalg.lstsq(columns, wanted[:, None], driver="gelsd").solution.flatten()
    residual = float((columns @ solution - wanted).abs().max() / (wanted.abs().max() + 1e-12))
    numbers = [float(v) for v in solution]
    split = 1 + len(answers)
    noise = max((abs(v) for v in numbers[split:-1]), default=0.0)
    return {"of_input": numbers[0], "of_answers": numbers[1:split], "of_noise": noise, "residual": residual}


def _expected(live: Live, time: Any) -> dict[str, Any]:
    """The coefficients of ancestral and of deterministic sampling at a step whose number is known."""
    bar = bars(live)
    if isinstance(time, torch.Tensor) and time.numel():
        time = time.reshape(-1)[0].item()
    if bar is None or not isinstance(time, int | float) or float(time) != int(time) or not 0 <= int(time) < len(bar):
        return {"t": time if isinstance(time, int | float) else None}
    t = int(time)
    now, before = float(bar[t]), float(bar[t - 1]) if t else 1.0
    beta = 1 - now / before
    rest = max(1 - now, 1e-12)
    return {
        "t": t,
        "beta": beta,
        "posterior_variance": beta * (1 - before) / rest,
        "ancestral": [1 / (1 - beta) ** 0.5, -beta / ((1 - beta) * rest) ** 0.5],
        "deterministic": [(before / now) ** 0.5, (1 - before) ** 0.5 - (before * rest / now) ** 0.5],
    }
