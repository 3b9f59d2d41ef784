"""Functions with a probability: at 0 they leave what they are given, at 1 they do not.

A function (or a module with such an attribute) that gives its input back whenever its probability is 1, and changes it
when that is 0, does the opposite of what it is told.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial

import torch

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.subjects import Subject, answer, last_line, same, subjects, tell

_CHANCE = re.compile(r"^(?!.*(drop|keep|skip))(\w+_)?(p|prob|probability)$", re.I)
SEEDS = range(1, 7)


@probe("chance", late=True)
def chance(live: Live) -> None:
    """Records ``property.chance`` for each subject with a probability that decides whether it does anything."""
    for subject in subjects(live):
        _when_random(live, subject)
        _evaluated(live, subject)
        x = next((t for t in subject.tensors.values() if t.is_floating_point()), None)
        for name, asked in _chances(live, subject) if x is not None else ():
            never, always = ([_kept(x, asked(p, seed)) for seed in SEEDS] for p in (0.0, 1.0))
            if None in (*never, *always) or x is None:
                continue
            if len({_kept(x, asked(0.5, seed)) for seed in SEEDS}) < 2:
                continue  # a share, and no chance
            wrong = all(always) and not any(never)
            if wrong or (all(never) and not any(always)):
                said = f"with `{name}` = 1 it never acts, with 0 always" if wrong else f"`{name}` is the probability"
                tell(live, "chance", subject.name, not wrong, said, subject.file, subject.line, argument=name)


def _when_random(live: Live, subject: Subject) -> None:
    """Records ``property.mode`` for what is random in one mode alone: that must be training."""
    varies = [
        same(answer(live, subject, seed=1, training=mode), answer(live, subject, seed=2, training=mode))
        for mode in (True, False)
    ]
    if sorted(map(str, varies)) == ["False", "True"]:
        inverted = varies[0] is True
        said = "it is random in evaluation and not in training" if inverted else "it is random only in training"
        tell(live, "mode", subject.name, not inverted, said, subject.file, subject.line)


def _evaluated(live: Live, subject: Subject) -> None:
    """Records ``property.evaluation`` for what draws around the first of two arguments: without randomness, evaluation
    must give that argument itself."""
    pair = [n for n, t in subject.tensors.items() if t.is_floating_point()]
    if subject.module is not None or len(pair) != 2 or len(subject.tensors) != 2:
        return
    given = {n: torch.full((8, 50), v) for n, v in zip(pair, (3.0, 1.0), strict=True)}
    drawn, again, fixed = (
        answer(live, subject, given, seed=s, training=t) for s, t in ((1, True), (2, True), (1, False))
    )
    if not drawn or not fixed or drawn[0].shape != (8, 50) or same(drawn, again) is not False:
        return
    around = abs(float(drawn[0].mean()) - 3) < 4 * float(drawn[0].std()) / 20
    if around and same(fixed, answer(live, subject, given, seed=2)) is True and len(fixed) == 1:
        holds = bool(torch.allclose(fixed[0], given[pair[0]], atol=1e-4))
        said = f"in training it samples around {pair[0]} = 3; in evaluation it returns {float(fixed[0].mean()):.3g}"
        tell(live, "evaluation", subject.name, holds, said, subject.file, last_line(live, subject, given))


Asked = Callable[[float, int], list[torch.Tensor] | None]


def _chances(live: Live, subject: Subject) -> Iterator[tuple[str, Asked]]:
    for name, value in subject.given.items():
        if _CHANCE.match(name) and isinstance(value, int | float) and 0 <= value <= 1:
            yield name, partial(_given, live, subject, name)
    for name, value in list(vars(subject.module).items()) if subject.module is not None else ():
        if _CHANCE.match(name) and "prob" in name and isinstance(value, float) and 0 <= value <= 1:
            yield name, partial(_with, live, subject, name)


def _given(live: Live, subject: Subject, name: str, p: float, seed: int) -> list[torch.Tensor] | None:
    return answer(live, subject, {name: p}, seed=seed, training=True)


def _with(live: Live, subject: Subject, name: str, p: float, seed: int) -> list[torch.Tensor] | None:
    module = subject.module
    kept = getattr(module, name)
    setattr(module, name, p)
    try:
        return answer(live, subject, seed=seed, training=True)
    finally:
        setattr(module, name, kept)


def _kept(x: torch.Tensor | None, out: list[torch.Tensor] | None) -> bool | None:
    """Whether an answer is what was given."""
    if not out or x is None or out[0].shape != x.shape:
        return None
    return bool(torch.equal(out[0], x))
