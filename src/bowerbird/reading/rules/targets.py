"""Rules of what a sequence model is to predict: shifts, padding in the loss and in means."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, Unit, dotted, last_name, receiver
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import (
    swap,
    unit_of,
)
from bowerbird.reading.running.run import Run


@rule("T07", "The decoder is given what it is to predict", family="transformer")
def decoder_input(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The second sequence of a model is the target itself, at the same positions."""
    for fact in facts.of("probe.causality"):
        shift = fact["shift"]
        if (
            fact["sequences"] != 2
            or not isinstance(shift, dict)
            or shift["by"] != 0
            or fact["argument"] == 0
            or not fact["itself"]
        ):
            continue
        call = facts.first("event.forward", fact.subject)
        yield say(
            "T07", "error", (call.line if call else shift["line"]) or 1, file=call.file if call else fact.file,
            shift=shift, fact=fact,
        )  # fmt: skip


@rule("T10", "Targets are not the next tokens", family="transformer")
def label_shift(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Targets against inputs, on the batch that the program made."""
    seen = False
    for fact in facts.of("probe.causality"):
        shift = fact["shift"]
        if not isinstance(shift, dict) or (fact["sequences"] == 2 and fact["argument"] != 0):
            continue
        by, seen = shift["by"], True
        if by == 1:
            yield say("T10c", "ok", shift["line"] or 1, fact=fact)
            continue
        along = "column" if shift["axis"] == 0 else "row"
        if by not in (0, 2) or (by == 0 and not fact["itself"]):
            continue
        if by == 0 and (fact[f"{along}_before"] or (not fact[f"{along}_after"] and not fact["generates"])):
            continue
        unit = unit_of(program, fact)
        yield say(
            "T10" if by == 0 else "T10b", "error", _target_line(unit, by) or shift["line"] or 1, by_2=abs(by),
            which="ahead of" if by > 0 else "behind", by=by, fact=fact, shift=shift,
        )  # fmt: skip
    for unit in program if not seen else ():
        yield from _same_slices(unit)


def _same_slices(unit: Unit) -> Iterator[Finding]:
    """By the text alone: inputs and targets that are cut out of one sequence at the same places."""
    for function in unit.functions.values():
        cut = {
            name: s for s in unit.all(ast.Assign, under=function) if isinstance(s.value, ast.Subscript)
            for t in s.targets if (name := dotted(t)) and isinstance(s.value.slice, ast.Slice)
        }  # fmt: skip
        for name, statement in cut.items():
            same = [
                other for other, s in cut.items()
                if s.lineno < statement.lineno and ast.unparse(s.value) == ast.unparse(statement.value)
            ]  # fmt: skip
            if re.match(r"(y|target|label)", name, re.I) and any(re.match(r"(x|input|src)", o, re.I) for o in same):
                yield say(
                    "T10d", "warning", statement.lineno, file=unit.file, name=name, same=same,
                    value=ast.unparse(statement.value)[:60],
                )  # fmt: skip


def _target_line(unit: Unit, by: int) -> int | None:
    """Where the targets are cut out of the data: the slice that begins ``by`` later than another."""
    texts = [(s, ast.unparse(s)) for s in unit.all(ast.Assign, ast.Return)]
    named = [
        s.lineno
        for s, text in texts
        if re.search(r"^(y|yb|targets?|labels?|y_batch|trg|tgt|b_y)\b", text) and "[" in text and ":" in text
    ]
    if by == 0:
        return (
            named[0]
            if named
            else next(
                (s.lineno for s, text in texts if re.search(r"\b(y|targets?|labels?)\b.*=.*(clone|\bx\b)", text)), None
            )
        )
    ahead = [s.lineno for s, text in texts if re.search(rf"\+ {abs(by)}\s*:|\[[^\]]*\b{abs(by)}:", text)]
    return next(iter(ahead or named), None)


@rule("T11", "Padding counts in the loss", family="transformer")
def padding_in_loss(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Targets that are padding and are not ignored."""
    for unit in program:
        yield from _compared_with_itself(unit)
    for fact in facts.of("probe.padded_targets"):
        if fact["ignored"] or fact["share"] < 0.03 or fact["reduction"] == "none" or fact["weighted"]:
            continue
        unit = unit_of(program, fact)
        made = next((c.lineno for c in unit.all(ast.Call) if last_name(c) in ("CrossEntropyLoss", "NLLLoss")), None)
        yield say(
            "T11", "error" if fact["share"] > 0.05 else "warning", made or fact.line or 1,
            patch=swap(
                program, fact.file, made, "CrossEntropyLoss()", f"CrossEntropyLoss(ignore_index={fact['name']})",
                "T11: ignore padding",
            ) if made else None,
            fact=fact,
        )  # fmt: skip


def _compared_with_itself(unit: Unit) -> Iterator[Finding]:
    """A distribution that is masked where it equals the padding index itself, instead of where the tokens do."""
    for call in unit.all(ast.Call):
        whole = receiver(call)
        test = call.args[0] if call.args else None
        if last_name(call) not in ("masked_fill", "masked_fill_") or whole is None or not isinstance(test, ast.Compare):
            continue
        same = dotted(test.left) is not None and dotted(test.left) == dotted(whole)
        index = re.search(r"pad|ignore", ast.unparse(test.comparators[0]), re.I)
        if same and index and not re.search(r"id|token|seq|src|tgt|label", str(dotted(whole)), re.I):
            yield say(
                "T11b", "warning", call.lineno, file=unit.file, dotted_2=dotted(whole), test_2=ast.unparse(test)[:80],
            )  # fmt: skip


@rule("T12", "The mean over a sequence counts its padding", family="transformer")
def pooled_padding(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """More padding changes the answer, and a mean over positions is taken on the way."""
    spoilt = any(not f["sums_to_one"] for f in facts.of("probe.attention")) or facts.of("probe.view")
    for fact in facts.of("probe.padding"):
        if fact["change"] < 1e-4 or not fact["means"] or spoilt:
            continue
        place = fact["means"][-1]
        unit = program.units.get(place["file"], program.main)
        masked = re.search("mask|keep|pad|valid", unit.lines[place["line"] - 1], re.I)
        yield say("T12", "error" if masked else "warning", place["line"], file=place["file"], fact=fact)
