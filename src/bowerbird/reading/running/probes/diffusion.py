"""Probes of diffusion models: identities of the tables, the forward process, round trips, and the sampler as a black box."""

import ast
import builtins
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bowerbird.reading.program import Unit, dotted, last_name, names_in, targets_of
from bowerbird.reading.running import rewrite
from bowerbird.reading.running.formula import Formulas, evaluate, units
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.probes import probe

_BAR = r"(alphas?(cum(ulative)?(prod(uct)?s?)?|bars?|hats?)|abars?|alphasbar|alphascum)"
_KINDS = {
    "betas": r"betas?", "alphas": r"alphas?", "bar": _BAR, "bar_prev": rf"({_BAR}prev|prev{_BAR})",
    "sqrt_bar": rf"sqrt{_BAR}", "sqrt_one_minus_bar": rf"sqrt(oneminus|1minus|1m|om|minusone|minus1){_BAR}",
    "sqrt_recip_bar": rf"sqrtrecip{_BAR}", "sqrt_recipm1_bar": rf"sqrtrecipm1{_BAR}",
    "posterior_variance": r"posterior(variance|var)s?", "mean_coef1": r"posteriormeancoef1", "mean_coef2": r"posteriormeancoef2",
}  # fmt: skip


def kind_of(name: str) -> str:
    """Which table of a diffusion process a name stands for; empty for another."""
    plain = name.lower().replace("_", "")
    return next((kind for kind, pattern in _KINDS.items() if re.fullmatch(pattern, plain)), "")


def _table(value: Any) -> torch.Tensor | None:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        value = torch.from_numpy(np.ascontiguousarray(value))
    if (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.numel() >= 8
        and value.numel() == max(value.shape)
    ):
        return value.detach().double().reshape(-1)
    return None


def holders(live: Live) -> dict[str, dict[str, torch.Tensor]]:
    """Tables by holder and kind: of modules, of plain objects, of the namespace, of functions."""
    if "tables" in live.cache:
        return live.cache["tables"]  # type: ignore[no-any-return]
    spaces: dict[str, dict[str, Any]] = {"": live.namespace}
    for name, value in list(live.namespace.items()):
        if not isinstance(value, nn.Module) and live.line_of(type(value)) is not None and hasattr(value, "__dict__"):
            spaces[name] = vars(value)
    for path, module in live.user_modules().items():
        spaces[path] = {
            **dict(module.named_buffers(recurse=False)),
            **{k: v for k, v in vars(module).items() if isinstance(v, torch.Tensor)},
        }
    for function, values in live.locals.items():
        spaces[f"{function}()"] = values
        for name, value in values.items():
            if (
                not isinstance(value, nn.Module)
                and hasattr(value, "__dict__")
                and live.line_of(type(value)) is not None
            ):
                spaces[name] = vars(value)
    found: dict[str, dict[str, torch.Tensor]] = {}
    for holder, values in spaces.items():
        for name, value in list(values.items()):
            kind, table = kind_of(name), _table(value)
            if kind and table is not None:
                found.setdefault(holder, {}).setdefault(kind, table)
                live.cache.setdefault("table_names", {})[holder, kind] = name
    live.cache["tables"] = {h: t for h, t in found.items() if len(t) >= 2 or "betas" in t}
    return live.cache["tables"]  # type: ignore[no-any-return]


def bars(live: Live) -> torch.Tensor | None:
    """The table of cumulative products, wherever it is."""
    for tables in holders(live).values():
        if "bar" in tables:
            return tables["bar"]
        if "betas" in tables:
            return torch.cumprod(1 - tables["betas"], 0)
    return None


def _line_of_table(live: Live, name: str) -> tuple[str, int | None]:
    for unit in units(live.files):
        for call in unit.all(ast.Call):
            if (
                "buffer" in last_name(call)
                and call.args
                and isinstance(call.args[0], ast.Constant)
                and call.args[0].value == name
            ):
                return unit.file, call.lineno
        for statement in unit.all(ast.Assign, ast.AnnAssign):
            if any((dotted(t) or "").rpartition(".")[2] == name for t in targets_of(statement)):
                return unit.file, statement.lineno
    return live.main, None


