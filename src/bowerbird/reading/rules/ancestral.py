"""Rules of samplers: what a step takes of the picture, of the network's answer and of fresh noise."""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding, Severity
from bowerbird.reading.program import Program, Unit
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import assigned_in, function_at, unit_of
from bowerbird.reading.running.run import Run

FITTED = 5e-3
"""Above this residual a step is no sum of its parts (something is clamped), and nothing is said of it."""


def _close(a: float, b: float, tolerance: float = 0.02) -> bool:
    return abs(a - b) <= tolerance * max(abs(b), 1e-9)


@dataclass(frozen=True)
class Step:
    """A step ``picture * x + answer * eps + noise * z`` and what ancestral and deterministic sampling would take."""

    picture: float
    answer: float
    noise: float
    ancestral: tuple[float, float]
    deterministic: tuple[float, float]
    variances: tuple[float, float]

    @property
    def right_mean(self) -> bool:
        return _close(self.answer, self.ancestral[1])

    @property
    def right_noise(self) -> bool:
        return any(_close(self.noise, v**0.5) for v in self.variances)

    @property
    def without_noise(self) -> bool:
        return self.noise < 1e-7


Said = tuple[Severity, str, str]


def _right(step: Step) -> Said | None:
    if step.right_noise and step.right_mean:
        return "ok", "Sampling adds the noise of the posterior.", ""
    return None


def _variance_for_deviation(step: Step) -> Said | None:
    if step.noise > 0 and any(_close(step.noise, v) for v in step.variances):
        return (
            "error", "The noise is scaled by the variance instead of the standard deviation.",
            "Multiply the noise by sqrt(variance).",
        )  # fmt: skip
    return None


def _answer_for_noise(step: Step) -> Said | None:
    twice = any(_close(step.answer, step.ancestral[1] + sign * v**0.5) for v in step.variances for sign in (1, -1))
    if step.without_noise and twice and not _close(step.answer, step.deterministic[1]):
        return (
            "error", "The random term of the sampler is the network's own answer, not fresh noise.",
            "Draw torch.randn_like(x) at every step.",
        )  # fmt: skip
    return None


def _no_noise(step: Step) -> Said | None:
    exactly = _close(step.answer, step.ancestral[1], 0.01) and not _close(step.answer, step.deterministic[1], 0.01)
    if step.without_noise and exactly:
        return (
            "warning", "The sampler takes the mean of the posterior and adds no noise.",
            "Add sqrt(variance) * torch.randn_like(x), or use the DDIM update.",
        )  # fmt: skip
    return None


def _wrong_mean(step: Step) -> Said | None:
    if step.right_noise and not _close(step.answer, step.ancestral[1], 0.05):
        return (
            "error", "The mean of a sampling step subtracts the wrong share of the predicted noise.",
            "The mean is (x - beta / sqrt(1 - alpha-bar) * eps) / sqrt(alpha).",
        )  # fmt: skip
    return None


_DIAGNOSES: tuple[Callable[[Step], Said | None], ...] = (
    _right, _variance_for_deviation, _answer_for_noise, _no_noise, _wrong_mean,
)  # fmt: skip


@rule("D08", "The noise of a sampling step is wrong", family="diffusion")
def sampler_noise(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Each step was fitted as a sum of its input, the network's answer and the noise that was drawn."""
    steps = [f for f in facts.of("probe.sampler_step") if f["residual"] < FITTED]
    for fact in steps:
        if fact["last"] or not fact["ancestral"] or not fact["t"] or fact["t"] < 1 or len(fact["of_answers"]) != 1:
            continue
        finding = _judged(program, fact)
        if finding is not None:
            yield finding
            if finding.severity != "ok":
                return
    for fact in steps:
        share = abs(fact["of_noise"] / fact["of_input"]) if fact["of_input"] else 0.0
        first_steps = fact["t"] is None or fact["t"] < 2
        if fact["last"] and first_steps and share > max(1e-4, 5 * fact["residual"]):
            yield say(
                "D08c", "error" if fact["steps"] > 1 else "warning", fact["draw_line"] or fact.line or 1,
                file=fact["draw_file"] or fact.file, fact=fact, share=share,
            )  # fmt: skip
            return


def _judged(program: Program, fact: Fact) -> Finding | None:
    step = Step(
        fact["of_input"], fact["of_answers"][0], fact["of_noise"], tuple(fact["ancestral"]),
        tuple(fact["deterministic"]), (fact["beta"], fact["posterior_variance"]),
    )  # fmt: skip
    if not _close(step.picture, step.ancestral[0], 2e-3):
        return _jumped(program, fact, step)
    said = next((said for diagnosis in _DIAGNOSES if (said := diagnosis(step)) is not None), None)
    if said is None:
        return None
    severity, message, fix = said
    unit = unit_of(program, fact)
    update = int(fact["update_line"] or fact.line or 1)
    line = _reused(unit, update) if message.startswith("The random term") else update
    return say("D08", severity, line, said=message, fact=fact, step=step, variances=step.variances[0] ** 0.5, seen=fix)


def _jumped(program: Program, fact: Fact, step: Step) -> Finding | None:
    """A step without noise from t to the next time that the network was asked at, against DDIM's."""
    wanted = fact["jump"]
    if not wanted or not step.without_noise:
        return None
    if _close(step.picture, wanted[0], 2e-3) and abs(step.answer - wanted[1]) < 0.02 * (1 + abs(wanted[1])):
        return None
    unit = unit_of(program, fact)
    function = function_at(unit, fact["update_line"]) or function_at(unit, fact.line)
    places = [
        s.lineno for s in (unit.all(ast.Assign, under=function) if function else ())
        if re.search(r"alpha|bar", ast.unparse(s.targets[0])) and re.search(r"\[", ast.unparse(s.value))
    ]  # fmt: skip
    return say(
        "D08b", "warning", (places or [fact["update_line"] or fact.line or 1])[0], fact=fact, step=step, wanted=wanted,
    )  # fmt: skip


def _reused(unit: Unit, update: int) -> int:
    """Where the network's answer is called noise, in the function of an update."""
    function = function_at(unit, update)
    for statement in assigned_in(unit, "noise|^z$|eps", under=function) if function else ():
        value = getattr(statement, "value", statement)
        named = re.search("pred|eps|model|noise", ast.unparse(value)) and not re.search("randn", ast.unparse(statement))
        if named and not (isinstance(statement, ast.Assign) and isinstance(value, ast.Call)):
            return statement.lineno
    return update
