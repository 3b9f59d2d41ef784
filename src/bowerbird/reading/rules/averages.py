"""Rules of copies of a network: moving averages, tensors made under inference mode."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import (
    class_at,
    function_at,
    swap,
    unit_of,
)
from bowerbird.reading.running.run import Run


@rule("D09", "The moving average does not average", family="diffusion")
def average(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One update with all new weights at one and all averaged ones at zero."""
    for fact in facts.of("probe.ema"):
        after, decay = fact["after"], fact["decay"]
        unit = unit_of(program, fact)
        holder = class_at(unit, fact.line) or function_at(unit, fact.line)
        body = [
            s
            for s in (unit.all(ast.Assign, ast.Expr, ast.AugAssign, ast.Return, under=holder) if holder else ())
            if re.search(r"decay|beta|alpha|lerp|mu\b", ast.unparse(s))
            and re.search(r"\*|mul|lerp|add", ast.unparse(s))
            and holder is not None
            and s.lineno > holder.lineno
        ]
        line = body[0].lineno if body else fact.line or 1
        if after == 0 and fact["online"] == 1:
            moved = facts.of("module.moved")
            still = [
                m for m in moved if re.search("ema|average|shadow", m.subject, re.I) and m["unmoved"] and not m["moved"]
            ]
            yield say(
                "D09", "error", line, fact=fact,
                said=f"; {still[0].subject} did not move in the whole run ({still[0].id})." if still else ".",
            )  # fmt: skip
        elif (decay > 0.6 and abs(after - decay) < 1e-4 and abs(after - (1 - decay)) > 0.1) or fact["online"] != 1:
            yield say("D09b", "error", line, decay=decay, after=after, fact=fact)


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
        yield say(
            "D10", "error", line, patch=swap(program, fact.file, line, "inference_mode", "no_grad", "D10: no_grad"),
            fact=fact, message=str(fact["message"])[:90],
        )  # fmt: skip
        return
