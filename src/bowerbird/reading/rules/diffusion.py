"""Rules of diffusion models: tables, forward process, targets, samplers, guidance, moving averages."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, Unit, keyword, last_name, names_in, receiver, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.places import assigned_in, class_at, function_at, mentions, statements_in, swap, unit_of
from bowerbird.reading.running.run import Run

_DEFINITIONS = {
    "alphas": "1 - betas", "bar": "cumprod(1 - betas)", "bar_prev": "alpha-bar of the step before, 1 at the first",
    "sqrt_bar": "sqrt(alpha-bar)", "sqrt_one_minus_bar": "sqrt(1 - alpha-bar)", "sqrt_recip_bar": "sqrt(1 / alpha-bar)",
    "sqrt_recipm1_bar": "sqrt(1 / alpha-bar - 1)", "posterior_variance": "beta * (1 - alpha-bar_prev) / (1 - alpha-bar)",
    "mean_coef1": "beta * sqrt(alpha-bar_prev) / (1 - alpha-bar)", "mean_coef2": "(1 - alpha-bar_prev) * sqrt(alpha) / (1 - alpha-bar)",
}  # fmt: skip


def _wrong_tables(facts: FactStore) -> list[Fact]:
    """Tables that differ from their definition; of those that follow from a wrong one, only that one."""
    wrong = [f for f in facts.of("probe.table") if f["error"] > 2e-2]
    roots = [f for f in wrong if f["kind"] in ("alphas", "bar", "bar_prev")]
    if any(f["kind"] == "bar_prev" for f in wrong):
        wrong = [f for f in wrong if f["kind"] not in ("posterior_variance", "mean_coef1", "mean_coef2")]
    return [f for f in wrong if f["kind"] in ("alphas", "bar")] or wrong if roots else wrong


def _table_finding(identity: str, fact: Fact) -> Finding:
    return Finding(
        identity, "error", fact.line or 1, f"The table {fact['name']} is not {_DEFINITIONS[fact['kind']]}.",
        f"It is off by {fact['error']:.2g} (relative) from what the program's other tables give; its first entry is "
        f"{fact['first']:.4g} and should be {fact['should_be']:.4g} ({fact.id}).",
        f"Compute {_DEFINITIONS[fact['kind']]}.", file=fact.file, facts=(fact.id,),
    )  # fmt: skip


@rule("D01", "The noise schedule is wrong", family="diffusion")
def schedule(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Betas in (0, 1), cumulative products that fall, and the cosine schedule where a function says so."""
    for fact in _wrong_tables(facts):
        if fact["kind"] in ("alphas", "bar"):
            yield _table_finding("D01", fact)
    for fact in facts.of("probe.schedule"):
        if fact["falling"] and fact["betas_inside"]:
            yield Finding("D01", "ok", fact.line or 1, "The betas lie in (0, 1) and alpha-bar falls.",
                          f"{fact['steps']} steps ({fact.id}).", file=fact.file, facts=(fact.id,))  # fmt: skip
            continue
        yield Finding(
            "D01", "error", fact.line or 1, "The schedule is none: betas leave (0, 1) or alpha-bar rises.",
            f"{fact.subject} goes from {fact['first']:.4g} to {fact['last'] ** 2:.4g} ({fact.id}).",
            "Betas must lie between 0 and 1; alpha-bar is the running product of 1 - beta.", file=fact.file, facts=(fact.id,),
        )  # fmt: skip
    for fact in facts.of("probe.cosine"):
        if fact["error"] < 0.03:
            yield Finding("D01", "ok", fact.line or 1, "The schedule is the cosine schedule.", f"Off by {fact['error']:.2g} ({fact.id}).",
                          file=fact.file, facts=(fact.id,))  # fmt: skip
            continue
        root = fact["error_of_root"] < 0.03
        if not root and fact["error"] < 0.15:
            continue
        yield Finding(
            "D01", "error" if root else "warning", fact.line or 1,
            "The cosine schedule lacks its square." if root else "This is not the cosine schedule of Nichol and Dhariwal.",
            f"alpha-bar of {fact.subject} differs from cos^2 by up to {fact['error']:.2g}"
            + (f" and from the cosine itself by {fact['error_of_root']:.1g}" if root else "") + f" ({fact.id}).",
            "alpha-bar is cos((t/T + s) / (1 + s) * pi / 2) ** 2.", file=fact.file, facts=(fact.id,),
        )  # fmt: skip


