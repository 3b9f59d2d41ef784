"""Rules of the tables of a diffusion process: each against its definition by the others."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, Unit
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import (
    assigned_in,
    statements_in,
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


def _table_finding(identity: str, fact: Fact) -> Finding:
    return Finding(
        identity,
        "error",
        fact.line or 1,
        f"The table {fact['name']} is not {_DEFINITIONS[fact['kind']]}.",
        f"It is off by {fact['error']:.2g} (relative) from what the program's other tables give; its first entry is "
        f"{fact['first']:.4g} and should be {fact['should_be']:.4g} ({fact.id}).",
        f"Compute {_DEFINITIONS[fact['kind']]}.",
        file=fact.file,
        facts=(fact.id,),
    )


_GUESSED_ENDS = re.compile(r"(beta|start|end|sigma|schedule)\w*=", re.I)


@rule("D01", "The noise schedule is wrong", family="diffusion")
def schedule(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Betas in (0, 1), cumulative products that fall, and the cosine schedule where a function says so."""
    for fact in wrong_tables(facts):
        if fact["kind"] in ("alphas", "bar"):
            yield _table_finding("D01", fact)
    for fact in facts.of("probe.schedule"):
        if fact["falling"] and fact["betas_inside"]:
            yield say("D01d", "ok", fact.line or 1, fact=fact)
            continue
        if any(_GUESSED_ENDS.search(stand_in.name) for stand_in in run.stand_ins):
            continue  # the ends of the schedule are ours, not the program's
        yield say("D01", "error", fact.line or 1, fact=fact, last=fact["last"] ** 2)
    for fact in facts.of("probe.cosine"):
        if fact["error"] < 0.03:
            yield say("D01e", "ok", fact.line or 1, fact=fact)
            continue
        root = fact["error_of_root"] < 0.03
        if not root and fact["error"] < 0.15:
            continue
        yield say(
            "D01b" if root else "D01c", "error" if root else "warning", fact.line or 1, fact=fact,
            said=f" and from the cosine itself by {fact['error_of_root']:.1g}" if root else "",
        )  # fmt: skip


def _spoilt_by_previous(program: Program, facts: FactStore) -> tuple[Unit, int, Fact] | None:
    """Where a local alpha-bar of the step before is made, where all that follow from it are wrong."""
    wrong = wrong_tables(facts)
    kinds = {f["kind"] for f in wrong}
    if not kinds or not kinds <= {"posterior_variance", "mean_coef1", "mean_coef2"} or len(kinds) < 2:
        return None
    unit = unit_of(program, wrong[0])
    made = next(iter(assigned_in(unit, r"prev")), None)
    return (unit, made.lineno, wrong[0]) if made is not None else None


@rule("D02", "alpha-bar of the previous step is that of another", family="diffusion")
def previous(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Its first entry is 1 and the rest are the entries before."""
    for fact in wrong_tables(facts):
        if fact["kind"] == "bar_prev":
            yield _table_finding("D02", fact)
    spoilt = _spoilt_by_previous(program, facts)
    if spoilt is not None:
        unit, line, fact = spoilt
        yield say("D02", "error", line, file=unit.file, fact=fact)


@rule("D03", "A coefficient of the forward process is wrong", family="diffusion")
def coefficients(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Signal and noise of a variance-preserving process have squares that sum to one."""
    wrong = [f for f in wrong_tables(facts) if f["kind"] not in ("alphas", "bar", "bar_prev")]
    for fact in wrong if _spoilt_by_previous(program, facts) is None else ():
        yield _table_finding("D03", fact)
    for fact in facts.of("probe.noising"):
        off = abs(fact["sum_of_squares"] - 1)
        if off < 2e-3:
            yield say("D03b", "ok", fact.line or 1, fact=fact)
            continue
        bar = fact["bar"]
        if wrong or bar is None:
            continue
        unit = unit_of(program, fact)
        bad_noise = abs(fact["signal"] ** 2 - bar) < 2e-3
        right = (1 - bar) ** 0.5 if bad_noise else bar**0.5
        yield say(
            "D03", "error", _line_of_coefficient(unit, fact, bad_noise), which="noise" if bad_noise else "signal",
            fact=fact, right=right,
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
    if any("built with these arguments" in stand_in.reason for stand_in in run.stand_ins):
        return  # the number of steps is ours, not the program's
    for fact in facts.of("probe.schedule"):
        if fact["last"] <= 0.2 or not fact["falling"] or fact["steps"] < 20:
            continue
        unit = unit_of(program, fact)
        line = next(
            (c.lineno for c in unit.calls("linspace") if any(isinstance(unit.constant(a), float) for a in c.args)),
            fact.line or 1,
        )
        yield say(
            "D04", "warning", line, fact=fact, beta_first=fact["beta_first"] or 0, beta_last=fact["beta_last"] or 0,
        )  # fmt: skip
        return
