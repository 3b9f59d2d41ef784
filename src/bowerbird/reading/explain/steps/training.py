"""Step five: the training loop and its losses: who is updated when, with which loss, and how the numbers moved."""

from collections.abc import Iterator
from typing import Any

from bowerbird.reading.explain.reading import Block, Formula, Spark
from bowerbird.reading.explain.text import Piece, Ref, Text, general, joined, name, number
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact

TITLE = ("The training loop and its losses", "训练循环与损失")
_CARDS = {
    "gan": ("min-max", "update-ratio", "balance", "why-detach", "saturating", "mode-collapse"),
    "vae": ("reparameterisation", "kl-formula", "kl-reduction", "decoder-likelihood", "posterior-collapse"),
    "diffusion": ("eps-x0-v", "min-snr", "timestep-embedding", "ema"),
    "transformer": ("teacher-forcing", "label-shift", "causal-mask"),
    "recurrent": ("truncated-bptt", "gradient-clipping", "batch-first"),
    "classifier": ("zero-grad",),
}


def write(w: Writer) -> Iterator[Block]:
    study = w.study
    round_ = study.facts.first("training.round")
    if round_ is None:
        yield w.said("No training was observed.", "没有观察到训练。")
        for fact in study.facts.of("loss.identified"):
            if fact["functions"]:
                yield from _loss(w, fact)
        yield from _untrained(w)
        return
    yield w.heading("One round of training, in order", "一轮训练的先后顺序")
    yield from w.items([_event(w, round_, i, row) for i, row in enumerate(round_["events"])], ordered=True)
    yield from _counts(w, round_)
    for fact in study.facts.of("loss.identified"):
        yield from _loss(w, fact)
    yield from _optimizers(w)
    family = study.facts.first("program.family")
    for card in _CARDS.get(family.subject if family is not None else "", ()):
        yield from w.question(card, round_)
    yield from w.question("zero-grad", round_)


def _untrained(w: Writer) -> Iterator[Block]:
    """What the text says of training that did not happen."""
    unit = w.study.program.main
    for call in list(unit.calls("*.backward"))[:4]:
        code = w.excerpt(unit.file, max(1, call.lineno - 4), call.lineno + 2)
        if code is not None:
            yield code


# ------------------------------------------------------------------------------------------------------- the events


def _event(w: Writer, round_: Fact, place: int, row: dict[str, Any]) -> Text:
    fact = w.study.facts.get(row["fact"])
    assert fact is not None
    said = _happened(w, fact)
    if row["times"] > 1:
        said += w.say(", {t} times in a row", "，连续 {t} 次", t=number(round_, "events", place, "times"))
    return said


def _happened(w: Writer, fact: Fact) -> Text:
    line = w.line(fact)
    match fact.topic:
        case "event.zero_grad":
            return w.say("{l}: the gradients of {n} are cleared", "{l}：清空 {n} 的梯度", l=line, n=name(fact))
        case "event.forward":
            return _forward(w, fact, line)
        case "event.backward":
            return _backward(w, fact, line)
        case "event.clip":
            return w.say("{l}: gradients are clipped by {n}", "{l}：用 {n} 裁剪梯度", l=line, n=name(fact))
        case "event.scheduler":
            return w.say("{l}: the schedule {n} sets the learning rate", "{l}：{n} 调整学习率", l=line, n=name(fact))
        case "event.clamp":
            return w.say("{l}: the weights of {n} are clamped", "{l}：{n} 的权重被截断", l=line, n=name(fact))
    optimizer = next((o for o in w.study.optimizers if o.subject == fact.subject), fact)
    owners = [Ref(o, optimizer.id, "name", o) for o in optimizer["moves"] or fact["owners"] or {} if o]
    if owners:
        return w.say("{l}: {n} steps and moves {o}", "{l}：{n} 走一步，更新 {o}", l=line, n=name(fact), o=owners)
    return w.say("{l}: {n} steps", "{l}：{n} 走一步", l=line, n=name(fact))


