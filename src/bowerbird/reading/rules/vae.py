"""Rules of variational autoencoders: sampling, the KL term, reductions, supports, priors and quantisers."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding, Severity
from bowerbird.reading.program import Program, last_name, names_in, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.places import calls_at, class_at, function_at, statements_in, swap, unit_of
from bowerbird.reading.running.formula import coefficient
from bowerbird.reading.running.run import Run

_PER_PIXEL = frozenset("mse_loss l1_loss smooth_l1_loss binary_cross_entropy binary_cross_entropy_with_logits".split())


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


def _reconstruction(program: Program, facts: FactStore, term: Fact) -> Fact | None:
    """The loss of the pixels that stands beside a KL term."""
    unit = unit_of(program, term)
    home = function_at(unit, term.line)
    losses = [f for f in facts.of("loss.call") if f.subject in _PER_PIXEL and f.file == term.file and f.line]
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
        yield Finding(
            "V04",
            "error" if gross else "warning",
            line or 1,
            "The reconstruction is averaged over the pixels while the KL is summed: the KL weighs "
            f"about {beta:,.0f} times too much."
            if beta > 1
            else f"The reconstruction is summed over the batch while the KL is averaged: the KL has only {beta:.3g} of "
            "its weight.",
            f"{beside.subject} has reduction '{beside['reduction']}' over {batch} x {pixels} numbers ({beside.id}); "
            "the KL at line "
            f"{term.line} is {'one number per image' if per_sample else 'the sum over the whole batch'} ({term.id}).",
            "Sum both over pixels and dimensions and average both over the batch (or weigh the KL on purpose).",
            file=beside.file,
            facts=(beside.id, term.id),
            patch=swap(program, beside.file, beside.line or 1, 'reduction="mean"', 'reduction="sum"', "V04: sum")
            if not per_sample and beta > 1
            else None,
        )


@rule("V05", "The KL is one number before it is averaged or masked", family="vae")
def reduced_twice(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A sum without ``dim`` inside a mean over the batch."""
    for term in facts.of("probe.kl"):
        line = term["scalar_then_reduced"]
        if not line:
            continue
        beside = _reconstruction(program, facts, term)
        summed = beside is not None and beside["reduction"] == "sum"
        yield Finding(
            "V05",
            "info" if summed else "error",
            line,
            "The KL is summed over the whole batch before its mean is taken: the mean of one number changes nothing.",
            f"Evaluated for 4 x 6 parameters, what is averaged here has no dimension left ({term.id}).",
            "Sum over the latent dimensions only: sum(dim=1).",
            file=term.file,
            facts=(term.id,),
            patch=swap(program, term.file, line, ".sum())", ".sum(dim=1))", "V05: sum over the latent"),
        )


