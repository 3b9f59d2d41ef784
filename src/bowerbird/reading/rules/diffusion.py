"""Rules of diffusion and flow models: schedules and tables, noising, conditions, averages, sampling steps."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding, Severity
from bowerbird.reading.origins import function_at
from bowerbird.reading.program import Program, Unit, keyword, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import placed, say
from bowerbird.reading.rules.places import (
    assigned_in,
    class_at,
    first,
    lines_where,
    mentions,
    statements_in,
    swap,
    unit_of,
)
from bowerbird.reading.running.run import Run

_DEFINITIONS = {
    "alphas": "1 - betas",
    "bar": "cumprod(1 - betas)",
    "bar_prev": "alpha-bar of the step before, 1 at the first",
    "sqrt_bar": "sqrt(alpha-bar)",
    "sqrt_one_minus_bar": "sqrt(1 - alpha-bar)",
    "sqrt_recip_bar": "sqrt(1 / alpha-bar)",
    "sqrt_recipm1_bar": "sqrt(1 / alpha-bar - 1)",
    "posterior_variance": "beta * (1 - alpha-bar_prev) / (1 - alpha-bar)",
    "mean_coef1": "beta * sqrt(alpha-bar_prev) / (1 - alpha-bar)",
    "mean_coef2": "(1 - alpha-bar_prev) * sqrt(alpha) / (1 - alpha-bar)",
}


def wrong_tables(facts: FactStore) -> list[Fact]:
    """Tables that differ from their definition; of those that follow from a wrong one, only that one."""
    wrong = [f for f in facts.of("probe.table") if f["error"] > (5e-3 if f["kind"] == "bar_prev" else 2e-2)]
    roots = [f for f in wrong if f["kind"] in ("alphas", "bar", "bar_prev")]
    if any(f["kind"] == "bar_prev" for f in wrong):
        wrong = [f for f in wrong if f["kind"] not in ("posterior_variance", "mean_coef1", "mean_coef2")]
    return [f for f in wrong if f["kind"] in ("alphas", "bar")] or wrong if roots else wrong


_GUESSED_ENDS = re.compile(r"(beta|start|end|sigma|schedule)\w*=", re.I)


@rule("D01", "The noise schedule is wrong", family="diffusion")
def schedule(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Betas in (0, 1), cumulative products that fall, and the cosine schedule where a function says so."""
    for fact in facts.of("probe.schedule"):
        if fact["falling"] and fact["betas_inside"]:
            yield say("D01d", "ok", fact.line, fact=fact)
            continue
        if any(_GUESSED_ENDS.search(stand_in.name) for stand_in in run.stand_ins):
            continue  # the ends of the schedule are ours, not the program's
        yield say("D01", "error", fact.line, fact=fact, last=fact["last"] ** 2)
    for fact in facts.of("probe.cosine"):
        if fact["error"] < 0.03:
            yield say("D01e", "ok", fact.line, fact=fact)
            continue
        if fact["error_of_root"] < 0.03:
            yield say("D01b", "error", fact.line, fact=fact)


