"""Rules of the forward process: inverses and targets, the range of the data, weights of the loss."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.noise_tables import wrong_tables
from bowerbird.reading.rules.places import (
    assigned_in,
    class_at,
    function_at,
    statements_in,
    swap,
    unit_of,
)
from bowerbird.reading.running.run import Run


@rule("D05", "Target and inverse do not belong together", family="diffusion")
def round_trip(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Noise and data were mixed and taken apart again by the program's own functions."""
    wrong = bool(wrong_tables(facts))
    for fact in facts.of("probe.inverse"):
        if fact["error"] < 1e-2:
            yield say("D05", "ok", fact.line or 1, fact=fact)
        elif not wrong:
            unit = unit_of(program, fact)
            function = next((f for f in unit.functions.values() if f.name == fact.subject), None)
            returns = [s for s in statements_in(unit, function) if isinstance(s, ast.Return)] if function else []
            line = (returns[-1].end_lineno or returns[-1].lineno) if returns else fact.line or 1
            yield say("D05c", "error", line, fact=fact)
    for fact in facts.of("probe.target"):
        velocity, found = fact["velocity"], (fact["of_noise"], fact["of_input"])
        if not velocity or fact["residual"] > 1e-2 or wrong:
            continue
        scale = abs(velocity[0]) + abs(velocity[1])
        if abs(found[0] + velocity[0]) + abs(found[1] + velocity[1]) < 0.02 * scale and fact["standard_v"]:
            unit = unit_of(program, fact)
            function = function_at(unit, fact.line)
            at = (
                [
                    s.lineno
                    for s in assigned_in(unit, "^target$|^v$", under=function)
                    if re.search("noise|eps", ast.unparse(s)) and "-" in ast.unparse(s)
                ]
                if function
                else []
            )
            yield say("D05b", "error", (at or [fact.line or 1])[-1], found=found, velocity=velocity, fact=fact)


def _signed_sampling(program: Program) -> bool:
    """Whether the program clamps samples to [-1, 1] or maps them from there to [0, 1]."""
    text = program.main.text
    return bool(re.search(r"clamp_?\(\s*-1(\.0?)?\s*,\s*1|clip\(\s*-1|min=-1|\+ ?1(\.0)?\) ?(\*|/) ?(0?\.5|2)", text))


@rule("D06", "Images are not centred", family="diffusion")
def centred(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Data in [0, 1] against a sampler that works in [-1, 1]."""
    if any("stand-in images were taken" in s.reason for s in run.stand_ins) or not _signed_sampling(program):
        return
    for fact in facts.of("probe.target"):
        if fact["least"] is None or fact["least"] < -0.2 or fact["most"] < 0.3 or fact["most"] > 1.3:
            continue
        unit = unit_of(program, fact)
        holder = class_at(unit, fact.line)
        calls = (
            [
                c.lineno
                for c in unit.all(ast.Call, under=holder)
                if holder
                and last_name(c) in ("p_losses", "loss", "training_losses")
                and (f := unit.function(c)) is not None
                and f.name == "forward"
            ]
            if holder
            else []
        )
        yield say("D06", "error", (calls or [fact.line or 1])[0], fact=fact)
        return
    seen = False
    if facts.of("probe.noising") and not _SCALED.search(program.main.text):
        for fact in facts.of("data.batch"):
            first = next((p for p in fact["parts"] or () if isinstance(p, dict) and len(p.get("shape", ())) == 4), None)
            seen = seen or first is not None
            if first and first.get("min", -1) >= 0 and first.get("max", 0) <= 1:
                line = next((c.lineno for c in program.main.calls("ToTensor")), fact.line or 1)
                yield say("D06c", "warning", line, file="", first=first, fact=fact)
                return
    yield from _unscaled(program, seen)


def _unscaled(program: Program, seen: bool) -> Iterator[Finding]:
    """By the text alone: transforms that end in [0, 1] in a file that diffuses and clamps to [-1, 1]."""
    text = "\n".join(unit.text for unit in program)
    diffuses = re.search(r"def (q_sample|p_losses|noise_images?|add_noise|forward_diffusion)\b", program.main.text)
    if seen or diffuses is None or _SCALED.search(text):
        return
    for call in program.main.calls("ToTensor"):
        yield say("D06b", "warning", call.lineno, file=program.main.file)
        return


_SCALED = re.compile(
    r"Normalize\(|\* ?2(\.0?)?\)? ?- ?1|2(\.0?)? ?\* ?\w+ ?- ?1|- ?0?\.5|normalize_to|to_neg_one|/ ?127\.5"
)


@rule("D07", "The weight of min-SNR is clamped from the wrong side", family="diffusion")
def min_snr(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The clamped ratio on a grid from 0.001 to 1000."""
    for fact in facts.of("probe.snr"):
        if fact["most"] > 100 and fact["least"] > 1:
            yield say(
                "D07", "error", fact.line or 1,
                patch=swap(program, fact.file, fact.line or 1, "min=", "max=", "D07: max"), fact=fact,
            )  # fmt: skip
