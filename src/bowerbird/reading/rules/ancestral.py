"""Rules of samplers: what a step takes of the picture, of the answer and of fresh noise."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.places import (
    assigned_in,
    function_at,
    unit_of,
)
from bowerbird.reading.running.run import Run


def _close(a: float, b: float, tolerance: float = 0.02) -> bool:
    return abs(a - b) <= tolerance * max(abs(b), 1e-9)


@rule("D08", "The noise of a sampling step is wrong", family="diffusion")
def sampler_noise(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Each step was fitted as a sum of its input, the network's answer and the noise that was drawn."""
    steps = facts.of("probe.sampler_step")
    told = False
    for fact in steps:
        if (
            told
            or fact["last"]
            or fact["residual"] > 5e-3
            or not fact["ancestral"]
            or not fact["t"]
            or fact["t"] < 1
            or len(fact["of_answers"]) != 1
        ):
            continue
        finding = _judge_step(program, fact)
        if finding is not None:
            told = finding.severity != "ok"
            yield finding
    for fact in steps:
        if not fact["last"] or told:
            continue
        share = abs(fact["of_noise"] / fact["of_input"]) if fact["of_input"] else 0.0
        if share > max(1e-4, 5 * fact["residual"]) and (fact["t"] is None or fact["t"] < 2) and fact["residual"] < 5e-3:
            yield Finding(
                "D08",
                "error",
                fact["draw_line"] or fact.line or 1,
                "The last step of sampling adds noise, too.",
                f"After the last call of the network (t = {fact['t']}) fresh noise enters with {share:.3g} of the "
                f"weight of the image ({fact.id}).",
                "Add noise only where t > 0.",
                file=fact["draw_file"] or fact.file,
                facts=(fact.id,),
            )


def _judge_step(program: Program, fact: Fact) -> Finding | None:
    (right_a, right_b), (_, det_b) = fact["ancestral"], fact["deterministic"]
    a, b, noise = fact["of_input"], fact["of_answers"][0], fact["of_noise"]
    beta, posterior = fact["beta"], fact["posterior_variance"]
    unit = unit_of(program, fact)
    update = fact["update_line"] or fact.line or 1
    where = f"At t = {fact['t']} the step is {a:.5g} * x + {b:.4g} * answer + {noise:.4g} * noise ({fact.id})"
    if not _close(a, right_a, 2e-3):
        return None
    if any(_close(noise, v**0.5) for v in (beta, posterior)) and _close(b, right_b, 0.02):
        return Finding(
            "D08",
            "ok",
            update,
            "Sampling adds the noise of the posterior.",
            f"{where}.",
            file=fact.file,
            facts=(fact.id,),
        )
    if noise > 0 and any(_close(noise, v) for v in (beta, posterior)):
        return Finding(
            "D08",
            "error",
            update,
            "The noise is scaled by the variance instead of the standard deviation.",
            f"{where}; the variance is {beta:.4g} and its root {beta**0.5:.4g}.",
            "Multiply the noise by sqrt(variance).",
            file=fact.file,
            facts=(fact.id,),
        )
    if (
        noise < 1e-7
        and any(_close(b, right_b + sign * v**0.5, 0.02) for v in (beta, posterior) for sign in (1, -1))
        and not _close(b, det_b, 0.02)
    ):
        function = function_at(unit, update)
        reused = (
            [
                s.lineno
                for s in assigned_in(unit, "noise|^z$|eps", under=function)
                if not re.search("randn", ast.unparse(s))
                and re.search("pred|eps|model|noise", ast.unparse(getattr(s, "value", s)))
                and not (isinstance(s, ast.Assign) and isinstance(s.value, ast.Call))
            ]
            if function
            else []
        )
        return Finding(
            "D08",
            "error",
            (reused or [update])[0],
            "The random term of the sampler is the network's own answer, not fresh noise.",
            f"{where}: without its second use the answer would have {right_b:.4g}.",
            "Draw torch.randn_like(x) at every step.",
            file=fact.file,
            facts=(fact.id,),
        )
    if noise < 1e-7 and _close(b, right_b, 0.01) and not _close(b, det_b, 0.01):
        return Finding(
            "D08",
            "warning",
            update,
            "The sampler takes the mean of the posterior and adds no noise.",
            f"{where}.",
            "Add sqrt(variance) * torch.randn_like(x), or use the DDIM update.",
            file=fact.file,
            facts=(fact.id,),
        )
    if any(_close(noise, v**0.5) for v in (beta, posterior)) and not _close(b, right_b, 0.05):
        return Finding(
            "D08",
            "error",
            update,
            "The mean of a sampling step subtracts the wrong share of the predicted noise.",
            f"{where}; the share should be {right_b:.4g}.",
            "The mean is (x - beta / sqrt(1 - alpha-bar) * eps) / sqrt(alpha).",
            file=fact.file,
            facts=(fact.id,),
        )
    return None
