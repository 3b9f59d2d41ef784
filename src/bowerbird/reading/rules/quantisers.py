"""Rules of vector quantisation: which way the gradients of codebook and encoder go."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.divergences import PER_PIXEL
from bowerbird.reading.rules.places import unit_of
from bowerbird.reading.running.run import Run


@rule("V11", "Gradients of the quantiser go the wrong way", family="vae")
def quantiser(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """From the output straight to the input; from the loss to the codebook."""
    for fact in facts.of("probe.quantiser"):
        unit = unit_of(program, fact)
        holder = unit.classes.get(str(fact["class"]))
        node: ast.AST = holder.node if holder is not None else unit.tree
        if fact["out_to_input"] is not None and fact["out_to_input"] == 0:
            sums = [
                s
                for s in unit.all(ast.Assign, ast.Return, under=node)
                if s.value is not None
                and isinstance(s.value, ast.BinOp)
                and "detach" in ast.unparse(s.value)
                and not re.search("loss", ast.unparse(s).partition("=")[0], re.I)
            ]
            learns = fact["out_to_codebook"] or 0
            yield Finding(
                "V11",
                "error",
                sums[0].lineno if sums else fact.line or 1,
                "No gradient goes from the quantised output to the encoder: the straight-through step is missing or "
                "reversed.",
                f"The gradient to the input is 0{' and to the codebook ' + format(learns, '.3g') if learns else ''} "
                f"({fact.id}).",
                "Return inputs + (quantized - inputs).detach().",
                file=fact.file,
                facts=(fact.id,),
            )
        elif fact["codebook_learns"] and fact["loss_to_codebook"] == 0:
            losses = [
                s
                for s in unit.all(ast.Assign, ast.Return, under=node)
                if s.value is not None
                and "detach" in ast.unparse(s.value)
                and any(last_name(c) in (*PER_PIXEL, "mean", "pow") for c in unit.all(ast.Call, under=s.value))
            ]
            named = [
                s for s in losses if re.search(r"q_|codebook|embed|vq|dict", ast.unparse(s).partition("=")[0], re.I)
            ]
            yield Finding(
                "V11",
                "error",
                (named or losses or [node])[0].lineno,
                "The codebook gets no gradient from the loss: it is detached in its own term.",
                "The gradient of the quantiser's loss to the codebook is 0 and to its input "
                f"{fact['loss_to_input']:.3g} ({fact.id}).",
                "Detach the encoder's output, not the codebook, in the codebook's term.",
                file=fact.file,
                facts=(fact.id,),
            )
