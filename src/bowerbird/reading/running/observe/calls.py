"""Keeps the first calls of the program's own functions and methods: what each was given, and what it answered.

So a function can be examined later with the very arguments that the program gave it, whatever it is called.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import torch

from bowerbird.reading.running.observe.flow import Flow
from bowerbird.reading.running.observe.modules import detached, tensors
from bowerbird.reading.running.recorder import Recorder

EACH = 2
MOST = 400
LARGEST = 1_000_000
_ELSEWHERE = 0x2A0
"""Flags of generators and coroutines, whose frames come and go."""


@dataclass(eq=False)
class Called:
    """One call: ``given`` by parameter, tensors copied at entry; ``learns`` says that its answer had a graph."""

    code: CodeType
    given: dict[str, Any]
    space: dict[str, Any]
    rest: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)
    answer: Any = None
    returned: bool = False
    learns: bool = False

    @property
    def owner(self) -> Any:
        """The object whose method was called; None for a plain function."""
        first = self.code.co_varnames[:1]
        return self.given.get("self") if first == ("self",) else None

    @property
    def function(self) -> Callable[..., Any] | None:
        """What was called, bound to its object."""
        owner, name = self.owner, self.code.co_name
        found = getattr(owner, name, None) if owner is not None else self.space.get(name)
        inner: Any = getattr(found, "__func__", found)
        while hasattr(inner, "__wrapped__"):
            inner = inner.__wrapped__
        return found if callable(found) and getattr(inner, "__code__", None) is self.code else None


@dataclass
class CallWatch:
    """A profile hook; ``kept`` by code, in the order of the first calls."""

    recorder: Recorder
    flow: Flow
    quiet: bool = False
    kept: dict[CodeType, list[Called]] = field(default_factory=dict)
    _open: dict[int, Called] = field(default_factory=dict)

    def start(self) -> None:
        if sys.getprofile() is None:
            sys.setprofile(self._seen)

    def stop(self) -> None:
        if sys.getprofile() == self._seen:
            sys.setprofile(None)

    def _seen(self, frame: FrameType, event: str, value: Any) -> None:
        if event == "call":
            code = frame.f_code
            if code.co_filename in self.recorder.files and not self.quiet:
                self._entered(frame, code)
        elif event == "return" and frame.f_code.co_filename in self.recorder.files:
            if id(frame) in self._open:
                self._left(self._open.pop(id(frame)), value)
            asker = frame.f_back
            if isinstance(value, torch.Tensor) and asker is not None and frame.f_code.co_name != "forward":
                if asker.f_code.co_filename in self.recorder.files:
                    self.flow.hands(value, (asker.f_code.co_filename, asker.f_lineno, frame.f_code.co_name))

    def _entered(self, frame: FrameType, code: CodeType) -> None:
        calls = self.kept.get(code)
        if (calls is not None and len(calls) >= EACH) or len(self.kept) >= MOST or code.co_flags & _ELSEWHERE:
            return
        if code.co_name[0] == "<" or code.co_name in ("__init__", "__init_subclass__") or not code.co_argcount:
            return
        number = code.co_argcount + code.co_kwonlyargcount
        values = frame.f_locals
        given = {name: values[name] for name in code.co_varnames[:number] if name in values}
        starred = bool(code.co_flags & 0x04)
        rest = values.get(code.co_varnames[number], ()) if starred else ()
        named = values.get(code.co_varnames[number + starred], {}) if code.co_flags & 0x08 else {}
        if sum(t.numel() for t in tensors((given, rest, named))) > LARGEST:
            return
        with torch._C.DisableTorchFunction():
            called = Called(code, detached(given), frame.f_globals, detached(rest), detached(named))
        self.kept.setdefault(code, []).append(called)
        self._open[id(frame)] = called

    def _left(self, called: Called, answer: Any) -> None:
        found = tensors(answer)
        called.returned = answer is not None
        called.learns = any(t.requires_grad for t in found)
        if sum(t.numel() for t in found) <= LARGEST:
            with torch._C.DisableTorchFunction():
                called.answer = detached(answer)
