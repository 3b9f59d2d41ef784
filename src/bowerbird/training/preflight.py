"""One profiled step before a run starts: does it fit, what does it compute, how long will it take."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bowerbird.errors import BowerbirdError
from bowerbird.machine import available_memory, synchronize
from bowerbird.models.base import Batch, GenerativeModel

PROBE_EXAMPLES = 4


@dataclass(frozen=True)
class Preflight:
    """What one optimiser step costs."""

    parameters: int
    flops_per_step: float
    """Multiplications and additions of forward and backward passes (not the optimiser's)."""
    memory: int
    """Bytes of weights, average, optimiser state, gradients and saved activations."""
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
) -> Preflight:
    """Measures one step without changing the model.

    ``batch(n)`` gives n training examples.  Memory and operations are counted on a few examples and scaled to the
    batch; BowerbirdError when the result cannot fit.  Only then a step of the real size is timed.
    """
    with _unchanged(model):
        n = min(PROBE_EXAMPLES, micro_batch_size)
        activations, flops = _count(model, batch(n), autocast)
        parameters = sum(p.numel() for p in model.parameters())
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        # weights, gradients, average, and two moments of Adam
        memory = 5 * weights + activations * micro_batch_size // n
        free = available_memory(model.device)
        if free is not None and memory > free:
            raise BowerbirdError(
                f"A step needs about {memory / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; choose a smaller "
                f"--train.batch-size (now {micro_batch_size * accumulate}), raise --train.accumulate (now "
                f"{accumulate}), or use a smaller network or --data.size."
            )
        examples = batch(micro_batch_size)
        _run(model, examples, autocast)
        start = time.perf_counter()
        _run(model, examples, autocast)
        seconds = (time.perf_counter() - start) * accumulate
    return Preflight(parameters, flops * micro_batch_size / n * accumulate, memory, seconds)


def _run(model: GenerativeModel, batch: Batch, autocast: Callable[[], torch.autocast]) -> None:
    losses = model.losses(batch)
    while True:
        with autocast():
            loss = next(losses, None)
        if loss is None:
            break
        own = [p for p in model.players[loss.player].parameters() if p.requires_grad]
        torch.autograd.backward(loss.value, inputs=own)
    synchronize(model.device)


def _count(model: GenerativeModel, batch: Batch, autocast: Callable[[], torch.autocast]) -> tuple[int, float]:
    """Bytes saved for backward passes (each storage once) and floating-point operations of one step."""
    storages: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def save(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return x

    with _eagerly(), torch.autograd.graph.saved_tensors_hooks(save, lambda x: x), _FlopCounter() as counter:
        _run(model, batch, autocast)
    return sum(storages.values()), float(counter.flops)


def _eagerly() -> AbstractContextManager[Any]:
    """Inside, compiled networks run uncompiled."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


class _FlopCounter(TorchDispatchMode):
    """Adds up torch's own formulas.  (Its FlopCounterMode also tracks modules, which breaks ``autograd.grad``.)"""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler to keep it out of here; ``_eagerly`` does so where it is loaded."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


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
