"""Rules of autoencoders: posterior, divergence, decoder, quantiser."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding, Severity
from bowerbird.reading.origins import calls_at, function_at
from bowerbird.reading.program import Program, last_name, names_in, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import placed, say
from bowerbird.reading.rules.places import swap, unit_of
from bowerbird.reading.running.formula import coefficient
from bowerbird.reading.running.run import Run


@rule("V01", "The latent is not sampled so that the encoder learns from it", family="vae")
def no_reparameterisation(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``sample()`` in the place of ``rsample()``: no gradient comes back through the draw."""
    for fact in facts.of("probe.sample_without_gradient"):
        yield say(
            "V01", "error", fact.line,
            patch=swap(program, fact.file, fact.line, ".sample(", ".rsample(", "V01: rsample"), fact=fact,
        )  # fmt: skip


def _related(first: Fact, second: Fact) -> bool:
    """Whether two formulas speak of the same variable."""
    a, b = (str(f["scale"]).lower().replace("_", "") for f in (first, second))
    return a == b and first.file == second.file


@rule("V02", "Sampler and KL term read the scale of the posterior differently", family="vae")
def scale_confused(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The same variable as variance, deviation or logarithm: both sites were evaluated on a grid."""
    told = set()
    for term in facts.of("probe.kl"):
        for sampler in facts.of("probe.sampler"):
            if not _related(term, sampler) or not term["reading"] or not sampler["reading"]:
                continue
            if term["reading"] == sampler["reading"]:
                yield say(
                    "V02e", "ok", term.line, file=term.file, facts=(term.id, sampler.id), term=term,
                    sampler=sampler,
                )  # fmt: skip
                continue
            wrong_term = sampler["reading"] == term["claimed"]
            fact, line = (term, term.line) if wrong_term else (sampler, sampler["line_of_scale"])
            told.add(term.id)
            yield say("V02c", "error", line, facts=(term.id, sampler.id), term=term, sampler=sampler, fact=fact)
    for term in facts.of("probe.kl"):
        if term["reading"] or term["bounded"] or not term["named"] or term.id in told or (term["error"] or 1) < 0.02:
            continue
        at_prior = abs(term["at_prior"] or 0.0)
        severity: Severity = "error" if at_prior > 1e-3 or term["negative"] else "warning"
        yield say("V02", severity, term.line, file=term.file, facts=(term.id,), term=term)


# ---------- the KL term: how it is reduced against the reconstruction, and its sign


PER_PIXEL = frozenset("mse_loss l1_loss smooth_l1_loss binary_cross_entropy binary_cross_entropy_with_logits".split())


def _reconstruction(program: Program, facts: FactStore, term: Fact) -> Fact | None:
    """The loss of the pixels that stands beside a KL term."""
    unit = unit_of(program, term)
    home = function_at(unit, term.line)
    losses = [f for f in facts.of("loss.call") if f.subject in PER_PIXEL and f.file == term.file and f.line]
    beside = [f for f in losses if function_at(unit, f.line) is home]
    return next(iter(beside or losses), None)


def _weight_of_reconstruction(program: Program, fact: Fact) -> float | None:
    """By what the loss is multiplied where it is written; None where that cannot be read."""
    unit = unit_of(program, fact)
    for call in calls_at(unit, fact.line or 0, "loss|entropy|criterion|mse|bce"):
        statement = unit.statement(call)
        value = getattr(statement, "value", None)
        if value is None or statement is None:
            continue
        if value is call:
            return _weight_later(unit, statement)
        if isinstance(value, ast.BinOp | ast.Call):
            return None if re.search(r"[*/]|mean|sum", ast.unparse(value).replace(ast.unparse(call), "")) else 1.0
    return 1.0


def _weight_later(unit: object, statement: ast.stmt) -> float | None:
    names = [t.id for t in targets_of(statement) if isinstance(t, ast.Name)]
    for other in unit.all(ast.Assign, ast.Return, ast.AugAssign):  # type: ignore[attr-defined]
        if other.lineno <= statement.lineno or other.value is None:
            continue
        for name in names:
            if name in names_in(other.value) and isinstance(other.value, ast.BinOp):
                found = coefficient(other.value, name, lambda node: unit.constant(node))  # type: ignore[attr-defined]
                return found if found is None or found > 0 else -found
    return 1.0


@rule("V04", "Reconstruction and KL are reduced differently", family="vae")
def reductions(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The weight that the reductions give the KL against the reconstruction, per image."""
    for term in facts.of("probe.kl"):
        sign = term["sign"]
        beside = _reconstruction(program, facts, term)
        if not term["reading"] or beside is None or not isinstance(sign, dict) or not sign.get("factor"):
            continue
        shape = (beside["input"] or {}).get("shape") or []
        if len(shape) < 2 or beside["reduction"] not in ("mean", "sum"):
            continue
        batch, pixels = shape[0], 1
        for size in shape[1:]:
            pixels *= size
        weight = _weight_of_reconstruction(program, beside)
        a, b, c = (abs(f) for f in term["factors"])
        per_element = c < 0.75 * a
        per_sample = not per_element and (b < 0.75 * a or len(term["shape"]) >= 1)
        if weight is None or per_element or (len(term["shape"]) == 2):
            continue
        scale = {"sum": batch, "mean": 1.0 / pixels}[beside["reduction"]] * weight
        kl = (
            abs(sign["factor"])
            * (1.0 if per_sample else batch)
            * max(a * (4 if b < 0.75 * a else 1), 1e-9)
            * (2 if 0.4 < a < 0.6 else 1)
        )
        beta = kl / scale
        if (beside["reduction"] == "sum" and not per_sample) or 0.01 < beta < 60:
            continue
        line = beside.line if beside["reduction"] == "mean" else term.line
        gross = beta > 5_000 or beta < 0.004
        yield say(
            "V04" if beta > 1 else "V04b", "error" if gross else "warning", line, file=beside.file,
            facts=(beside.id, term.id),
            patch=(
                swap(program, beside.file, beside.line, 'reduction="mean"', 'reduction="sum"', "V04: sum")
                if not per_sample and beta > 1 else None
            ),
            beta=beta, beside=beside, batch=batch, pixels=pixels, term=term,
            which="one number per image" if per_sample else "the sum over the whole batch",
        )  # fmt: skip


@rule("V05", "The KL is one number before it is averaged or masked", family="vae")
def reduced_twice(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A sum without ``dim`` inside a mean over the batch."""
    for term in facts.of("probe.kl"):
        line = term["scalar_then_reduced"]
        if not line:
            continue
        beside = _reconstruction(program, facts, term)
        summed = beside is not None and beside["reduction"] == "sum"
        yield say(
            "V05", "info" if summed else "error", line, file=term.file, facts=(term.id,),
            patch=swap(program, term.file, line, ".sum())", ".sum(dim=1))", "V05: sum over the latent"), term=term,
        )  # fmt: skip


@rule("V06", "The KL term has the wrong sign", family="vae")
def sign_of_divergence(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The term as a multiple of the true divergence, times the sign with which it enters the loss."""
    for term in facts.of("probe.kl"):
        sign = term["sign"]
        if not term["reading"] or not isinstance(sign, dict) or not sign.get("factor"):
            continue
        whole = sign["factor"] * (term["factors"][0] if not isinstance(sign.get("inside"), float) else 1)
        if whole > 0:
            yield say("V06b", "ok", term.line, file=term.file, facts=(term.id,), term=term)
            continue
        if not sign.get("with_other") and not re.search("kl|loss", str(term["function"]) + str(term["target"]), re.I):
            continue
        yield say(
            "V06",
            "error" if sign.get("with_other") and _reconstruction(program, facts, term) is not None else "warning",
            term.line, file=term.file, facts=(term.id,), term=term, sign=sign,
        )  # fmt: skip


# ---------- what leaves a decoder and what enters it: support of the data, overflow, the prior


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
        line = places[-1] if places else placed(fact.line)
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
            "V10", "error" if abs(fact["mean"]) > 0.25 or not 0.35 < fact["std"] < 2 else "warning", fact.line,
            fact=fact,
        )  # fmt: skip
