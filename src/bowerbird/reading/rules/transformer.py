"""Rules of Transformers: attention, masks and who sees whom, positions, targets."""

import ast
import math
import re
from collections.abc import Iterator

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding, Severity
from bowerbird.reading.origins import calls_at, function_at
from bowerbird.reading.program import Program, Unit, dotted, last_name, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import placed, say
from bowerbird.reading.rules.places import assigned_in, class_at, first, lines_where, swap, unit_of
from bowerbird.reading.running.run import Run


@rule("T01", "Attention weights do not sum to one over what they weigh", family="transformer")
def softmax_axis(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The weights were followed from the softmax to the product with the values."""
    for fact in facts.of("probe.attention"):
        if fact["sums_to_one"]:
            yield say("T01", "ok", fact.line, fact=fact)
        elif not fact["kept_before"] and not fact["nan"]:
            yield say(
                "T01c", "error" if fact["factor"] else "warning", _softmax_line(program, fact),
                patch=(
                    swap(program, fact.file, fact.line, f"dim={fact['dim']}", "dim=-1", "T01: keys")
                    if fact["axis"] == len(fact["shape"]) - 1 else None
                ),
                fact=fact,
            )  # fmt: skip


def _softmax_line(program: Program, fact: Fact) -> int:
    """Where the axis is written: the line of the call, or where the layer is made that is called there."""
    unit = unit_of(program, fact)
    for statement in unit.all(ast.Assign):
        names = {dotted(t) for t in statement.targets}
        called = any(dotted(c.func) in names for c in calls_at(unit, fact.line or 0, ""))
        if called and re.search(r"Softmax\(", ast.unparse(statement.value)):
            return statement.lineno
    return placed(fact.line)


@rule("T03", "A view stands where axes should be exchanged", family="transformer")
def view_for_transpose(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A reshape beside a product whose input and output axes do not correspond."""
    for fact in facts.of("probe.view"):
        yield say("T03", "error", fact.line, fact=fact)


@rule("T06", "Scores are scaled by another width than that of the keys", family="transformer")
def scale(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The factor between the product of queries and keys and the softmax."""
    for fact in facts.of("probe.attention"):
        factor, width, heads = fact["factor"], fact["width"], fact["heads"] or 1
        if not factor or not width or factor == 1.0:
            continue
        right, ratio = 1 / math.sqrt(width), factor * math.sqrt(width)
        if abs(ratio - 1) < 0.01:
            yield say("T06b", "ok", fact.line, factor=factor, width=width, fact=fact)
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
        what = (
            f"the root of the model's width, {taken}"
            if of_model
            else "nothing: they are multiplied by the root"
            if multiplied
            else "the width itself"
        )
        yield say(
            "T06", "error" if of_model or multiplied else "info", fact["scaled_at"] or fact.line, what=what,
            factor=factor, width=width, right=right, fact=fact,
        )  # fmt: skip


# ---------- masks: who sees whom, which positions are hidden, and masks that hide nothing


def _predicts(fact: Fact) -> bool:
    """Whether the targets of a sequence model are the tokens that come next."""
    return isinstance(fact["shift"], dict) and fact["shift"].get("by") in (1, 2)


def leaks(facts: FactStore) -> list[Fact]:
    """Sequence models that predict what comes next and see it."""
    found = [fact for fact in facts.of("probe.causality") if _predicts(fact) and not fact["random"]]
    return [fact for fact in found if fact["column_before" if fact["shift"].get("axis") == 0 else "row_before"]]


@rule("T02", "Positions see what they are to predict", family="transformer")
def future_seen(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One token was changed and outputs at earlier positions moved."""
    for fact in facts.of("probe.causality"):
        if fact["row_before"] is False and _predicts(fact):
            yield say("T02d", "ok", fact.line, fact=fact)
    for fact in facts.of("probe.raster"):
        if not fact["before"] and not fact["itself"]:
            continue
        yield say(
            "T02" if not fact["before"] else "T02b", "error", fact.line,
            which="earlier pixels" if fact["before"] else "itself", fact=fact,
        )  # fmt: skip
    elsewhere = _tiny_masks(facts) or facts.of("probe.view") or any(
        fact["sums_to_one"] is False for fact in facts.of("probe.attention")
    )  # fmt: skip
    for fact in leaks(facts) if not elsewhere else ():
        yield say("T02c", "error", _mask_line(unit_of(program, fact), fact, facts), fact=fact)


def _mask_line(unit: Unit, fact: Fact, facts: FactStore) -> int:
    """Where the mask should be: a discarded mask, the target's mask, the call of attention, the softmax."""
    for statement in unit.all(ast.Expr):
        if isinstance(statement.value, ast.Call) and last_name(statement.value) in ("masked_fill", "tril", "triu"):
            return statement.lineno
    for call in unit.calls("scaled_dot_product_attention"):
        return call.lineno
    if fact["sequences"] == 2:
        for assigned in assigned_in(unit, r"(tgt|trg|target|dec|look)\w*mask|mask\w*(tgt|trg|dec)"):
            names = " ".join(dotted(t) or "" for t in targets_of(assigned))
            made = re.search("tri[lu]|subsequent|causal|no_?peak|look", ast.unparse(assigned))
            if not made and not re.search("src|enc|cross|mem", names, re.I):
                return assigned.lineno
    soft = [f for f in facts.of("softmax.call") if f.file == unit.file and len(set((f["shape"] or [0, 1])[-2:])) == 1]
    return placed(soft[0].line if soft else fact.line)


@rule("T04", "The mask hides the wrong positions", family="transformer")
def polarity(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Attention that falls on padding alone."""
    for fact in facts.of("probe.padding_weight"):
        if (fact["on_padding"] > 0.98 and fact["share"] < 0.9) or fact["nan"]:
            unit = unit_of(program, fact)
            yield say("T04", "error", _polarity_line(unit, fact), fact=fact)


def _polarity_line(unit: Unit, fact: Fact) -> int:
    masks = [s for s in assigned_in(unit, "mask") if re.search(r"==|!=|\.eq\(|\.ne\(", ast.unparse(s))]
    equal = [s for s in masks if re.search(r"==|\.eq\(", ast.unparse(s))]
    chosen = equal if len(equal) == 1 else masks
    return chosen[0].lineno if chosen else placed(fact.line)


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
    """Applied after the softmax, or filled with a number that is not small enough."""
    for fact, mask in _tiny_masks(facts):
        yield say(
            "T05", "error" if float(str(mask["value"])) > -5 else "warning", int(str(mask["line"])), mask=mask,
            fact=fact,
        )  # fmt: skip
    for fact in facts.of("probe.attention"):
        if not fact["sums_to_one"] and fact["kept_before"] and fact["changed_after"] and fact["keys"] > 1:
            yield say("T05b", "error", fact["changed_after"], fact=fact)


# ---------- positions and of weights that are shared: encodings, tied embeddings, caches


@rule("T08", "The sinusoids of the positions are wrong", family="transformer")
def sinusoid(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Squares of sine and cosine of one frequency sum to one; frequencies fall geometrically to about 1/10000."""
    for fact in facts.of("probe.sinusoid"):
        unit = unit_of(program, fact)
        broken = fact["identity_error"] > 0.05
        odd = not broken and (fact["even"] > 0.05 or not 1e-6 < fact["last"] < 0.2) and fact["channels"] >= 8
        if not broken and not odd:
            yield say("T08b", "ok", fact.line, fact=fact)
            continue
        holder = class_at(unit, fact.line) or function_at(unit, fact.line)
        lines = lines_where(unit, holder, r"1e4|10000|10_000|1e5|100000|\b(sin|cos)\(", ast.Assign, ast.Return)
        constant = [n for n in lines if re.search(r"1e4|10000|10_000", unit.lines[n - 1])]
        line = first((constant[1:] if broken and len(constant) > 1 else constant) or lines, fact.line)
        said = (
            f"sin^2 + cos^2 of neighbouring channels differs from 1 by up to {fact['identity_error']:.2g}"
            if broken
            else f"the frequencies end at {fact['last']:.2g} (a wave of {fact['longest']:.3g} positions) instead of "
            "about 1e-4"
        )
        severity: Severity = "error"
        if odd:  # another base is a choice; waves of more than six million positions tell none of them apart
            severity = "warning" if fact["last"] <= 1e-6 else "info"
        yield say("T08", severity, line, fact=fact, said=said)


@rule("T09", "Positions vary along the batch", family="transformer")
def positions(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """An encoding that is the same at all positions of a sequence, where sequences lie along the other axis."""
    flow = facts.first("probe.causality")
    batches = {loader["batch_size"] for loader in facts.of("data.loader")}
    for fact in facts.of("probe.positions"):
        examples, length = (fact["shape"] or [0, 0])[:2]
        known = (flow["row_before"] or flow["row_after"]) if flow is not None else examples in batches - {length}
        if known and fact["first_axis"] > 1e-6 and fact["second_axis"] < 1e-7:
            yield say("T09", "error", first(list(fact["lines"] or ()), fact.line), fact=fact)


@rule("T13", "Tied weights are not one tensor", family="transformer", exact=True)
def untied(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """An assignment that tied two weights was undone later."""
    for fact in facts.of("probe.tied"):
        if fact["one"]:
            yield say("T13b", "ok", fact.line, fact=fact)
            continue
        unit = unit_of(program, fact)
        holder = class_at(unit, fact.line)
        bases = {str(fact[k]).removesuffix(".weight") for k in ("left", "right")}
        again = "|".join(map(re.escape, bases))
        home = function_at(unit, fact.line)
        later = [
            n for n in lines_where(unit, holder, rf"^({again})(\.weight)? = ")
            if n > (fact.line or 0) or (n != fact.line and function_at(unit, n) is not home)
        ]  # fmt: skip
        if not later and _conditional(unit, fact.line):
            continue  # the assignment that ties them may not have run
        yield say("T13", "error", first(later, fact.line), fact=fact)


def _conditional(unit: Unit, line: int | None) -> bool:
    """Whether a line stands in a branch."""
    return any(branch.lineno < (line or 0) <= (branch.end_lineno or 0) for branch in unit.all(ast.If))


@rule("T14", "With a cache positions start at zero again", family="transformer")
def cached_positions(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Logits with a cache of the past against those of the whole sequence."""
    for fact in facts.of("probe.cache"):
        if fact["change"] < 2e-3:
            yield say("T14b", "ok", fact.line, fact=fact)
            continue
        unit = unit_of(program, fact)
        holder = class_at(unit, fact.line)
        forward = next((n for n in holder.body if getattr(n, "name", "") == "forward"), None) if holder else None
        counted = lines_where(unit, forward, r"\barange\(", ast.Call)
        yield say("T14", "error", first(counted, fact.line), fact=fact)


# ---------- what a sequence model is to predict: shifts, padding in the loss and in means


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
            "T07", "error", (call.line if call else shift["line"]), file=call.file if call else fact.file,
            shift=shift, fact=fact,
        )  # fmt: skip


@rule("T10", "Targets are not the next tokens", family="transformer")
def label_shift(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Targets against inputs, on the batch that the program made."""
    for fact in facts.of("probe.causality"):
        shift = fact["shift"]
        if not isinstance(shift, dict) or (fact["sequences"] == 2 and fact["argument"] != 0):
            continue
        by = shift["by"]
        if by == 1:
            yield say("T10c", "ok", shift["line"], fact=fact)
            continue
        along = "column" if shift["axis"] == 0 else "row"
        if by not in (0, 2) or (by == 0 and not fact["itself"]):
            continue
        if by == 0 and (fact[f"{along}_before"] or (not fact[f"{along}_after"] and not fact["generates"])):
            continue
        unit = unit_of(program, fact)
        yield say(
            "T10" if by == 0 else "T10b", "error", _target_line(unit, by) or shift["line"], by_2=abs(by),
            which="ahead of" if by > 0 else "behind", by=by, fact=fact, shift=shift,
        )  # fmt: skip


def _target_line(unit: Unit, by: int) -> int | None:
    """Where the targets are cut out of the data: the slice that begins ``by`` later than another."""
    kinds = (ast.Assign, ast.Return)
    named = lines_where(unit, unit.tree, r"^(y|yb|targets?|labels?|y_batch|trg|tgt|b_y)\b.*\[.*:", *kinds)
    copied = lines_where(unit, unit.tree, r"\b(y|targets?|labels?)\b.*=.*(clone|\bx\b)", *kinds)
    ahead = lines_where(unit, unit.tree, rf"\+ {abs(by)}\s*:|\[[^\]]*\b{abs(by)}:", *kinds)
    return next(iter((named or copied) if by == 0 else (ahead or named)), None)


@rule("T11", "Padding counts in the loss", family="transformer")
def padding_in_loss(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Targets that are padding and are not ignored."""
    for fact in facts.of("probe.padded_targets"):
        if fact["ignored"] or fact["share"] < 0.03 or fact["reduction"] == "none" or fact["weighted"]:
            continue
        unit = unit_of(program, fact)
        made = next((c.lineno for c in unit.all(ast.Call) if last_name(c) in ("CrossEntropyLoss", "NLLLoss")), None)
        yield say(
            "T11", "error" if fact["share"] > 0.05 else "warning", made or fact.line,
            patch=swap(
                program, fact.file, made, "CrossEntropyLoss()", f"CrossEntropyLoss(ignore_index={fact['name']})",
                "T11: ignore padding",
            ) if made else None,
            fact=fact,
        )  # fmt: skip


@rule("T12", "Padding changes the answer", family="transformer")
def padding_counts(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """An example alone against the same in its padded batch: a mean over all positions, a last step that is padding."""
    spoilt = any(not f["sums_to_one"] for f in facts.of("probe.attention")) or facts.of("probe.view")
    axes = [f["roles"][f["batch_axis"]] for f in facts.of("probe.recurrent_axes") if f["batch_axis"] is not None]
    for fact in facts.of("probe.padding"):
        if fact["change"] < 1e-4:
            yield say("T12b", "ok", fact.line, fact=fact)
        elif not spoilt and set(axes) <= {"example"} and fact.line is not None:
            masked = fact["told"] or re.search("mask|keep|pad|valid", program.line(fact.line, fact.file), re.I)
            yield say("T12", "error" if masked else "warning", fact.line, fact=fact)