@rule("D03", "A table of the process is wrong", family="diffusion")
def tables(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Each against its definition by the others; the squares of what multiplies data and noise sum to one."""
    wrong = wrong_tables(facts)
    for fact in wrong:
        yield say("D03", "error", fact.line, fact=fact, right=_DEFINITIONS[fact["kind"]])
    for fact in facts.of("probe.noising"):
        if not wrong and fact["bar"] is not None and abs(fact["sum_of_squares"] - 1) > 2e-3:
            yield say("D03b", "error", fact.line, fact=fact)


@rule("D04", "The last step still holds signal", family="diffusion")
def last_step(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Sampling starts from pure noise, which training never saw when much signal is left at the end."""
    if any("built with these arguments" in stand_in.reason for stand_in in run.stand_ins):
        return  # the number of steps is ours, not the program's
    for fact in facts.of("probe.schedule"):
        if fact["last"] <= 0.2 or not fact["falling"] or fact["steps"] < 20:
            continue
        unit = unit_of(program, fact)
        line = next(
            (c.lineno for c in unit.calls("linspace") if any(isinstance(unit.constant(a), float) for a in c.args)),
            placed(fact.line),
        )
        yield say(
            "D04", "warning", line, fact=fact, beta_first=fact["beta_first"] or 0, beta_last=fact["beta_last"] or 0,
        )  # fmt: skip
        return


# ---------- the forward process: inverses and targets, the range of the data, weights of the loss


@rule("D05", "Target and inverse do not belong together", family="diffusion")
def round_trip(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Noise and data were mixed and taken apart again by the program's own functions."""
    wrong = bool(wrong_tables(facts))
    for fact in facts.of("probe.inverse"):
        if fact["error"] < 1e-2:
            yield say("D05", "ok", fact.line, fact=fact)
        elif not wrong:
            unit = unit_of(program, fact)
            function = next((f for f in unit.functions.values() if f.name == fact.subject), None)
            returns = [s for s in statements_in(unit, function) if isinstance(s, ast.Return)] if function else []
            line = (returns[-1].end_lineno or returns[-1].lineno) if returns else placed(fact.line)
            yield say("D05c", "error", line, fact=fact)
    for fact in facts.of("probe.target"):
        velocity, found = fact["velocity"], (fact["of_noise"], fact["of_input"])
        if not velocity or fact["residual"] > 1e-2 or wrong:
            continue
        scale = abs(velocity[0]) + abs(velocity[1])
        if abs(found[0] + velocity[0]) + abs(found[1] + velocity[1]) < 0.02 * scale and fact["standard_v"]:
            unit = unit_of(program, fact)
            function = function_at(unit, fact.line)
            at = lines_where(unit, function, r"^(target|v) = .*((noise|eps).* - |- .*(noise|eps))")
            yield say("D05b", "error", at[-1] if at else fact.line, found=found, velocity=velocity, fact=fact)


def _signed_sampling(program: Program) -> bool:
    """Whether the program clamps samples to [-1, 1] or maps them from there to [0, 1]."""
    text = program.main.text
    return bool(re.search(r"clamp_?\(\s*-1(\.0?)?\s*,\s*1|clip\(\s*-1|min=-1|\+ ?1(\.0)?\) ?(\*|/) ?(0?\.5|2)", text))


@rule("D06", "Images are not centred", family="diffusion")
def centred(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Data in [0, 1] against a sampler that works in [-1, 1]."""
    if any("stand-in images were taken" in s.reason for s in run.stand_ins) or not _signed_sampling(program):
        return
    for fact in facts.of("probe.target"):
        if fact["least"] is None or fact["least"] < -0.2 or fact["most"] < 0.3 or fact["most"] > 1.3:
            continue
        unit = unit_of(program, fact)
        holder = class_at(unit, fact.line)
        forward = next((n for n in holder.body if getattr(n, "name", "") == "forward"), None) if holder else None
        calls = lines_where(unit, forward, r"\.(p_losses|loss|training_losses)\(", ast.Call)
        yield say("D06", "error", first(calls, fact.line), fact=fact)
        return


@rule("D07", "The weight of min-SNR is clamped from the wrong side", family="diffusion")
def min_snr(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The clamped ratio on a grid from 0.001 to 1000."""
    for fact in facts.of("probe.snr"):
        if fact["most"] > 100 and fact["least"] > 1:
            yield say(
                "D07", "error", fact.line,
                patch=swap(program, fact.file, fact.line, "min=", "max=", "D07: max"), fact=fact,
            )  # fmt: skip


# ---------- what a denoiser is told: the condition, the step, the range of steps


@rule("D11", "Guidance works against its condition", family="diffusion")
def guided(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The weight of the conditional answer, and conditions that are dropped while sampling."""
    for fact in facts.of("probe.guidance"):
        if abs(fact["of_conditional"] + fact["of_unconditional"] - 1) > 0.05:
            continue
        if fact["of_conditional"] < fact["of_unconditional"] and fact["of_conditional"] <= 0:
            yield say("D11c", "error", fact.line, fact=fact)
        elif fact["of_conditional"] > 0:
            yield say("D11d", "ok", fact.line, fact=fact)
    for fact in facts.of("probe.dropped_while_sampling"):
        unit = unit_of(program, fact)
        function = function_at(unit, fact.line)
        if function is None or not mentions(function, r"^(y|c|labels?|class(es)?|context|cond|cls|drop\w*)$"):
            continue
        yield say("D11", "error", fact.line, fact=fact)


@rule("D13", "Steps are drawn from the wrong range", family="diffusion")
def time_range(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The bounds of randint against the tables and the steps that the sampler visits."""
    lengths = {f["steps"] for f in facts.of("probe.schedule")}
    visited = [
        int(f["t"])
        for f in facts.of("probe.sampler_step")
        if isinstance(f["t"], int | float) and float(f["t"]) == int(f["t"])
    ]
    for unit in program:
        for call in unit.calls("randint"):
            low, high = _bounds(unit, call, facts)
            statement = unit.statement(call)
            if low is None or high is None or len(lengths) != 1 or statement is None:
                continue
            steps = lengths.copy().pop()
            if high not in (steps, steps - 1, steps + 1) or not _draws_steps(unit, call, statement):
                continue
            reached = min(visited, default=None)
            unseen = low == 1 and high <= steps and reached == 0
            beyond = high == steps + 1 and low == 0
            short = high == steps - 1 and (not visited or max(visited) == steps - 1)
            if not (unseen or beyond or short):
                continue
            which = "0" if unseen else str(steps) if beyond else str(steps - 1)
            yield say(
                "D13" if beyond else "D13b", "error" if unseen or beyond else "warning", call.lineno, file=unit.file,
                facts=tuple(f.id for f in facts.of("probe.schedule")[:1]),
                patch=swap(program, unit.file, call.lineno, "low=1", "low=0", "D13: from 0") if unseen else None,
                which=which, low=low, high_2=high - 1, steps=steps, reached=reached,
            )  # fmt: skip


def _draws_steps(unit: Unit, call: ast.Call, statement: ast.stmt) -> bool:
    function = unit.function(call)
    names = " ".join(ast.unparse(t) for t in targets_of(statement))
    return bool(
        re.search(r"^_?ts?$|time|step|^t\b", names) or (function is not None and re.search("time|step", function.name))
    )


def _bounds(unit: Unit, call: ast.Call, facts: FactStore) -> tuple[int | None, int | None]:
    seen = facts.first("function.call", "randint", line=call.lineno)
    if seen is not None and seen.file == unit.file:
        numbers = [a for a in seen["args"] or () if isinstance(a, int) and not isinstance(a, bool)]
        words = seen["kwargs"] or {}
        low, high = words.get("low"), words.get("high")
        if high is None:
            high = numbers[-1] if numbers else None
        if low is None:
            low = numbers[0] if len(numbers) > 1 or (numbers and "high" in words) else 0
        return (low if isinstance(low, int) else None), (high if isinstance(high, int) else None)
    low, high = unit.constant(keyword(call, "low")), unit.constant(keyword(call, "high"))
    return (low, high) if isinstance(low, int) and isinstance(high, int) else (None, None)


# ---------- samplers: what a step takes of the picture, of the network's answer and of fresh noise


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


def _diagnosis(step: Step) -> tuple[Severity, str, str] | None:
    """What a step does right or wrong, and the remedy; None where nothing is known of it."""
    ancestral, deterministic = step.ancestral[1], step.deterministic[1]
    twice = any(_close(step.answer, ancestral + sign * v**0.5) for v in step.variances for sign in (1, -1))
    exactly = _close(step.answer, ancestral, 0.01) and not _close(step.answer, deterministic, 0.01)
    if step.right_noise and step.right_mean:
        return "ok", "Sampling adds the noise of the posterior.", ""
    if step.noise > 0 and any(_close(step.noise, v) for v in step.variances):
        said = "The noise is scaled by the variance instead of the standard deviation."
        return "error", said, "Multiply the noise by sqrt(variance)."
    if step.without_noise and twice and not _close(step.answer, deterministic):
        said = "The random term of the sampler is the network's own answer, not fresh noise."
        return "error", said, "Draw torch.randn_like(x) at every step."
    if step.without_noise and exactly:
        said = "The sampler takes the mean of the posterior and adds no noise."
        return "warning", said, "Add sqrt(variance) * torch.randn_like(x), or use the DDIM update."
    if step.right_noise and not _close(step.answer, ancestral, 0.05):
        said = "The mean of a sampling step subtracts the wrong share of the predicted noise."
        return "error", said, "The mean is (x - beta / sqrt(1 - alpha-bar) * eps) / sqrt(alpha)."
    return None


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
                "D08c", "error" if fact["steps"] > 1 else "warning", fact["draw_line"] or fact.line,
                file=fact["draw_file"] or fact.file, fact=fact, share=share,
            )  # fmt: skip
            return


def _judged(program: Program, fact: Fact) -> Finding | None:
    step = Step(
        fact["of_input"], fact["of_answers"][0], fact["of_noise"], tuple(fact["ancestral"]),
        tuple(fact["deterministic"]), (fact["beta"], fact["posterior_variance"]),
    )  # fmt: skip
    if not _close(step.picture, step.ancestral[0], 2e-3):
        return None
    said = _diagnosis(step)
    if said is None:
        return None
    severity, message, fix = said
    unit = unit_of(program, fact)
    update = placed(fact["update_line"] or fact.line)
    line = _reused(unit, update) if message.startswith("The random term") else update
    return say("D08", severity, line, said=message, fact=fact, step=step, variances=step.variances[0] ** 0.5, seen=fix)


def _reused(unit: Unit, update: int) -> int:
    """Where the network's answer is called noise, in the function of an update."""
    function = function_at(unit, update)
    for statement in assigned_in(unit, "noise|^z$|eps", under=function) if function else ():
        value = getattr(statement, "value", statement)
        named = re.search("pred|eps|model|noise", ast.unparse(value)) and not re.search("randn", ast.unparse(statement))
        if named and not (isinstance(statement, ast.Assign) and isinstance(value, ast.Call)):
            return statement.lineno
    return update


# ---------- copies of a network: moving averages, tensors made under inference mode


LEAST_DECAY = 0.92
"""What warms its decay up begins with a smaller one, so that its first update may look like one the wrong way round."""


@rule("D09", "The moving average does not average", family="diffusion")
def average(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One update with all new weights at one and all averaged ones at zero."""
    for fact in facts.of("probe.ema"):
        after, decay = fact["after"], fact["decay"]
        if after == 0:
            yield say("D09", "error", fact.line, fact=fact)
        elif decay > LEAST_DECAY and abs(after - decay) < 1e-4:
            yield say("D09b", "error", fact.line, decay=decay, after=after, fact=fact)


@rule("D10", "A tensor of inference_mode is needed by the backward pass", family="diffusion")
def inference_tensor(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """PyTorch refuses; the place is where the mode is entered."""
    for fact in facts.of("run.exception"):
        if "nference tensor" not in str(fact["message"]):
            continue
        unit = unit_of(program, fact)
        places = [c.lineno for c in unit.calls("inference_mode")]
        homes = {n: function_at(unit, n) for n in places}
        inside = [n for n, f in homes.items() if f is None or not re.search("sample|generate|eval", f.name)]
        line = first(inside or places, fact.line)
        yield say(
            "D10", "error", line, patch=swap(program, fact.file, line, "inference_mode", "no_grad", "D10: no_grad"),
            fact=fact, message=str(fact["message"])[:90],
        )  # fmt: skip
        return
