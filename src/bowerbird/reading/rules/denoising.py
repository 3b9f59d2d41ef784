"""Rules of denoising: samplers, moving averages, guidance, times."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, Unit, keyword, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.places import assigned_in, class_at, function_at, mentions, statements_in, swap, unit_of
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


@rule("D09", "The moving average does not average", family="diffusion")
def average(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One update with all new weights at one and all averaged ones at zero."""
    for fact in facts.of("probe.ema"):
        after, decay = fact["after"], fact["decay"]
        unit = unit_of(program, fact)
        holder = class_at(unit, fact.line) or function_at(unit, fact.line)
        body = [
            s
            for s in (unit.all(ast.Assign, ast.Expr, ast.AugAssign, ast.Return, under=holder) if holder else ())
            if re.search(r"decay|beta|alpha|lerp|mu\b", ast.unparse(s))
            and re.search(r"\*|mul|lerp|add", ast.unparse(s))
            and holder is not None
            and s.lineno > holder.lineno
        ]
        line = body[0].lineno if body else fact.line or 1
        if after == 0 and fact["online"] == 1:
            moved = facts.of("module.moved")
            still = [
                m for m in moved if re.search("ema|average|shadow", m.subject, re.I) and m["unmoved"] and not m["moved"]
            ]
            yield Finding(
                "D09",
                "error",
                line,
                "The average is never updated: new tensors are made and thrown away.",
                f"After one update the averaged weights were still 0 and the online ones 1 ({fact.id})"
                + (f"; {still[0].subject} did not move in the whole run ({still[0].id})." if still else "."),
                "Write into the weights: ema.mul_(decay).add_(param, alpha=1 - decay).",
                file=fact.file,
                facts=(fact.id,),
            )
        elif (decay > 0.6 and abs(after - decay) < 1e-4 and abs(after - (1 - decay)) > 0.1) or fact["online"] != 1:
            yield Finding(
                "D09",
                "error",
                line,
                "Old and new weights are swapped in the moving average.",
                f"With a decay of {decay:g}, one update moved the average from 0 to {after:.4g} towards 1, the "
                f"online weights to {fact['online']:.4g} ({fact.id}).",
                "ema = decay * ema + (1 - decay) * online.",
                file=fact.file,
                facts=(fact.id,),
            )


