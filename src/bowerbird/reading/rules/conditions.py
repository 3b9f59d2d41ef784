"""Rules of what a denoiser is told: the condition, the step, the range of steps."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, Unit, dotted, keyword, last_name, names_in, receiver, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import (
    function_at,
    mentions,
    statements_in,
    swap,
    unit_of,
)
from bowerbird.reading.running.run import Run


@rule("D11", "Guidance works against its condition", family="diffusion")
def guided(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The weight of the conditional answer, and conditions that are dropped while sampling."""
    for fact in facts.of("probe.guidance"):
        if abs(fact["of_conditional"] + fact["of_unconditional"] - 1) > 0.05:
            continue
        if fact["of_conditional"] < fact["of_unconditional"] and fact["of_conditional"] <= 0:
            yield say("D11c", "error", fact.line or 1, fact=fact)
        elif fact["of_conditional"] > 0:
            yield say("D11d", "ok", fact.line or 1, fact=fact)
    yield from _steps_against(program, facts)
    for fact in facts.of("probe.dropped_while_sampling"):
        unit = unit_of(program, fact)
        function = function_at(unit, fact.line)
        if function is None or not mentions(function, r"^(y|c|labels?|class(es)?|context|cond|cls|drop\w*)$"):
            continue
        yield say("D11", "error", fact.line or 1, fact=fact)


def _steps_against(program: Program, facts: FactStore) -> Iterator[Finding]:
    """Steps of a sampler that ask the network twice: the share of the answer with the condition."""
    for fact in facts.of("probe.sampler_step"):
        answers, bound = fact["of_answers"] or (), list(fact["conditional"] or ())
        if len(answers) != 2 or sorted(bound) != [False, True] or fact["residual"] > 5e-3 or not fact["guided"]:
            continue
        total = sum(answers)
        share = answers[bound.index(True)] / total if abs(total) > 1e-9 else 0.0
        if share > 0.02:
            return
        unit = unit_of(program, fact)
        function = function_at(unit, fact["update_line"]) or function_at(unit, fact.line)
        mixed = [
            s.lineno for s in (unit.all(ast.Assign, under=function) if function else ())
            if re.search(r"guid|cfg|scale|\bw\b", ast.unparse(s.value)) and isinstance(s.value, ast.BinOp)
        ]  # fmt: skip
        yield say(
            "D11b", "warning", (mixed or [fact["update_line"] or fact.line or 1])[0], share=share, share_2=1 - share,
            fact=fact,
        )  # fmt: skip
        return


@rule("D12", "The network ignores the time", family="diffusion")
def time_ignored(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Other times, same output."""
    for fact in facts.of("probe.time"):
        if fact["change"] > 1e-7:
            yield say("D12b", "ok", fact.line or 1, fact=fact)
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
        yield say("D12", "error", (uses or [forward.lineno if forward else fact.line or 1])[0], fact=fact)


@rule("D13", "Steps are drawn from the wrong range", family="diffusion")
def time_range(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The bounds of randint against the tables and the steps that the sampler visits."""
    for unit in program:
        yield from _standing_step(unit)
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
            yield say(
                "D13" if beyond else "D13b", "error" if unseen or beyond else "warning", call.lineno, file=unit.file,
                facts=tuple(f.id for f in facts.of("probe.schedule")[:1]),
                patch=swap(program, unit.file, call.lineno, "low=1", "low=0", "D13: from 0") if unseen else None,
                which=which, low=low, high_2=high - 1, steps=steps, reached=reached,
            )  # fmt: skip


def _standing_step(unit: Unit) -> Iterator[Finding]:
    """A loop over steps that stores something for each, while the step it passes on was set before and stays."""
    for loop in unit.all(ast.For):
        if not isinstance(loop.target, ast.Name) or "range" not in ast.unparse(loop.iter):
            continue
        index = loop.target.id
        inside = list(unit.all(ast.Call, under=loop))
        stored = any(
            isinstance(n.ctx, ast.Store) and index in names_in(n.slice) for n in unit.all(ast.Subscript, under=loop)
        )
        passed = {
            k.value.id for c in inside for k in c.keywords
            if k.arg and _STEP_NAME.match(k.arg) and isinstance(k.value, ast.Name)
        }  # fmt: skip
        body = [c for c in inside if c.lineno > loop.lineno]
        told = any(index in names_in(a) for c in body for a in (*c.args, *(k.value for k in c.keywords)))
        changed = {n for s in unit.all(ast.stmt, under=loop) for n in map(dotted, targets_of(s)) if n}
        changed |= {dotted(receiver(c)) or "" for c in inside if last_name(c).endswith("_")} | {index}
        for name in sorted(passed - changed) if stored and not told else ():
            before = [
                n.lineno for n in unit.all(ast.Assign, ast.Expr, under=unit.function(loop) or unit.tree)
                if n.lineno < loop.lineno and name in names_in(n)
            ]  # fmt: skip
            yield say(
                "D13c", "warning", max(before, default=loop.lineno), file=unit.file, index=index, name=name, loop=loop,
                iter=ast.unparse(loop.iter)[:40],
            )  # fmt: skip


_STEP_NAME = re.compile(r"^(t|ts|time_?steps?|time)$")


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


def _lowest_visited(unit: Unit) -> int | None:
    """The last step of a loop that counts down."""
    for call in unit.calls("reversed"):
        inner = next((c for c in unit.calls("range", under=call)), None)
        if inner is not None:
            first = unit.constant(inner.args[0]) if len(inner.args) > 1 else 0
            return first if isinstance(first, int) else None
    return None
