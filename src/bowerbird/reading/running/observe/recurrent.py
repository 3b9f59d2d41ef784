"""Watches recurrent layers and cells: from which state each pass starts, and what sequence it is given.

An era is the time between two backward passes.  The first call of a layer in each era says where its state comes
from: zeros, something of this era (an encoder), or a final state of an earlier era (carried over, by value), and
whether the graph of that era still hangs on it (attached).
"""

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from bowerbird.reading.running.observe.modules import ModuleWatch, tensors
from bowerbird.reading.running.observe.training import TrainingWatch
from bowerbird.reading.running.putting import put
from bowerbird.reading.running.recorder import Recorder

KINDS = (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)
MOST_ERAS = 12


@dataclass
class Past:
    """What is known of one layer: the era of its last first call, and its final states with their eras."""

    era: int = -1
    finals: dict[int, list[torch.Tensor]] = field(default_factory=dict)


class RecurrentWatch:
    """Patches the forward of recurrent layers."""

    def __init__(self, recorder: Recorder, modules: ModuleWatch, training: TrainingWatch) -> None:
        self.recorder, self.modules, self.training = recorder, modules, training
        self.pasts: MutableMapping[nn.Module, Past] = WeakIdKeyDictionary()

    def install(self) -> None:
        for kind in KINDS:
            self._patch(kind)

    def _patch(self, kind: Any) -> None:
        forward, watch = kind.forward, self

        def forwarded(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
            state = args[1] if len(args) > 1 else kwargs.get("hx")
            seen = not watch.modules.quiet and torch.is_grad_enabled()
            if seen:
                with torch._C.DisableTorchFunction():
                    watch.recorder.safely(watch._enter, layer, state)
            out = forward(layer, *args, **kwargs)
            if seen:
                with torch._C.DisableTorchFunction():
                    watch.recorder.safely(watch._leave, layer, out)
            return out

        put(forwarded, __wrapped__=forward)
        put(kind, forward=forwarded)

    def _enter(self, layer: nn.Module, state: Any) -> None:
        past = self.pasts.setdefault(layer, Past())
        era = self.training.backwards
        if past.era == era or era >= MOST_ERAS:
            return
        past.era = era
        states = [t.detach() for t in tensors(state)]
        carried = self._carried(states, era)
        file, line = self.recorder.here()
        attached = any(t.requires_grad and t.grad_fn is not None for t in tensors(state))
        value = {
            **self.recorder.tick(), "era": era, "norm": max((float(t.norm()) for t in states), default=0.0),
            "given": bool(states), "carried": carried is not None, "attached": carried is not None and attached,
            "from_era": carried, "training": layer.training,
        }  # fmt: skip
        self.recorder("recurrent.start", self.modules.names.of_module(layer), value, file=file, line=line)

    def _carried(self, states: list[torch.Tensor], era: int) -> int | None:
        """The earlier era whose final state this is, or None."""
        if not states or float(states[0].abs().max()) == 0:
            return None
        for past in self.pasts.values():
            for earlier, finals in past.finals.items():
                if earlier < era and any(t.shape == states[0].shape and torch.equal(t, states[0]) for t in finals):
                    return earlier
        return None

    def _leave(self, layer: nn.Module, out: Any) -> None:
        past = self.pasts.setdefault(layer, Past())
        era = self.training.backwards
        if era >= MOST_ERAS:
            return
        final = out[1] if isinstance(layer, nn.RNNBase) else out
        past.finals[era] = [t.detach() for t in tensors(final)[:1]]
