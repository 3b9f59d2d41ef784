"""One profiled step before a run starts: does it fit, what does it compute, how long will it take.

Memory is counted, not guessed: on two passes over a few examples, every tensor that comes and goes is written down with
its size.  What grows from one pass to the other grows with the examples, so each size is known for the whole batch, and
the same coming and going with these sizes has the peak that the batch will have.
"""

import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bowerbird.errors import BowerbirdError
from bowerbird.machine import available_memory, synchronize
from bowerbird.models.base import Batch, GenerativeModel
from bowerbird.spec import Classes, Field, Spec, Tensors, Tokens

PROBE_EXAMPLES = 4
MARGIN = 1.1
"""A step is refused when this many times its memory is not free: libraries keep some scratch space of their own."""
LARGE_EXAMPLE = 1 << 17
"""Numbers in an example from which on even a probe of a few might not fit, and is first made without memory."""
LIKELY_MAPS = 100
"""Numbers per number of a large example that a step keeps at least, where the network cannot be run without memory."""


@dataclass(frozen=True)
class Preflight:
    """What one optimiser step costs."""

    parameters: int
    flops_per_step: float
    """Multiplications and additions of forward and backward passes (not the optimiser's)."""
    memory: int
    """Bytes of weights, average, optimiser state, and of the gradients and activations at their peak."""
    seconds_per_step: float

    def sentence(self, steps: float | None, seconds: float | None) -> str:
        """The estimate in one line, for a run of so many steps or seconds, whichever ends first."""
        times = [t for t in (steps and steps * self.seconds_per_step, seconds) if t]
        duration = f"about {min(times) / 60:.1f} minutes" if times else "until stopped"
        return (
            f"{self.parameters / 1e6:.2f} M parameters, {self.flops_per_step / 1e9:.1f} GFLOP and "
            f"{self.seconds_per_step:.3f} s per step, {self.memory / 1e9:.2f} GB, {duration}"
        )


def preflight(
    model: GenerativeModel,
    batch: Callable[[int], Batch],
    micro_batch_size: int,
    accumulate: int,
    autocast: Callable[[], torch.autocast],
    *,
    longest: Callable[[int], Batch] | None = None,
    optimizer_bytes: int | None = None,
) -> Preflight:
    """Measures one step without changing the model.

    ``batch(n)`` gives n training examples, ``longest(n)`` the n longest, if their lengths differ; ``optimizer_bytes``
    is the size of the optimisers' state (None: two moments).  BowerbirdError when the step cannot fit.  Only then a
    step of the real size is timed.
    """
    with _unchanged(model):
        n = min(PROBE_EXAMPLES, micro_batch_size)
        first = trace(model, batch(n), autocast)
        at_n = first if longest is None else trace(model, longest(n), autocast)
        fewer = n // 2 and trace(model, (longest or batch)(n // 2), autocast)
        activations = _peak(at_n, fewer or None, n, micro_batch_size, accumulate)
        weights = n_bytes(model.state_dict().values())
        average = n_bytes(model.parameters())
        optimizer = 2 * average if optimizer_bytes is None else optimizer_bytes
        require(model.device, optimizer + activations, weights + average, micro_batch_size, accumulate)
        seconds = _timed(model, batch(micro_batch_size), autocast) * accumulate
    parameters = sum(p.numel() for p in model.parameters())
    flops = first.flops * micro_batch_size / n * accumulate
    return Preflight(parameters, flops, weights + average + optimizer + activations, seconds)


def require(device: torch.device, n_bytes: int, held: int, micro_batch_size: int, accumulate: int) -> None:
    """BowerbirdError unless so much memory is free, with a margin; ``held`` is what the run has taken already."""
    free = available_memory(device)
    if free is not None and MARGIN * n_bytes > free:
        raise BowerbirdError(
            f"A step needs about {(n_bytes + held) / 1e9:.1f} GB, but {(free + held) / 1e9:.1f} GB are free for it; "
            f"choose a smaller --train.batch-size (now {micro_batch_size * accumulate}), raise --train.accumulate (now "
            f"{accumulate}), or use a smaller network or --data.size."
        )


def n_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def _timed(model: GenerativeModel, batch: Batch, autocast: Callable[[], torch.autocast]) -> float:
    start = time.perf_counter()
    for _ in _passes(model, batch, autocast):
        pass
    return time.perf_counter() - start


def _passes(model: GenerativeModel, batch: Batch, autocast: Callable[[], torch.autocast]) -> Iterator[None]:
    """The forward and backward pass of each loss, as the trainer makes them; gradients are gone after each."""
    losses = model.losses(batch)
    while True:
        with autocast():
            loss = next(losses, None)
        if loss is None:
            break
        own = [p for p in model.players[loss.player].parameters() if p.requires_grad]
        torch.autograd.backward(loss.value, inputs=own)
        for p in own:
            p.grad = None
        del loss  # and with it what its graph holds, as when the trainer's function returns
        yield
    synchronize(model.device)


