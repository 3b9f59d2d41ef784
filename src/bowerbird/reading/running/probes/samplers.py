"""A sampler as a black box: each of its steps is fitted as a sum of input, answer and noise."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.denoising import Watch, bound_callables, denoisers, place_of
from bowerbird.reading.running.probes.diffusion import bars
from bowerbird.reading.running.standins.modules import StandInNet

_SAMPLERS = re.compile(
    r"^(p_sample_loop|ddpm_sample|ddim_sample(_loop)?|sample|sample_images?|sampling|generate|sample_ddpm|reverse_process|p_sampling|ddpm_sampling|denoise_loop|reverse_diffusion|sample_plot_image|reverse|sample_backward|infer(ence)?)$"
)


_PICTURE = re.compile(r"^(x|x_?t|xt|x_?i|x_?T|img|image|noise|z|latents?|sample|noisy)$")


@probe("diffusion_sampler")
def sampler_steps(live: Live) -> None:
    """Runs a sampler with answers and noise of our own, and fits each step as a sum of input, answer and noise."""
    nets = denoisers(live) or {"stand-in": StandInNet()}
    for name, function, _ in loops(live):
        for count in (2, 10):  # some want a multiple of the number of classes
            arguments = arguments_for(live, function, nets, count)
            watched = _watched(live, nets, function, arguments) if arguments is not None else None
            if watched is not None:
                break
        if watched is None or arguments is None:
            continue
        watch, out = watched
        file, line = place_of(function)
        for kind, at, number in watch.dropped[:1]:
            told = {"function": kind, "net": type(next(iter(nets.values()))).__name__}
            live.record("probe.dropped_while_sampling", name, told, line=number, file=at)
        _steps(live, name, watch, out, file, line)
        if sum(e.what == "net" for e in watch.events) > 1:
            return


def loops(live: Live) -> Iterator[tuple[str, Callable[..., Any], Any]]:
    """What runs all steps: methods with such a name, and the call of a class that is called a sampler."""
    yield from bound_callables(live, _SAMPLERS)
    for name, function, owner in bound_callables(live, re.compile(r"^(forward|__call__)$")):
        if re.search("sampler|sampling", type(owner).__name__, re.I):
            yield name, function, owner


def _watched(
    live: Live, nets: dict[str, nn.Module], function: Callable[..., Any], arguments: dict[str, Any]
) -> tuple[Watch, Any] | None:  # fmt: skip
    """What happened while a sampler ran, and what it gave; None where it wants other arguments."""
    with live.frozen(*live.roots.values()), torch.no_grad():
        watch = Watch(live, list(nets.values()), scale=0.1)
        live.seed(5)
        try:
            with watch:
                return watch, live.call(function, **arguments)
        except Exception:  # it wants other arguments
            return None


def _size(live: Live, nets: dict[str, nn.Module]) -> list[int]:
    """The shape of one picture, as a network was given it."""
    net = next(iter(nets.values()))
    if isinstance(net, StandInNet):
        return net.shape[1:] or [1, 28, 28]
    found = tensors(live.inputs(net))
    return list(found[0].shape[1:]) if found else [1, 28, 28]


_COUNTS = re.compile(r"^(n|num|n_samples?|num_samples?|batch_?size|bs|n_images|num_images|n_sample|b|amount)$")
_NETS = re.compile(r"^(eps_|denoise_|score_)?(model|net|network|unet|denoiser|fn|eps_model)$")
_GUIDES = re.compile(r"guid|cfg|cond_scale")
_KNOWN: tuple[tuple[str, Callable[[list[int], int], Any]], ...] = (
    (_PICTURE.pattern, lambda size, n: torch.randn(n, *size, generator=torch.Generator().manual_seed(7)) * 0.1),
    (r"^(shape|x_shape)$", lambda size, n: (n, *size)),
    (r"^(size|img_shape|image_shape)$", lambda size, n: tuple(size)),
    (r"^(image_size|img_size|resolution|h|w)$", lambda size, n: size[-1]),
    (r"^(channels|c|in_channels|n_channels)$", lambda size, n: size[0]),
    (r"^(device|dev)$", lambda size, n: "cpu"),
    (r"^(labels?|y|classes|context)$", lambda size, n: torch.zeros(n, dtype=torch.long)),
)


def arguments_for(
    live: Live, function: Callable[..., Any], nets: dict[str, nn.Module], count: int
) -> dict[str, Any] | None:  # fmt: skip
    """Arguments for a sampler by their names; None where one cannot be guessed."""
    found: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        word, needed = parameter.name, parameter.default is parameter.empty
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if _NETS.match(word):
            found[word] = next(iter(nets.values()))
        elif _COUNTS.match(word):
            found[word] = count
        elif needed or (_GUIDES.search(word) and isinstance(parameter.default, float | int)):
            value = 2.0 if _GUIDES.search(word) else _known(live, word, _size(live, nets), count)
            if value is None:
                return None
            found[word] = value
    return found


def _known(live: Live, word: str, size: list[int], count: int) -> Any:
    """A value by the name of a parameter; None where it says nothing."""
    for pattern, make in _KNOWN:
        if re.match(pattern, word):
            return make(size, count)
    if word in live.namespace and not callable(live.namespace[word]):
        return live.namespace[word]
    if re.search(r"steps|^t$|timesteps", word, re.I):
        bar = bars(live)
        return len(bar) if bar is not None else 50
    return 2.0 if re.search(r"scale|^w$", word) else None


def _steps(live: Live, name: str, watch: Watch, out: Any, file: str, line: int) -> None:
    """Groups the calls of the network by their input and fits what comes after each."""
    events = watch.events
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
        at_end = number == len(groups) - 1
        after = final if at_end else events[groups[number + 1][0]].value
        here = events[group[0]]
        if after is None or after.shape != here.value.shape or not bool((after + here.value).isfinite().all()):
            continue
        start = groups[number - 1][-1] if number else -1
        stop = len(events) if at_end else groups[number + 1][0]
        draws = [e for e in events[start + 1 : stop] if e.what == "draw" and e.value.shape == here.value.shape]
        draws = [e for e in draws if not torch.equal(e.value, here.value)]
        answers = [events[i].out for i in group]
        found = _fit(here.value, [a for a in answers if a is not None], [d.value for d in draws], after)
        if found is None:
            continue
        made = events[groups[number + 1][0]].made if not at_end else watch.last
        value = {
            **found,
            "last": at_end,
            "calls": len(group),
            "draw_line": draws[-1].line if draws else None,
            "draw_file": draws[-1].file if draws else "",
            "update_line": made[1],
            "steps": len(groups),
            **_expected(live, here.time),
            "function": name,
        }
        live.record("probe.sampler_step", name, value, line=line, file=file)


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
