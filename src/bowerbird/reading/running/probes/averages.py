"""Moving averages by what they do: of two sets of weights of the same shapes, one is zero and the other one.

After an update the average must have moved a little towards the weights that are learned, and these not at all.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.calls import Called
from bowerbird.reading.running.observe.modules import detached
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.tracing import Op, Trace

MOST_UPDATES = 100
_WALKS = frozenset("parameters named_parameters state_dict buffers items values zip lerp_ _foreach_lerp_".split())
Weights = Callable[[], list[torch.Tensor]]


@probe("averages")
def averages(live: Live) -> None:
    """Records ``probe.ema`` for each function that was given one set of weights and moved another towards it."""
    for called in [calls[0] for calls in live.called.values()]:
        function = called.function
        sets = list(_sets(called)) if function is not None else []
        pairs = [(a, b) for a in sets for b in sets if a is not b and _fit(a, b)]
        if function is None or not pairs or not _WALKS & set(called.code.co_names):
            continue
        found = [value for pair in pairs if (value := _moved(live, called, function, *pair)) is not None]
        if found:
            value = max(found, key=lambda v: (v["after"] != 0, -abs(v["online"] - 1)))
            name = called.code.co_qualname
            told = {**value, "decay": _decay(called)}
            live.record("probe.ema", name, told, line=value["line"], file=called.code.co_filename)


def _sets(called: Called) -> Iterator[Weights]:
    """The sets of weights that a call can reach: of modules, of dictionaries and lists of tensors."""
    held = vars(called.owner) if called.owner is not None else {}
    inner = getattr(called.owner, "_modules", {})
    for value in {id(v): v for v in (*called.given.values(), *held.values(), *inner.values())}.values():
        if isinstance(value, nn.Module) and value is not called.owner:
            yield lambda v=value: [p.data for p in v.parameters() if p.is_floating_point()]  # type: ignore[misc]
        elif isinstance(value, dict) and value and all(isinstance(t, torch.Tensor) for t in value.values()):
            yield lambda v=value: [t.data for t in v.values() if t.is_floating_point()]  # type: ignore[misc]
        elif isinstance(value, list) and value and all(isinstance(t, torch.Tensor) for t in value):
            yield lambda v=value: [t.data for t in v if t.is_floating_point()]  # type: ignore[misc]


def _fit(one: Weights, other: Weights) -> bool:
    """Whether two sets are copies of one another, in memory of their own."""
    first, second = one(), other()
    apart = not {t.data_ptr() for t in first} & {t.data_ptr() for t in second}
    return bool(first) and apart and [t.shape for t in first] == [t.shape for t in second]


def _moved(
    live: Live, called: Called, function: Callable[..., Any], average: Weights, online: Weights
) -> dict[str, Any] | None:
    """Where both sets are after an update; None where this cannot be asked."""
    kept = [t.clone() for t in (*average(), *online())]
    given = {name: value for name, value in called.given.items() if name != "self"}
    settings = {n: v for n, v in vars(called.owner).items() if isinstance(v, int | float)} if called.owner else {}
    try:
        with torch.no_grad():
            for weights, value in ((average, 0.0), (online, 1.0)):
                for tensor in weights():
                    tensor.fill_(value)
            mixed: list[Op] = []
            for _ in range(MOST_UPDATES):  # one that updates now and then, or begins later, is given the time for it
                with (watch := Trace(live)):
                    live.call(function, **{n: v if isinstance(v, nn.Module) else detached(v) for n, v in given.items()})
                mixed = mixed or _mixtures(watch.ops, {t.shape for t in online()})
                if any(bool(t.any()) for t in average()) or any(bool((t != 1).any()) for t in online()):
                    break
            if not mixed:
                return None
            return {"after": _first(average), "online": _first(online), "line": mixed[-1].line}
    except Exception:  # it wants other arguments
        return None
    finally:
        with torch.no_grad():
            for tensor, old in zip((*average(), *online()), kept, strict=False):
                tensor.copy_(old)
        for name, value in settings.items():
            setattr(called.owner, name, value)


def _mixtures(ops: list[Op], shapes: set[torch.Size]) -> list[Op]:
    """What computes a number between zero and one for every weight, where nothing but arithmetic is done."""
    if any(op.name in _LAYERS for op in ops):
        return []
    made = [op for op in ops if op.line is not None and isinstance(op.out, torch.Tensor) and op.out.shape in shapes]
    return [op for op in made if op.out.is_floating_point() and 0 < float(op.out.min()) == float(op.out.max()) < 1]


_LAYERS = frozenset("linear conv1d conv2d conv_transpose2d embedding matmul layer_norm batch_norm group_norm".split())


def _first(weights: Weights) -> float:
    return float(next(t.flatten()[0] for t in weights() if t.numel()))


def _decay(called: Called) -> float:
    """A number like a decay among what the function is given or its object holds."""
    defaults = inspect.signature(called.function).parameters.values() if called.function is not None else ()
    held = vars(called.owner).values() if called.owner is not None else ()
    numbers = [*called.given.values(), *held, *(p.default for p in defaults)]
    return next((v for v in numbers if isinstance(v, float) and 0.5 < v < 1), 0.99)
