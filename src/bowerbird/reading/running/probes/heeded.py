"""What each subject heeds: every argument is exchanged in turn, and some exchange must change the answer.

In evaluation mode, with the same random numbers, and with all weights moved a little, so that a branch that begins at
zero takes part.  An argument that is only asked for its shape, or that no statement reads, is told as such.
"""

import ast
from collections.abc import Iterator
from typing import Any

import torch

from bowerbird.reading.program import Unit, last_name
from bowerbird.reading.running.formula import units
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.subjects import Subject, answer, exchanged, influenced, same, subjects, tell

SHAKEN = 0.05


@probe("heeded", late=True)
def heeded(live: Live) -> None:
    """Records ``property.heeded`` for each subject with tensors among its arguments that the program itself called:
    what a made-up value leaves unheeded says nothing of the program."""
    by_file = {unit.file: unit for unit in units(live.files)}
    for subject in subjects(live):
        if not live.asked_by_program(subject.body):
            continue
        before = answer(live, subject, shaken=SHAKEN)
        if not before or same(before, answer(live, subject, shaken=SHAKEN)) is not True:
            continue
        ignored = [name for name, value in subject.tensors.items() if _ignored(live, subject, name, value, before)]
        if len(ignored) == len(subject.tensors) and not subject.module:
            continue  # it gives a constant
        said = "for each argument, some other value changes the output"
        how, line = "", subject.line
        if ignored and subject.file in by_file:
            how, line = _read(live, by_file[subject.file], subject, ignored[0])
            other = exchanged(subject.tensors[ignored[0]])
            ends = influenced(live, subject, {ignored[0]: other}, SHAKEN) if other is not None else []
            line = next((op.line for op in reversed(ends) if op.file == subject.file), line)
        if ignored:
            said = f"no other value of `{ignored[0]}` changes the output of {subject.name}"
        tell(live, "heeded", subject.name, not ignored, said, subject.file, line or subject.line, how=how,
             argument=ignored[0] if ignored else "", module=subject.module is not None)  # fmt: skip


def _ignored(live: Live, subject: Subject, name: str, value: torch.Tensor, before: list[torch.Tensor]) -> bool:
    """Whether no exchange changes the answer, in evaluation and in training."""
    others = list(_others(value))
    for training in (False, True):
        first = answer(live, subject, training=True, shaken=SHAKEN) if training else before
        asked = (same(first, answer(live, subject, {name: o}, training=training, shaken=SHAKEN)) for o in others)
        if not others or not all(verdict is True for verdict in asked):
            return False
    return True


def _others(value: torch.Tensor) -> Iterator[torch.Tensor]:
    other = exchanged(value)
    if other is None:
        return
    yield other
    yield value.flip(0) if value.ndim else other
    if value.is_floating_point():
        yield value * 0.5
    elif value.dtype != torch.bool:
        yield torch.full_like(value, int(value.max()))
        yield torch.full_like(value, int(value.min()))


_SHAPE = frozenset(
    "shape size device dtype dim ndim numel new_zeros new_ones new_empty new_full new_tensor type requires_grad".split()
)
_LIKE = ("zeros_like", "ones_like", "full_like", "empty_like")
_ASKS = frozenset(
    "len isinstance randn_like rand_like zeros_like ones_like empty_like full_like print type "
    "to type_as expand_as view_as reshape_as broadcast_tensors".split()
)
"""Calls that ask an argument for its shape or kind alone."""


def _read(live: Live, unit: Unit, subject: Subject, name: str) -> tuple[str, int | None]:
    """How the body reads an argument (its ``value``, its ``shape``, ``unread``, ``replaced`` by a constant),
    and the first line at which it does."""
    function = next((f for f in unit.functions.values() if _holds(f, subject.line)), None)
    reads = [
        node for node in unit.all(ast.Name, under=function)
        if node.id == name and isinstance(node.ctx, ast.Load) and node.lineno in live.reached.get(unit.file, set())
    ] if function is not None else []  # fmt: skip
    values = [node for node in reads if not _asked(unit, node)]
    if values:
        return "value", values[0].lineno
    copies = [node for node in reads if last_name(unit.parents.get(node)) in _LIKE]
    if copies:
        return "replaced", copies[0].lineno
    return ("shape" if reads else "unread"), subject.line


def _holds(function: Any, line: int | None) -> bool:
    first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
    return line is not None and first <= line <= function.lineno


def _asked(unit: Unit, node: ast.Name) -> bool:
    """Whether only the shape or the kind of an argument is asked for here."""
    holder = unit.parents.get(node)
    if isinstance(holder, ast.Attribute):
        return holder.attr in _SHAPE
    if isinstance(holder, ast.Call) and last_name(holder) in _ASKS:
        return True
    inside = [holder, *unit.ancestors(holder)] if holder is not None else []
    tests = [a.test for a in inside if isinstance(a, ast.If | ast.IfExp | ast.Assert | ast.While)]
    return isinstance(holder, ast.Compare) or any(node in ast.walk(test) for test in tests)