@rule("V06", "The KL term has the wrong sign", family="vae")
def sign_of_divergence(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The term as a multiple of the true divergence, times the sign with which it enters the loss."""
    for term in facts.of("probe.kl"):
        sign = term["sign"]
        if not term["reading"] or not isinstance(sign, dict) or not sign.get("factor"):
            continue
        whole = sign["factor"] * (term["factors"][0] if not isinstance(sign.get("inside"), float) else 1)
        if whole > 0:
            yield Finding(
                "V06",
                "ok",
                term.line or 1,
                "The KL term enters the loss with a positive sign.",
                f"On a grid it is {term['factors'][0]:.3g} times the divergence ({term.id}).",
                file=term.file,
                facts=(term.id,),
            )
            continue
        if not sign.get("with_other") and not re.search("kl|loss", str(term["function"]) + str(term["target"]), re.I):
            continue
        yield Finding(
            "V06",
            "error" if sign.get("with_other") and _reconstruction(program, facts, term) is not None else "warning",
            term.line or 1,
            "The KL term has the wrong sign: the loss falls as the posterior moves away from the prior.",
            f"On a grid the term is {term['factors'][0]:.3g} times the true divergence and enters the sum of line "
            f"{sign['line']} "
            f"with factor {sign['factor']:.3g} ({term.id}).",
            "Flip the sign: -0.5 * sum(1 + logvar - mu**2 - exp(logvar)) is the divergence.",
            file=term.file,
            facts=(term.id,),
        )


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
        if fact.subject not in _PER_PIXEL or not all(isinstance(v, int | float) for v in limits):
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
        yield Finding(
            "V07",
            "error",
            line,
            "The output ends in a sigmoid, in [0, 1], while the data go below zero.",
            f"At line {fact.line} the outputs lie in [{low:.3g}, {high:.3g}] and the targets go down to {least:.3g} "
            f"({fact.id}).",
            "Use tanh for data in [-1, 1], or leave the data in [0, 1].",
            file=fact.file,
            facts=(fact.id,),
        )
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
            yield Finding(
                "V09",
                "error",
                statement.lineno,
                "The exponential of an unbounded output gives the scale: it overflows.",
                f"The loss was {lost[0]['loss']} at step {lost[0]['step']} ({lost[0].id}).",
                "Clamp the logarithm (to [-30, 20], say), or use softplus.",
                file=unit.file,
                facts=(lost[0].id,),
            )
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
        yield Finding(
            "V10",
            "error" if abs(fact["mean"]) > 0.25 or not 0.35 < fact["std"] < 2 else "warning",
            fact.line or 1,
            "New latents are not drawn from the prior that the KL term assumes.",
            f"{fact['text']} has mean {fact['mean']:.2g} and deviation {fact['std']:.2g} ({fact.id}); the prior has "
            "0 and 1.",
            "Decode torch.randn(n, latent_dim).",
            file=fact.file,
            facts=(fact.id,),
        )


@rule("V11", "Gradients of the quantiser go the wrong way", family="vae")
def quantiser(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """From the output straight to the input; from the loss to the codebook."""
    for fact in facts.of("probe.quantiser"):
        unit = unit_of(program, fact)
        holder = unit.classes.get(str(fact["class"]))
        node: ast.AST = holder.node if holder is not None else unit.tree
        if fact["out_to_input"] is not None and fact["out_to_input"] == 0:
            sums = [
                s
                for s in unit.all(ast.Assign, ast.Return, under=node)
                if s.value is not None
                and isinstance(s.value, ast.BinOp)
                and "detach" in ast.unparse(s.value)
                and not re.search("loss", ast.unparse(s).partition("=")[0], re.I)
            ]
            learns = fact["out_to_codebook"] or 0
            yield Finding(
                "V11",
                "error",
                sums[0].lineno if sums else fact.line or 1,
                "No gradient goes from the quantised output to the encoder: the straight-through step is missing or "
                "reversed.",
                f"The gradient to the input is 0{' and to the codebook ' + format(learns, '.3g') if learns else ''} "
                f"({fact.id}).",
                "Return inputs + (quantized - inputs).detach().",
                file=fact.file,
                facts=(fact.id,),
            )
        elif fact["codebook_learns"] and fact["loss_to_codebook"] == 0:
            losses = [
                s
                for s in unit.all(ast.Assign, ast.Return, under=node)
                if s.value is not None
                and "detach" in ast.unparse(s.value)
                and any(last_name(c) in (*_PER_PIXEL, "mean", "pow") for c in unit.all(ast.Call, under=s.value))
            ]
            named = [
                s for s in losses if re.search(r"q_|codebook|embed|vq|dict", ast.unparse(s).partition("=")[0], re.I)
            ]
            yield Finding(
                "V11",
                "error",
                (named or losses or [node])[0].lineno,
                "The codebook gets no gradient from the loss: it is detached in its own term.",
                "The gradient of the quantiser's loss to the codebook is 0 and to its input "
                f"{fact['loss_to_input']:.3g} ({fact.id}).",
                "Detach the encoder's output, not the codebook, in the codebook's term.",
                file=fact.file,
                facts=(fact.id,),
            )
