"""What probes are given: the program's objects as they are after it has run."""

import ast
import contextlib
import dataclasses
import inspect
import linecache
import random
from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import nn

from bowerbird.reading.running.formula import units
from bowerbird.reading.running.observe.modules import ModuleWatch, detached
from bowerbird.reading.running.observe.names import Names
from bowerbird.reading.running.passing import Passing
from bowerbird.reading.running.recorder import Recorder
from bowerbird.reading.running.rewrite import does_something


class Live:
    """The namespace, the modules by the user's names, the optimisers, and the inputs that modules were given."""

    def __init__(
        self, recorder: Recorder, names: Names, modules: ModuleWatch, namespace: dict[str, Any],
        files: set[str], optimizers: dict[str, torch.optim.Optimizer],
    ) -> None:  # fmt: skip
        self.recorder, self.names, self._modules = recorder, names, modules
        self.namespace, self.files, self.optimizers = namespace, files, optimizers
        self.locals: dict[str, dict[str, Any]] = {}
        self.tables: dict[str, dict[str, Any]] = {}  # local names of functions that multiply up a schedule
        self.measured: dict[str, dict[str, Any]] = {}  # local names of functions that walk data and measure
        self.losses: list[dict[str, Any]] = []
        self.cache: dict[str, Any] = {}
        self.unused: dict[tuple[str, int, str], int] = {}  # how often what a line computed was thrown away
        self.used: set[tuple[str, int, str]] = set()
        self.graphs: set[tuple[str, int, str]] = set()
        self.lent: set[tuple[str, int, str]] = set()
        self.reached: Mapping[str, set[int]] = {}
        self.own: Mapping[str, frozenset[int]] = {}  # what was reached before anything was called with guesses
        self.carried: Mapping[int, dict[str, list[float]]] = {}  # tensors beside the state of roots, when they were met
        self.passing: Passing
        self._statements: dict[str, set[int]] = {}
        self.roots = modules.roots()
        self.flow, self.called = modules.flow, modules.functions.kept if modules.functions is not None else {}

    def record(
        self, topic: str, subject: str, value: Any, line: int | None = None, file: str | None = None, at: Any = None
    ) -> None:  # fmt: skip
        """Writes a probed fact, at a line or at the place of a thing."""
        if at is not None:
            file, line = self.place_of(at)
        self.recorder(topic, subject, value, line=line, file=file or self.main, kind="probed")

    @property
    def main(self) -> str:
        """The file that was run."""
        return str(self.namespace.get("__file__", ""))

    def modules(self, kind: str = "") -> dict[str, nn.Module]:
        """Modules by path whose class has this name (all, without one)."""
        return {
            f"{name}.{path}" if path else name: module
            for name, root in self.roots.items()
            for path, module in root.named_modules()
            if not kind or type(module).__name__ == kind
        }

    def user_modules(self) -> dict[str, nn.Module]:
        """Modules by path whose class the user wrote."""
        return {path: module for path, module in self.modules().items() if self.line_of(type(module)) is not None}

    def inputs(self, module: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Copies of what a module was given first, or None if it was never called."""
        kept = self._modules.inputs.get(module)
        return None if kept is None else (detached(kept[0]), detached(kept[1]))

    def refreshed(self) -> dict[str, nn.Module]:
        """The root modules as they are now."""
        return self._modules.roots()

    def forget_call(self, module: nn.Module) -> None:
        """Forgets a call that failed, so that the next one counts as the first."""
        self._modules.active.clear()
        self._modules.inputs.pop(module, None)
        self._modules.calls.pop(module, None)

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The functions that the user's file defines at its top level."""
        return {
            name: value
            for name, value in self.namespace.items()
            if inspect.isfunction(value) and value.__code__.co_filename in self.files
        }

    def classes(self) -> dict[str, type]:
        """The classes that the user's file defines at its top level."""
        return {
            name: value
            for name, value in self.namespace.items()
            if isinstance(value, type) and self.line_of(value) is not None
        }

    def line_of(self, thing: Any) -> int | None:
        """The line of a thing of the user's; None if it is not."""
        return self.place_of(thing)[1]

    def place_of(self, thing: Any) -> tuple[str, int | None]:
        """File and line at which a function or class is defined, or a module was created (where a driver created it,
        its class is defined); no line if that is not the user's."""
        if isinstance(thing, nn.Module):
            file, line = self.names.place(thing)
            return (file, line) if line is not None else self.place_of(type(thing))
        if isinstance(thing, type):
            codes = (f.__code__ for f in map(_function, vars(thing).values()) if f is not None)
            code = next((c for c in codes if self.recorder.is_user_code(c)), None)
            if code is not None:
                return code.co_filename, getattr(thing, "__firstlineno__", code.co_firstlineno)
            return self._written_at(thing) if dataclasses.is_dataclass(thing) else ("", None)
        code = getattr(inspect.unwrap(thing), "__code__", None)
        own = code is not None and self.recorder.is_user_code(code)
        return (code.co_filename, code.co_firstlineno) if code is not None and own else ("", None)

    def _written_at(self, kind: type) -> tuple[str, int | None]:
        """The place of a class all of whose methods are generated."""
        if kind.__module__ != self.namespace.get("__name__"):
            return "", None
        found = (u for u in units(self.files) if kind.__name__ in u.classes)
        return next(((u.file, u.classes[kind.__name__].node.lineno) for u in found), ("", None))

    def missing(self, code: CodeType) -> set[int]:
        """The lines of a function's statements that have not run."""
        if code.co_filename not in self._statements:
            tree = ast.parse("".join(linecache.getlines(code.co_filename)))
            found = {n.lineno for n in ast.walk(tree) if isinstance(n, ast.stmt) and does_something(n)}
            self._statements[code.co_filename] = found
        lines = {line for _, _, line in code.co_lines() if line is not None and line != code.co_firstlineno}
        return (lines & self._statements[code.co_filename]) - self.reached.get(code.co_filename, set())

    def asked_by_program(self, code: CodeType) -> bool:
        """Whether the program or a driver has called this code, and not only a guess of ours."""
        lines = {line for _, _, line in code.co_lines() if line is not None and line != code.co_firstlineno}
        return not lines.isdisjoint(self.own.get(code.co_filename, ()))

    def seed(self, number: int = 0) -> None:
        """Seeds all generators of random numbers."""
        random.seed(number)
        np.random.seed(number)
        torch.default_generator.manual_seed(number)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls the user's code unobserved; the state of random numbers is restored afterwards."""
        state, other, third = torch.get_rng_state(), np.random.get_state(), random.getstate()
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_rng_state(state)
            np.random.set_state(other)
            random.setstate(third)

    @contextlib.contextmanager
    def frozen(self, *modules: nn.Module) -> Iterator[None]:
        """Whatever happens inside: weights, buffers, gradients and modes of the modules are as before afterwards."""
        kept = []
        for module in modules:
            values = [(t, t.detach().clone(), t.grad, t.requires_grad) for t in _all(module)]
            kept.append((values, [(m, m.training) for m in module.modules()]))
        try:
            yield
        finally:
            for values, modes in kept:
                with torch.no_grad():
                    for tensor, value, gradient, _ in values:
                        tensor.copy_(value)
                        tensor.grad = gradient
                for submodule, mode in modes:
                    submodule.training = mode


def _all(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _function(value: Any) -> Any:
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    value = inspect.unwrap(value) if callable(value) and hasattr(value, "__wrapped__") else value
    return value if inspect.isfunction(value) else None
