"""Rules of critics: gradient penalties, the ratio of updates."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.adversaries import Pair, Score, first_tensor, games, pairs
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import bound, calls_at, function_at
from bowerbird.reading.phases import forwards
from bowerbird.reading.program import Program, Unit, dotted, keyword, last_name, receiver
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import placed, say
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
        file, line = place or (steps[0].file, placed(steps[0].line))
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


# ---------- gradient penalties: whose gradient is taken, at which points, and over which axes its norm


_NORMS = ("norm", "linalg_norm", "vector_norm", "linalg_vector_norm", "frobenius_norm")


@rule("G12", "The gradient penalty takes the norm over the wrong axes", family="gan")
def penalty_axes(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One norm per sample: over all axes but the first."""
    for gradient in {f.line: f for f in penalties(facts)}.values():
        shape = gradient["shapes"][0] if gradient["shapes"] else []
        unit = program.units.get(gradient.file, program.main)
        function = function_at(unit, gradient.line)
        for call in facts.of("function.call"):
            if call.file != gradient.file or not call["args"] or function_at(unit, call.line) is not function:
                continue
            given, out = call["args"][0], call["out"]
            norm = call.subject in _NORMS or (call.subject == "sum" and _rooted(unit, call.line))
            if not norm or given != shape or len(shape) < 2 or not isinstance(out, list):
                continue
            if out in ([shape[0]], [shape[0], 1], [shape[0], *([1] * (len(shape) - 1))]):
                continue
            yield say(
                "G12", "error", call.line, file=call.file, facts=(gradient.id, call.id), out=out, shape=shape,
                said=": every pixel is pushed towards norm one." if len(out) > 1 else ".", gradient=gradient, call=call,
            )  # fmt: skip
            break


def _rooted(unit: Unit, line: int | None) -> bool:
    """Whether the square root of a sum is taken in the statement at a line."""
    return any(last_name(c) == "sqrt" for c in calls_at(unit, line))


_LOSSES = re.compile(r"softplus|sigmoid|log|cross_entropy|loss|criterion|relu", re.I)


@rule("G24", "The gradient of the loss is penalised, not that of the scores", family="gan")
def penalised_loss(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """R1 and the penalty of WGAN-GP bound the slope of the discriminator itself."""
    for unit in program:
        for call in unit.calls("*grad"):
            outputs, inputs = keyword(call, "outputs", 0), keyword(call, "inputs", 1)
            create = keyword(call, "create_graph")
            if outputs is None or inputs is None or not (isinstance(create, ast.Constant) and create.value is True):
                continue
            while isinstance(outputs, ast.Call) and last_name(outputs) in ("sum", "mean") and receiver(outputs):
                outputs = receiver(outputs)
            name = dotted(outputs)
            found = bound(unit, name, call.lineno, unit.function(call)) if name is not None else None
            words = [last_name(c) for c in unit.all(ast.Call, under=found[1])] if found is not None else []
            if found is None or name is None or not any(_LOSSES.search(word) for word in words):
                continue
            yield say(
                "G24", "warning", outputs.lineno if outputs is not None else call.lineno, file=unit.file, name=name,
                found=found, search=next(w for w in words if _LOSSES.search(w)), call=call,
            )  # fmt: skip


@rule("G13", "Batch normalisation in a critic with a gradient penalty", family="gan")
def coupled_samples(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The penalty is on the gradient of each sample; batch statistics make it depend on all others."""
    found = penalties(facts)
    for pair in pairs(facts) if found else ():
        tree = facts.first("module.tree", pair.discriminator)
        norms = [r for r in tree["modules"] if r["class"].startswith(("BatchNorm", "SyncBatch"))] if tree else []
        shapes = [s for f in found for s in f["shapes"]]
        fed = [first_tensor(c["in"]).get("shape") for c in facts.of("event.forward", pair.discriminator)]
        training = any(c["training"] for c in facts.of("event.forward", pair.discriminator))
        if not norms or tree is None or not training or not any(s in fed for s in shapes):
            continue
        lines = [
            (unit, call.lineno) for unit, call in creations(program, *{r["class"] for r in norms})
            if (holder := unit.class_around(call)) is None or holder.name == tree["class"]
        ]  # fmt: skip
        unit, line = lines[0] if lines else (program.main, placed(found[0].line))
        yield say(
            "G13", "warning", line, file=unit.file, facts=(tree.id, found[0].id), pair=pair, norms_2=len(norms),
            norms=norms, tree=tree, found=found,
        )  # fmt: skip


@rule("G22", "The interpolation is not drawn per sample", family="gan")
def shared_alpha(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The points between real and fake need one coefficient for each sample."""
    started = min((f.position for f in facts.of("event.forward")), default=0)  # what is drawn before fills weights
    for gradient in {f.line: f for f in penalties(facts)}.values():
        unit = program.units.get(gradient.file, program.main)
        function = function_at(unit, gradient.line)
        shape = gradient["shapes"][0] if gradient["shapes"] else []
        draws = [
            f for f in facts.of("random.draw")
            if f.file == gradient.file and started < f.position < gradient.position
            and function_at(unit, f.line) is function
            and re.search(r"rand$|uniform_?$|random$|rand_like$", f.subject)
        ]  # fmt: skip
        for draw in {f.line: f for f in draws}.values():
            size = 1
            for length in draw["shape"] or ():
                size *= length
            if len(shape) < 2 or (shape[0] < 2 and draw["shape"] != shape):
                continue
            if size == 1 and shape[0] > 1:
                what = f"one coefficient serves all {shape[0]} samples"
            elif size == shape[1] and size != shape[0] and len(draw["shape"]) == 1:
                what = f"{size} coefficients run along the wrong axis"
            elif draw["shape"] == shape and len(shape) == 4 and "dragan" not in unit.text.lower():
                what = "every pixel has a coefficient of its own, so the points do not lie between real and fake"
            else:
                continue
            yield say(
                "G22", "warning", draw.line, file=draw.file, facts=(draw.id, gradient.id), what=what, draw=draw,
                shape=shape, gradient=gradient,
            )  # fmt: skip
