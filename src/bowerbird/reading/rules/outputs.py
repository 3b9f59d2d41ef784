"""Rules of last layers: the loss must fit what a network's outputs are."""

import ast
from collections.abc import Iterator

from bowerbird.reading.adversaries import first_tensor
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import replace_line
from bowerbird.reading.program import Program, Unit, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.critics import creations
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run


@rule("G09", "The loss does not fit the last layer", family="gan")
def sigmoid_twice(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Probabilities given to a loss that takes logits, or logits to one that takes probabilities."""
    for loss in facts.of("loss.call", "binary_cross_entropy_with_logits"):
        source = _source(facts, loss)
        low, high = loss["input"].get("min"), loss["input"].get("max")
        if source is None or low is None or low < 0 or high > 1 or not _ends_in(program, facts, source, "Sigmoid"):
            continue
        made = list(creations(program, "BCEWithLogitsLoss"))
        places = [(made[0][0].file, made[0][1].lineno)] if made else [(loss.file, loss.line or 1)]
        squash = next(
            ((u.file, c.lineno) for u, c in creations(program, "Sigmoid", "sigmoid") if _of(u, c, source)), None
        )
        message = (
            f"{source.subject} ends in a sigmoid and the loss applies another: its scores cannot leave [0.5, 0.73]."
        )
        evidence = (
            f"The loss of line {loss.line} takes logits and was given values in [{low:.3g}, {high:.3g}], the output of "
            f"{source['class']} ({loss.id}, {source.id})."
        )
        yield say(
            "G09", "error", places[0][1], file=places[0][0], facts=(loss.id, source.id),
            patch=replace_line(
                made[0][0].file, places[0][1], "BCEWithLogitsLoss", "BCELoss", made[0][0].lines, label="G09: BCELoss",
            ) if made else None,
            said=message, seen=evidence,
        )  # fmt: skip
        if squash is not None and squash != places[0]:
            message = f"This sigmoid squashes scores that the loss of line {loss.line} expects as logits."
            fix = "Remove it, or use BCELoss."
            yield Finding("G09", "warning", squash[1], message, evidence, fix, squash[0], (loss.id,))
        break
    yield from _logits(program, facts)


def _logits(program: Program, facts: FactStore) -> Iterator[Finding]:
    for error in facts.of("run.exception"):
        if "elements of input should be between 0 and 1" not in error["message"] or error["phase"] != "program":
            continue
        made = [(u.file, c.lineno) for u, c in creations(program, "BCELoss")]
        for file, line in dict.fromkeys([*made[:1], (error.file, error.line or 1)]):
            yield say("G09b", "error", line, file=file, facts=(error.id,), error=error, message=error["message"][:90])


def _source(facts: FactStore, loss: Fact) -> Fact | None:
    """The call of a module whose output a loss was given."""
    given = loss["input"] if isinstance(loss["input"], dict) else {}
    for call in reversed(facts.of("event.forward")):
        out = first_tensor(call["out"])
        if call.position < loss.position and out.get("mean") is not None:
            if all(out.get(key) == given.get(key) for key in ("min", "max", "mean")):
                return call
    return None


def _ends_in(program: Program, facts: FactStore, call: Fact, kind: str) -> bool:
    """Whether a sigmoid is a module's last layer, or is applied where its ``forward`` returns."""
    tree = facts.first("module.tree", call.subject)
    rows = [r for r in (tree["modules"] or []) if r["path"]] if tree is not None else []
    if rows and rows[-1]["class"] == kind:
        return True
    for unit in program:
        forward = unit.functions.get(f"{call['class']}.forward")
        for told in unit.all(ast.Return, under=forward) if forward is not None else ():
            if any(last_name(c).lower() == kind.lower() for c in unit.all(ast.Call, under=told)):
                return True
    return False


def _of(unit: Unit, node: ast.AST, call: Fact) -> bool:
    holder = unit.class_around(node)
    return holder is None or holder.name == call["class"]


@rule("X10", "Probabilities are given to a loss that applies softmax", family="general")
def softmax_twice(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``cross_entropy`` takes logits: rows that already sum to one went through a softmax before."""
    for loss in facts.of("loss.call", "cross_entropy"):
        given = loss["input"] if isinstance(loss["input"], dict) else {}
        shape = given.get("shape") or []
        if len(shape) != 2 or shape[1] < 2 or given.get("mean") is None or given["min"] < 0 or given["max"] > 1:
            continue
        if abs(given["mean"] * shape[1] - 1) > 1e-5 or given["std"] == 0:
            continue
        yield say(
            "X10", "warning", loss.line or 1, file=loss.file, facts=(loss.id,), shape=shape, given=given, loss=loss,
        )  # fmt: skip
        return