@probe("diffusion_tables")
def tables(live: Live) -> None:
    """Every table against its definition by the others."""
    names: dict[tuple[str, str], str] = live.cache.setdefault("table_names", {})
    for holder, found in holders(live).items():
        wanted = _identities(found)
        for kind, right in wanted.items():
            have = found[kind]
            shared = min(len(have), len(right))
            difference = (have[:shared] - right[:shared]).abs()
            error = float((difference / (right[:shared].abs() + 1e-3)).max())
            name = names[holder, kind]
            file, line = _line_of_table(live, name)
            value = {"kind": kind, "error": error, "first": float(have[0]), "should_be": float(right[0]), "last": float(have[-1]),
                     "steps": len(have), "name": name}  # fmt: skip
            live.record("probe.table", f"{holder}.{name}" if holder else name, value, line=line, file=file)
        bar = found.get("bar")
        betas = found.get("betas")
        if bar is None and betas is not None:
            bar = torch.cumprod(1 - betas, 0)
        if bar is not None:
            name = names.get((holder, "bar")) or names[holder, "betas"]
            file, line = _line_of_table(live, names.get((holder, "betas"), name))
            falling = bool((bar.diff() <= 1e-9).all())
            value = {
                "steps": len(bar), "falling": falling, "last": float(bar[-1].clamp(min=0).sqrt()), "first": float(bar[0]),
                "betas_inside": betas is None or bool(((betas > -1e-9) & (betas < 1)).all()), "name": name,
                "beta_first": float(betas[0]) if betas is not None else None, "beta_last": float(betas[-1]) if betas is not None else None,
            }  # fmt: skip
            live.record("probe.schedule", f"{holder}.{name}" if holder else name, value, line=line, file=file)


