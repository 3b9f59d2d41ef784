"""Rules of positions and of weights that are shared: encodings, tied embeddings, caches."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding, Severity
from bowerbird.reading.program import Program, Unit, dotted, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import (
    assigned_in,
    class_at,
    function_at,
    statements_in,
    unit_of,
)
from bowerbird.reading.running.run import Run


@rule("T08", "The sinusoids of the positions are wrong", family="transformer")
def sinusoid(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Squares of sine and cosine of one frequency sum to one; frequencies fall geometrically to about 1/10000."""
    for fact in facts.of("probe.sinusoid"):
        unit = unit_of(program, fact)
        broken = fact["identity_error"] > 0.05
        odd = not broken and (fact["even"] > 0.05 or not 1e-6 < fact["last"] < 0.2) and fact["channels"] >= 8
        if not broken and not odd:
            yield say("T08b", "ok", fact.line or 1, fact=fact)
            continue
        holder = class_at(unit, fact.line) or function_at(unit, fact.line)
        lines = [
            s.lineno
            for s in (unit.all(ast.Assign, ast.Return, under=holder) if holder else ())
            if re.search(r"1e4|10000|10_000|1e5|100000", ast.unparse(s))
            or re.search(r"\.(sin|cos)\(|\b(sin|cos)\(", ast.unparse(s))
        ]
        constant = [n for n in lines if re.search(r"1e4|10000|10_000", unit.lines[n - 1])]
        line = ((constant[1:] if broken and len(constant) > 1 else constant) or lines or [fact.line or 1])[0]
        said = (
            f"sin^2 + cos^2 of neighbouring channels differs from 1 by up to {fact['identity_error']:.2g}"
            if broken
            else f"the frequencies end at {fact['last']:.2g} (a wave of {fact['longest']:.3g} positions) instead of "
            "about 1e-4"
        )
        severity: Severity = "warning" if fact["of_times"] else "error"
        yield say("T08", severity, line, fact=fact, said=said)


@rule("T09", "Positions do not reach the model", family="transformer")
def positions(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """An encoding that changes nothing, varies along the batch, or a model that does not notice an exchange."""
    told = False
    for fact in facts.of("probe.positions"):
        unit = unit_of(program, fact)
        lines = [n for n in fact["lines"] or () if isinstance(n, int)]
        dropped = fact["changes"] < 1e-7
        flow = facts.first("probe.causality")
        time_first = bool(
            flow and (flow["column_before"] or flow["column_after"]) and not (flow["row_before"] or flow["row_after"])
        )
        across = (
            fact["first_axis"] > 1e-6
            and fact["second_axis"] < 1e-7
            and not time_first
            and (flow is not None or _insensitive(facts))
        )
        same = (
            not dropped and not across and fact["additive"] and fact["first_axis"] < 1e-7 and fact["second_axis"] < 1e-7
        )
        if not dropped and not across and not same:
            continue
        told = True
        function = function_at(unit, lines[0]) if lines else None
        discarded = (
            [
                s.lineno
                for s in statements_in(unit, function)
                if isinstance(s, ast.Expr) and isinstance(s.value, ast.BinOp | ast.Call)
            ]
            if function
            else []
        )
        line = (discarded if dropped else lines) or [fact.line or 1]
        yield say("T09" if dropped else "T09b" if same else "T09c", "error", line[0], fact=fact)
    for fact in facts.of("probe.order"):
        if told or fact["change"] > 1e-6:
            continue
        unit = unit_of(program, fact)
        holder = unit.classes.get(str(fact["class"]))
        places = [s.lineno for s in assigned_in(unit, r"pos|^pe$", under=holder.node)] if holder else []
        if places:
            yield say("T09d", "error", places[-1], fact=fact)


def _insensitive(facts: FactStore) -> bool:
    return any(fact["change"] < 1e-6 for fact in facts.of("probe.order"))


@rule("T13", "Tied weights are not one tensor", family="transformer", exact=True)
def untied(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """An assignment that tied two weights was undone later."""
    for fact in facts.of("probe.tied"):
        if fact["one"]:
            yield say("T13b", "ok", fact.line or 1, fact=fact)
            continue
        unit = unit_of(program, fact)
        holder = class_at(unit, fact.line)
        bases = {str(fact[k]).removesuffix(".weight") for k in ("left", "right")}
        later = (
            [
                s.lineno
                for s in unit.all(ast.Assign, under=holder)
                if s.lineno != fact.line
                and any((dotted(t) or "") in bases | {f"{b}.weight" for b in bases} for t in targets_of(s))
                and (s.lineno > (fact.line or 0) or unit.function(s) is not function_at(unit, fact.line))
            ]
            if holder
            else []
        )
        if not later and _conditional(unit, fact.line):
            continue  # the assignment that ties them may not have run
        yield say("T13", "error", (later or [fact.line or 1])[0], fact=fact)


def _conditional(unit: Unit, line: int | None) -> bool:
    """Whether a line stands in a branch."""
    return any(branch.lineno < (line or 0) <= (branch.end_lineno or 0) for branch in unit.all(ast.If))


@rule("T14", "With a cache positions start at zero again", family="transformer")
def cached_positions(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Logits with a cache of the past against those of the whole sequence."""
    for fact in facts.of("probe.cache"):
        if fact["change"] < 2e-3:
            yield say("T14b", "ok", fact.line or 1, fact=fact)
            continue
        unit = unit_of(program, fact)
        holder = class_at(unit, fact.line)
        counted = (
            [
                c.lineno
                for c in unit.calls("arange", under=holder)
                if (f := unit.function(c)) is not None and f.name == "forward"
            ]
            if holder
            else []
        )
        yield say("T14", "error", (counted or [fact.line or 1])[0], fact=fact)
