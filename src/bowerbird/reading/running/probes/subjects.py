"""What experiments are made on: the program's modules and functions, with what the program itself gave them.

A subject is asked again with some of what it was given changed.  All it could disturb is put back: weights, buffers,
gradients, modes, random numbers.
"""

import contextlib
import dis
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.calls import Called
from bowerbird.reading.running.observe.modules import detached, tensors
from bowerbird.reading.running.tracing import Op, Trace

LARGEST = 20_000_000
MOST = 40


Given = dict[str, Any]
_TRAINS = frozenset("backward zero_grad save load_state_dict open train_dataloader input".split())


@dataclass(eq=False)
class Subject:
    """``given`` are the arguments by name; ``body`` is the code that reads them."""

    name: str
    file: str
    line: int | None
    given: Given
    call: Callable[[Given], Any]
    body: Any
    module: nn.Module | None = None
    """What was called, where it is a module."""
    around: tuple[nn.Module, ...] = field(default=())

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self.given.items() if isinstance(value, torch.Tensor) and value.numel()}

    @property
    def read(self) -> set[str]:
        """The parameters that the body names."""
        return set(self.body.co_names) | set(self.body.co_varnames[self.body.co_argcount :]) | _loaded(self.body)

    def batch(self) -> int | None:
        """How many examples it was given: the size of the first axis, where all that have axes agree."""
        sizes = {t.shape[0] for t in self.tensors.values() if t.ndim}
        return sizes.pop() if len(sizes) == 1 else None


def _loaded(code: Any) -> set[str]:
    inner = [c for c in code.co_consts if inspect.iscode(c)]
    own = {i.argval for i in dis.get_instructions(code) if i.opname.startswith(("LOAD_FAST", "LOAD_DEREF"))}
    return own.union(*map(_loaded, inner))


def subjects(live: Live) -> list[Subject]:
    """Modules first, the outermost first, then functions and methods in the order in which they were called."""
    if "subjects" not in live.cache:
        live.cache["subjects"] = [*_modules(live), *_functions(live)][: 2 * MOST]
    found: list[Subject] = live.cache["subjects"]
    return found


def _modules(live: Live) -> Iterator[Subject]:
    done: set[tuple[type, tuple[Any, ...]]] = set()
    for path, module in sorted(live.user_modules().items(), key=lambda entry: entry[0].count(".")):
        kept, forward = live.inputs(module), inspect.unwrap(type(module).forward)
        if kept is None or sum(p.numel() for p in module.parameters()) > LARGEST or len(done) >= MOST:
            continue
        try:
            bound = inspect.signature(forward).bind(module, *kept[0], **kept[1])
        except (TypeError, ValueError):
            continue
        arguments = dict(list(bound.arguments.items())[1:])
        if any(
            p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for n, p in bound.signature.parameters.items() if n in arguments
        ):
            continue
        key = type(module), tuple(v.shape if isinstance(v, torch.Tensor) else repr(v)[:40] for v in arguments.values())
        if key in done:
            continue
        done.add(key)
        file, line = live.place_of(forward)
        yield Subject(path, file, line, arguments, partial(_named, module), forward.__code__, module, (module,))


def _named(function: Callable[..., Any], given: Given) -> Any:
    return function(**given)


def _functions(live: Live) -> Iterator[Subject]:
    around = tuple(live.roots.values())
    if sum(p.numel() for m in around for p in m.parameters()) > LARGEST:
        return
    for calls in list(live.called.values())[: 4 * MOST]:
        called = next((c for c in calls if c.returned), None)
        subject = _function(called, around) if called is not None else None
        if subject is not None:
            yield subject


def _function(called: Called, around: tuple[nn.Module, ...]) -> Subject | None:
    code, function = called.code, called.function
    given = {name: value for name, value in called.given.items() if name != "self"}
    given |= {f"*{place}": value for place, value in enumerate(called.rest)} | called.named
    if function is None or code.co_posonlyargcount or not tensors(called.answer):
        return None
    if code.co_name == "forward" or _TRAINS & set(code.co_names) or not tensors(given):
        return None
    if any(isinstance(v, torch.optim.Optimizer) for v in given.values()):
        return None
    held = [v for v in (*given.values(), called.owner) if isinstance(v, nn.Module)]
    name = f"{type(called.owner).__name__}.{code.co_name}" if called.owner is not None else code.co_name
    called_with = partial(_spread, function, bool(called.rest))
    return Subject(name, code.co_filename, code.co_firstlineno, given, called_with, code, None, (*around, *held))


def _spread(function: Callable[..., Any], positional: bool, given: Given) -> Any:
    """Calls a function, by position up to its ``*args`` where it has been given some."""
    if not positional:
        return _named(function, given)
    last = max(place for place, name in enumerate(given) if name[0] == "*")
    entries = list(given.items())
    return function(*(value for _, value in entries[: last + 1]), **dict(entries[last + 1 :]))


