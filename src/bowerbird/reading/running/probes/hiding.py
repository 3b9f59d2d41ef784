"""Whether a mask hides what it marks.

One key position is marked in a mask of our own, as True and then as False, and the input at that position is changed.
Under one of the two readings no other position may notice.  Asked of networks that attend, where without a mark the
others do notice, and the mask does something.
"""

import torch

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.subjects import (
    Given,
    Subject,
    answer,
    exchanged,
    influenced,
    moved,
    subjects,
    tell,
)
from bowerbird.reading.running.tracing import trace_call

_ATTENDS = frozenset("softmax scaled_dot_product_attention multi_head_attention_forward".split())
_MIXES = frozenset("conv1d conv2d lstm gru rnn_tanh cumsum fft_fft".split())


@probe("hiding", late=True)
def hiding(live: Live) -> None:
    """Records ``property.mask`` for each module that attends and was given a mask over positions."""
    for subject in subjects(live):
        for name, mask in subject.tensors.items() if subject.module is not None else ():
            length = mask.shape[-1] if mask.ndim > 1 else 0
            if length < 3 or not _is_mask(mask) or not _attends(live, subject):
                continue
            keys = {n: t for n, t in subject.tensors.items() if n != name and t.ndim > 1 and t.shape[1] == length}
            verdict = _examined(live, subject, name, mask, keys) if keys else None
            if verdict is not None:
                said = "what it marks reaches no other position"
                if not verdict:
                    said = f"`{name}` changes the output, but what it marks still reaches other positions"
                begins = influenced(live, subject, {name: ~mask if mask.dtype == torch.bool else 1 - mask})
                place = (begins[0].file, begins[0].line) if begins else (subject.file, subject.line)
                tell(live, "mask", subject.name, verdict, said, *place, argument=name)


def _is_mask(value: torch.Tensor) -> bool:
    return value.dtype == torch.bool or bool(((value == 0) | (value == 1)).all())


def _attends(live: Live, subject: Subject) -> bool:
    assert subject.module is not None
    trace = trace_call(live, subject.name, subject.module, (), subject.given)
    names = {op.name for op in trace.ops} if trace is not None else set[str]()
    return bool(names & _ATTENDS) and not names & _MIXES


def _examined(live: Live, subject: Subject, name: str, mask: torch.Tensor, keys: Given) -> bool | None:
    """Whether some reading hides the marked position; None where nothing can be said."""
    place = mask.shape[-1] // 2
    verdicts, effects = [], []
    for value in (True, False):
        marked = torch.full_like(mask, not value)
        free = _noticed(live, subject, {name: marked.clone()}, keys, place)
        marked[..., place] = value
        hidden = _noticed(live, subject, {name: marked}, keys, place)
        if free is not None and hidden is not None:
            verdicts.append(not hidden if free else None)
            effects.append(_differs(live, subject, name, marked, torch.full_like(mask, not value)))
    asked = [v for v in verdicts if v is not None]
    if not asked or not any(effects):
        return None
    return any(asked)


def _noticed(live: Live, subject: Subject, given: Given, keys: Given, place: int) -> bool | None:
    """Whether positions beside one notice that the input there changes."""
    changed = {n: _at(t, place) for n, t in keys.items()}
    one = answer(live, subject, given, shaken=0.05)
    other = answer(live, subject, {**given, **changed}, shaken=0.05)
    if not one or not other or one[0].shape != other[0].shape or one[0].ndim < 3:
        return None
    if not bool((one[0] + other[0]).isfinite().all()):
        return None
    rest = moved(one[0], other[0]).movedim(1, 0)[torch.arange(one[0].shape[1]) != place]
    return bool(rest.any()) if one[0].shape[1] > place else None


def _at(value: torch.Tensor, place: int) -> torch.Tensor:
    mixed, other = value.clone(), exchanged(value)
    if other is not None:
        mixed[:, place] = other[:, place]
    return mixed


def _differs(live: Live, subject: Subject, name: str, one: torch.Tensor, other: torch.Tensor) -> bool:
    first, second = (answer(live, subject, {name: m}, shaken=0.05) for m in (one, other))
    return bool(first and second and first[0].shape == second[0].shape and moved(first[0], second[0]).any())
