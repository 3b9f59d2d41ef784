"""Who plays in a foreign training: the part of a module that each optimiser moves, and who judges whose output.

That a module judges another is seen, not guessed: it is called with the very output of the other (the same memory) and
with something else, and answers with far fewer numbers than it was given.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bowerbird.diagnosis.samples import N_SAMPLES, N_TRAIN, small

FEWER = 4
"""A judge's answer has at most this part of the numbers of its question."""


class Player(NamedTuple):
    """A part of a module with an optimiser of its own."""

    name: str
    module: nn.Module
    optimizer: Optimizer

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Those that the optimiser moves, by name."""
        moved = _moved_by(self.optimizer)
        return {name: p for name, p in self.module.named_parameters() if id(p) in moved}

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])


def players_of(module: nn.Module, optimizers: Sequence[Optimizer]) -> list[Player]:
    """One for each optimiser: "model" where there is one, else named after the modules that it moves."""
    if len(optimizers) == 1:
        return [Player("model", module, optimizers[0])]
    parts = [_part(module, optimizer) for optimizer in optimizers]
    return [Player(name, part, optimizer) for (name, part), optimizer in zip(parts, optimizers, strict=True)]


def _moved_by(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def _part(module: nn.Module, optimizer: Optimizer) -> tuple[str, nn.Module]:
    """The largest modules all of whose parameters an optimiser moves, as one."""
    moved, found = _moved_by(optimizer), dict[str, nn.Module]()
    for name, inner in module.named_modules():
        own = {id(p) for p in inner.parameters()}
        if own and own <= moved and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = inner
    if len(found) == 1:
        return next(iter(found.items()))
    return "+".join(found), nn.ModuleDict({name.replace(".", "_"): inner for name, inner in found.items()})


class Game:
    """Sees what players hand to one another within a step."""

    def __init__(self, players: Sequence[Player]):
        self.players = players
        self.judged_by: dict[str, str] = {}
        """A judge's name, and whose output it judges."""
        self.made: dict[str, Tensor] = {}
        """The last outputs of those who are judged, as rows (see ``small``), at most N_SAMPLES …"""
        self.real: Tensor | None = None
        """… and what else their judges were shown, each once, about N_TRAIN."""
        self._outputs: dict[int, tuple[str, Tensor]] = {}
        self._answers: dict[tuple[str, bool], Tensor] = {}
        self._handles = [p.module.register_forward_hook(self._look(p.name)) for p in players if len(players) > 1]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def end_of_step(self) -> None:
        self._outputs.clear()
        self._answers.clear()

    def accuracy(self, judge: str) -> float | None:
        """How many pairs of real and made the judge orders rightly, of those since the last step; None if unknown."""
        real, made = self._answers.pop((judge, False), None), self._answers.pop((judge, True), None)
        if real is None or made is None:
            return None
        return float((real[:, None] > made[None, :]).float().mean())

    def _look(self, name: str) -> Any:
        @torch.no_grad()
        def look(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not isinstance(output, Tensor) or output.ndim < 1:
                return
            self._outputs[output.untyped_storage().data_ptr()] = (name, output.detach())
            if inputs and isinstance(inputs[0], Tensor) and output.numel() * FEWER <= inputs[0].numel():
                self._judged(name, inputs[0].detach(), output.detach())

        return look

    def _judged(self, judge: str, x: Tensor, answer: Tensor) -> None:
        maker, _ = self._outputs.get(x.untyped_storage().data_ptr(), ("", x))
        self._answers[judge, bool(maker)] = answer.float().flatten(1).mean(1)
        rows = small(x.float())
        if maker:
            self.judged_by[judge] = maker
            self.made[maker] = torch.cat([rows, self.made.get(maker, rows[:0])])[:N_SAMPLES]
        elif self.real is None or len(self.real) < N_TRAIN:
            known = rows if self.real is None else torch.cat([self.real, rows])
            self.real = known.unique(dim=0)  # each once: epochs repeat them
