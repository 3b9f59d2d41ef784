"""How far a change spreads along a sequence: one position is changed, and the outputs that move are counted off.

A network that looks both ways reaches as far back as forward; a causal one reaches forward alone.  One that reaches far
forward and one or two positions back was meant to be causal, and sees a little ahead.
"""

import torch

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.subjects import Subject, answer, exchanged, moved, subjects, tell

LEAST_REACH, RATIO = 4, 4
"""How far forward a change must reach, and how many times less far back it then may to be told."""


@probe("ahead", late=True)
def ahead(live: Live) -> None:
    """Records ``property.causal`` for each module that is causal, or nearly so."""
    told: list[str] = []
    for subject in sorted(subjects(live), key=lambda s: -s.name.count(".")):
        if subject.module is None or any(inner.startswith(f"{subject.name}.") for inner in told):
            continue
        reach = next((r for name, x in subject.tensors.items() for r in _reaches(live, subject, name, x)), None)
        if reach is None:
            continue
        back, forward = reach
        if forward < LEAST_REACH or back * RATIO > forward:
            continue
        if back:
            told.append(subject.name)
        said = f"a change reaches {forward} positions forward and {back or 'none'} back"
        tell(live, "causal", subject.name, back == 0, said, subject.file, subject.line)


def _reaches(live: Live, subject: Subject, name: str, x: torch.Tensor) -> list[tuple[int, int]]:
    """How far a change in the middle reaches back and forward, along each axis that may be time."""
    found = []
    tokens = x.ndim == 2 and not x.is_floating_point()
    for axis in (1, 2) if x.ndim == 3 else (1,) if tokens else ():
        length = x.shape[axis]
        other = exchanged(x)
        before = answer(live, subject, shaken=0.05)
        if length < 2 * LEAST_REACH + 1 or other is None or not before or not before[0].ndim:
            continue
        place = length // 2
        mixed = x.clone()
        mixed.select(axis, place).copy_(other.select(axis, place))
        after = answer(live, subject, {name: mixed}, shaken=0.05)
        if not after or after[0].shape != before[0].shape or length not in before[0].shape[1:]:
            continue
        along = axis if before[0].shape[axis : axis + 1] == (length,) else 1 + before[0].shape[1:].index(length)
        differs = moved(before[0], after[0], 1e-6).movedim(along, 0).reshape(length, -1).any(1).nonzero().flatten()
        if len(differs):
            found.append((max(place - int(differs.min()), 0), max(int(differs.max()) - place, 0)))
    return found
