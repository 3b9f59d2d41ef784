"""Rules of attention: what the weights sum to, how scores are scaled, reshapes in the place of transpositions."""

import ast
import math
import re
from collections.abc import Iterator

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, dotted
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import (
    attribute_line,
    calls_at,
    function_at,
    given_at,
    swap,
    unit_of,
)
from bowerbird.reading.running.run import Run


@rule("T01", "Attention weights do not sum to one over what they weigh", family="transformer")
def softmax_axis(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The weights were followed from the softmax to the product with the values."""
    for fact in facts.of("probe.attention"):
        if fact["sums_to_one"]:
            yield say("T01", "ok", fact.line or 1, fact=fact)
        elif not fact["kept_before"] and not fact["nan"]:
            yield say(
                "T01c", "error" if fact["factor"] else "warning", _softmax_line(program, fact),
                patch=(
                    swap(program, fact.file, fact.line or 1, f"dim={fact['dim']}", "dim=-1", "T01: keys")
                    if fact["axis"] == len(fact["shape"]) - 1 else None
                ),
                fact=fact,
            )  # fmt: skip
    for fact in facts.of("softmax.call"):
        if fact["implicit"] and len(fact["shape"]) != 2 and not facts.of("probe.attention", line=fact.line):
            yield say("T01b", "warning", fact.line or 1, fact=fact)


def _softmax_line(program: Program, fact: Fact) -> int:
    """Where the axis is written: the line of the call, or where the layer is made that is called there."""
    unit = unit_of(program, fact)
    for statement in unit.all(ast.Assign):
        names = {dotted(t) for t in statement.targets}
        called = any(dotted(c.func) in names for c in calls_at(unit, fact.line or 0, ""))
        if called and re.search(r"Softmax\(", ast.unparse(statement.value)):
            return statement.lineno
    return fact.line or 1


@rule("T03", "A view stands where axes should be exchanged", family="transformer")
def view_for_transpose(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A reshape beside a product whose input and output axes do not correspond."""
    for fact in facts.of("probe.view"):
        yield say("T03", "error", fact.line or 1, fact=fact)


@rule("T06", "Scores are scaled by another width than that of the keys", family="transformer")
def scale(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The factor between the product of queries and keys and the softmax."""
    for fact in facts.of("probe.attention"):
        factor, width, heads = fact["factor"], fact["width"], fact["heads"] or 1
        if not factor or not width or factor == 1.0:
            continue
        right, ratio = 1 / math.sqrt(width), factor * math.sqrt(width)
        if abs(ratio - 1) < 0.01:
            yield say("T06b", "ok", fact.line or 1, factor=factor, width=width, fact=fact)
            continue
        taken = round(1 / factor**2) if factor < 1 else 0
        of_model = heads > 1 and abs(factor * math.sqrt(width * heads) - 1) < 0.01
        if not of_model and taken != width and taken in (fact["widths"] or ()):
            of_model = abs(factor * math.sqrt(taken) - 1) < 0.005
        multiplied = (
            abs(factor - math.sqrt(width)) < 0.01 * factor or abs(factor - math.sqrt(width * heads)) < 0.01 * factor
        )
        home = function_at(unit_of(program, fact), fact.line)
        if multiplied and home is not None and re.search("norm", ast.unparse(home)):
            continue
        if not (of_model or multiplied):
            if abs(factor * width - 1) > 0.01 or width == 1:
                continue
        unit = unit_of(program, fact)
        at = fact["scaled_at"] or fact.line or 1
        line = attribute_line(unit, at, "scale|norm|temp|sqrt|d_?k|dim|size|width") or at
        line = at if not re.search(r"scale|sqrt|temp|norm", unit.lines[line - 1], re.I) else line
        given = given_at(program, unit, line, r"scale|temp|norm|^d_|dim|size|width")
        what = (
            f"the root of the model's width, {taken}"
            if of_model
            else "nothing: they are multiplied by the root"
            if multiplied
            else "the width itself"
        )
        yield say(
            "T06", "error" if of_model or multiplied else "info", given[1] if given else line,
            file=given[0].file if given else fact.file, what=what, factor=factor, width=width, right=right, fact=fact,
        )  # fmt: skip