def _identities(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    wanted: dict[str, torch.Tensor] = {}
    bar = found.get("bar")
    if "betas" in found and "alphas" in found and len(found["betas"]) == len(found["alphas"]):
        wanted["alphas"] = 1 - found["betas"]
    alphas = 1 - found["betas"] if "betas" in found else found.get("alphas")
    if bar is not None and alphas is not None and len(alphas) == len(bar):
        wanted["bar"] = torch.cumprod(alphas, 0)
    if bar is None:
        return wanted
    before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    wanted |= {
        "bar_prev": before, "sqrt_bar": bar.sqrt(), "sqrt_one_minus_bar": (1 - bar).clamp(min=0).sqrt(),
        "sqrt_recip_bar": (1 / bar.clamp(min=1e-12)).sqrt(), "sqrt_recipm1_bar": (1 / bar.clamp(min=1e-12) - 1).clamp(min=0).sqrt(),
    }  # fmt: skip
    betas = found.get("betas")
    if betas is not None and len(betas) == len(bar):
        rest = (1 - bar).clamp(min=1e-12)
        wanted["posterior_variance"] = betas * (1 - before) / rest
        wanted["mean_coef1"] = betas * before.sqrt() / rest
        wanted["mean_coef2"] = (1 - before) * (1 - betas).sqrt() / rest
    return {kind: table for kind, table in wanted.items() if kind in found and len(table) == len(found[kind])}


@probe("diffusion_cosine")
def cosine(live: Live) -> None:
    """Functions that say they give the cosine schedule, against it."""
    steps = 200
    grid = torch.arange(steps + 1, dtype=torch.float64) / steps
    curve = torch.cos((grid + 0.008) / 1.008 * torch.pi / 2).square()
    right = (curve / curve[0])[1:]
    for name, function in live.functions().items():
        if "cos" not in name.lower() or not re.search("beta|schedule|alpha|noise", name, re.I):
            continue
        try:
            out = _table(live.call(function, steps))
        except Exception:  # it takes other arguments
            continue
        if out is None or len(out) not in (steps, steps + 1):
            continue
        bar = torch.cumprod(1 - out, 0) if float(out[0]) < 0.5 else out[-steps:]
        inner = slice(5, steps - 10)
        error = float((bar[inner] - right[inner]).abs().max())
        root = float((bar[inner] - right[inner].sqrt()).abs().max())
        code = inspect.unwrap(function).__code__
        lines = [n for n in _cos_lines(live, code.co_filename, code.co_firstlineno)]
        value = {"error": error, "error_of_root": root, "monotone": bool((bar.diff() <= 1e-9).all())}
        live.record("probe.cosine", name, value, line=(lines or [code.co_firstlineno])[0], file=code.co_filename)


def _cos_lines(live: Live, file: str, line: int) -> list[int]:
    for unit in units({file}):
        for function in unit.functions.values():
            if function.lineno <= line <= (function.end_lineno or line) or function.lineno == line:
                return [c.lineno for c in unit.calls("cos", under=function)]
    return []


# --- the forward process and its inverses

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


def bound_callables(live: Live, pattern: re.Pattern[str]) -> Iterator[tuple[str, Callable[..., Any], Any]]:
    """Functions and methods of live objects whose name matches: name, callable, the object it belongs to."""
    things: dict[str, Any] = {
        n: v for n, v in live.namespace.items() if live.line_of(type(v)) is not None and not isinstance(v, type)
    }
    for values in live.locals.values():
        things |= {n: v for n, v in values.items() if live.line_of(type(v)) is not None and not isinstance(v, type)}
    things |= {p: m for p, m in live.user_modules().items()}
    done = set()
    for thing in things.values():
        for kind in type(thing).__mro__:
            for name, value in vars(kind).items():
                code = getattr(inspect.unwrap(value) if callable(value) else None, "__code__", None)
                if code is None or not pattern.search(name) or not live.recorder.is_user_code(code) or code in done:
                    continue
                done.add(code)
                yield name, getattr(thing, name), thing
    for name, function in live.functions().items():
        if pattern.search(name):
            yield name, function, None


def _place(function: Callable[..., Any]) -> tuple[str, int]:
    code = inspect.unwrap(getattr(function, "__func__", function)).__code__
    return code.co_filename, code.co_firstlineno


@probe("diffusion_forward")
def forward_process(live: Live) -> None:
    """What multiplies the data and the noise when they are mixed, and whether the inverses undo it."""
    bar = bars(live)
    for name, function, owner in bound_callables(live, _NOISING):
        words = [p.name for p in inspect.signature(function).parameters.values()
                 if p.default is inspect.Parameter.empty or re.search("noise|eps", p.name)]  # fmt: skip
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
        if spread > 1e-4 or abs(s) < 1e-9:
            continue
        file, line = _place(function)
        value = {"signal": a, "noise": s, "sum_of_squares": a * a + s * s, "t": step,
                 "bar": float(bar[step]) if bar is not None and step < len(bar) else None}  # fmt: skip
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
        "x0 from noise": ((mixed, time, noise), x0), "noise from x0": ((mixed, time, x0), noise),
        "x0 from v": ((mixed, time, velocity), x0), "v": ((x0, time, noise), velocity),
    }  # fmt: skip
    errors: dict[str, tuple[float, float, Any]] = {}
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
                right = calls[what][1]
                errors[name] = (float((out - right).abs().max()), float((out + right).abs().max()), function)
    live.cache["velocity_is_standard"] = next((e[0] < 1e-3 for n, e in errors.items() if n.endswith("_v")), None)
    for name, (error, negative, function) in errors.items():
        file, line = _place(function)
        live.record(
            "probe.inverse", name, {"error": error, "error_of_negative": negative, "t": step}, line=line, file=file
        )


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
        if target.shape != mixed.shape or not draws:
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


# --- networks and samplers


_TIME = re.compile(
    r"^(t|ts|time_?steps?|times?|step|steps|sigma|sigmas|noise_level|noise_levels|time_cond|noise_labels|t_emb)$"
)


