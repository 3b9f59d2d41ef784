"""Rules of attention and sequence models: weights, masks, scales, positions, targets."""

import ast
import math
import re
from collections.abc import Iterator

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, Unit, dotted, last_name, names_in, receiver, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.places import (
    assigned_in,
    attribute_line,
    class_at,
    function_at,
    statements_in,
    swap,
    unit_of,
)
from bowerbird.reading.running.run import Run


@rule("T01", "Attention weights do not sum to one over what they weigh", family="transformer")
def softmax_axis(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The weights were followed from the softmax to the product with the values."""
    for fact in facts.of("probe.attention"):
        if fact["sums_to_one"]:
            yield Finding("T01", "ok", fact.line or 1, "The attention weights sum to one over the axis that is summed.",
                          f"{fact.subject}, weights of shape {fact['shape']} ({fact.id}).", file=fact.file, facts=(fact.id,))  # fmt: skip
        elif not fact["kept_before"] and not fact["nan"]:
            yield Finding(
                "T01", "error", fact.line or 1, "The softmax runs over another axis than the one that is summed with the values.",
                f"Weights of shape {fact['shape']}: along axis {fact['axis']}, which line {fact['use']} sums over, they add up to "
                f"{fact['least']:.3g} to {fact['most']:.3g} instead of 1 ({fact.id}).",
                "Take the softmax over the keys: dim=-1 for scores of shape (..., queries, keys).", file=fact.file, facts=(fact.id,),
                patch=next(filter(None, (swap(program, fact.file, fact.line or 1, f"dim={d}", "dim=-1", "T01: keys")
                                         for d in (fact["dim"],) if fact["axis"] == len(fact["shape"]) - 1)), None),
            )  # fmt: skip
    for fact in facts.of("softmax.call"):
        if fact["implicit"] and len(fact["shape"]) != 2 and not facts.of("probe.attention", line=fact.line):
            yield Finding("T01", "warning", fact.line or 1, "The softmax has no dim, and PyTorch guesses one from the number of axes.",
                          f"Its input has shape {fact['shape']} ({fact.id}).", "Give dim explicitly.", file=fact.file, facts=(fact.id,))  # fmt: skip


def _generates(fact: Fact, program: Program) -> bool:
    shift = fact["shift"]
    if isinstance(shift, dict):
        return shift.get("by") in (1, 2)
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
            yield Finding("T02", "ok", fact.line or 1, f"{fact.subject} does not see the future.",
                          f"Changing the token at {fact['cell']} moved no earlier output ({fact.id}).", file=fact.file, facts=(fact.id,))  # fmt: skip
    for fact in leaks(facts, program):
        unit = unit_of(program, fact)
        if any(f["sums_to_one"] is False for f in facts.of("probe.attention")) or facts.of("probe.view"):
            continue
        line = _mask_line(unit, fact, facts)
        yield Finding(
            "T02", "error", line, f"{fact.subject} sees the tokens that it is to predict: no mask hides the future.",
            f"Changing the token at {fact['cell']} changed outputs at earlier positions by {fact['effect_before']:.2g} of their size ({fact.id}).",
            "Mask the scores above the diagonal before the softmax, or pass is_causal=True.", file=fact.file, facts=(fact.id,),
        )  # fmt: skip


def _mask_line(unit: Unit, fact: Fact, facts: FactStore) -> int:
    """Where the mask is lost or should be: a discarded mask, the target's mask, the attention call, the softmax."""
    for statement in unit.all(ast.Expr):
        if isinstance(statement.value, ast.Call) and last_name(statement.value) in ("masked_fill", "tril", "triu"):
            return statement.lineno
    tiny = _tiny_masks(facts)
    if tiny:
        return tiny[0][1]["line"]  # type: ignore[no-any-return]
    for call in unit.calls("scaled_dot_product_attention"):
        words = {k.arg: k.value for k in call.keywords}
        if len(call.args) < 4 and not ({"is_causal", "attn_mask"} & set(words)):
            return call.lineno
        causal = words.get("is_causal")
        if isinstance(causal, ast.Constant) and causal.value is False:
            return causal.lineno
    if fact["sequences"] == 2:
        for statement in assigned_in(unit, r"(tgt|trg|target|dec|look)\w*mask|mask\w*(tgt|trg|dec)"):
            if not re.search("tri[lu]|subsequent|causal|no_?peak|look", ast.unparse(statement)):
                return statement.lineno
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


def _of_attention(fact: Fact) -> bool:
    shape = fact["shape"] or []
    return len(shape) >= 3 and shape[-1] == shape[-2]


@rule("T03", "A view stands where axes should be exchanged", family="transformer")
def view_for_transpose(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A reshape beside a product whose input and output axes do not correspond."""
    for fact in facts.of("probe.view"):
        yield Finding(
            "T03", "error", fact.line or 1,
            "The reshape gives numbers other axes, where axes should be exchanged: positions and channels are mixed.",
            f"It turns {fact['from']} into {fact['to']}, and the tensor is {fact['role']} ({fact.id}); no merging or splitting of "
            "neighbouring axes does that.",
            "Use transpose (or permute), then reshape.", file=fact.file, facts=(fact.id,),
        )  # fmt: skip


@rule("T04", "The mask hides the wrong positions", family="transformer")
def polarity(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Attention that falls on padding alone; key_padding_mask that is True where there is something."""
    for fact in facts.of("probe.padding_weight"):
        if fact["on_padding"] > 0.98 and fact["share"] < 0.9 or fact["nan"]:
            unit = unit_of(program, fact)
            yield Finding(
                "T04", "error", _polarity_line(unit, fact), "The mask is inverted: only padding is attended to.",
                f"In sequences with {fact['share']:.0%} padding, {fact['on_padding']:.0%} of the attention falls on it ({fact.id}).",
                "The attention treats True as visible (or as hidden): invert the mask.", file=fact.file, facts=(fact.id,),
            )  # fmt: skip
    for fact in facts.of("probe.key_padding"):
        if fact["hidden_first"] > 0.95 and fact["hidden_last"] < 0.5:
            unit = unit_of(program, fact)
            line = next((s.lineno for s in assigned_in(unit, "mask") if re.search("!=|ne\\(", ast.unparse(s))), None)
            if line is None:
                line = next(
                    (c.lineno for c in unit.all(ast.Call) for k in c.keywords if k.arg == fact["name"]), fact.line
                )
            yield Finding(
                "T04", "error", line or 1, f"{fact['name']} is True where there are tokens: PyTorch hides what is True.",
                f"It hides the first position of {fact['hidden_first']:.0%} of the sequences and the last of {fact['hidden_last']:.0%} ({fact.id}).",
                "Pass ids == pad.", file=fact.file, facts=(fact.id,),
            )  # fmt: skip


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
        yield Finding(
            "T05", "error", int(str(mask["line"])), f"Masked scores are set to {mask['value']:.3g}, which hides nothing.",
            f"The softmax gives a score of {mask['value']:.3g} about the weight of any other ({fact.id}).",
            "Fill with float('-inf').", file=fact.file, facts=(fact.id,),
        )  # fmt: skip
    for fact in facts.of("probe.attention"):
        if not fact["sums_to_one"] and fact["kept_before"] and fact["changed_after"] and fact["keys"] > 1:
            yield Finding(
                "T05", "error", fact["changed_after"], "The mask is applied after the softmax: what is left does not sum to one.",
                f"The weights add up to {fact['least']:.3g} to {fact['most']:.3g} ({fact.id}).",
                "Mask the scores before the softmax.", file=fact.file, facts=(fact.id,),
            )  # fmt: skip
    leaking = leaks(facts, program)
    for unit in program:
        for statement in unit.all(ast.Expr):
            call = statement.value
            if isinstance(call, ast.Call) and last_name(call) == "masked_fill" and receiver(call) is not None:
                seen = facts.first("function.call", "masked_fill", line=statement.lineno)
                if seen is not None or leaking:
                    yield Finding(
                        "T05", "error", statement.lineno, "The masked scores are thrown away: masked_fill returns a new tensor.",
                        f"The line ran and nothing keeps its result ({seen.id})." if seen else f"The future is seen ({leaking[0].id}).",
                        "Assign the result, or use masked_fill_.", file=unit.file, facts=(seen.id,) if seen else (leaking[0].id,),
                        patch=swap(program, unit.file, statement.lineno, ".masked_fill(", ".masked_fill_(", "T05: in place"),
                    )  # fmt: skip


@rule("T06", "Scores are scaled by another width than that of the keys", family="transformer")
def scale(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The factor between the product of queries and keys and the softmax."""
    for fact in facts.of("probe.attention"):
        factor, width, heads = fact["factor"], fact["width"], fact["heads"] or 1
        if not factor or not width or factor == 1.0:
            continue
        right, ratio = 1 / math.sqrt(width), factor * math.sqrt(width)
        if abs(ratio - 1) < 0.01:
            yield Finding("T06", "ok", fact.line or 1, "Scores are divided by the root of the width of the keys.",
                          f"The factor is {factor:.4g} for {width} channels ({fact.id}).", file=fact.file, facts=(fact.id,))  # fmt: skip
            continue
        of_model = heads > 1 and abs(factor * math.sqrt(width * heads) - 1) < 0.01
        multiplied = (
            abs(factor - math.sqrt(width)) < 0.01 * factor or abs(factor - math.sqrt(width * heads)) < 0.01 * factor
        )
        if not (of_model or multiplied):
            if abs(factor * width - 1) > 0.01 or width == 1:
                continue
        unit = unit_of(program, fact)
        at = fact["scaled_at"] or fact.line or 1
        line = attribute_line(unit, at, "scale|norm|temp|sqrt|d_?k|dim|size|width") or at
        line = at if not re.search(r"scale|sqrt|temp|norm", unit.lines[line - 1], re.I) else line
        what = (
            f"the root of the model's width, {width * heads}"
            if of_model
            else "nothing: they are multiplied by the root"
            if multiplied
            else "the width itself"
        )
        yield Finding(
            "T06", "error" if of_model or multiplied else "info", line, f"Scores are divided by {what}, not by the root of the width of one head.",
            f"The factor is {factor:.4g}; for keys of {width} channels it should be {right:.4g} ({fact.id}).",
            "Divide by math.sqrt(k.size(-1)).", file=fact.file, facts=(fact.id,),
        )  # fmt: skip


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
        yield Finding(
            "T07", "error", (call.line if call else shift["line"]) or 1, "The decoder is fed the tokens that it is to predict at the same positions.",
            f"The targets of line {shift['line']} equal the decoder's input, unshifted ({fact.id}).",
            "Feed tgt[:, :-1] and predict tgt[:, 1:].", file=call.file if call else fact.file, facts=(fact.id,),
        )  # fmt: skip


@rule("T08", "The sinusoids of the positions are wrong", family="transformer")
def sinusoid(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Squares of sine and cosine of one frequency sum to one; frequencies fall geometrically to about 1/10000."""
    for fact in facts.of("probe.sinusoid"):
        unit = unit_of(program, fact)
        broken = fact["identity_error"] > 0.05
        odd = not broken and (fact["even"] > 0.05 or not 1e-6 < fact["last"] < 0.2) and fact["channels"] >= 8
        if not broken and not odd:
            yield Finding("T08", "ok", fact.line or 1, "Sine and cosine of each pair of channels have the same frequency.",
                          f"sin^2 + cos^2 is off by {fact['identity_error']:.2g}; the longest wave has {fact['longest']:.4g} positions ({fact.id}).",
                          file=fact.file, facts=(fact.id,))  # fmt: skip
            continue
        holder = class_at(unit, fact.line)
        lines = [s.lineno for s in (unit.all(ast.Assign, ast.Return, under=holder) if holder else ())
                 if re.search(r"1e4|10000|10_000|1e5|100000", ast.unparse(s)) or re.search(r"\.(sin|cos)\(|\b(sin|cos)\(", ast.unparse(s))]  # fmt: skip
        constant = [n for n in lines if re.search(r"1e4|10000|10_000", unit.lines[n - 1])]
        line = ((constant[1:] if broken and len(constant) > 1 else constant) or lines or [fact.line or 1])[0]
        said = (
            f"sin^2 + cos^2 of neighbouring channels differs from 1 by up to {fact['identity_error']:.2g}" if broken
            else f"the frequencies end at {fact['last']:.2g} (a wave of {fact['longest']:.3g} positions) instead of about 1e-4"
        )  # fmt: skip
        severity = "warning" if fact["of_times"] else "error"
        yield Finding(
            "T08", severity, line, "The exponent of the sinusoidal encoding is wrong.",  # type: ignore[arg-type]
            f"For {fact['channels']} channels {said} ({fact.id}).",
            "Channels 2i and 2i+1 share the frequency 10000 ** (-2i / d).", file=fact.file, facts=(fact.id,),
        )  # fmt: skip


@rule("T09", "Positions do not reach the model", family="transformer")
def positions(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """An encoding that changes nothing, varies along the batch, or a model that does not notice an exchange."""
    told = False
    for fact in facts.of("probe.positions"):
        unit = unit_of(program, fact)
        lines = [n for n in fact["lines"] or () if isinstance(n, int)]
        dropped = fact["changes"] < 1e-7
        flow = facts.first("probe.causality")
        time_first = bool(
            flow and (flow["column_before"] or flow["column_after"]) and not (flow["row_before"] or flow["row_after"])
        )
        across = (
            fact["first_axis"] > 1e-6
            and fact["second_axis"] < 1e-7
            and not time_first
            and (flow is not None or _insensitive(facts))
        )
        if not dropped and not across:
            continue
        told = True
        function = function_at(unit, lines[0]) if lines else None
        discarded = (
            [
                s.lineno
                for s in statements_in(unit, function)
                if isinstance(s, ast.Expr) and isinstance(s.value, ast.BinOp | ast.Call)
            ]
            if function
            else []
        )
        line = (discarded if dropped else lines) or [fact.line or 1]
        yield Finding(
            "T09", "error", line[0],
            f"{fact['class']} returns its input unchanged: no position is added." if dropped else
            f"{fact['class']} counts positions along the batch: all tokens of an example get the same vector.",
            f"For an input of shape {fact['shape']} that is the same everywhere, the output varies by {fact['first_axis']:.2g} along the "
            f"first axis and {fact['second_axis']:.2g} along the second ({fact.id}).",
            "Return x + pe[:, :x.size(1)] for batch-first inputs.", file=fact.file, facts=(fact.id,),
        )  # fmt: skip
    for fact in facts.of("probe.order"):
        if told or fact["change"] > 1e-6:
            continue
        unit = unit_of(program, fact)
        holder = unit.classes.get(str(fact["class"]))
        places = [s.lineno for s in assigned_in(unit, r"pos|^pe$", under=holder.node)] if holder else []
        if places:
            yield Finding(
                "T09", "error", places[-1], f"{fact.subject} does not notice the order of its tokens: positions have no effect.",
                f"Exchanging two tokens changed the last output by {fact['change']:.1g} ({fact.id}).",
                "Add the positional encoding to the embeddings.", file=fact.file, facts=(fact.id,),
            )  # fmt: skip


def _insensitive(facts: FactStore) -> bool:
    return any(fact["change"] < 1e-6 for fact in facts.of("probe.order"))


@rule("T10", "Targets are not the next tokens", family="transformer")
def label_shift(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Targets against inputs, on the batch that the program made."""
    for fact in facts.of("probe.causality"):
        shift = fact["shift"]
        if not isinstance(shift, dict) or (fact["sequences"] == 2 and fact["argument"] != 0):
            continue
        by = shift["by"]
        if by == 1:
            yield Finding("T10", "ok", shift["line"] or 1, "Targets are the inputs one position later.", f"On the first batch ({fact.id}).",
                          file=fact.file, facts=(fact.id,))  # fmt: skip
            continue
        along = "column" if shift["axis"] == 0 else "row"
        if by == 0 and (fact[f"{along}_before"] or not fact[f"{along}_after"] and not fact["generates"]):
            continue
        unit = unit_of(program, fact)
        yield Finding(
            "T10", "error", _target_line(unit, by) or shift["line"] or 1,
            "The targets are the inputs themselves: the model learns to copy." if by == 0 else
            f"The targets are {abs(by)} positions {'ahead of' if by > 0 else 'behind'} the inputs, not one ahead.",
            f"On the first batch y[t] equals x[t{by:+d}] at every position ({fact.id}); the loss is at line {shift['line']}.",
            "Use x = data[i : i + T] and y = data[i + 1 : i + 1 + T], once.", file=fact.file, facts=(fact.id,),
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
    return (ahead or named or [None])[0]


@rule("T11", "Padding counts in the loss", family="transformer")
def padding_in_loss(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Targets that are padding and are not ignored."""
    for fact in facts.of("probe.padded_targets"):
        if fact["ignored"] or fact["share"] < 0.03 or fact["reduction"] == "none" or fact["weighted"]:
            continue
        unit = unit_of(program, fact)
        made = next((c.lineno for c in unit.all(ast.Call) if last_name(c) in ("CrossEntropyLoss", "NLLLoss")), None)
        yield Finding(
            "T11", "error" if fact["share"] > 0.05 else "warning", made or fact.line or 1, "Padding is predicted like any token: the loss does not ignore it.",
            f"{fact['share']:.0%} of the first targets are {fact['name']} = {fact['pad']} ({fact.id}), and ignore_index is another.",
            f"Pass ignore_index={fact['name']}.", file=fact.file, facts=(fact.id,),
            patch=swap(program, fact.file, made, "CrossEntropyLoss()", f"CrossEntropyLoss(ignore_index={fact['name']})", "T11: ignore padding") if made else None,
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
        yield Finding(
            "T12", "error" if masked else "warning", place["line"], "The mean divides by the padded length, so padding changes the answer.",
            f"Three more padding tokens changed the output by {fact['change']:.2g} of its size ({fact.id}).",
            "Divide the masked sum by the number of tokens: (x * keep).sum(1) / keep.sum(1).", file=place["file"], facts=(fact.id,),
        )  # fmt: skip


@rule("T13", "Tied weights are not one tensor", family="transformer")
def untied(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """An assignment that tied two weights was undone later."""
    for fact in facts.of("probe.tied"):
        if fact["one"]:
            yield Finding(
                "T13",
                "ok",
                fact.line or 1,
                "The tied weights are one tensor.",
                f"({fact.id})",
                file=fact.file,
                facts=(fact.id,),
            )
            continue
        unit = unit_of(program, fact)
        holder = class_at(unit, fact.line)
        bases = {str(fact[k]).removesuffix(".weight") for k in ("left", "right")}
        later = [s.lineno for s in unit.all(ast.Assign, under=holder) if s.lineno != fact.line
                 and any((dotted(t) or "") in bases | {f"{b}.weight" for b in bases} for t in targets_of(s))
                 and (s.lineno > (fact.line or 0) or unit.function(s) is not function_at(unit, fact.line))] if holder else []  # fmt: skip
        yield Finding(
            "T13", "error", (later or [fact.line or 1])[0], f"{fact['left']} and {fact['right']} were tied, but are two tensors in the end.",
            f"Their memory differs after the program ran ({fact.id}); line {fact.line} ties them.",
            "Change tied weights in place, under torch.no_grad().", file=fact.file, facts=(fact.id,),
        )  # fmt: skip


@rule("T14", "With a cache positions start at zero again", family="transformer")
def cached_positions(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Logits with a cache of the past against those of the whole sequence."""
    for fact in facts.of("probe.cache"):
        if fact["change"] < 2e-3:
            yield Finding("T14", "ok", fact.line or 1, "Decoding with the cache gives the logits of the whole sequence.",
                          f"They differ by {fact['change']:.1g} ({fact.id}).", file=fact.file, facts=(fact.id,))  # fmt: skip
            continue
        unit = unit_of(program, fact)
        holder = class_at(unit, fact.line)
        counted = (
            [
                c.lineno
                for c in unit.calls("arange", under=holder)
                if (f := unit.function(c)) is not None and f.name == "forward"
            ]
            if holder
            else []
        )
        yield Finding(
            "T14", "error", (counted or [fact.line or 1])[0], "With a cache the logits differ: new tokens get the positions of the first ones.",
            f"The last position with {fact['argument']} differs from that of the whole sequence by {fact['change']:.2g} of its size ({fact.id}).",
            "Start the positions at the length of the cache.", file=fact.file, facts=(fact.id,),
        )  # fmt: skip


__all__ = ["leaks", "names_in"]
