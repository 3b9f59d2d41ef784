"""Rules of masks: who sees whom, which positions are hidden, and masks that hide nothing."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, Unit, dotted, last_name, receiver, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import (
    assigned_in,
    swap,
    unit_of,
)
from bowerbird.reading.running.run import Run


def _generates(fact: Fact, program: Program) -> bool:
    shift = fact["shift"]
    if isinstance(shift, dict):
        return shift.get("by") in (1, 2)
    if fact["sequences"] == 2 and re.search(r"tgt|trg|target|dec", str(fact["named"] or ""), re.I):
        return not fact["mask_argument"]
    if (
        fact["sequences"] != 1
        or fact["mask_argument"]
        or re.search(r"bert|mask|mlm|encoder|diffus", fact["class"], re.I)
    ):
        return False
    named = re.search(r"gpt|causal|language|decoder|(^|_)lm$|LM$|autoregress", str(fact["class"]), re.I)
    return bool(fact["generates"] or named)


def leaks(facts: FactStore, program: Program) -> list[Fact]:
    """Sequence models that predict what comes next and see it."""
    found = []
    for fact in facts.of("probe.causality"):
        shift = fact["shift"] if isinstance(fact["shift"], dict) else {}
        along = "column" if shift.get("axis") == 0 else "row"
        if fact[f"{along}_before"] and _generates(fact, program) and not fact["random"]:
            found.append(fact)
    return found


@rule("T02", "Positions see what they are to predict", family="transformer")
def future_seen(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One token was changed and outputs at earlier positions moved."""
    for fact in facts.of("probe.causality"):
        if fact["row_before"] is False and _generates(fact, program):
            yield say("T02d", "ok", fact.line or 1, fact=fact)
    for fact in facts.of("probe.raster"):
        if not fact["before"] and not fact["itself"]:
            continue
        yield say(
            "T02" if not fact["before"] else "T02b", "error", fact.line or 1,
            which="earlier pixels" if fact["before"] else "itself", fact=fact,
        )  # fmt: skip
    for fact in leaks(facts, program):
        unit = unit_of(program, fact)
        if any(f["sums_to_one"] is False for f in facts.of("probe.attention")) or facts.of("probe.view"):
            continue
        line = _mask_line(unit, fact, facts)
        yield say("T02c", "error" if isinstance(fact["shift"], dict) else "warning", line, fact=fact)


def _mask_line(unit: Unit, fact: Fact, facts: FactStore) -> int:
    """Where the mask is lost or should be: a discarded mask, the target's mask, the attention call, the softmax."""
    for statement in unit.all(ast.Expr):
        if isinstance(statement.value, ast.Call) and last_name(statement.value) in ("masked_fill", "tril", "triu"):
            return statement.lineno
    tiny = _tiny_masks(facts)
    if tiny:
        return int(str(tiny[0][1]["line"]))
    masked = [
        m["line"] for f in facts.of("probe.attention") if f.file == unit.file
        for m in f["masks"] or () if m.get("share") and str(m["name"]).startswith("masked_fill")
    ]  # fmt: skip
    if masked and fact["sequences"] == 1:
        return int(masked[0])
    for call in unit.calls("scaled_dot_product_attention"):
        words = {k.arg: k.value for k in call.keywords}
        if len(call.args) < 4 and not ({"is_causal", "attn_mask"} & set(words)):
            return call.lineno
        causal = words.get("is_causal")
        if isinstance(causal, ast.Constant) and causal.value is False:
            return causal.lineno
    if fact["sequences"] == 2:
        for assigned in assigned_in(unit, r"(tgt|trg|target|dec|look)\w*mask|mask\w*(tgt|trg|dec)"):
            names = " ".join(dotted(t) or "" for t in targets_of(assigned))
            made = re.search("tri[lu]|subsequent|causal|no_?peak|look", ast.unparse(assigned))
            if not made and not re.search("src|enc|cross|mem", names, re.I):
                return _triangle(unit, assigned) or assigned.lineno
    for call in unit.all(ast.Call):
        if (
            re.search("attn|attention|transformer|encoder|decoder|layers?$", last_name(call), re.I)
            and call.args
            and unit.class_around(call) is not None
        ):
            same = [dotted(a) for a in call.args[:3]]
            if (
                len(same) == 3
                and len(set(same)) == 1
                and same[0]
                and not any(k.arg and "mask" in k.arg for k in call.keywords)
            ):
                if len(call.args) == 3:
                    return call.lineno
    soft = next((f for f in facts.of("softmax.call") if f.file == unit.file and f.line and _of_attention(f)), None)
    return (soft.line if soft is not None else fact.line) or 1