def denoisers(live: Live) -> dict[str, nn.Module]:
    """Modules that take pictures (or vectors) and times."""
    if "denoisers" in live.cache:
        return live.cache["denoisers"]  # type: ignore[no-any-return]
    found: dict[str, nn.Module] = {}
    for path, module in live.user_modules().items():
        given = live.inputs(module)
        if given is None or any(path.startswith(f"{other}.") for other in found):
            continue
        words = list(inspect.signature(inspect.unwrap(type(module).forward)).parameters)[1:]
        place = next((i for i, word in enumerate(words) if _TIME.match(word)), None)
        if place is None or place == 0 or not given[0] or not isinstance(given[0][0], torch.Tensor):
            continue
        if given[0][0].is_floating_point() and (place < len(given[0]) or words[place] in given[1]):
            found[path] = module
    live.cache["denoisers"] = found
    return found


def _with_time(
    module: nn.Module, given: Any, change: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[list[Any], dict[str, Any]] | None:
    words = list(inspect.signature(inspect.unwrap(type(module).forward)).parameters)[1:]
    place = next(i for i, word in enumerate(words) if _TIME.match(word))
    args, kwargs = list(given[0]), dict(given[1])
    old = args[place] if place < len(args) else kwargs.get(words[place])
    if not isinstance(old, torch.Tensor):
        return None
    if place < len(args):
        args[place] = change(old)
    else:
        kwargs[words[place]] = change(old)
    return args, kwargs


@probe("diffusion_time")
def time_matters(live: Live) -> None:
    """Whether the output of a denoiser depends on the time that it is given."""
    for path, module in denoisers(live).items():
        given = live.inputs(module)
        other = _with_time(module, given, lambda t: t + 3 if not t.is_floating_point() else t * 0.5 + 0.1)
        less = _with_time(module, given, lambda t: (t - 3).clamp(min=0) if not t.is_floating_point() else t * 0.25)
        if other is None or less is None or given is None:
            continue
        with live.frozen(module), torch.no_grad():
            module.eval()
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
            outs = []
            for args, kwargs in (given, other, less):
                live.seed(0)
                try:
                    outs.append(tensors(live.call(module, *args, **kwargs))[0])
                except Exception:  # the time is outside what it takes
                    outs.append(None)
        if outs[0] is None or (outs[1] is None and outs[2] is None):
            continue
        change = max(float((outs[0] - o).abs().max()) for o in outs[1:] if o is not None)
        live.record("probe.time", path, {"change": change / (float(outs[0].abs().max()) + 1e-9), "class": type(module).__name__},
                    line=live.line_of(type(module)))  # fmt: skip


class Event:
    """Something that happened while a sampler ran: a call of the network, a draw, a loss."""

    def __init__(self, what: str, value: torch.Tensor, line: int | None, file: str, **more: Any) -> None:
        self.what, self.value, self.line, self.file = what, value, line, file
        self.time: Any = more.get("time")
        self.out: torch.Tensor | None = more.get("out")
        self.made: tuple[str, int | None] = more.get("made", ("", None))
        self.others: tuple[Any, ...] = more.get("others", ())


class Watch(TorchFunctionMode):
    """Scales random draws, gives the network's answers itself, and writes down the order of both."""

    def __init__(self, live: Live, nets: list[nn.Module], scale: float) -> None:
        super().__init__()
        self.live, self.nets, self.scale = live, nets, scale
        self.events: list[Event] = []
        self.last: tuple[str, int | None] = ("", None)
        self.shape: torch.Size | None = None
        self.within = 0
        self.dropped: list[tuple[str, str, int | None]] = []
        self._handles: list[Any] = []

    def __enter__(self) -> "Watch":
        super().__enter__()
        for net in self.nets:
            self._handles.append(net.register_forward_pre_hook(self._before))
            self._handles.append(net.register_forward_hook(self._after, with_kwargs=True))
        self._loop = getattr(builtins, rewrite.FOR)
        setattr(builtins, rewrite.FOR, _few)
        return self

    def __exit__(self, *details: Any) -> None:
        setattr(builtins, rewrite.FOR, self._loop)
        for handle in self._handles:
            handle.remove()
        super().__exit__(*details)

    def _before(self, *_: Any) -> None:
        self.within += 1

    def _after(self, net: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        self.within -= 1
        found = tensors(out)
        if not found or len(self.events) > 400:
            return out
        words = list(inspect.signature(inspect.unwrap(type(net).forward)).parameters)[1:]
        place = next(i for i, word in enumerate(words) if _TIME.match(word))
        time = args[place] if place < len(args) else kwargs.get(words[place])
        with torch._C.DisableTorchFunction():
            answer = torch.randn(found[0].shape) * 0.1 if self.scale < 1 else found[0].clone()
            kept = args[0].detach().clone()
        others = tuple(a for i, a in enumerate(args) if i not in (0, place)) + tuple(
            v for k, v in kwargs.items() if k != words[place]
        )
        file, line = self.live.recorder.here()
        self.shape = kept.shape
        self.events.append(Event("net", kept, line, file, time=time, out=answer, made=self.last, others=others))
        return answer if isinstance(out, torch.Tensor) else out

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if not isinstance(out, torch.Tensor) or name.startswith("__get"):
            return out
        if name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
            file, line = self.live.recorder.here()
            self.events.append(Event("loss", args[1].detach().clone(), line, file))
        if self.within:
            if name in ("rand", "rand_like", "bernoulli", "uniform_") and len(self.dropped) < 4:
                self.dropped.append((name, *self.live.recorder.here()))
            return out
        if name in ("randn", "randn_like", "normal", "normal_") and out.is_floating_point():
            with torch._C.DisableTorchFunction():
                out = out * self.scale
            file, line = self.live.recorder.here()
            self.events.append(Event("draw", out.detach().clone(), line, file))
        elif self.shape is not None and out.shape == self.shape:
            self.last = self.live.recorder.here()
        return out


def _few(items: Any, line: int, file: str) -> Iterator[Any]:
    """The first and last rounds of a loop."""
    try:
        size = len(items)
    except TypeError:
        size = None
    for place, item in enumerate(items):
        if size is None and place > 40:
            return
        if size is None or size <= 8 or place < 2 or place >= size - 4:
            yield item


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
        file, line = _place(function)
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
        if after is None or after.shape != here.value.shape:
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
            **found, "last": last, "calls": len(group), "draw_line": draws[-1].line if draws else None, "draw_file": draws[-1].file if draws else "",
            "update_line": made[1], "steps": len(groups), **_expected(live, here.time), "function": name,
            "conditional": [_is_conditional(events[i].others) for i in group],
        }  # fmt: skip
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
        "t": t, "beta": beta, "posterior_variance": beta * (1 - before) / rest,
        "ancestral": [1 / (1 - beta) ** 0.5, -beta / ((1 - beta) * rest) ** 0.5],
        "deterministic": [(before / now) ** 0.5, (1 - before) ** 0.5 - (before * rest / now) ** 0.5],
    }  # fmt: skip