def _forward(w: Writer, fact: Fact, line: Ref) -> Text:
    said = w.say("{l}: {n} is called", "{l}：调用 {n}", l=line, n=name(fact))
    calls = {f["call"]: f for f in w.study.facts.of("event.forward")}
    before = list(dict.fromkeys(calls[c].subject for c in fact["from"] or [] if c in calls))
    if before:
        names: list[Piece] = [Ref(b, next(f.id for f in calls.values() if f.subject == b), "name", b) for b in before]
        said += w.say(" with what {b} returned", "，输入是 {b} 的输出", b=names)
        if fact["detached"]:
            said += w.say(" (detached: no gradient goes back)", "（已 detach，梯度不回传）")
    return said


def _backward(w: Writer, fact: Fact, line: Ref) -> Text:
    networks = {f.subject for f in w.study.networks}
    reached = [Ref(k, fact.id, "name", k) for k in fact["grads"] or {} if k]
    if not {ref.shown for ref in reached} <= networks:
        reached = [Ref(k, fact.id, "name", k) for k in dict.fromkeys(r["module"] for r in fact["through"] or [])]
    said = w.say("{l}: backward from {v}", "{l}：从 {v} 反向传播", l=line, v=number(fact, "loss"))
    if reached:
        said += w.say(", gradients reach {r}", "，梯度到达 {r}", r=reached)
    return said


def _counts(w: Writer, round_: Fact) -> Iterator[Block]:
    steps = round_["steps"] or {}
    if len(steps) > 1:
        parts = [
            w.say("{n} {t:time}", "{n} {t} 次", n=Ref(k, round_.id, "name", k), t=number(round_, "steps", k))
            for k in steps
        ]
        yield w.said("In one round the optimisers step: {p}.", "一轮中各优化器的步数：{p}。", p=joined(parts, w.lang))


# ------------------------------------------------------------------------------------------------------- the losses


def _loss(w: Writer, fact: Fact) -> Iterator[Block]:
    title = name(fact, "expression") if fact["expression"] else Text((name(fact),))
    if fact.line:
        yield w.heading("The loss {n}, differentiated at {l}", "损失 {n}，在{l}求导", n=title, l=w.line(fact))
    else:
        yield w.heading("The loss that it returns", "它返回的损失")
    lines = fact["lines"] or []
    if lines and max(lines) - min(lines) < 30:
        code = w.excerpt(
            fact.file, min(lines), max(max(lines), fact.line or 0) if (fact.line or 0) - max(lines) < 8 else max(lines)
        )
        if code is not None:
            yield code
    yield from _written_in(w, fact)
    if fact["equation"]:
        yield Formula(Text((general(fact, fact["equation"]),)))
    yield from (Formula(Text((general(fact, f),))) for f in fact["formulas"] or [] if f and f != fact["equation"])
    yield from _evidence(w, fact)
    moved = w.study.facts.first("loss.moved", fact.subject)
    if moved is not None:
        label = w.say(
            "{a} → {b} over {n:backward pass/backward passes}", "{n} 次反向传播中 {a} → {b}",
            a=number(moved, "first"), b=number(moved, "last"), n=number(moved, "n"),
        )  # fmt: skip
        yield Spark(label, tuple(float(v) for v in moved["values"]), moved.id)


def _written_in(w: Writer, fact: Fact) -> Iterator[Block]:
    """The functions of the program in which the terms of a loss are computed."""
    places = {(file, line) for file, line in [*(fact["at"] or []), *(fact["pattern_lines"] or [])]}
    shown: set[str] = set()
    for file, line in sorted(places):
        for function in w.study.facts.of("define.function"):
            first, last = function["first"], function["last"]
            inside = function.file == file and first <= line <= last
            if inside and not first <= (fact.line or 0) <= last and last - first < 26 and function.id not in shown:
                shown.add(function.id)
                code = w.excerpt(file, first, last)
                if code is not None and len(shown) <= 2:
                    yield code