@rule("D02", "alpha-bar of the previous step is that of another", family="diffusion")
def previous(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Its first entry is 1 and the rest are the entries before."""
    for fact in _wrong_tables(facts):
        if fact["kind"] == "bar_prev":
            yield _table_finding("D02", fact)


@rule("D03", "A coefficient of the forward process is wrong", family="diffusion")
def coefficients(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Signal and noise of a variance-preserving process have squares that sum to one."""
    wrong = [f for f in _wrong_tables(facts) if f["kind"] not in ("alphas", "bar", "bar_prev")]
    for fact in wrong:
        yield _table_finding("D03", fact)
    for fact in facts.of("probe.noising"):
        off = abs(fact["sum_of_squares"] - 1)
        if off < 2e-3:
            yield Finding("D03", "ok", fact.line or 1, f"{fact.subject} preserves the variance.",
                          f"Signal {fact['signal']:.4g} and noise {fact['noise']:.4g} at t = {fact['t']} ({fact.id}).", file=fact.file, facts=(fact.id,))  # fmt: skip
            continue
        bar = fact["bar"]
        if wrong or bar is None:
            continue
        unit = unit_of(program, fact)
        bad_noise = abs(fact["signal"] ** 2 - bar) < 2e-3
        right = (1 - bar) ** 0.5 if bad_noise else bar**0.5
        yield Finding(
            "D03", "error", _line_of_coefficient(unit, fact, bad_noise), f"The {'noise' if bad_noise else 'signal'} is mixed in with the wrong coefficient.",
            f"At t = {fact['t']} {fact.subject} takes {fact['signal']:.4g} of the data and {fact['noise']:.4g} of the noise; the squares sum to "
            f"{fact['sum_of_squares']:.4g}, and the coefficient should be {right:.4g} ({fact.id}).",
            "x_t = sqrt(alpha-bar) * x_0 + sqrt(1 - alpha-bar) * noise.", file=fact.file, facts=(fact.id,),
        )  # fmt: skip


def _line_of_coefficient(unit: Unit, fact: Fact, noise: bool) -> int:
    function = next((f for f in unit.functions.values() if f.name == fact.subject), None)
    if function is None:
        return fact.line or 1
    lines = [
        (s.lineno, ast.unparse(s)) for s in statements_in(unit, function) if isinstance(s, ast.Assign | ast.Return)
    ]
    about = [
        n
        for n, text in lines
        if bool(re.search(r"1(\.0)? ?- ?|one_?minus", text)) == noise and re.search("alpha|bar|sqrt|sigma", text)
    ]
    return (about or [n for n, _ in lines] or [function.lineno])[0]


@rule("D04", "The last step still holds signal", family="diffusion")
def last_step(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Sampling starts from pure noise, which training never saw when much signal is left at the end."""
    for fact in facts.of("probe.schedule"):
        if fact["last"] <= 0.1 or not fact["falling"] or fact["steps"] < 20:
            continue
        unit = unit_of(program, fact)
        line = next(
            (c.lineno for c in unit.calls("linspace") if any(isinstance(unit.constant(a), float) for a in c.args)),
            fact.line or 1,
        )
        yield Finding(
            "D04", "warning", line, f"After the last of {fact['steps']} steps {fact['last']:.0%} of the signal is left, while sampling starts from pure noise.",
            f"The root of the last alpha-bar is {fact['last']:.3g}; betas go from {fact['beta_first'] or 0:.3g} to {fact['beta_last'] or 0:.3g} ({fact.id}).",
            "Scale the betas by 1000 / T, or use more steps.", file=fact.file, facts=(fact.id,),
        )  # fmt: skip
        return


@rule("D05", "Target and inverse do not belong together", family="diffusion")
def round_trip(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Noise and data were mixed and taken apart again by the program's own functions."""
    wrong = bool(_wrong_tables(facts))
    for fact in facts.of("probe.inverse"):
        if fact["error"] < 1e-2:
            yield Finding("D05", "ok", fact.line or 1, f"{fact.subject} undoes the forward process.", f"Off by {fact['error']:.1g} ({fact.id}).",
                          file=fact.file, facts=(fact.id,))  # fmt: skip
        elif not wrong:
            unit = unit_of(program, fact)
            function = next((f for f in unit.functions.values() if f.name == fact.subject), None)
            returns = [s for s in statements_in(unit, function) if isinstance(s, ast.Return)] if function else []
            line = (returns[-1].end_lineno or returns[-1].lineno) if returns else fact.line or 1
            yield Finding(
                "D05", "error", line, f"{fact.subject} does not undo the forward process.",
                f"For known data and noise at t = {fact['t']} it is off by {fact['error']:.3g} ({fact.id}).",
                "x_0 = (x_t - sqrt(1 - alpha-bar) * noise) / sqrt(alpha-bar).", file=fact.file, facts=(fact.id,),
            )  # fmt: skip
    for fact in facts.of("probe.target"):
        velocity, found = fact["velocity"], (fact["of_noise"], fact["of_input"])
        if not velocity or fact["residual"] > 1e-2 or wrong:
            continue
        scale = abs(velocity[0]) + abs(velocity[1])
        if abs(found[0] + velocity[0]) + abs(found[1] + velocity[1]) < 0.02 * scale and fact["standard_v"]:
            unit = unit_of(program, fact)
            function = function_at(unit, fact.line)
            at = (
                [
                    s.lineno
                    for s in assigned_in(unit, "^target$|^v$", under=function)
                    if re.search("noise|eps", ast.unparse(s)) and "-" in ast.unparse(s)
                ]
                if function
                else []
            )
            yield Finding(
                "D05", "error", (at or [fact.line or 1])[-1], "The target is minus v, while the sampler's inverse expects v.",
                f"Fitted on one batch, the target is {found[0]:.4g} * noise + {found[1]:.4g} * x_t; v is {velocity[0]:.4g} and {velocity[1]:.4g} ({fact.id}).",
                "v = sqrt(alpha-bar) * noise - sqrt(1 - alpha-bar) * x_0.", file=fact.file, facts=(fact.id,),
            )  # fmt: skip


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
        calls = [c.lineno for c in unit.all(ast.Call, under=holder) if holder and last_name(c) in ("p_losses", "loss", "training_losses")
                 and (f := unit.function(c)) is not None and f.name == "forward"] if holder else []  # fmt: skip
        yield Finding(
            "D06", "error", (calls or [fact.line or 1])[0], "Images in [0, 1] are diffused as they are, while sampling works in [-1, 1].",
            f"Recovered from one noisy batch, the data lie in [{fact['least']:.2g}, {fact['most']:.2g}] ({fact.id}).",
            "Diffuse 2 * x - 1.", file=fact.file, facts=(fact.id,),
        )  # fmt: skip
        return
    if facts.of("probe.noising") and not re.search(
        r"Normalize|\* ?2(\.0)? ?- ?1|2(\.0)? ?\* ?\w+ ?- ?1|- ?0?\.5|normalize_to", program.main.text
    ):
        for fact in facts.of("data.batch"):
            first = next((p for p in fact["parts"] or () if isinstance(p, dict) and len(p.get("shape", ())) == 4), None)
            if first and first.get("min", -1) >= 0 and first.get("max", 0) <= 1:
                line = next((c.lineno for c in program.main.calls("ToTensor")), fact.line or 1)
                yield Finding(
                    "D06", "warning", line, "Images in [0, 1] are diffused, while sampling works in [-1, 1].",
                    f"The first batch lies in [{first['min']:.2g}, {first['max']:.2g}] ({fact.id}).",
                    "Add Normalize(0.5, 0.5), or diffuse 2 * x - 1.", facts=(fact.id,),
                )  # fmt: skip
                return


@rule("D07", "The weight of min-SNR is clamped from the wrong side", family="diffusion")
def min_snr(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The clamped ratio on a grid from 0.001 to 1000."""
    for fact in facts.of("probe.snr"):
        if fact["most"] > 100 and fact["least"] > 1:
            yield Finding(
                "D07", "error", fact.line or 1, "The signal-to-noise ratio is clamped from below: weights of noisy steps explode.",
                f"Ratios from 0.001 to 1000 become {fact['least']:.3g} to {fact['most']:.3g} ({fact.id}).",
                "Clamp with max=gamma.", file=fact.file, facts=(fact.id,),
                patch=swap(program, fact.file, fact.line or 1, "min=", "max=", "D07: max"),
            )  # fmt: skip


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
        if share > 1e-4 and (fact["t"] is None or fact["t"] < 2) and fact["residual"] < 0.3:
            yield Finding(
                "D08", "error", fact["draw_line"] or fact.line or 1, "The last step of sampling adds noise, too.",
                f"After the last call of the network (t = {fact['t']}) fresh noise enters with {share:.3g} of the weight of the image ({fact.id}).",
                "Add noise only where t > 0.", file=fact["draw_file"] or fact.file, facts=(fact.id,),
            )  # fmt: skip


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
            "D08", "error", update, "The noise is scaled by the variance instead of the standard deviation.",
            f"{where}; the variance is {beta:.4g} and its root {beta**0.5:.4g}.", "Multiply the noise by sqrt(variance).",
            file=fact.file, facts=(fact.id,),
        )  # fmt: skip
    if (
        noise < 1e-7
        and any(_close(b, right_b + sign * v**0.5, 0.02) for v in (beta, posterior) for sign in (1, -1))
        and not _close(b, det_b, 0.02)
    ):
        function = function_at(unit, update)
        reused = [s.lineno for s in assigned_in(unit, "noise|^z$|eps", under=function) if not re.search("randn", ast.unparse(s))
                  and re.search("pred|eps|model|noise", ast.unparse(getattr(s, "value", s)))
                  and not (isinstance(s, ast.Assign) and isinstance(s.value, ast.Call))] if function else []  # fmt: skip
        return Finding(
            "D08", "error", (reused or [update])[0], "The random term of the sampler is the network's own answer, not fresh noise.",
            f"{where}: without its second use the answer would have {right_b:.4g}.", "Draw torch.randn_like(x) at every step.",
            file=fact.file, facts=(fact.id,),
        )  # fmt: skip
    if noise < 1e-7 and _close(b, right_b, 0.01) and not _close(b, det_b, 0.01):
        return Finding(
            "D08", "warning", update, "The sampler takes the mean of the posterior and adds no noise.", f"{where}.",
            "Add sqrt(variance) * torch.randn_like(x), or use the DDIM update.", file=fact.file, facts=(fact.id,),
        )  # fmt: skip
    if any(_close(noise, v**0.5) for v in (beta, posterior)) and not _close(b, right_b, 0.05):
        return Finding(
            "D08", "error", update, "The mean of a sampling step subtracts the wrong share of the predicted noise.",
            f"{where}; the share should be {right_b:.4g}.", "The mean is (x - beta / sqrt(1 - alpha-bar) * eps) / sqrt(alpha).",
            file=fact.file, facts=(fact.id,),
        )  # fmt: skip
    return None


@rule("D09", "The moving average does not average", family="diffusion")
def average(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One update with all new weights at one and all averaged ones at zero."""
    for fact in facts.of("probe.ema"):
        after, decay = fact["after"], fact["decay"]
        unit = unit_of(program, fact)
        holder = class_at(unit, fact.line) or function_at(unit, fact.line)
        body = [s for s in (unit.all(ast.Assign, ast.Expr, ast.AugAssign, ast.Return, under=holder) if holder else ())
                if re.search(r"decay|beta|alpha|lerp|mu\b", ast.unparse(s)) and re.search(r"\*|mul|lerp|add", ast.unparse(s)) and s.lineno > holder.lineno]  # fmt: skip
        line = body[0].lineno if body else fact.line or 1
        if after == 0 and fact["online"] == 1:
            moved = facts.of("module.moved")
            still = [
                m for m in moved if re.search("ema|average|shadow", m.subject, re.I) and m["unmoved"] and not m["moved"]
            ]
            yield Finding(
                "D09", "error", line, "The average is never updated: new tensors are made and thrown away.",
                f"After one update the averaged weights were still 0 and the online ones 1 ({fact.id})"
                + (f"; {still[0].subject} did not move in the whole run ({still[0].id})." if still else "."),
                "Write into the weights: ema.mul_(decay).add_(param, alpha=1 - decay).", file=fact.file, facts=(fact.id,),
            )  # fmt: skip
        elif decay > 0.6 and abs(after - decay) < 1e-4 and abs(after - (1 - decay)) > 0.1 or fact["online"] != 1:
            yield Finding(
                "D09", "error", line, "Old and new weights are swapped in the moving average.",
                f"With a decay of {decay:g}, one update moved the average from 0 to {after:.4g} towards 1, the online weights to {fact['online']:.4g} ({fact.id}).",
                "ema = decay * ema + (1 - decay) * online.", file=fact.file, facts=(fact.id,),
            )  # fmt: skip


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
            "D10", "error", line, "A tensor made under inference_mode is used where gradients are needed.",
            f"PyTorch raised at line {fact.line}: {str(fact['message'])[:90]} ({fact.id}).", "Use torch.no_grad() here.",
            file=fact.file, facts=(fact.id,), patch=swap(program, fact.file, line, "inference_mode", "no_grad", "D10: no_grad"),
        )  # fmt: skip
        return


@rule("D11", "Guidance works against its condition", family="diffusion")
def guided(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The weight of the conditional answer, and conditions that are dropped while sampling."""
    for fact in facts.of("probe.guidance"):
        if fact["of_conditional"] < fact["of_unconditional"] and fact["of_conditional"] <= 0:
            yield Finding(
                "D11", "error", fact.line or 1, "Guidance leads away from the condition: the conditional answer has a negative weight.",
                f"With all weights at 3, {fact['text']} gives the conditional answer {fact['of_conditional']:.3g} and the other "
                f"{fact['of_unconditional']:.3g} ({fact.id}).",
                "eps = eps_uncond + w * (eps_cond - eps_uncond).", file=fact.file, facts=(fact.id,),
            )  # fmt: skip
        elif fact["of_conditional"] > 0:
            yield Finding("D11", "ok", fact.line or 1, "Guidance leads towards the condition.",
                          f"Weights {fact['of_conditional']:.3g} and {fact['of_unconditional']:.3g} ({fact.id}).", file=fact.file, facts=(fact.id,))  # fmt: skip
    for fact in facts.of("probe.dropped_while_sampling"):
        unit = unit_of(program, fact)
        function = function_at(unit, fact.line)
        if function is None or not mentions(function, r"^(y|c|labels?|class(es)?|context|cond|cls|drop\w*)$"):
            continue
        yield Finding(
            "D11", "error", fact.line or 1, "The condition is dropped at random while sampling.",
            f"{fact['net']} draws {fact['function']} during {fact.subject}, in evaluation ({fact.id}).",
            "Drop conditions only in training: if self.training.", file=fact.file, facts=(fact.id,),
        )  # fmt: skip


@rule("D12", "The network ignores the time", family="diffusion")
def time_ignored(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Other times, same output."""
    for fact in facts.of("probe.time"):
        if fact["change"] > 1e-7:
            yield Finding("D12", "ok", fact.line or 1, "The output depends on the time.", f"Changed by {fact['change']:.2g} ({fact.id}).",
                          file=fact.file, facts=(fact.id,))  # fmt: skip
            continue
        unit = unit_of(program, fact)
        info = unit.classes.get(str(fact["class"]))
        forward = info.methods.get("forward") if info else None
        uses = [s.lineno for s in (statements_in(unit, forward) if forward else ())
                if isinstance(s, ast.Assign | ast.Return | ast.AugAssign) and mentions(s, r"^(t|ts|time\w*|t_emb|temb|emb|step|sigma)$")]  # fmt: skip
        yield Finding(
            "D12", "error", (uses or [forward.lineno if forward else fact.line or 1])[0], "The network is given the step and ignores it.",
            f"Other steps changed the output of {fact.subject} by {fact['change']:.1g} of its size, with weights perturbed ({fact.id}).",
            "Add the embedding of t to the features of every block.", file=fact.file, facts=(fact.id,),
        )  # fmt: skip


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
                "D13", "error" if unseen or beyond else "warning", call.lineno,
                f"Step {which} is drawn although the tables end before it." if beyond else f"Step {which} is never trained, though sampling visits it.",
                f"randint draws {low} to {high - 1}; the tables have {steps} entries, and sampling goes down to {reached}.",
                f"Draw torch.randint(0, {steps}, ...).", file=unit.file,
                patch=swap(program, unit.file, call.lineno, "low=1", "low=0", "D13: from 0") if unseen else None,
            )  # fmt: skip


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


__all__ = ["names_in", "receiver"]