def _eagerly() -> AbstractContextManager[Any]:
    """Inside, compiled networks run uncompiled."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


# ------------------------------------------------------------------------------------------ what comes and goes


class Trace(TorchDispatchMode):
    """Writes down every tensor that operations make and that is freed again, and adds up torch's own FLOP formulas.

    (torch's FlopCounterMode also tracks modules, which breaks ``autograd.grad``.)
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.flops = 0
        self.sizes: list[int] = []
        """Bytes of each storage, in the order in which they were made."""
        self.events: list[int | None] = []
        """i: storage i was made; ~i: it was freed; None: a backward pass has ended."""
        self._live = {one.untyped_storage()._cdata: -1 for one in known}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler to keep it out of here; ``_eagerly`` does so where it is loaded."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        for one in tree_leaves(out):
            if isinstance(one, Tensor) and one.layout == torch.strided:
                self._made(one.untyped_storage())
        return out

    def _made(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._live:
            self._live[key] = len(self.sizes)
            self.events.append(len(self.sizes))
            self.sizes.append(storage.nbytes())
            weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.events.append(~self._live.pop(key))


def trace(model: GenerativeModel, batch: Batch, autocast: Callable[[], torch.autocast]) -> Trace:
    """What the passes over a batch make and compute."""
    given = [one for one in tree_leaves(tuple(batch)) if isinstance(one, Tensor)]
    with _eagerly(), Trace([*model.state_dict().values(), *given]) as traced:
        for _ in _passes(model, batch, autocast):
            traced.events.append(None)
    traced.sizes.append(n_bytes(given))
    return traced


def _peak(at_n: Trace, fewer: Trace | None, n: int, micro_batch_size: int, accumulate: int) -> int:
    """Bytes at the peak of a step of ``accumulate`` micro-batches, of which n and n // 2 examples were traced.

    What a family still holds when a backward pass has ended, it holds of every micro-batch.
    """
    if fewer is not None and len(fewer.sizes) == len(at_n.sizes):
        slopes = [(a - b) / (n - n // 2) for a, b in zip(at_n.sizes, fewer.sizes, strict=True)]
    else:
        slopes = [a / n for a in at_n.sizes]
    *sizes, given = (a + slope * (micro_batch_size - n) for a, slope in zip(at_n.sizes, slopes, strict=True))
    live = peak = between = 0.0
    for event in at_n.events:
        if event is None:
            between = max(between, live)
        else:
            live += sizes[event] if event >= 0 else -sizes[~event]
            peak = max(peak, live)
    return int(peak + given + (accumulate - 1) * (between + given))


# ------------------------------------------------------------------------------------------------- before anything is


def require_room(
    build: Callable[[], GenerativeModel], spec: Spec, device: torch.device, micro_batch_size: int, accumulate: int
) -> None:
    """BowerbirdError if a step on very large examples cannot fit, found without allocating one or the network."""
    if not isinstance(spec.target, Tensors) or spec.target.dims < LARGE_EXAMPLE:
        return
    from torch._subclasses.fake_tensor import FakeTensorMode  # takes a second to load

    n = min(2, micro_batch_size)
    try:
        with FakeTensorMode():
            model = build()
            traces = [trace(model, _empty(spec, size), _in_fp32) for size in (n, 1)]
            held = 5 * n_bytes(model.parameters())
        needed = _peak(traces[0], traces[1] if n > 1 else None, n, micro_batch_size, accumulate) + held
    except BowerbirdError:
        return  # it will be raised again by those who build the network
    except Exception:  # a network that looks at values cannot be run on tensors that have none
        needed = LIKELY_MAPS * 4 * spec.target.dims * micro_batch_size
    require(device, needed, 0, micro_batch_size, accumulate)


def _in_fp32() -> torch.autocast:
    return torch.autocast("cpu", enabled=False)


def _empty(spec: Spec, n: int) -> Batch:
    """A batch of the shapes of a spec, whose values do not matter."""
    return Batch(_values(spec.target, n), {name: _values(one, n) for name, one in spec.given.items()})


def _values(field: Field, n: int) -> Tensor:
    match field:
        case Classes():
            return torch.zeros(n, dtype=torch.int64)
        case Tokens():
            return torch.zeros(n, field.context, dtype=torch.int64)
    return torch.zeros(n, *field.shape)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Puts parameters and buffers (running statistics, clipped weights) back and drops the gradients."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        yield
    finally:
        model.load_state_dict(before)
        for p in model.parameters():
            p.grad = None