def _evidence(w: Writer, fact: Fact) -> Iterator[Block]:
    """How it is known that it is this loss."""
    through = [Ref(m, fact.id, "name", m) for m in fact["through"] or []]
    calls = [
        w.say(
            "{f} ({r}) at {l} gave {v}", "{l}的 {f}（{r}）得到 {v}",
            f=name(fact, "functions", i), r=name(fact, "reductions", i),
            l=w.line(fact, fact["at"][i][1], fact["at"][i][0]),
            v=number(fact, "values", i, form="exact"),
        )
        for i in range(len(fact["functions"] or [])) if fact["values"][i] is not None
    ]  # fmt: skip
    rule, total = fact["rule"], number(fact, "value", form="exact")
    if calls and rule == "last":
        yield w.said(
            "Identified by number: {c}, and {t} was differentiated.",
            "以数值认定：{c}，求导的正是 {t}。",
            c=calls[-1:],
            t=total,
        )
    elif calls and rule == "divided":
        yield w.said(
            "Identified by number: {c}; divided by {k} it is {t}, which was differentiated.",
            "以数值认定：{c}；除以 {k} 得 {t}，正是求导的数。",
            c=calls[-1:], k=number(fact, "parts", -1), t=total,
        )  # fmt: skip
    elif calls and rule in ("sum", "mean"):
        how = w.say("their sum", "它们之和") if rule == "sum" else w.say("their mean", "它们的平均")
        yield w.said(
            "Identified by number: {c}; {h} is {t}, which was differentiated.",
            "以数值认定：{c}；{h}为 {t}，正是求导的数。",
            c=calls,
            h=how,
            t=total,
        )
    elif calls and rule in ("rest", "weighted"):
        rest = number(fact, "parts", -1, form="exact")
        if rule == "weighted":
            yield w.said(
                "Of what was differentiated ({t}), {c}: a share of {r}.",
                "求导的数为 {t}，其中{c}；比值为 {r}。",
                t=total,
                c=calls,
                r=rest,
            )
        else:
            yield w.said(
                "Of what was differentiated ({t}), {c}; the remaining {r} comes from other terms.",
                "求导的数为 {t}，其中{c}；其余 {r} 来自其他项。", t=total, c=calls, r=rest,
            )  # fmt: skip
    else:
        yield w.said("What was differentiated is {t}.", "求导的数为 {t}。", t=total)
    patterns = fact["patterns"] or []
    if patterns:
        where = [w.line(fact, line, file) for file, line in fact["pattern_lines"]]
        yield w.said("Recognised by how it is written, at {l} that ran.", "从执行过的{l}的写法认出。", l=where)
    if through:
        yield w.said("It goes through {m}.", "它经过 {m}。", m=through)


def _optimizers(w: Writer) -> Iterator[Block]:
    rows: list[list[Piece]] = []
    for fact in w.study.optimizers:
        moved = w.study.facts.first("optimizer.moved", fact.subject)
        owners = [Ref(o, fact.id, "name", o) for o in fact["moves"] or []]
        ratio = Text((number(moved, "ratio"),)) if moved is not None and moved["ratio"] is not None else Text()
        norm = Text()
        if moved is not None and moved["grad_first"] is not None:
            norm = w.say("{a} → {b}", "{a} → {b}", a=number(moved, "grad_first"), b=number(moved, "grad_last"))
        rows.append([
            name(fact), name(fact, "class"), number(fact, "lr"), w.say("{o}", "{o}", o=owners), number(fact, "steps"),
            norm, ratio,
        ])  # fmt: skip
    if rows:
        yield w.heading("Who moves whom", "谁更新谁")
        head = (
            ("optimiser", "优化器"), ("class", "类型"), ("learning rate", "学习率"), ("moves", "更新"),
            ("steps", "步数"), ("gradient norm", "梯度范数"), ("step / weights", "步长 / 权重"),
        )  # fmt: skip
        yield w.table(head, rows)
