"""A trace: every torch function of one call of the user's code with its tensors, so that probes can follow values.

``Trace`` keeps operands and results alive; ``parents`` of a call are the calls that made its operands, so that a weight
matrix can be followed to where it is contracted, and scores back to the queries and keys they came from.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import tensors

_SILENT = frozenset(
    "__get__ __set__ size dim numel __len__ __bool__ __hash__ stride is_floating_point __repr__".split()
)
MOST_CALLS = 4_000
MOST_ELEMENTS = 40_000_000
LARGEST = 100_000_000


@dataclass(eq=False)
class Op:
    """One call of a torch function: ``parents`` made its operands."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    line: int | None
    file: str
    function: str
    parents: list["Op"] = field(default_factory=list)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)

    def operands(self) -> list[torch.Tensor]:
        return tensors((self.args, self.kwargs))


class Trace(TorchFunctionMode):
    """Records the torch functions that are called while it is entered, in order."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self.live = live
        self.ops: list[Op] = []
        self.elements = 0
        self._made: dict[int, Op] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        parents = [self._made[id(t)] for t in tensors((args, kwargs)) if id(t) in self._made]
        before = args[0].clone() if name == "masked_fill_" and isinstance(args[0], torch.Tensor) else None
        out = func(*args, **kwargs)
        if name in _SILENT or len(self.ops) >= MOST_CALLS or self.elements > MOST_ELEMENTS:
            return out
        made = tensors(out)
        if made:
            frame = self.live.recorder.user_frame(sys._getframe(1))
            where = (
                ("", None, "") if frame is None else (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
            )
            kept = args if before is None else (before, *args[1:])
            op = Op(name, tuple(kept), kwargs, out, where[1], where[0], where[2], parents)
            self.ops.append(op)
            for tensor in made:
                self._made[id(tensor)] = op
                self.elements += tensor.numel()
        return out


@dataclass(eq=False)
class Traced:
    """One forward call of a module on the inputs that the program gave it first."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    ops: list[Op]

    def heirs(self, op: Op) -> Iterator[Op]:
        """The calls after this one that take its result, in order."""
        return (later for later in self.ops if op in later.parents)


def traced(live: Live) -> list[Traced]:
    """A trace of every root module that was called, in evaluation mode and without gradients; made once."""
    if "traces" in live.cache:
        kept: list[Traced] = live.cache["traces"]
        return kept
    found: list[Traced] = []
    live.cache["traces"] = found
    for name, module in list(live.roots.items()):
        given = live.inputs(module)
        if given is None or len(found) >= 8 or sum(p.numel() for p in module.parameters()) > LARGEST:
            continue
        result = trace_call(live, name, module, *given)
        if result is not None:
            found.append(result)
    return found


def trace_call(live: Live, name: str, module: nn.Module, args: Any, kwargs: Any) -> Traced | None:
    """A trace of one call in evaluation mode; None where it fails."""
    with live.frozen(module), torch.no_grad():
        module.eval()
        trace = Trace(live)
        try:
            with trace:
                out = live.call(module, *args, **kwargs)
        except Exception:  # the user's forward fails in evaluation: that is not this probe's matter
            return None
    return Traced(name, module, args, kwargs, out, trace.ops)


def scalar(value: Any) -> float | None:
    """A Python number or a tensor of one element as a number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, torch.Tensor) and value.numel() == 1 and value.is_floating_point():
        return float(value)
    return None


CONTRACTIONS = frozenset("matmul __matmul__ __rmatmul__ bmm mm einsum baddbmm mv".split())


@dataclass(frozen=True)
class Contraction:
    """Which two operands are multiplied and along which axis of each they are summed."""

    left: torch.Tensor
    right: torch.Tensor
    left_axes: tuple[int, ...]
    right_axes: tuple[int, ...]

    @property
    def width(self) -> int:
        """How many products each sum has."""
        size = 1
        for axis in self.left_axes:
            size *= self.left.shape[axis]
        return size


def contraction(op: Op) -> Contraction | None:
    """The contraction that a call performs, or None."""
    if op.name not in CONTRACTIONS:
        return None
    if op.name == "einsum":
        return _einsum(op)
    offset = 1 if op.name == "baddbmm" else 0
    pair = op.args[offset : offset + 2]
    if op.name == "__rmatmul__":
        pair = pair[::-1]
    if len(pair) < 2 or not all(isinstance(t, torch.Tensor) for t in pair):
        return None
    left, right = pair
    return Contraction(left, right, (left.ndim - 1,), (max(right.ndim - 2, 0),))


def _einsum(op: Op) -> Contraction | None:
    given = list(op.args[1:]) if op.args and isinstance(op.args[0], str) else []
    if len(given) == 1 and isinstance(given[0], list | tuple):
        given = list(given[0])
    if len(given) != 2 or not all(isinstance(t, torch.Tensor) for t in given):
        return None
    inputs, arrow, output = op.args[0].replace(" ", "").partition("->")
    names = inputs.split(",")
    if len(names) != 2 or not arrow:
        return None
    summed = [letter for letter in names[0] if letter in names[1] and letter not in output and letter != "."]
    if not summed:
        return None

    def axes(letters: str, tensor: torch.Tensor) -> tuple[int, ...]:
        _, dots, after = letters.partition("...")
        return tuple(
            tensor.ndim - len(after) + after.index(s) if dots and s in after else letters.index(s) for s in summed
        )

    return Contraction(given[0], given[1], axes(names[0], given[0]), axes(names[1], given[1]))