def answer(live: Live, subject: Subject, changed: Given | None = None, *, seed: int = 1, training: bool = False,
           shaken: float = 0.0) -> list[torch.Tensor] | None:  # fmt: skip
    """The tensors of an answer without gradients; None where it fails.  ``shaken`` moves all weights by noise, so that
    what begins at zero takes part."""
    with prepared(live, subject, training, shaken):
        live.seed(seed)
        try:
            return tensors(live.call(subject.call, detached({**subject.given, **(changed or {})})))
        except Exception:  # the user's code, given what it was not written for
            return None


def trace(
    live: Live, subject: Subject, changed: Given | None = None, *, shaken: float = 0.0
) -> tuple[list[torch.Tensor], list[Op]] | None:
    """An answer likewise, with every torch function on the way to it."""
    with prepared(live, subject, False, shaken):
        watch = Trace(live)
        live.seed(1)
        try:
            with watch:
                out = live.call(subject.call, detached({**subject.given, **(changed or {})}))
        except Exception:  # as above
            return None
    return tensors(out), watch.ops


@contextlib.contextmanager
def prepared(live: Live, subject: Subject, training: bool, shaken: float) -> Iterator[None]:
    """Inside, the modules are in a mode, and moved by noise; afterwards they are as they were."""
    with live.frozen(*subject.around), torch.no_grad():
        for module in subject.around:
            module.train(training)
        live.seed(0)
        for parameter in {id(p): p for m in subject.around for p in m.parameters()}.values() if shaken else ():
            if parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter) * shaken)
        yield


def influenced(live: Live, subject: Subject, changed: Given, shaken: float = 0.05) -> list[Op]:
    """The torch functions of the program's lines whose floating results a change of arguments alters, in order."""
    one, two = trace(live, subject, shaken=shaken), trace(live, subject, changed, shaken=shaken)
    if one is None or two is None or [o.name for o in one[1]] != [o.name for o in two[1]]:
        return []
    found = []
    for op, other in zip(one[1], two[1], strict=True):
        pairs = [(a, b) for a, b in zip(tensors(op.out), tensors(other.out), strict=False) if a.shape == b.shape]
        if op.line is not None and any(a.is_floating_point() and bool(moved(a, b).any()) for a, b in pairs):
            found.append(op)
    return found


def last_line(live: Live, subject: Subject, given: Given) -> int | None:
    """The last line of the body that runs when it is asked in evaluation: where it returns."""
    reached = live.reached.get(subject.file)
    own = {line for _, _, line in subject.body.co_lines() if line is not None}
    if reached is None:
        return subject.line
    before = set(reached)
    reached.clear()
    answer(live, subject, given)
    ran = reached & own
    reached |= before
    return max(ran, default=subject.line)


def same(one: list[torch.Tensor] | None, other: list[torch.Tensor] | None, least: float = 1e-6) -> bool | None:
    """Whether two answers agree; None where they cannot be compared."""
    if one is None or other is None or not one or [t.shape for t in one] != [t.shape for t in other]:
        return None
    if not all(bool(t.isfinite().all()) for t in (*one, *other) if t.is_floating_point()):
        return None
    return not any(bool(moved(a, b, least).any()) for a, b in zip(one, other, strict=True))


def moved(a: torch.Tensor, b: torch.Tensor, least: float = 1e-5) -> torch.Tensor:
    """Where two tensors differ by more than rounding."""
    if a.is_floating_point() and b.is_floating_point():
        return (a - b).abs() > least * (float(a.detach().abs().max()) + 1e-9)
    return a != b


def exchanged(value: torch.Tensor, along: int | None = None) -> torch.Tensor | None:
    """Another value of the same kind: other numbers of the same range, other labels of those that occur; None where
    there is no other.  ``along`` changes the first entry of that axis alone."""
    other = _exchanged(value)
    if other is None or along is None:
        return other
    mixed = value.clone()
    mixed.select(along, 0).copy_(other.select(along, 0))
    return mixed


def _exchanged(value: torch.Tensor) -> torch.Tensor | None:
    if value.dtype == torch.bool:
        return ~value
    if value.is_complex() or not value.numel():
        return None
    if value.is_floating_point():
        spread = float(value.std()) if value.numel() > 1 else 0.0
        other = value + (spread + 0.1) * torch.randn(value.shape, generator=torch.Generator().manual_seed(3))
        low, high = float(value.min()), float(value.max())
        return other.clamp(low, high) if low < high else other
    low, high = int(value.min()), int(value.max())
    return low + high - value if low < high else None


def tell(live: Live, name: str, subject: str, holds: bool, said: str, file: str, line: int | None, **more: Any) -> None:
    """Records a property of a subject: whether it holds, and what was seen."""
    live.record(f"property.{name}", subject, {"holds": holds, "said": said, **more}, line=line, file=file)
