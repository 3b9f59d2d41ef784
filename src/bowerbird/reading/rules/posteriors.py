"""Rules of the posterior's sample: whether the encoder learns from it, and what its scale stands for."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding, Severity
from bowerbird.reading.program import Program, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.places import class_at, function_at, statements_in, swap, unit_of
from bowerbird.reading.running.run import Run


@rule("V01", "The latent is not sampled so that the encoder learns from it", family="vae")
def no_reparameterisation(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``sample()`` in the place of ``rsample()``, or a model that is the same whatever the noise."""
    for fact in facts.of("probe.sample_without_gradient"):
        yield Finding(
            "V01",
            "error",
            fact.line or 1,
            "The latent is drawn with sample(), which cuts the graph: the encoder learns nothing from the "
            "reconstruction.",
            f"The {fact['distribution']} that is sampled here has parameters that need gradients, and the draw has "
            f"none ({fact.id}).",
            "Use rsample().",
            file=fact.file,
            facts=(fact.id,),
            patch=swap(program, fact.file, fact.line or 1, ".sample(", ".rsample(", "V01: rsample"),
        )
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
            yield Finding(
                "V01",
                "error",
                line,
                "The latent that is sampled is not the one that is used: the decoder gets the same code at every seed.",
                f"Two training-mode calls of {fact.subject} with different seeds gave the same numbers ({fact.id}), "
                "although "
                f"line {sampler.line} draws noise ({sampler.id}).",
                "Return (and decode) mu + std * eps.",
                file=fact.file,
                facts=(fact.id, sampler.id),
            )


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
                yield Finding(
                    "V01", "warning", place.lineno,
                    f"{info.name}.{name} draws the latent and is never called: the decoder gets a code without noise.",
                    f"Line {method.lineno} defines it and no line of the program names it.",
                    f"Decode self.{name}(…).", file=unit.file,
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
                yield Finding(
                    "V02",
                    "ok",
                    term.line or 1,
                    f"{term['scale']} is {term['reading']} in the KL term and in the sampler.",
                    f"Both were evaluated on a grid ({term.id}, {sampler.id}).",
                    file=term.file,
                    facts=(term.id, sampler.id),
                )
                continue
            wrong_term = sampler["reading"] == term["claimed"]
            fact, line = (term, term.line) if wrong_term else (sampler, sampler["line_of_scale"])
            told.add(term.id)
            yield Finding(
                "V02",
                "error",
                line or 1,
                f"{term['scale']} is {term['reading']} in the KL term and {sampler['reading']} in the sampler.",
                f"The KL term (line {term.line}) is exactly the divergence of a Gaussian if {term['scale']} is "
                f"{term['reading']} "
                f"({term.id}); the sampler's noise is multiplied as if it were {sampler['reading']} ({sampler.id}).",
                f"Treat {term['scale']} as {fact['claimed']} at both places.",
                file=fact.file,
                facts=(term.id, sampler.id),
            )
    for sampler in facts.of("probe.sampler"):
        uniform = set(sampler["draws"] or ()) & {"rand", "rand_like"} and not set(sampler["draws"]) & {
            "randn",
            "randn_like",
        }
        if uniform:
            yield Finding(
                "V02",
                "error",
                sampler.line or 1,
                "The noise of the sampler is uniform on [0, 1], not normal.",
                f"It is drawn with {', '.join(sampler['draws'])} ({sampler.id}): its mean is 0.5 and its variance "
                "1/12.",
                "Use torch.randn_like.",
                file=sampler.file,
                facts=(sampler.id,),
            )
    yield from _against_its_name(facts, told)
    for term in facts.of("probe.kl"):
        if term["reading"] or term["bounded"] or not term["named"] or term.id in told or (term["error"] or 1) < 0.02:
            continue
        at_prior = abs(term["at_prior"] or 0.0)
        severity: Severity = "error" if at_prior > 1e-3 or term["negative"] else "warning"
        yield Finding(
            "V02",
            severity,
            term.line or 1,
            "The KL term is not the divergence of a Gaussian from the standard normal.",
            f"On a grid it is no multiple of it, whatever {term['scale']} stands for (off by {term['error']:.2g}); "
            "where the posterior "
            f"equals the prior it is {term['at_prior']:.4g} ({term.id}).",
            "For the logarithm of the variance it is -0.5 * sum(1 + logvar - mu**2 - exp(logvar)).",
            file=term.file,
            facts=(term.id,),
        )


def _against_its_name(facts: FactStore, told: set[str]) -> Iterator[Finding]:
    """A formula that stands alone and takes what is called a log-variance for something else."""
    sites = [*facts.of("probe.kl"), *facts.of("probe.sampler")]
    for fact in sites:
        explicit = re.search(r"log_?(var|std)", str(fact["scale"]), re.I)
        alone = not any(_related(fact, other) and other.topic != fact.topic and other["reading"] for other in sites)
        if fact.id in told or not fact["reading"] or fact["reading"] == fact["claimed"] or not explicit or not alone:
            continue
        what = "KL term" if fact.topic == "probe.kl" else "sampler"
        yield Finding(
            "V02", "warning", (fact["line_of_scale"] if fact.topic == "probe.sampler" else fact.line) or 1,
            f"{fact['scale']} is called {fact['claimed']}, and the {what} takes it for {fact['reading']}.",
            f"Evaluated on a grid, the {what} of line {fact.line} is right only if {fact['scale']} is "
            f"{fact['reading']} ({fact.id}).",
            f"Treat {fact['scale']} as {fact['claimed']}, or rename it.", file=fact.file, facts=(fact.id,),
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
        yield Finding(
            "V03",
            "error",
            line,
            "In evaluation mode the sampler returns something else than the mean of the posterior.",
            f"For a mean of 3 and {fact['argument']} = 1 it gave {fact['eval_mean']:.4g} without any spread "
            f"({fact.id}).",
            "Return mu where the model is not training.",
            file=fact.file,
            facts=(fact.id,),
        )
