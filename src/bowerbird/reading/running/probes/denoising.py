"""Denoising networks, and a watch that answers in their place while a sampler runs."""

import builtins
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bowerbird.reading.running import rewrite
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.loops import _plain as counted
from bowerbird.reading.running.observe.modules import tensors
from bowerbird.reading.running.standins.modules import StandInNet


def bound_callables(live: Live, pattern: re.Pattern[str]) -> Iterator[tuple[str, Callable[..., Any], Any]]:
    """Functions and methods of live objects whose name matches: name, callable, the object it belongs to."""
    things: dict[str, Any] = {
        n: v for n, v in live.namespace.items() if live.line_of(type(v)) is not None and not isinstance(v, type)
    }
    for values in live.locals.values():
        things |= {n: v for n, v in values.items() if live.line_of(type(v)) is not None and not isinstance(v, type)}
    things |= dict(live.user_modules().items())
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


def place_of(function: Callable[..., Any]) -> tuple[str, int]:
    code = inspect.unwrap(getattr(function, "__func__", function)).__code__
    return code.co_filename, code.co_firstlineno


_TIME = re.compile(
    r"^(t|ts|time_?steps?|times?|step|steps|sigma|sigmas|noise_level|noise_levels|time_cond|noise_labels|t_emb)$"
)


def denoisers(live: Live) -> dict[str, nn.Module]:
    """Modules that take pictures (or vectors) and times."""
    if "denoisers" in live.cache:
        return live.cache["denoisers"]
    found: dict[str, nn.Module] = {}
    found |= {f"stand-in {number}": net for number, net in enumerate(StandInNet.made)}
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


class Event:
    """Something that happened while a sampler ran: a call of the network, a draw, a loss."""

    def __init__(self, what: str, value: torch.Tensor, line: int | None, file: str, **more: Any) -> None:
        self.what, self.value, self.line, self.file = what, value, line, file
        self.time: Any = more.get("time")
        self.out: torch.Tensor | None = more.get("out")
        self.made: tuple[str, int | None] = more.get("made", ("", None))


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
            if self.scale < 1:
                object.__setattr__(net, "forward", _light(net.forward))
            self._handles.append(net.register_forward_pre_hook(self._before))
            self._handles.append(net.register_forward_hook(self._after, with_kwargs=True))
        self._loop = getattr(builtins, rewrite.FOR)
        setattr(builtins, rewrite.FOR, _few)
        return self

    def __exit__(self, *details: Any) -> None:
        setattr(builtins, rewrite.FOR, self._loop)
        for handle in self._handles:
            handle.remove()
        for net in self.nets:
            net.__dict__.pop("forward", None)
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
        named = next((k for k in kwargs if _TIME.match(k)), words[place])
        time = args[place] if place < len(args) else kwargs.get(named)
        with torch._C.DisableTorchFunction():
            answer = torch.randn(found[0].shape) * 0.1 if self.scale < 1 else found[0].clone()
            kept = tensors((args, kwargs))[0].detach().clone()
        file, line = self.live.recorder.here()
        self.shape = kept.shape
        self.events.append(Event("net", kept, line, file, time=time, out=answer, made=self.last))
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


def _light(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A network that computes once for each shape of its input; later answers are made up, as they are replaced."""
    shapes: dict[tuple[int, ...], torch.Size] = {}

    def answer(*args: Any, **kwargs: Any) -> Any:
        given = tuple(tensors((args, kwargs))[0].shape)
        if given in shapes:
            return torch.zeros(shapes[given])
        out = forward(*args, **kwargs)
        if isinstance(out, torch.Tensor):
            shapes[given] = out.shape
        return out

    answer.__wrapped__ = forward  # type: ignore[attr-defined]
    return answer


def _few(items: Any, line: int, file: str) -> Iterator[Any]:
    """The first and last rounds of a loop."""
    items = counted(items)
    if type(items).__name__ == "range_iterator":
        items = list(items)
    try:
        size = len(items)
    except TypeError:
        size = None
    for place, item in enumerate(items):
        if size is None and place > 40:
            return
        if size is None or size <= 8 or place < 2 or place >= size - 4:
            yield item