@probe("guidance")
def guidance(live: Live) -> None:
    """Sums of a conditional and an unconditional answer: the weight of the conditional one."""
    free = re.compile(r"uncond|unconditional|_free|free_|null|empty|no_?cond|eps_u$|uc$", re.I)
    bound = re.compile(r"cond|text|label|class|pred|eps|noise|_c$|logits", re.I)
    for unit in units(live.files):
        for statement, value in Formulas(unit, lambda name: False).statements():
            for node in ast.walk(value):
                if not isinstance(node, ast.BinOp | ast.Call) or (
                    isinstance(node, ast.Call) and last_name(node) != "lerp"
                ):
                    continue
                names = {n for n in names_in(node)}
                without = [n for n in names if free.search(n)]
                with_ = [n for n in names if bound.search(n) and n not in without]
                if len(without) != 1 or len(with_) != 1 or not isinstance(statement, ast.Assign | ast.Return):
                    continue
                weights = {n: 3.0 for n in names - {without[0], with_[0], "torch", "self"}}
                try:
                    values = [evaluate(node, live.namespace, {**weights, "self": _Weights(), without[0]: torch.tensor(u), with_[0]: torch.tensor(c)})
                              for u, c in ((0.0, 1.0), (1.0, 0.0))]  # fmt: skip
                except Exception:  # not a formula of these two alone
                    continue
                numbers = [float(v) for v in values if isinstance(v, torch.Tensor) and v.numel() == 1]
                if len(numbers) == 2 and numbers[0] != numbers[1]:
                    told = {
                        "of_conditional": numbers[0],
                        "of_unconditional": numbers[1],
                        "text": ast.unparse(node)[:120],
                    }
                    live.record("probe.guidance", with_[0], told, line=node.lineno, file=unit.file)
                    break


