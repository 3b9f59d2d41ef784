"""Watches training: optimisers and their steps, backward passes and what they reached, clipping, schedules."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from bowerbird.reading.running.observe.modules import ModuleWatch
from bowerbird.reading.running.observe.names import Names
from bowerbird.reading.running.putting import put
from bowerbird.reading.running.recorder import Recorder

DETAILED_STEPS = 8
LARGEST_DELTA = 30_000_000
MOST_NODES = 30_000


class TrainingWatch:
    """Patches optimisers, backward, clipping and schedules."""

    def __init__(self, recorder: Recorder, names: Names, modules: ModuleWatch) -> None:
        self.recorder, self.names, self.modules = recorder, names, modules
        self.optimizers: list[Optimizer] = []
        self.steps: Counter[int] = Counter()
        self.reached: set[int] = set()
        self.owned: set[int] = set()
        self.backwards = 0
        self.quiet = False
        self.within_step = False
        self._by_hand = 0
        self._before: dict[int, list[torch.Tensor]] = {}
        self._versions: dict[int, list[int]] = {}
        self._owner: dict[int, str] = {}

    def install(self) -> None:
        self._watch_optimizers()
        self._watch_backward()
        self._watch_clipping()
        self._watch_schedules()

    def laggards(self) -> bool:
        """Whether an optimiser that exists has not stepped three times yet."""
        return any(self.steps[id(optimizer)] < 3 for optimizer in self.optimizers)

    def owner(self, parameter: torch.Tensor) -> str:
        """The root module that a parameter belongs to, by the user's name; empty for a tensor of its own."""
        if id(parameter) not in self._owner:
            roots = self.modules.roots()
            self._owner = {id(p): name for name, root in reversed(roots.items()) for p in root.parameters()}
        return self._owner.get(id(parameter), "")

    def owner_of_memory(self, tensor: torch.Tensor) -> str:
        """The root module that has a parameter in this memory: ``p.data`` is another tensor than ``p``."""
        pointer = tensor.data_ptr()
        for name, root in self.modules.roots().items():
            if any(p.data_ptr() == pointer for p in root.parameters()):
                return name
        return ""

    def moved_by_hand(self, tensor: torch.Tensor, file: str, line: int | None) -> None:
        """A parameter is changed in place where there is no optimiser: the first after a backward counts as a step."""
        if self.backwards == self._by_hand or self.quiet:
            return
        with torch._C.DisableTorchFunction():
            owner = self.owner_of_memory(tensor)
        if owner:
            self._by_hand = self.backwards
            value = {**self.recorder.tick(), "n": self.recorder.steps + 1, "class": "by hand", "owners": {owner: 1}}
            self.recorder("event.step", "by hand", value, file=file, line=line)
            self.recorder.steps += 1

    def owners(self, parameters: Iterable[torch.Tensor]) -> Counter[str]:
        """How many tensors of each root module there are among the parameters."""
        return Counter(self.owner(parameter) for parameter in parameters)

    def _watch_optimizers(self) -> None:
        create, clear = Optimizer.__init__, Optimizer.zero_grad
        watch = self

        def created(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            create(optimizer, *args, **kwargs)
            if not watch.quiet:
                with torch._C.DisableTorchFunction():
                    watch._created(optimizer)

        def cleared(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            if not watch.quiet:
                owners = sorted(watch.owners(_parameters(optimizer)))
                value = {**watch.recorder.tick(), "owners": owners}
                watch.recorder("event.zero_grad", watch.names.of(optimizer), value)
            clear(optimizer, *args, **kwargs)

        module_clear = nn.Module.zero_grad

        def module_cleared(module: nn.Module, *args: Any, **kwargs: Any) -> None:
            if not watch.quiet:
                value = {**watch.recorder.tick(), "owners": sorted(watch.owners(module.parameters()))}
                watch.recorder("event.zero_grad", watch.names.of_module(module), value)
            module_clear(module, *args, **kwargs)

        put(Optimizer, __init__=created, zero_grad=cleared)
        put(nn.Module, zero_grad=module_cleared)
        register_optimizer_step_pre_hook(lambda optimizer, *_: _unwatched(watch._stepping, optimizer))
        register_optimizer_step_post_hook(lambda optimizer, *_: _unwatched(watch._stepped, optimizer))

    def _created(self, optimizer: Optimizer) -> None:
        self.optimizers.append(optimizer)
        parameters = _parameters(optimizer)
        self.owned |= {id(p) for p in parameters}
        self._owner.clear()
        roots = self.modules.roots()
        given = {id(p) for p in parameters}
        owners = {}
        for name, root in roots.items():
            own = list(root.parameters())
            here = sum(id(p) in given for p in own)
            if here:
                owners[name] = {"tensors": here, "of": len(own)}
        for name in owners:
            self.modules._snapshot(roots[name])
        defaults = {k: v for k, v in optimizer.defaults.items() if isinstance(v, int | float | bool | tuple)}
        value = {
            **self.recorder.tick(), "class": type(optimizer).__name__, "lr": optimizer.defaults.get("lr"),
            "betas": optimizer.defaults.get("betas"), "weight_decay": optimizer.defaults.get("weight_decay"),
            "momentum": optimizer.defaults.get("momentum"), "defaults": defaults, "groups": len(optimizer.param_groups),
            "tensors": len(parameters), "elements": sum(p.numel() for p in parameters), "owners": owners,
            "frozen": sum(not p.requires_grad for p in parameters), "identity": len(self.optimizers),
        }  # fmt: skip
        self.recorder("optimizer.created", f"optimizer {len(self.optimizers)}", value)

    def _identity(self, optimizer: Optimizer) -> int:
        return next((n for n, other in enumerate(self.optimizers, 1) if other is optimizer), 0)

    def _stepping(self, optimizer: Optimizer) -> None:
        self.within_step = True
        self._versions[id(optimizer)] = [p._version for p in _parameters(optimizer)]
        if self.quiet or self.steps[id(optimizer)] >= DETAILED_STEPS:
            return
        parameters = _parameters(optimizer)
        if sum(p.numel() for p in parameters) <= LARGEST_DELTA:
            self._before[id(optimizer)] = [p.detach().clone() for p in parameters]

    def _stepped(self, optimizer: Optimizer) -> None:
        self.within_step = False
        if self.quiet:
            return
        self.steps[id(optimizer)] += 1
        before, versions = self._before.pop(id(optimizer), None), self._versions.pop(id(optimizer), [])
        parameters = _parameters(optimizer)
        self.owned |= {id(p) for p in parameters}
        grads = [p.grad for p in parameters if p.grad is not None]
        value = {
            **self.recorder.tick(), "n": self.steps[id(optimizer)], "lr": [g.get("lr") for g in optimizer.param_groups],
            "tensors": len(parameters), "none": len(parameters) - len(grads), "class": type(optimizer).__name__,
            "identity": self._identity(optimizer),
            "versions": sorted({
                (p.numel(), v, p._version) for p, v in zip(parameters, versions, strict=False) if p._version > v
            }),
        }  # fmt: skip
        self.recorder.steps += 1
        if before is not None:
            delta = norm([p.detach() - b for p, b in zip(parameters, before, strict=True)])
            value |= {
                "grad_norm": norm(grads), "delta": delta, "weight_norm": norm(before),
                "zero": sum(not bool(g.any()) for g in grads if not g.is_sparse), "owners": self.owners(parameters),
            }  # fmt: skip
        self.recorder("event.step", self.names.of(optimizer), value)

    def _watch_backward(self) -> None:
        backward, grad = torch.autograd.backward, torch.autograd.grad
        watch = self

        def watched(tensors: Any, *args: Any, **kwargs: Any) -> None:
            if watch.quiet:
                return backward(tensors, *args, **kwargs)
            losses = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
            with torch._C.DisableTorchFunction():
                finish = watch._backward(losses, args, kwargs)
            backward(tensors, *args, **kwargs)
            with torch._C.DisableTorchFunction():
                finish()

        def graded(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            result = grad(outputs, inputs, *args, **kwargs)
            if not watch.quiet:
                wanted = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
                watch.recorder(
                    "autograd.grad", "grad",
                    {**watch.recorder.tick(), "shapes": [list(t.shape) for t in wanted],
                     "create_graph": bool(kwargs.get("create_graph"))},
                )  # fmt: skip
            return result

        put(torch.autograd, backward=watched, grad=graded)

    def _backward(self, losses: list[torch.Tensor], args: Any, kwargs: Any) -> Callable[[], None]:
        self.backwards += 1
        recorder = self.recorder
        value: dict[str, Any] = recorder.tick()
        value |= {
            "n": self.backwards, "loss": float(losses[0].detach().reshape(-1)[0]) if losses[0].numel() else None,
            "retain_graph": bool(kwargs.get("retain_graph") or (len(args) > 1 and args[1])),
            "create_graph": bool(kwargs.get("create_graph")),
        }  # fmt: skip
        file, line = recorder.here()
        self.modules.pulls.begin()
        leaves = self._graph(losses, value)
        self.reached |= {id(leaf) for leaf in leaves}
        groups: dict[str, list[torch.Tensor]] = {}
        for leaf in leaves:
            groups.setdefault(self.owner(leaf), []).append(leaf)
        detailed = self.backwards <= 40
        before = {k: norm([p.grad for p in ps if p.grad is not None]) for k, ps in groups.items()} if detailed else {}

        def finish() -> None:
            value["pulls"] = self.modules.pulls.end()
            if detailed:
                value["grads"] = {
                    name: {
                        "tensors": len(own), "norm_before": before[name],
                        "norm": norm([p.grad for p in own if p.grad is not None]),
                        "trainable": sum(p.requires_grad for p in own),
                    }
                    for name, own in groups.items()
                }  # fmt: skip
            recorder("event.backward", "backward", value, file=file, line=line)

        return finish

    def _graph(self, losses: list[torch.Tensor], value: dict[str, Any]) -> list[torch.Tensor]:
        """Walks the graph of a loss: its leaves, and which calls of root modules it goes through."""
        queue = [loss.grad_fn for loss in losses if loss.grad_fn is not None]
        seen = {id(node): node for node in queue}
        leaves = []
        while queue and len(seen) < MOST_NODES:
            node = queue.pop()
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                leaves.append(leaf)
            for child, _ in node.next_functions:
                if child is not None and id(child) not in seen:
                    seen[id(child)] = child
                    queue.append(child)
        through = [
            {"module": call.module, "call": call.number, "line": call.line} for call in self.modules.recent
            if any(id(node) in seen for node in call.nodes)
        ]  # fmt: skip
        value |= {"through": through[-12:], "nodes": len(seen)}
        return leaves

    def _watch_clipping(self) -> None:
        for name in ("clip_grad_norm_", "clip_grad_value_", "clip_grad_norm"):
            original = getattr(nn.utils, name, None)
            if original is None:
                continue
            wrapped = self._clipping(name, original)
            setattr(nn.utils, name, wrapped)
            setattr(nn.utils.clip_grad, name, wrapped)

    def _clipping(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def clipped(parameters: Any, *args: Any, **kwargs: Any) -> Any:
            kept: Any = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
            result = original(kept, *args, **kwargs)
            if not self.quiet:
                most = args[0] if args else next(iter(kwargs.values()), None)
                total = float(result) if isinstance(result, torch.Tensor) else None
                value = {**self.recorder.tick(), "max": most, "total": total, "owners": self.owners(kept)}
                self.recorder("event.clip", name, value)
            return result

        return clipped

    def _watch_schedules(self) -> None:
        watch = self
        for kind in (LRScheduler, ReduceLROnPlateau):
            watch._watch_schedule(kind)

    def _watch_schedule(self, kind: Any) -> None:
        step, create = kind.step, kind.__init__
        watch = self
        building: list[Any] = []

        def created(scheduler: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
            building.append(scheduler)
            try:
                create(scheduler, optimizer, *args, **kwargs)
            finally:
                building.pop()
            if not watch.quiet:
                settings = {k: v for k, v in vars(scheduler).items() if isinstance(v, int | float | list | tuple)}
                value = {"optimizer": watch.names.of(optimizer), "settings": settings, **watch.recorder.tick()}
                watch.recorder("scheduler.created", type(scheduler).__name__, value)

        def stepped(scheduler: Any, *args: Any, **kwargs: Any) -> None:
            step(scheduler, *args, **kwargs)
            if not watch.quiet and scheduler not in building:
                value = {**watch.recorder.tick(), "lr": [g["lr"] for g in scheduler.optimizer.param_groups]}
                watch.recorder("event.scheduler", type(scheduler).__name__, value)

        kind.__init__, kind.step = created, stepped

    def report(self) -> None:
        """Names of optimisers as they ended up."""
        for number, optimizer in enumerate(self.optimizers, 1):
            value = {"name": self.names.of(optimizer), "steps": self.steps[id(optimizer)]}
            self.recorder("optimizer.steps", f"optimizer {number}", value, line=None, file="")


def _unwatched(function: Callable[[Optimizer], None], optimizer: Optimizer) -> None:
    with torch._C.DisableTorchFunction():
        function(optimizer)


def norm(tensors: list[torch.Tensor]) -> float:
    """The Euclidean norm of all tensors together."""
    dense = [t.detach().float() for t in tensors if not t.is_sparse and not t.is_complex()]
    if not dense:
        return 0.0
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(dense))))


def _parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
