"""Follows the results of the program's own lines: which are taken by another function, which die without it.

A result that was never taken and no longer exists was computed for nothing.  One that still exists is kept somewhere
(a list, an attribute, a name), and may be used later.
"""

import weakref
from collections import Counter
from types import FrameType
from typing import Any

import torch

from bowerbird.reading.running.observe.modules import tensors

Place = tuple[str, int, str]
MOST = 20_000
NEAR = 40


class Flow:
    """``used`` are the places (file, line, function) a result of which was taken at least once."""

    def __init__(self) -> None:
        self.used: set[Place] = set()
        self.graphs: set[Place] = set()
        """Places whose results gradients could flow through."""
        self.lent: set[Place] = set()
        """Places in functions that were called from outside the program, by somebody who may drop what they return."""
        self.outside = False
        self.spoilt: dict[Place, int] = {}
        """Calls that changed what they were given in place, with the line that used it afterwards."""
        self.replaced: set[Place] = set()
        """Calls whose answer is what they were given, changed in place."""
        self._changed: dict[int, tuple[weakref.ref[torch.Tensor], Place]] = {}
        self._made: dict[Place, int] = {}
        self._waiting: dict[int, tuple[weakref.ref[torch.Tensor], Place]] = {}

    def takes(self, args: Any, kwargs: Any, frame: FrameType | None = None) -> None:
        """A function is given these, by a frame of the program or on its behalf."""
        if not self._waiting and not self._changed:
            return
        for tensor in tensors((args, kwargs)):
            if id(tensor) in self._changed and frame is not None:
                self._uses_again(tensor, frame)
            known = self._waiting.get(id(tensor))
            if known is not None and known[0]() is tensor:
                self.used.add(known[1])
                del self._waiting[id(tensor)]

    def changes(self, tensor: torch.Tensor, place: Place) -> None:
        """A call has changed this tensor, which is not what it gave."""
        self._changed[id(tensor)] = (weakref.ref(tensor), place)

    def _uses_again(self, tensor: torch.Tensor, frame: FrameType) -> None:
        known, (file, line, _) = self._changed[id(tensor)][0], self._changed[id(tensor)][1]
        place = self._changed.pop(id(tensor))[1]
        if known() is tensor and frame.f_code.co_filename == file and abs(frame.f_lineno - line) < NEAR:
            self.spoilt[place] = frame.f_lineno

    def makes(self, place: Place, out: Any, args: Any, kwargs: Any) -> None:
        """A line of the program has called a function directly, and this is what it gave."""
        if place in self.used or len(self._waiting) > MOST or not isinstance(out, torch.Tensor):
            return
        if any(out is tensor or shares(out, tensor) for tensor in tensors((args, kwargs))):
            return  # in place, or a view: what it gave is what it was given
        self._made[place] = self._made.get(place, 0) + 1
        if self.outside:
            self.lent.add(place)
        if out.requires_grad:
            self.graphs.add(place)
        self._waiting[id(out)] = (weakref.ref(out), place)

    def hands(self, out: torch.Tensor, place: Place) -> None:
        """A function of the program returns what nothing has taken: the line that called it must use it."""
        known = self._waiting.get(id(out))
        if known is None or known[0]() is not out or place in self.used:
            return
        self.used.add(known[1])
        self._made[place] = self._made.get(place, 0) + 1
        if self.outside:
            self.lent.add(place)
        if out.requires_grad:
            self.graphs.add(place)
        self._waiting[id(out)] = (known[0], place)

    def thrown_away(self) -> dict[Place, int]:
        """How often a place computed something, where nothing of it was taken and nothing but the last may be kept."""
        kept = Counter(place for tensor, place in self._waiting.values() if tensor() is not None)
        lost = {place: n for place, n in self._made.items() if place not in self.used}
        return {place: n for place, n in lost.items() if kept[place] <= int(n > 1)}


def shares(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors lie in the same memory."""
    with torch._C.DisableTorchFunction():
        if one.layout != torch.strided or other.layout != torch.strided or one.is_meta or other.is_meta:
            return False
        return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
