"""Rules of the posterior's sample: whether the encoder learns from it, and what its scale stands for."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding, Severity
from bowerbird.reading.program import Program, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import class_at, function_at, statements_in, swap, unit_of
from bowerbird.reading.running.run import Run


@rule("V01", "The latent is not sampled so that the encoder learns from it", family="vae")
def no_reparameterisation(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``sample()`` in the place of ``rsample()``, or a model that is the same whatever the noise."""
    for fact in facts.of("probe.sample_without_gradient"):
        yield say(
            "V01", "error", fact.line or 1,
            patch=swap(program, fact.file, fact.line or 1, ".sample(", ".rsample(", "V01: rsample"), fact=fact,
        )  # fmt: skip
    yield from _sampler_unused(program)
    divergences = facts.of("probe.kl")
    for fact in facts.of("probe.stochastic"):
        if not fact["same_at_every_seed"] or not divergences:
            continue
        for sampler in facts.of("probe.sampler"):
            unit = unit_of(program, sampler)
            holder, function = class_at(unit, sampler.line), function_at(unit, sampler.line)
            if holder is None or holder.name != fact["class"] or function is None or sampler.file != fact.file:
                continue
            returns = [s for s in statements_in(unit, function) if isinstance(s, ast.Return)]
            line = returns[-1].lineno if returns and function.name != "forward" else sampler.line or 1
            yield say("V01b", "error", line, facts=(fact.id, sampler.id), fact=fact, sampler=sampler)


_SAMPLER = re.compile(r"re_?param|sample_?(z|latent|posterior)$", re.I)
_DRAWS = frozenset("randn randn_like normal_ normal rsample".split())


def _sampler_unused(program: Program) -> Iterator[Finding]:
    """A method that samples the posterior and that nothing calls: its class decodes something else."""
    for unit in program:
        for info in unit.classes.values():
            forward = info.methods.get("forward")
            for name, method in info.methods.items() if info.is_module and forward is not None else ():
                draws = any(last_name(c) in _DRAWS for c in unit.all(ast.Call, under=method))
                called = any(re.search(rf"\.{name}\b", other.text) for other in program)
                inherited = any(info.name in other.bases for u in program for other in u.classes.values())
                if not _SAMPLER.search(name) or not draws or called or inherited or forward is None:
                    continue
                taken = [
                    s for s in unit.all(ast.Assign, under=forward)
                    if isinstance(s.value, ast.Name) and re.search(r"mu|mean|loc", s.value.id, re.I)
                ]  # fmt: skip
                decodes = [c for c in unit.all(ast.Call, under=forward) if re.search("deco", last_name(c), re.I)]
                place = (taken or decodes or [method])[0]
                yield say("V01c", "warning", place.lineno, file=unit.file, info=info, name=name, method=method)


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
                    "V02e", "ok", term.line or 1, file=term.file, facts=(term.id, sampler.id), term=term,
                    sampler=sampler,
                )  # fmt: skip
                continue
            wrong_term = sampler["reading"] == term["claimed"]
            fact, line = (term, term.line) if wrong_term else (sampler, sampler["line_of_scale"])
            told.add(term.id)
            yield say("V02c", "error", line or 1, facts=(term.id, sampler.id), term=term, sampler=sampler, fact=fact)
    for sampler in facts.of("probe.sampler"):
        uniform = set(sampler["draws"] or ()) & {"rand", "rand_like"} and not set(sampler["draws"]) & {
            "randn",
            "randn_like",
        }
        if uniform:
            yield say(
                "V02d", "error", sampler.line or 1, file=sampler.file, facts=(sampler.id,),
                draws=", ".join(sampler["draws"]), sampler=sampler,
            )  # fmt: skip
    yield from _against_its_name(facts, told)
    for term in facts.of("probe.kl"):
        if term["reading"] or term["bounded"] or not term["named"] or term.id in told or (term["error"] or 1) < 0.02:
            continue
        at_prior = abs(term["at_prior"] or 0.0)
        severity: Severity = "error" if at_prior > 1e-3 or term["negative"] else "warning"
        yield say("V02", severity, term.line or 1, file=term.file, facts=(term.id,), term=term)


def _against_its_name(facts: FactStore, told: set[str]) -> Iterator[Finding]:
    """A formula that stands alone and takes what is called a log-variance for something else."""
    sites = [*facts.of("probe.kl"), *facts.of("probe.sampler")]
    for fact in sites:
        explicit = re.search(r"log_?(var|std)", str(fact["scale"]), re.I)
        alone = not any(_related(fact, other) and other.topic != fact.topic and other["reading"] for other in sites)
        if fact.id in told or not fact["reading"] or fact["reading"] == fact["claimed"] or not explicit or not alone:
            continue
        what = "KL term" if fact.topic == "probe.kl" else "sampler"
        yield say(
            "V02b", "warning", (fact["line_of_scale"] if fact.topic == "probe.sampler" else fact.line) or 1, fact=fact,
            what=what,
        )  # fmt: skip


@rule("V03", "In evaluation the latent is not the posterior mean", family="vae")
def evaluation_branch(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The sampler called in evaluation mode with a known mean."""
    for fact in facts.of("probe.reparameterise"):
        fixed = fact["eval_std"] < 1e-6
        if not fixed or abs(fact["eval_mean"] - fact["mean"]) < 1e-4:
            continue
        unit = unit_of(program, fact)
        function = function_at(unit, fact.line)
        line = fact.line or 1
        if function is not None:
            returns = [s for s in statements_in(unit, function) if isinstance(s, ast.Return) and s.value is not None]
            plain = [s for s in returns if isinstance(s.value, ast.Name | ast.Call | ast.Attribute)]
            last: list[Any] = plain or returns or [function]
            line = last[-1].lineno
        yield say("V03", "error", line, fact=fact)
