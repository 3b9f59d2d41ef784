"""Randomness and modes: what is random in one mode alone must be so in training; a sampler that is not random in
evaluation must give the mean that it samples around.
"""

import torch

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.subjects import Subject, answer, last_line, same, subjects, tell


@probe("modes", late=True)
def modes(live: Live) -> None:
    """Records ``property.mode`` and ``property.evaluation`` for each subject that is random."""
    for subject in subjects(live):
        _when_random(live, subject)
        _evaluated(live, subject)


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
