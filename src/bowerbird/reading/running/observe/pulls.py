"""What a loss asks of the outputs of modules: the gradient that arrives at each call of a root module.

A negative mean says that a smaller loss wants larger outputs.  Two adversaries that really oppose each other ask the
opposite of the same scores, whichever labels and signs they are written with.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch

LARGEST = 1_000_000
MOST_NODES = 48


class Pulls:
    """Gradients at the first output of each call, while a backward pass is under way."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.listening = False

    def listen(self, number: int, module: str, outputs: list[torch.Tensor]) -> None:
        """Waits for the gradient of a call's first output."""
        first = next((t for t in outputs if t.requires_grad and t.grad_fn is not None), None)
        if first is not None and first.is_floating_point() and first.numel() <= LARGEST:
            first.register_hook(partial(self._arrived, number, module))

    def begin(self) -> None:
        self.rows, self.listening = {}, True

    def end(self) -> list[dict[str, Any]]:
        """What has arrived since ``begin``, one row per call."""
        self.listening = False
        return [self.rows[number] for number in sorted(self.rows)][:24]

    def _arrived(self, number: int, module: str, gradient: torch.Tensor) -> None:
        if not self.listening or number in self.rows or gradient.is_sparse or not gradient.numel():
            return
        with torch._C.DisableTorchFunction(), torch.no_grad():
            flat = gradient.detach().float().reshape(-1)
            low, high = flat.aminmax()
            self.rows[number] = {
                "call": number, "module": module, "mean": float(flat.mean()), "abs": float(flat.abs().mean()),
                "min": float(low), "max": float(high), "of": flat.numel(),
            }  # fmt: skip


def upstream(inputs: Iterable[torch.Tensor], calls: Mapping[int, int]) -> list[int]:
    """The nearest calls whose outputs the inputs were computed from, found in their graph; ``calls`` by node."""
    queue = [t.grad_fn for t in inputs if t.grad_fn is not None]
    seen: set[int] = set()
    found: set[int] = set()
    while queue and len(seen) < MOST_NODES:
        node = queue.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if id(node) in calls:
            found.add(calls[id(node)])
            continue
        queue += [child for child, _ in node.next_functions if child is not None]
    return sorted(found)
