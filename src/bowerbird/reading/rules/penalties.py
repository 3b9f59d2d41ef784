"""Rules of gradient penalties: whose gradient is taken, at which points, and over which axes its norm."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.adversaries import first_tensor, pairs
from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import around, bound, calls_at
from bowerbird.reading.program import Program, Unit, dotted, keyword, last_name, receiver
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.critics import creations, penalties
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run

_NORMS = ("norm", "linalg_norm", "vector_norm", "linalg_vector_norm", "frobenius_norm")


@rule("G12", "The gradient penalty takes the norm over the wrong axes", family="gan")
def penalty_axes(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One norm per sample: over all axes but the first."""
    for gradient in {f.line: f for f in penalties(facts)}.values():
        shape = gradient["shapes"][0] if gradient["shapes"] else []
        unit = program.units.get(gradient.file, program.main)
        function = around(unit, gradient.line)
        for call in facts.of("function.call"):
            if call.file != gradient.file or not call["args"] or around(unit, call.line) is not function:
                continue
            given, out = call["args"][0], call["out"]
            norm = call.subject in _NORMS or (call.subject == "sum" and _rooted(unit, call.line))
            if not norm or given != shape or len(shape) < 2 or not isinstance(out, list):
                continue
            if out in ([shape[0]], [shape[0], 1], [shape[0], *([1] * (len(shape) - 1))]):
                continue
            yield say(
                "G12", "error", call.line or 1, file=call.file, facts=(gradient.id, call.id), out=out, shape=shape,
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
            for line in dict.fromkeys((outputs.lineno if outputs is not None else call.lineno, found[0])):
                yield say(
                    "G24", "warning", line, file=unit.file, name=name, found=found,
                    search=next(w for w in words if _LOSSES.search(w)), call=call,
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
        unit, line = lines[0] if lines else (program.main, found[0].line or 1)
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
        function = around(unit, gradient.line)
        shape = gradient["shapes"][0] if gradient["shapes"] else []
        draws = [
            f for f in facts.of("random.draw")
            if f.file == gradient.file and started < f.position < gradient.position
            and around(unit, f.line) is function
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
                "G22", "warning", draw.line or 1, file=draw.file, facts=(draw.id, gradient.id), what=what, draw=draw,
                shape=shape, gradient=gradient,
            )  # fmt: skip
