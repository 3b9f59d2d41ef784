"""Rules of what leaves a decoder and what enters it: support of the data, overflow, the prior."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, last_name, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.divergences import PER_PIXEL
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import unit_of
from bowerbird.reading.running.run import Run


def _genuine(run: Run) -> bool:
    """Whether the data came from the program itself and not from a loader that we made up."""
    return not any("stand-in images were taken" in stand_in.reason for stand_in in run.stand_ins)


@rule("V07", "The decoder cannot produce the data", family="vae")
def support(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Outputs in [0, 1] against data that go below zero."""
    if not _genuine(run):
        return
    for fact in facts.of("loss.call"):
        out, data = fact["input"] or {}, fact["target"] or {}
        limits: list[Any] = [out.get("min"), out.get("max"), data.get("min")]
        if fact.subject not in PER_PIXEL or not all(isinstance(v, int | float) for v in limits):
            continue
        low, high, least = limits
        if not (low >= 0 and high <= 1 and least < -0.3 and len(out.get("shape") or []) >= 2):
            continue
        unit = unit_of(program, fact)
        places = [c.lineno for c in unit.all(ast.Call) if last_name(c) in ("Sigmoid", "sigmoid")]
        entropy = fact.subject.startswith("binary")
        if not places and not entropy:
            continue
        line = places[-1] if places else fact.line or 1
        yield say("V07", "error", line, fact=fact, low=low, high=high, least=least)
        return


@rule("V09", "The scale of the posterior overflows", family="vae")
def overflow(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """An exponential of an unbounded output, and a loss that is no number."""
    lost = [f for f in facts.of("event.backward") if f["loss"] in ("nan", "inf", "-inf")]
    if not lost:
        return
    for unit in program:
        for statement in unit.all(ast.Assign, ast.Return):
            if statement.value is None or unit.class_around(statement) is None:
                continue
            names = " ".join(ast.unparse(t) for t in targets_of(statement))
            inner = list(unit.calls("exp", under=statement.value))
            if not inner or not re.search(r"sigma|std|var|scale", names + ast.unparse(statement.value), re.I):
                continue
            if "clamp" in ast.unparse(statement.value):
                continue
            yield say("V09", "error", statement.lineno, file=unit.file, facts=(lost[0].id,), lost=lost)
            return


@rule("V10", "Latents are drawn from another distribution than the prior", family="vae")
def prior_at_generation(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The numbers fed to the decoder at generation, against the standard normal of the KL term."""
    if not any(fact["reading"] for fact in facts.of("probe.kl")):
        return
    for fact in facts.of("probe.prior"):
        off = abs(fact["mean"]) > 0.25 or not 0.72 < fact["std"] < 1.4
        if not off:
            continue
        yield say(
            "V10", "error" if abs(fact["mean"]) > 0.25 or not 0.35 < fact["std"] < 2 else "warning", fact.line or 1,
            fact=fact,
        )  # fmt: skip
