"""Watches modules: their creation, every call, switches between training and evaluation, and how far they moved."""

import sys
import weakref
from collections import Counter, deque
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakIdKeyDictionary

from bowerbird.reading.running.observe.names import Names
from bowerbird.reading.running.observe.pulls import Pulls, upstream
from bowerbird.reading.running.putting import put
from bowerbird.reading.running.recorder import Recorder, summary

if TYPE_CHECKING:
    from bowerbird.reading.running.observe.calls import CallWatch
    from bowerbird.reading.running.observe.flow import Flow

LARGEST_COPY = 4_000_000
DETAILED_FORWARDS = 400
DETAILED_AT_A_LINE = 24
SNAPSHOT = 40_000_000
MOST_MODULES = 4_000
_BETWEEN = ("observe/modules.py", "nn/modules/module.py")


@dataclass
class Calls:
    """What is counted of one module."""

    calls: int = 0
    returned: int = 0
    training: int = 0
    lines: Counter[int] = field(default_factory=Counter)


@dataclass
class Forward:
    """One call of a root module, as long as its graph may matter."""

    number: int
    module: str
    line: int | None
    nodes: list[Any]


class ModuleWatch:
    """Patches ``nn.Module``: creation, call, ``train``."""

    def __init__(self, recorder: Recorder, names: Names) -> None:
        self.recorder, self.names = recorder, names
        self.calls: MutableMapping[nn.Module, Calls] = WeakIdKeyDictionary()
        self.inputs: MutableMapping[nn.Module, tuple[Any, Any]] = WeakIdKeyDictionary()
        self.recent: deque[Forward] = deque(maxlen=32)
        self.pulls = Pulls()
        self.outputs: dict[int, tuple[int, StorageWeakRef]] = {}
        self.active: list[nn.Module] = []
        self.given: tuple[Any, Any] = ((), {})
        self.number = 0
        self.start: dict[int, tuple[weakref.ref[nn.Module], dict[str, torch.Tensor]]] = {}
        self.carried: dict[int, dict[str, list[float]]] = {}
        self.quiet = False
        self.flow: "Flow | None" = None
        self.functions: "CallWatch | None" = None
        self._switching = 0
        self._at_line: Counter[tuple[int, int | None]] = Counter()
        self._wrapped: set[type] = set()

    def install(self) -> None:
        create, train = nn.Module.__init__, nn.Module.train
        watch = self

        def created(module: nn.Module, *args: Any, **kwargs: Any) -> None:
            create(module, *args, **kwargs)
            watch._created(module)

        def switched(module: nn.Module, mode: bool = True) -> nn.Module:
            outermost = watch._switching == 0
            watch._switching += 1
            try:
                result = train(module, mode)
            finally:
                watch._switching -= 1
            if outermost and not watch.quiet:
                value = {**watch.recorder.tick(), "training": bool(mode)}
                watch.recorder("event.mode", watch.names.of_module(module), value)
            return result

        def called(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return watch._called(module, module._wrapped_call_impl, args, kwargs)

        restore = nn.Module.__setstate__

        def restored(module: nn.Module, state: Any) -> None:
            restore(module, state)
            watch._created(module)

        make = nn.Parameter.__new__

        def parameter(kind: type[nn.Parameter], data: Any = None, *args: Any, **kwargs: Any) -> nn.Parameter:
            if watch.flow is not None:
                watch.flow.takes((data,), {})  # it lives on in the parameter
            return make(kind, data, *args, **kwargs)

        put(nn.Module, __init__=created, __setstate__=restored, train=switched, __call__=called)
        put(nn.Parameter, __new__=parameter)

    def _created(self, module: nn.Module) -> None:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and not self.recorder.is_user_code(frame.f_code):
            frame = frame.f_back
        while frame is not None and frame.f_locals.get("self") is module:
            frame = self.recorder.user_frame(frame.f_back) if frame.f_back is not None else None
        file, line = ("", None) if frame is None else (frame.f_code.co_filename, frame.f_lineno)
        if not self.quiet and not _ours(module) and len(self.names.created) < MOST_MODULES:
            self.names.created.append((module, file, line))
        self._watch_forward(type(module))

    def _watch_forward(self, kind: type[nn.Module]) -> None:
        """So that ``model.forward(x)`` counts as a call too."""
        forward: Any = kind.__dict__.get("forward")
        code = getattr(forward, "__code__", None)
        if kind in self._wrapped or not self.recorder.is_user_code(code):
            return
        self._wrapped.add(kind)

        def forwarded(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self.active and self.active[-1] is module:
                return forward(module, *args, **kwargs)
            return self._called(module, lambda *a, **k: forward(module, *a, **k), args, kwargs)

        put(forwarded, __wrapped__=forward)
        forwarded.__doc__, forwarded.__name__ = forward.__doc__, "forward"
        put(kind, forward=forwarded)

    def _called(self, module: nn.Module, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.quiet or _ours(module):
            self.active.append(module)
            try:
                return call(*args, **kwargs)
            finally:
                self.active.pop()
        count = self.calls.get(module)
        if count is None:
            count = self.calls.setdefault(module, Calls())
        count.calls += 1
        count.training += module.training
        file, line = self.recorder.here()
        if line is not None:
            count.lines[line] += 1
        root = not self.active and not isinstance(module, nn.modules.loss._Loss)
        fresh = count.calls == 1
        if root:
            self.given = (args, kwargs)
        with torch._C.DisableTorchFunction():
            before = self.recorder.safely(self._enter, module, args, kwargs, fresh, root)
            versions = _versions(args)
        self.active.append(module)
        try:
            out = call(*args, **kwargs)
        finally:
            if self.active and self.active[-1] is module:
                self.active.pop()
        count.returned += 1
        with torch._C.DisableTorchFunction():
            if not root and line is not None:
                self._follow(module, out, args, kwargs, (file, line, type(module).__name__))
                self._changed(out, versions, (file, line, type(module).__name__))
            self.recorder.safely(self._seen, module, args, kwargs, out, before, file, line, fresh, root)
        return out

    def _follow(self, module: nn.Module, out: Any, args: Any, kwargs: Any, place: tuple[str, int, str]) -> None:
        """What a line of the program gets from a module that it calls itself must be used, like any result."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and not self.recorder.is_user_code(frame.f_code):
            if not frame.f_code.co_filename.endswith(_BETWEEN):
                return
            frame = frame.f_back
        if self.flow is not None:
            self.flow.makes(place, out, args, kwargs)

    def _changed(self, out: Any, versions: list[tuple[torch.Tensor, int]], place: tuple[str, int, str]) -> None:
        """What a module was given must be as it was, or the answer is that very memory and takes its place."""
        made = {t.untyped_storage().data_ptr() for t in tensors(out) if t.layout == torch.strided}
        for tensor, version in versions:
            if tensor._version == version or self.flow is None:
                continue
            if tensor.untyped_storage().data_ptr() in made:
                self.flow.replaced.add(place)
            else:
                self.flow.changes(tensor, place)

    def _enter(self, module: nn.Module, args: Any, kwargs: Any, fresh: bool, root: bool) -> Any:
        if fresh:
            self._keep_inputs(module, args, kwargs)
        if root:
            self._snapshot(self.names.root(module)[0])
        return [summary(x) for x in args] if fresh or (root and self._detailed(module)) else None

    def _detailed(self, module: nn.Module) -> bool:
        """Whether a call is recorded: the first ones of each module at each line, lest samplers fill the store."""
        seen = self._at_line[id(module), self.recorder.here()[1]]
        return seen < DETAILED_AT_A_LINE and self.number < DETAILED_FORWARDS

    def _seen(
        self, module: nn.Module, args: Any, kwargs: Any, out: Any, before: Any, file: str, line: int | None,
        fresh: bool, root: bool,
    ) -> None:  # fmt: skip
        if fresh:
            value = {"in": before, "kwargs": summary(kwargs, numbers=False), "out": summary(out)}
            self.recorder("module.io", self.names.of_module(module), value, file=file, line=line)
        if root:
            self._record(module, args, kwargs, out, before, file, line)

    def _keep_inputs(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        size = sum(t.numel() for t in tensors((args, kwargs)))
        if size <= LARGEST_COPY:
            self.inputs[module] = (detached(args), detached(kwargs))

    def _record(
        self, module: nn.Module, args: Any, kwargs: Any, out: Any, before: Any, file: str, line: int | None
    ) -> None:  # fmt: skip
        self.number += 1
        name = self.names.of_module(module)
        found = tensors(out)
        nodes = [t.grad_fn for t in found if t.grad_fn is not None]
        self.recent.append(Forward(self.number, name, line, nodes))
        inputs = tensors((args, kwargs))
        sources = sorted({number for t in inputs for number in self._made(t)})
        sources = sources or upstream(inputs, {id(n): call.number for call in self.recent for n in call.nodes})
        self.pulls.listen(self.number, name, found)
        if len(self.outputs) > 400:
            self.outputs.clear()
        for made in found:
            if made.numel() and made.layout == torch.strided:
                self.outputs[made.data_ptr()] = (self.number, StorageWeakRef(made.untyped_storage()))
        self._at_line[id(module), line] += 1
        if before is None:
            return
        value = {
            **self.recorder.tick(), "call": self.number, "class": type(module).__name__, "training": module.training,
            "grad_enabled": torch.is_grad_enabled(), "in": before, "kwargs": summary(kwargs, numbers=False),
            "out": summary(out), "from": sources,
            "detached": bool(sources) and not any(t.requires_grad for t in inputs),
            "graph": bool(nodes),
        }  # fmt: skip
        self.recorder("event.forward", name, value, file=file, line=line)

    def _made(self, tensor: torch.Tensor) -> list[int]:
        """The call that wrote this memory, unless the memory was given to another tensor since."""
        if tensor.layout != torch.strided:
            return []
        number, memory = self.outputs.get(tensor.data_ptr(), (0, None))
        return [number] if memory is not None and not memory.expired() else []

    def _snapshot(self, root: nn.Module) -> None:
        if id(root) in self.start and self.start[id(root)][0]() is root:
            return
        own = dict(root.named_parameters())
        small = sum(p.numel() for p in own.values()) <= SNAPSHOT
        copies = {name: (p.detach().clone() if small else p.detach().float().sum()) for name, p in own.items()}
        self.start[id(root)] = (weakref.ref(root), copies)
        self.carried[id(root)] = {name: signature(tensor) for name, tensor in beside_state(root)}

    def roots(self) -> dict[str, nn.Module]:
        """Modules that are held by no other, by the user's name; losses and bare activations left out."""
        found = {}
        for module in self.names.modules():
            if self.names.parent(module) is not None or isinstance(module, nn.modules.loss._Loss):
                continue
            if "_parameters" not in module.__dict__ or not walkable(module):
                continue
            if type(module).__module__.startswith("torch.") and not any(True for _ in module.parameters()):
                continue
            found[self.names.of(module)] = module
        return found

    def report(self, reached: set[int], owned: set[int]) -> None:
        """Trees, counts, calls and movement, once the program is over."""
        roots = self.roots()
        for name, root in roots.items():
            file, line = self.names.place(root)
            self._tree(name, root, file, line)
            self._movement(name, root, reached, owned, file, line)
        for name, root in roots.items():
            for path, module in root.named_modules():
                self._calls(f"{name}.{path}" if path else name, module)
        self._shared(roots)
        self._unregistered(roots)
        self._classes()

    def _classes(self) -> None:
        """Of each class of the program: how many modules were built of it (or of one derived from it), how many ran."""
        built: Counter[str] = Counter()
        for module in self.names.modules():
            built.update(_own_classes(module))
        ran = self.ran()
        for name, number in built.items():
            self.recorder("module.class", name, {"built": number, "ran": ran[name]}, line=None, file="")

    def ran(self) -> Counter[str]:
        """How many modules of each class (or of one derived from it) were called and answered."""
        return Counter(
            name for m in self.names.modules() if self.calls.get(m, Calls()).returned for name in _own_classes(m)
        )  # fmt: skip

    def trees(self) -> None:
        """The parameters of every network, counted."""
        for name, root in self.roots().items():
            self._tree(name, root, *self.names.place(root))

    def _tree(self, name: str, root: nn.Module, file: str, line: int | None) -> None:
        rows = []
        for path, module in root.named_modules():
            count = sum(p.numel() for p in module.parameters())
            own = sum(p.numel() for p in module.parameters(recurse=False))
            rows.append(
                {"path": path, "class": type(module).__name__, "parameters": count, "own": own, "repr": _line(module)}
            )
        value = {
            "class": type(root).__name__,
            "parameters": sum(p.numel() for p in root.parameters()),
            "trainable": sum(p.numel() for p in root.parameters() if p.requires_grad),
            "buffers": sum(b.numel() for b in root.buffers()),
            "modules": rows[:400],
        }
        self.recorder("module.tree", name, value, file=file, line=line)
        for row in rows[:200]:
            if row["parameters"]:
                path = f"{name}.{row['path']}" if row["path"] else name
                self.recorder("module.parameters", path, row["parameters"], file=file, line=line)

    def _movement(
        self, name: str, root: nn.Module, reached: set[int], owned: set[int], file: str, line: int | None
    ) -> None:
        start = self.start.get(id(root))
        own = dict(root.named_parameters())
        if start is None or start[0]() is not root or not own:
            return
        value: dict[str, list[str]] = {"moved": [], "unmoved": [], "reached": [], "unreached": [], "unowned": []}
        for path, parameter in own.items():
            old = start[1].get(path)
            if old is not None:
                now = parameter.detach() if old.shape == parameter.shape else parameter.detach().float().sum()
                value["unmoved" if torch.equal(old, now) else "moved"].append(path)
            value["reached" if id(parameter) in reached else "unreached"].append(path)
            if id(parameter) not in owned:
                value["unowned"].append(path)
        self.recorder("module.moved", name, value, file=file, line=line)

    def _calls(self, path: str, module: nn.Module) -> None:
        count = self.calls.get(module, Calls())
        file, line = self.names.place(module)
        value = {
            "calls": count.calls, "returned": count.returned, "training": count.training,
            "eval": count.calls - count.training,
            "lines": sorted(count.lines), "class": type(module).__name__, "own": sum(
                p.numel() for p in module.parameters(recurse=False)
            ),
        }  # fmt: skip
        self.recorder("module.calls", path, value, file=file, line=line)

    def _unregistered(self, roots: dict[str, nn.Module]) -> None:
        """Modules with parameters in a plain container of a module, which the module itself does not register."""
        for name, root in roots.items():
            for path, module in root.named_modules():
                known = {id(m) for m in root.modules()}
                for attribute, value in list(vars(module).items()):
                    if attribute in ("_modules", "_parameters", "_buffers"):
                        continue
                    lost = [m for m in _held(value) if id(m) not in known]
                    count = sum(p.numel() for m in lost for p in m.parameters())
                    if not count:
                        continue
                    file, line = self.names.place(lost[0])
                    where = f"{name}.{path}" if path else name
                    told = {
                        "count": len(lost), "parameters": count, "container": type(value).__name__, "holder": where,
                        "class": type(module).__name__, "calls": sum(self.calls.get(m, Calls()).calls for m in lost),
                    }  # fmt: skip
                    self.recorder("module.unregistered", f"{where}.{attribute}", told, file=file, line=line)

    def _shared(self, roots: dict[str, nn.Module]) -> None:
        paths: dict[int, list[str]] = {}
        places: dict[int, nn.Module] = {}
        for name, root in roots.items():
            for path, module in root.named_modules(remove_duplicate=False):
                paths.setdefault(id(module), []).append(f"{name}.{path}" if path else name)
                places[id(module)] = module
        for key, found in paths.items():
            if len(found) > 1 and any(True for _ in places[key].parameters()):
                file, line = self.names.place(places[key])
                self.recorder("module.shared", found[0], {"paths": found[:12]}, file=file, line=line)


def _versions(args: Any) -> list[tuple[torch.Tensor, int]]:
    given = (t for t in args if isinstance(t, torch.Tensor) and t.layout == torch.strided)
    return [(t, t._version) for t in given if not t.is_inference()]


def _held(value: Any) -> list[nn.Module]:
    """The modules in a plain list, tuple or dict, one level of nesting deep."""
    entries = (
        list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list | tuple) else []
    )
    found = [entry for entry in entries[:64] if isinstance(entry, nn.Module)]
    return found + [m for entry in entries[:64] if isinstance(entry, list | tuple | dict) for m in _held(entry)]


def _ours(module: nn.Module) -> bool:
    return type(module).__module__.startswith("bowerbird.reading.")


def walkable(module: nn.Module) -> bool:
    """Whether torch itself can list what is inside a module: not where a class has ``__eq__`` and no ``__hash__``."""
    inner = (m for m in module.__dict__.get("_modules", {}).values() if m is not None)
    return type(module).__hash__ is not None and all(map(walkable, inner))


def _line(module: nn.Module) -> str:
    try:
        text = module.extra_repr() if not module._modules else ""
    except Exception:  # the user's method, of a module that may be half built
        text = ""
    return f"{type(module).__name__}({text[:120]})"


def tensors(value: Any, depth: int = 3) -> list[torch.Tensor]:
    """The tensors in a value, through lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        return [value]
    if depth and isinstance(value, list | tuple):
        return [t for entry in value for t in tensors(entry, depth - 1)]
    if depth and isinstance(value, dict):
        return [t for entry in value.values() for t in tensors(entry, depth - 1)]
    return []


def detached(value: Any) -> Any:
    """A copy of a value in which every tensor is a leaf of its own."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, list):
        return [detached(entry) for entry in value]
    if isinstance(value, tuple):
        copies = [detached(entry) for entry in value]
        return type(value)(*copies) if hasattr(value, "_fields") else tuple(copies)
    if isinstance(value, dict):
        return {key: detached(entry) for key, entry in value.items()}
    return value


def _own_classes(module: nn.Module) -> list[str]:
    return [k.__qualname__ for k in type(module).__mro__ if not k.__module__.startswith(("torch.", "builtins"))]


def beside_state(root: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that modules hold as plain attributes, or in buffers that are not saved, by path."""
    for path, module in root.named_modules():
        unsaved = {name: module._buffers.get(name) for name in module._non_persistent_buffers_set}
        for name, value in (*vars(module).items(), *unsaved.items()):
            plain = isinstance(value, torch.Tensor) and value.layout == torch.strided
            if plain and value.is_floating_point() and value.numel():
                yield f"{path}.{name}".lstrip("."), value


def signature(tensor: torch.Tensor) -> list[float]:
    """Two numbers that change with a tensor."""
    flat = tensor.detach().reshape(-1).double()
    return [float(flat.norm()), float(flat @ torch.arange(1, flat.numel() + 1, dtype=torch.float64))]
