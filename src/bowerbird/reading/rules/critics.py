"""Rules of critics: the loss that fits the last layer, Lipschitz bounds, gradient penalties, the ratio of updates."""

import ast
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.adversaries import Pair, Score, first_tensor, games, pairs
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.phases import forwards
from bowerbird.reading.program import Program, Unit, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run


def creations(program: Program, *words: str) -> Iterator[tuple[Unit, ast.Call]]:
    """Calls of these names anywhere in the program."""
    for unit in program:
        for call in unit.all(ast.Call):
            if last_name(call) in words:
                yield unit, call


def wasserstein(facts: FactStore, pair: Pair) -> Score | None:
    """A score of a critic whose loss is linear in its scores, as that of Wasserstein is (hinge has a constant)."""
    theirs, _ = games(facts, pair)
    calls = forwards(facts)
    for game in theirs:
        if len({s.fake for s in game}) == 2 and all(_linear(s.backward, pair, calls) for s in game):
            return game[0]
    return None


def _linear(backward: Fact, pair: Pair, calls: dict[int, Fact]) -> bool:
    """Whether a loss is the sum of its scores, each with one weight for the whole call."""
    rows = [r for r in backward["pulls"] or () if r["module"] == pair.discriminator and r["call"] in calls]
    means = [first_tensor(calls[r["call"]]["out"]).get("mean") for r in rows]
    if not rows or None in means or backward["loss"] is None:
        return False
    if any(abs(r["max"] - r["min"]) > 1e-6 * abs(r["max"]) + 1e-9 for r in rows):
        return False
    linear = sum(r["mean"] * r["of"] * mean for r, mean in zip(rows, means, strict=True))
    return bool(abs(backward["loss"] - linear) < 1e-3 * (1 + abs(linear)))


def penalties(facts: FactStore) -> list[Fact]:
    """Gradients with respect to inputs that are differentiated again."""
    return [f for f in facts.of("autograd.grad") if f["create_graph"]]


def _steps(facts: FactStore, module: str) -> int:
    owned = {f.subject: f["owners"] or {} for f in facts.of("optimizer.created")}
    return sum(int(f["steps"]) for f in facts.of("optimizer.steps") if set(owned.get(f.subject, ())) == {module})


@rule("G10", "The critic is trained less than the generator", family="gan")
def critic_ratio(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A Wasserstein critic must be ahead of the generator: several of its steps for each of the generator's."""
    for pair in pairs(facts):
        clipped = any(f.subject == pair.discriminator for f in facts.of("event.clamp"))
        linear = wasserstein(facts, pair)
        theirs, ours = _steps(facts, pair.discriminator), _steps(facts, pair.generator)
        if (linear is None and not clipped and not penalties(facts)) or ours < theirs + 2 or ours < 1.5 * theirs:
            continue
        place = _gate(program, facts, pair)
        steps = [s for s in facts.of("event.step") if pair.discriminator in (s["owners"] or {})]
        if not steps:
            continue
        file, line = place or (steps[0].file, steps[0].line or 1)
        yield say(
            "G10", "error", line, file=file, facts=(steps[0].id,), pair=pair, theirs=theirs, ours=ours, steps=steps,
        )  # fmt: skip


def _gate(program: Program, facts: FactStore, pair: Pair) -> tuple[str, int] | None:
    """The condition that holds the critic back, or the loop that repeats the generator."""
    lines: dict[str, set[int]] = {pair.discriminator: set(), pair.generator: set()}
    for step in facts.of("event.step"):
        for owner in step["owners"] or {}:
            lines.setdefault(owner, set()).add(step.line or 0)
    unit = program.main
    nodes: Iterator[Any] = unit.all(ast.If, ast.For)
    for node in nodes:
        body = _reached(unit, node.body)
        judge, maker = bool(body & lines[pair.discriminator]), bool(body & lines[pair.generator])
        if isinstance(node, ast.If) and judge and not maker and "%" in ast.unparse(node.test):
            return unit.file, node.lineno
        if isinstance(node, ast.For) and maker and not judge:
            return unit.file, node.lineno
    return None


def _reached(unit: Unit, body: list[ast.stmt]) -> set[int]:
    """The lines of statements and of the program's own functions that they call."""
    lines: set[int] = set()
    for statement in body:
        for node in ast.walk(statement):
            if hasattr(node, "lineno"):
                lines.add(node.lineno)
            if isinstance(node, ast.Call):
                word = last_name(node)
                for name, function in unit.functions.items():
                    if name == word or name.endswith(f".{word}"):
                        lines |= set(range(function.lineno, (function.end_lineno or function.lineno) + 1))
    return lines


@rule("G11", "Nothing bounds the slope of a Wasserstein critic", family="gan")
def unbounded_critic(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Weight clipping, a gradient penalty or spectral normalisation is what makes its loss a distance."""
    for pair in pairs(facts):
        found = wasserstein(facts, pair)
        for clamp in facts.of("event.clamp", pair.generator)[:1]:
            if found is not None:
                yield say("G11c", "error", clamp.line or 1, file=clamp.file, facts=(clamp.id,), pair=pair, clamp=clamp)
        clamps = facts.of("event.clamp", pair.discriminator)
        if found is None or penalties(facts) or _normalised(program):
            continue
        if clamps:
            yield from _before_step(facts, pair, clamps)
            continue
        steps = [s for s in facts.of("event.step") if pair.discriminator in (s["owners"] or {})]
        vain = _vain_clipping(program)
        if isinstance(vain, str) or not steps:
            continue
        file, line = vain or (steps[0].file, steps[0].line or 1)
        score = found
        yield say(
            "G11", "error", line, file=file, facts=(score.backward.id, steps[0].id), pair=pair,
            said=": this clipping changes a copy." if vain else ".", score=score,
        )  # fmt: skip


def _normalised(program: Program) -> bool:
    words = ("spectral_norm", "SpectralNorm", "weight_norm")
    return any(word in unit.text for unit in program for word in words)


def _before_step(facts: FactStore, pair: Pair, clamps: list[Fact]) -> Iterator[Finding]:
    """Clipped before the step: the weights that score the next batch are not those that were clipped."""
    steps = [s for s in facts.of("event.step") if pair.discriminator in (s["owners"] or {})]
    clamp = clamps[0]
    if not steps or clamp.line is None:
        return
    first = steps[0]
    scoring = [f for f in facts.of("event.forward", pair.discriminator) if f.position > first.position]
    early = [c for c in clamps if c.position < first.position]
    late = [c for c in clamps if first.position < c.position and (not scoring or c.position < scoring[0].position)]
    if early and not late and first.line is not None and early[0].line == clamp.line < first.line:
        yield say("G11b", "warning", clamp.line, file=clamp.file, facts=(clamp.id, first.id), clamp=clamp, first=first)


def _vain_clipping(program: Program) -> tuple[str, int] | str | None:
    """A clamp of parameters whose result goes nowhere; "kept" where it is written back."""
    for unit in program:
        for call in unit.calls("clamp"):
            loops = unit.loops(call)
            if not loops or not isinstance(loops[0], ast.For) or "parameters()" not in ast.unparse(loops[0].iter):
                continue
            statement = unit.statement(call)
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute | ast.Subscript):
                return "kept"
            if isinstance(statement, ast.Expr) and last_name(statement.value) in ("copy_", "set_"):
                return "kept"
            return unit.file, call.lineno
    return None