class _Weights:
    def __getattr__(self, name: str) -> float:
        return 3.0


@probe("snr")
def clamped_ratio(live: Live) -> None:
    """Where a signal-to-noise ratio is clamped by a gamma: from above or from below."""
    for unit in units(live.files):
        for call in unit.all(ast.Call):
            if last_name(call) not in ("clamp", "clamp_", "clip", "minimum", "maximum", "min", "max"):
                continue
            text = ast.unparse(call)
            if not re.search("snr", text, re.I) or not re.search("gamma|min_snr|5", text):
                continue
            others: dict[str, Any] = {n: 5.0 for n in names_in(call) if n not in live.namespace}
            ratio = next(
                (n for n in sorted(names_in(call)) if re.search("snr", n, re.I) and not re.search("gamma|weight", n)),
                None,
            )
            if ratio is None:
                continue
            grid = torch.logspace(-3, 3, 13)
            try:
                out = evaluate(call, live.namespace, {**others, "self": _Weights(), ratio: grid.clone()})
            except Exception:  # a ratio that is made differently
                continue
            if isinstance(out, torch.Tensor) and out.shape == grid.shape:
                live.record(
                    "probe.snr",
                    ratio,
                    {"least": float(out.min()), "most": float(out.max())},
                    line=call.lineno,
                    file=unit.file,
                )


# --- moving averages

_AVERAGE = re.compile(
    r"^(update|update_model_average|update_moving_average|update_ema|step|ema_update|__call__|update_average)$"
)


@probe("ema")
def moving_average(live: Live) -> None:
    """One update with all weights of the online copy at one and all of the average at zero."""
    for name, function, owner in bound_callables(live, _AVERAGE):
        code = inspect.unwrap(getattr(function, "__func__", function)).__code__
        words = [w for w in code.co_varnames[: code.co_argcount] if w != "self"]
        about = type(owner).__name__ if owner is not None else name
        if not re.search("ema|average", about, re.I):
            continue
        decay = (
            next(
                (v for k, v in vars(owner).items() if re.search("beta|decay|mu$|alpha", k) and isinstance(v, float)),
                None,
            )
            if owner is not None
            else None
        )
        averages = [w for w in words if re.search("ema|ma_|average|shadow|target|avg", w)]
        if len(words) < 2 or len(averages) != 1:
            continue
        online, mean = nn.Linear(2, 2), nn.Linear(2, 2)
        with torch.no_grad():
            for p in online.parameters():
                p.fill_(1.0)
            for p in mean.parameters():
                p.fill_(0.0)
        given = {
            w: mean if w in averages else online
            for w in words
            if w in averages or re.search("model|net|online|current|source", w)
        }
        rest = [w for w in words if w not in given]
        needed = [w for w in rest if inspect.signature(function).parameters[w].default is inspect.Parameter.empty]
        if needed:
            given |= {w: decay or 0.99 for w in needed if re.search("decay|beta|mu|alpha", w)}
        try:
            live.call(function, **given)
        except Exception:  # it wants other arguments
            continue
        value = {
            "after": float(next(mean.parameters()).detach().flatten()[0]),
            "decay": decay or 0.99,
            "online": float(next(online.parameters()).detach().flatten()[0]),
        }
        live.record("probe.ema", f"{about}.{name}", value, line=code.co_firstlineno, file=code.co_filename)


__all__ = ["Unit", "bars", "holders"]
