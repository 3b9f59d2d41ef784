"""What a language model says of a program, checked claim by claim, placed beside the steps of its reading."""

from dataclasses import replace

from bowerbird.reading.explain.reading import Block, Reading, Score, Told
from bowerbird.reading.explain.study import Study
from bowerbird.reading.tutor import Conversation, Endpoint, Material, Verdict
from bowerbird.reading.tutor.show import say, verdict_text

_TOPICS: dict[str, int] = {
    "source": 7, "define": 7, "run": 1, "data": 4, "module": 4, "block": 4, "softmax": 4, "setting": 5, "event": 3,
    "loss": 3, "optimizer": 3, "training": 3, "scheduler": 3, "image": 6, "output": 6,
}  # fmt: skip
"""The step that tells the facts of a topic."""
_FORMS = {"contains": 4, "count": 4, "made_of": 4, "line": 3, "finding": 2}
_TRAINING = 3


def told(study: Study, reading: Reading, endpoint: Endpoint, *, small: bool = False, context: int = 16_000) -> Reading:
    """The reading with the model's claims beside its steps, each with its verdict, and their score."""
    material = Material(study.program, study.facts, study.findings, study.run)
    talk = Conversation(material, endpoint, lang=reading.lang, small=small, context=context)
    answer = talk.ask(say("explain", reading.lang))
    placed: dict[int, list[Block]] = {}
    for verdict in answer.verdicts:
        line = verdict_text(verdict, reading.lang)
        placed.setdefault(_step(study, verdict), []).append(Told(line, verdict.status))
    steps = tuple(replace(s, blocks=(*s.blocks, *placed.get(s.number, ()))) for s in reading.steps)
    judged = [v for v in answer.verdicts if v.status != "background"]
    score = Score(sum(v.status == "verified" for v in judged), len(judged), endpoint.model)
    return replace(reading, steps=steps, score=score)


def _step(study: Study, verdict: Verdict) -> int:
    """The step that a claim belongs to: that of its first fact, else that of its form."""
    for identity in verdict.claim.facts:
        fact = study.facts.get(identity)
        if fact is not None:
            return _TOPICS.get(fact.topic.partition(".")[0], _TRAINING)
    return _FORMS.get(verdict.claim.kind, _TRAINING)