def _triangle(unit: Unit, assigned: ast.AST) -> int | None:
    """Where a triangle is made in a method that an assignment calls: it hides the wrong half."""
    called = {last_name(c) for c in ast.walk(assigned) if isinstance(c, ast.Call)}
    for function in unit.functions.values():
        if function.name in called:
            for call in unit.all(ast.Call, under=function):
                if last_name(call) in ("tril", "triu"):
                    return call.lineno
    return None


def _of_attention(fact: Fact) -> bool:
    shape = fact["shape"] or []
    return len(shape) >= 3 and shape[-1] == shape[-2]


@rule("T04", "The mask hides the wrong positions", family="transformer")
def polarity(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Attention that falls on padding alone; key_padding_mask that is True where there is something."""
    for fact in facts.of("probe.padding_weight"):
        if (fact["on_padding"] > 0.98 and fact["share"] < 0.9) or fact["nan"]:
            unit = unit_of(program, fact)
            yield say("T04", "error", _polarity_line(unit, fact), fact=fact)
    for fact in facts.of("probe.key_padding"):
        if fact["hidden_first"] > 0.95 and fact["hidden_last"] < 0.5:
            unit = unit_of(program, fact)
            line = next((s.lineno for s in assigned_in(unit, "mask") if re.search("!=|ne\\(", ast.unparse(s))), None)
            if line is None:
                line = next(
                    (c.lineno for c in unit.all(ast.Call) for k in c.keywords if k.arg == fact["name"]), fact.line
                )
            yield say("T04b", "error", line or 1, fact=fact)


def _polarity_line(unit: Unit, fact: Fact) -> int:
    masks = [s for s in assigned_in(unit, "mask") if re.search(r"==|!=|\.eq\(|\.ne\(", ast.unparse(s))]
    equal = [s for s in masks if re.search(r"==|\.eq\(", ast.unparse(s))]
    chosen = equal if len(equal) == 1 else masks
    return chosen[0].lineno if chosen else fact.line or 1


def _tiny_masks(facts: FactStore) -> list[tuple[Fact, dict[str, object]]]:
    found = []
    for fact in facts.of("probe.attention"):
        for mask in fact["masks"] or ():
            value = mask.get("value")
            if (
                mask["name"].startswith("masked_fill")
                and isinstance(value, int | float)
                and value > -30
                and mask.get("share")
            ):
                found.append((fact, mask))
    return found


@rule("T05", "A mask hides nothing", family="transformer")
def mask_without_effect(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Discarded, applied after the softmax, or filled with a number that is not small enough."""
    for fact, mask in _tiny_masks(facts):
        yield say(
            "T05", "error" if float(str(mask["value"])) > -5 else "warning", int(str(mask["line"])), mask=mask,
            fact=fact,
        )  # fmt: skip
    for fact in facts.of("probe.attention"):
        if not fact["sums_to_one"] and fact["kept_before"] and fact["changed_after"] and fact["keys"] > 1:
            yield say("T05b", "error", fact["changed_after"], fact=fact)
    leaking = leaks(facts, program)
    for unit in program:
        for statement in unit.all(ast.Expr):
            call = statement.value
            if isinstance(call, ast.Call) and last_name(call) == "masked_fill" and receiver(call) is not None:
                seen = facts.first("function.call", "masked_fill", line=statement.lineno)
                if seen is not None or leaking:
                    yield say(
                        "T05c" if seen else "T05d", "error", statement.lineno, file=unit.file,
                        facts=(seen.id,) if seen else (leaking[0].id,),
                        patch=swap(
                            program, unit.file, statement.lineno, ".masked_fill(", ".masked_fill_(", "T05: in place",
                        ),
                        seen=seen, leaking=leaking,
                    )  # fmt: skip
