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
            yield Finding(
                "G12", "error", call.line or 1,
                f"The norm of the gradient has shape {out}, not one value for each of the {shape[0]} samples"
                + (": every pixel is pushed towards norm one." if len(out) > 1 else "."),
                f"The gradient has shape {shape} ({gradient.id}); {call.subject} of it gives {out} ({call.id}).",
                "Flatten first: gradients.flatten(1).norm(2, dim=1).", call.file, (gradient.id, call.id),
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
                yield Finding(
                    "G24", "warning", line,
                    f"The gradient of {name} is penalised, a loss of the scores: its slope vanishes where the "
                    "discriminator is sure.",
                    f"Line {found[0]} computes {name} with {next(w for w in words if _LOSSES.search(w))}; line "
                    f"{call.lineno} differentiates it.",
                    "Differentiate the scores themselves.", unit.file,
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
        yield Finding(
            "G13", "warning", line,
            f"{pair.discriminator} normalises over the batch and is penalised for the gradient of single samples: the "
            "penalty couples all of them.",
            f"{len(norms)} layers of {norms[0]['class']} ({tree.id}); gradients of shape "
            f"{found[0]['shapes'][0]} are "
            f"penalised ({found[0].id}).",
            "Use LayerNorm, InstanceNorm or GroupNorm in the critic.", unit.file, (tree.id, found[0].id),
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
            yield Finding(
                "G22", "warning", draw.line or 1, f"In the gradient penalty {what}.",
                f"{draw.subject} drew shape {draw['shape']} for a batch of shape {shape} ({draw.id}, {gradient.id}).",
                "Draw torch.rand(batch_size, 1, 1, 1).", draw.file, (draw.id, gradient.id),
            )  # fmt: skip