@rule("D10", "A tensor of inference_mode is needed by the backward pass", family="diffusion")
def inference_tensor(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """PyTorch refuses; the place is where the mode is entered."""
    for fact in facts.of("run.exception"):
        if "nference tensor" not in str(fact["message"]):
            continue
        unit = unit_of(program, fact)
        places = [c.lineno for c in unit.calls("inference_mode")]
        inside = [
            n
            for n in places
            if not any(re.search("sample|generate|eval", f.name) for f in [function_at(unit, n)] if f is not None)
        ]
        line = (inside or places or [fact.line or 1])[0]
        yield Finding(
            "D10",
            "error",
            line,
            "A tensor made under inference_mode is used where gradients are needed.",
            f"PyTorch raised at line {fact.line}: {str(fact['message'])[:90]} ({fact.id}).",
            "Use torch.no_grad() here.",
            file=fact.file,
            facts=(fact.id,),
            patch=swap(program, fact.file, line, "inference_mode", "no_grad", "D10: no_grad"),
        )
        return


@rule("D11", "Guidance works against its condition", family="diffusion")
def guided(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The weight of the conditional answer, and conditions that are dropped while sampling."""
    for fact in facts.of("probe.guidance"):
        if abs(fact["of_conditional"] + fact["of_unconditional"] - 1) > 0.05:
            continue
        if fact["of_conditional"] < fact["of_unconditional"] and fact["of_conditional"] <= 0:
            yield Finding(
                "D11",
                "error",
                fact.line or 1,
                "Guidance leads away from the condition: the conditional answer has a negative weight.",
                f"With all weights at 3, {fact['text']} gives the conditional answer {fact['of_conditional']:.3g} "
                "and the other "
                f"{fact['of_unconditional']:.3g} ({fact.id}).",
                "eps = eps_uncond + w * (eps_cond - eps_uncond).",
                file=fact.file,
                facts=(fact.id,),
            )
        elif fact["of_conditional"] > 0:
            yield Finding(
                "D11",
                "ok",
                fact.line or 1,
                "Guidance leads towards the condition.",
                f"Weights {fact['of_conditional']:.3g} and {fact['of_unconditional']:.3g} ({fact.id}).",
                file=fact.file,
                facts=(fact.id,),
            )
    for fact in facts.of("probe.dropped_while_sampling"):
        unit = unit_of(program, fact)
        function = function_at(unit, fact.line)
        if function is None or not mentions(function, r"^(y|c|labels?|class(es)?|context|cond|cls|drop\w*)$"):
            continue
        yield Finding(
            "D11",
            "error",
            fact.line or 1,
            "The condition is dropped at random while sampling.",
            f"{fact['net']} draws {fact['function']} during {fact.subject}, in evaluation ({fact.id}).",
            "Drop conditions only in training: if self.training.",
            file=fact.file,
            facts=(fact.id,),
        )


@rule("D12", "The network ignores the time", family="diffusion")
def time_ignored(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Other times, same output."""
    for fact in facts.of("probe.time"):
        if fact["change"] > 1e-7:
            yield Finding(
                "D12",
                "ok",
                fact.line or 1,
                "The output depends on the time.",
                f"Changed by {fact['change']:.2g} ({fact.id}).",
                file=fact.file,
                facts=(fact.id,),
            )
            continue
        unit = unit_of(program, fact)
        info = unit.classes.get(str(fact["class"]))
        forward = info.methods.get("forward") if info else None
        uses = [
            s.lineno
            for s in (statements_in(unit, forward) if forward else ())
            if isinstance(s, ast.Assign | ast.Return | ast.AugAssign)
            and mentions(s, r"^(t|ts|time\w*|t_emb|temb|emb|step|sigma)$")
        ]
        yield Finding(
            "D12",
            "error",
            (uses or [forward.lineno if forward else fact.line or 1])[0],
            "The network is given the step and ignores it.",
            f"Other steps changed the output of {fact.subject} by {fact['change']:.1g} of its size, with weights "
            f"perturbed ({fact.id}).",
            "Add the embedding of t to the features of every block.",
            file=fact.file,
            facts=(fact.id,),
        )


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
            reached = min(visited) if visited else _lowest_visited(unit)
            unseen = low == 1 and high <= steps and reached == 0
            beyond = high == steps + 1 and low == 0
            short = high == steps - 1 and (not visited or max(visited) == steps - 1)
            if not (unseen or beyond or short):
                continue
            which = "0" if unseen else str(steps) if beyond else str(steps - 1)
            yield Finding(
                "D13",
                "error" if unseen or beyond else "warning",
                call.lineno,
                f"Step {which} is drawn although the tables end before it."
                if beyond
                else f"Step {which} is never trained, though sampling visits it.",
                f"randint draws {low} to {high - 1}; the tables have {steps} entries, and sampling goes down to "
                f"{reached}.",
                f"Draw torch.randint(0, {steps}, ...).",
                file=unit.file,
                patch=swap(program, unit.file, call.lineno, "low=1", "low=0", "D13: from 0") if unseen else None,
            )


def _draws_steps(unit: Unit, call: ast.Call, statement: ast.stmt) -> bool:
    function = unit.function(call)
    names = " ".join(ast.unparse(t) for t in targets_of(statement))
    return bool(
        re.search(r"^t$|^ts$|time|step|^t\b", names) or (function is not None and re.search("time|step", function.name))
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


def _lowest_visited(unit: Unit) -> int | None:
    """The last step of a loop that counts down."""
    for call in unit.calls("reversed"):
        inner = next((c for c in unit.calls("range", under=call)), None)
        if inner is not None:
            first = unit.constant(inner.args[0]) if len(inner.args) > 1 else 0
            return first if isinstance(first, int) else None
    return None
