"""Probes of latents: what multiplies the noise, what evaluation gives, what is drawn from the prior."""

import ast
import contextlib
import math
import re
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from bowerbird.reading.program import last_name, names_in
from bowerbird.reading.running.formula import Formulas, calls_in, evaluate, units
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.vae import (
    DRAWS,
    READINGS,
    Site,
    claimed,
    free_of,
    is_latent,
    site_of,
)


class UnitNoise(TorchFunctionMode):
    """Every random draw is one: what multiplies the noise becomes visible."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in DRAWS and isinstance(out, torch.Tensor) and out.is_floating_point():
            return out.fill_(1.0) if not out.requires_grad else torch.ones_like(out)
        return out


@probe("vae_sampler", cheap=True)
def samplers(live: Live) -> None:
    """What multiplies the noise when a latent is drawn, as a function of what the encoder gives."""
    for unit in units(live.files):
        formulas = Formulas(unit, is_latent)
        done: set[Any] = set()
        for statement, value in formulas.statements():
            site = site_of(formulas, statement, value)
            function = unit.function(statement)
            if site is None or function in done or not calls_in(site.expanded) & DRAWS:
                continue
            if "kl_divergence" in calls_in(site.expanded) or "log_prob" in calls_in(site.expanded):
                continue
            others = free_of(site, live.namespace)
            if others is None:
                continue
            try:
                found = _spread(site, live, others)
            except Exception:  # the expression needs what is not at hand
                continue
            if found is None:
                continue
            done.add(function)
            drawn = calls_in(site.expanded) & DRAWS
            line = _line_of_scale(formulas, site)
            value_ = {
                **found,
                "scale": site.scale,
                "claimed": claimed(site.scale),
                "draws": sorted(drawn),
                "line_of_scale": line,
                "function": function.name if function else "",
            }
            live.record("probe.sampler", site.scale, value_, line=site.line, file=unit.file)


def _spread(site: Site, live: Live, others: dict[str, Any]) -> dict[str, Any] | None:
    scale = torch.linspace(0.3, 1.8, 7, dtype=torch.float64)[:, None].expand(7, 2).contiguous()
    mean = torch.zeros_like(scale)
    with UnitNoise():
        at_zero = live.call(site.value, live.namespace, mean, scale, others)
        at_one = live.call(site.value, live.namespace, mean + 1, scale, others)
    if not isinstance(at_zero, torch.Tensor) or at_zero.shape != scale.shape:
        return None
    if float((at_one - at_zero - 1).abs().max()) > 1e-6:
        return None
    for name, variance in READINGS.items():
        if float((at_zero - variance(scale).sqrt()).abs().max()) < 1e-4:
            return {"reading": name, "at": [float(scale[3, 0]), float(at_zero[3, 0])]}
    return {"reading": "", "at": [float(scale[3, 0]), float(at_zero[3, 0])]}


def _line_of_scale(formulas: Formulas, site: Site) -> int:
    """Where the scale is first turned into what multiplies the noise."""
    function = formulas.unit.function(site.statement)
    for statement, value in formulas.statements():
        if formulas.unit.function(statement) is function and statement.lineno <= site.statement.lineno:
            if site.scale in names_in(value) and isinstance(value, ast.Call | ast.BinOp):
                if not calls_in(value) & DRAWS or calls_in(value) & {"exp", "sqrt"}:
                    return statement.lineno
    return site.line


class _Watched:
    """Notes which draws of a distribution lose a gradient that could flow."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.lost: dict[tuple[str, int], str] = {}

    def __enter__(self) -> "_Watched":
        self.original = torch.distributions.Normal.sample
        watch = self

        def sample(distribution: Any, *args: Any, **kwargs: Any) -> Any:
            out = watch.original(distribution, *args, **kwargs)
            if distribution.scale.requires_grad and torch.is_grad_enabled():
                file, line = watch.live.recorder.here()
                if line is not None:
                    watch.lost[file, line] = type(distribution).__name__
            return out

        torch.distributions.Normal.sample = sample  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: Any) -> None:
        torch.distributions.Normal.sample = self.original  # type: ignore[method-assign]


@probe("vae_gradient")
def gradient_through_sample(live: Live) -> None:
    """Draws whose parameters are learnt but get no gradient."""
    for name, module in live.roots.items():
        given = live.inputs(module)
        if given is None:
            continue
        with live.frozen(module), _Watched(live) as watch, torch.enable_grad():
            module.train()
            live.seed(1)
            with contextlib.suppress(Exception):  # it fails in training mode with these inputs
                live.call(module, *given[0], **given[1])
        for (file, line), kind in watch.lost.items():
            live.record("probe.sample_without_gradient", name, {"distribution": kind}, line=line, file=file)


@probe("vae_prior", cheap=True)
def prior_draws(live: Live) -> None:
    """What is fed to a decoder when nothing is encoded: expressions of random draws, by their mean and deviation."""
    for unit in units(live.files):
        formulas = Formulas(unit, is_latent)
        for call in unit.all(ast.Call):
            if not re.search(r"decode|decoder|^dec$", last_name(call), re.I) or not call.args:
                continue
            statement = unit.statement(call)
            if statement is None:
                continue
            expanded = formulas.expand(call.args[0], statement)
            words = calls_in(expanded)
            if not words & {"randn", "rand", "normal", "randn_like", "rand_like"} or any(
                map(is_latent, names_in(expanded))
            ):
                continue
            found = _moments(expanded, live)
            if found is not None:
                line = next(
                    (
                        s.lineno
                        for s, v in formulas.statements()
                        if calls_in(v) & {"randn", "rand", "normal"}
                        and unit.function(s) is unit.function(statement)
                        and s.lineno <= statement.lineno
                    ),
                    call.lineno,
                )
                live.record(
                    "probe.prior",
                    ast.unparse(call.args[0])[:60],
                    {**found, "text": ast.unparse(expanded)[:120]},
                    line=line,
                    file=unit.file,
                )


def _moments(expression: ast.expr, live: Live) -> dict[str, Any] | None:
    """Mean and deviation of an expression of draws, with unknown sizes taken as 64 and ``self`` from a live module."""
    unknown = {n for n in names_in(expression) if n not in live.namespace and n not in ("self", "torch", "np")}
    if any(re.search(r"temp|tau|scale|std|sigma|trunc", name, re.I) for name in names_in(expression)):
        return None
    hosts: list[Any] = [*live.user_modules().values()] if "self" in names_in(expression) else [None]
    for host in hosts:
        values = {**dict.fromkeys(unknown, 64), "device": "cpu", "self": host}
        try:
            out = live.call(evaluate, expression, live.namespace, values)
        except Exception:  # this module is not the one that is meant
            continue
        if isinstance(out, torch.Tensor) and out.is_floating_point() and out.numel() >= 64:
            return {
                "mean": float(out.mean()),
                "std": float(out.std()),
                "min": float(out.min()),
                "numbers": out.numel(),
                "expected": math.sqrt(1.0),
            }
    return None
