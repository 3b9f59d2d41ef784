"""Step two: the overall structure and the flow, with a diagram drawn from facts."""

from collections.abc import Iterator

from bowerbird.reading.explain.costs import first_shape, shape_of
from bowerbird.reading.explain.diagram import Arrow, Diagram, Node
from bowerbird.reading.explain.reading import Block, Figure
from bowerbird.reading.explain.text import Ref, Text, name, number, shape
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact

TITLE = ("Overall structure and flow", "整体结构与数据流")


def write(w: Writer) -> Iterator[Block]:
    diagram = draw(w)
    if diagram.nodes:
        caption = w.say(
            "Drawn from what was observed: sources on the left, then networks, losses and optimisers; dashed lines "
            "lead from an optimiser to the network that it updates.",
            "根据观察绘制：左边是数据来源，然后是网络、损失和优化器；虚线从优化器指向它所更新的网络。",
        )
        yield Figure(diagram, caption)
    yield from w.items(_data(w))
    yield from w.items(_networks(w))
    yield from _schedules(w)


def _data(w: Writer) -> Iterator[Text]:
    facts = w.study.facts
    for fact in facts.of("data.loader")[:4]:
        yield w.say(
            "{l}: a loader over {d} ({n:example}), batches of {b}, shuffled: {s}.",
            "{l}：读取 {d}（{n} 个样本），每批 {b} 个，打乱：{s}。",
            l=w.line(fact), d=name(fact, "dataset"), n=number(fact, "len"), b=number(fact, "batch_size"),
            s=w.say("yes", "是") if fact["shuffle"] else w.say("no", "否"),
        )  # fmt: skip
    for fact in facts.of("data.batch")[:4]:
        for i, part in enumerate(fact["parts"] or []):
            if isinstance(part, dict) and part.get("min") is not None and part.get("shape"):
                yield w.say(
                    "A batch of {n} holds a tensor of {s}, values from {a} to {b}.",
                    "{n} 的一个批次含张量 {s}，取值从 {a} 到 {b}。",
                    n=name(fact), s=shape(fact, "parts", i, "shape"), a=number(fact, "parts", i, "min"),
                    b=number(fact, "parts", i, "max"),
                )  # fmt: skip


def _networks(w: Writer) -> Iterator[Text]:
    for tree in w.study.networks[:8]:
        io = w.study.facts.first("module.io", tree.subject)
        at = w.say("made at {l}", "创建于{l}", l=w.line(tree)) if tree.line else _unmade(w)
        made = w.say(
            "{n} is a {c}, {l}, with {p:parameter}",
            "{n} 是 {c}，{l}，有 {p} 个参数",
            n=name(tree), c=name(tree, "class"), l=at, p=number(tree, "parameters"),
        )  # fmt: skip
        if tree["trainable"] != tree["parameters"]:
            made += w.say(", {t} of them trainable", "，其中 {t} 个可训练", t=number(tree, "trainable"))
        taken = _summaries(io, "in") if io is not None else []
        given = _summaries(io, "out") if io is not None else []
        if io is not None and taken and given:
            made += w.say(": it takes {a} and returns {b}.", "：输入 {a}，输出 {b}。", a=taken, b=given)
        elif io is None:
            made += w.say("; it was never called.", "；没有被调用过。")
        else:
            made += w.say(".", "。")
        yield made


def _unmade(w: Writer) -> Text:
    return w.say("built for this reading", "为这次解读而构造")


def _summaries(fact: Fact, side: str) -> list[Ref]:
    """The shapes on one side of a call."""
    value = fact[side]
    if isinstance(value, dict) and "shape" in value:
        return [shape(fact, side, "shape")]
    entries = value.items() if isinstance(value, dict) else enumerate(value or [])
    return [shape(fact, side, key, "shape") for key, part in entries if isinstance(part, dict) and "shape" in part][:6]


def _schedules(w: Writer) -> Iterator[Block]:
    for fact in w.study.facts.of("probe.schedule")[:1]:
        keys = [k for k in ("T", "steps", "length") if isinstance(fact[k], int)]
        if keys:
            yield w.said(
                "A noise schedule of {n:step} was found.", "发现一个 {n} 步的噪声调度。", n=number(fact, keys[0])
            )


# ----------------------------------------------------------------------------------------------------- the diagram


def draw(w: Writer) -> Diagram:
    """Sources, networks by depth, losses, optimisers, and the arrows of the first round of training."""
    study = w.study
    nodes: dict[str, Node] = {}
    arrows: dict[tuple[str, str], Arrow] = {}
    calls: dict[int, Fact] = {f["call"]: f for f in study.facts.of("event.forward") if f["call"] is not None}
    backwards = {subject: facts[0] for subject, facts in study.passes().items() if _own(facts[0], calls)}
    used = {row["call"] for f in backwards.values() for row in f["through"] or []}
    used |= {c for number_ in list(used) if number_ in calls for c in calls[number_]["from"] or []}
    chosen = [calls[c] for c in sorted(used) if c in calls] or list(calls.values())[:4]
    depth = {c.subject: 0 for c in chosen}
    for call in chosen:
        for before in call["from"] or []:
            if before in calls and calls[before].subject in depth and calls[before].subject != call.subject:
                depth[call.subject] = max(depth[call.subject], depth[calls[before].subject] + 1)
    for call in chosen:
        _network(w, call, depth, nodes)
        _inputs(w, call, calls, nodes, arrows)
    last = 1 + max(depth.values(), default=0)
    for subject, backward in sorted(backwards.items(), key=lambda pair: pair[1]["seq"] or 0):
        _loss(w, subject, backward, calls, last + 1, nodes, arrows)
    _optimizers(w, {f.id: subject for subject, f in backwards.items()}, last + 2, nodes, arrows)
    return Diagram(tuple(nodes.values()), tuple(a for a in arrows.values() if a.source in nodes and a.target in nodes))


def _own(backward: Fact, calls: dict[int, Fact]) -> bool:
    """Whether a loss is the program's: it stands at a line of it, or a network returned it."""
    through = [calls[row["call"]] for row in backward["through"] or [] if row["call"] in calls]
    return bool(backward.line) or any(first_shape(call["out"]) == [] for call in through)


def _network(w: Writer, call: Fact, depth: dict[str, int], nodes: dict[str, Node]) -> None:
    tree = next((f for f in w.study.networks if f.subject == call.subject), None)
    detail = w.say("{p:parameter}", "{p} 个参数", p=number(tree, "parameters")) if tree is not None else Text()
    key = f"net {call.subject}"
    nodes.setdefault(key, Node(key, "network", Text((name(call),)), detail, 1 + depth[call.subject]))


def _inputs(
    w: Writer, call: Fact, calls: dict[int, Fact], nodes: dict[str, Node], arrows: dict[tuple[str, str], Arrow]
) -> None:
    """Where a call's inputs come from: other networks, the data, or drawn noise."""
    target = f"net {call.subject}"
    for before in call["from"] or []:
        if before in calls:
            source = f"net {calls[before].subject}"
            if source != target:
                arrows.setdefault((source, target), Arrow(source, target, _shown(w, call)))
    for i, part in enumerate(call["in"] or []):
        if not isinstance(part, dict) or not part.get("shape") or (call["from"] and i == 0):
            continue
        key = _source(w, part["shape"], nodes)
        if key:
            arrows.setdefault((key, target), Arrow(key, target, Text((shape(call, "in", i, "shape"),))))


def _shown(w: Writer, call: Fact) -> Text:
    return Text((shape(call, "in", 0, "shape"),)) if first_shape(call["in"]) else Text()


def _source(w: Writer, wanted: list[int], nodes: dict[str, Node]) -> str:
    """The node of the data or of the draw that has this shape."""
    facts = w.study.facts
    for batch in facts.of("data.batch"):
        for part in batch["parts"] or []:
            if isinstance(part, dict) and part.get("shape") == wanted:
                key = f"data {batch.subject}"
                nodes.setdefault(key, Node(key, "data", Text((name(batch),)), w.say("data", "数据"), 0))
                return key
    for draw_ in facts.of("random.draw"):
        if draw_["shape"] == wanted and not draw_.subject.endswith("_"):
            key = f"noise {draw_.subject} {draw_.line}"
            nodes.setdefault(key, Node(key, "noise", Text((name(draw_),)), Text((w.line(draw_),)), 0))
            return key
    key = "input"
    first = facts.first("event.forward")
    if first is not None:
        nodes.setdefault(key, Node(key, "data", w.say("input", "输入"), Text(), 0))
    return key


def _loss(
    w: Writer, subject: str, backward: Fact, calls: dict[int, Fact], column: int, nodes: dict[str, Node],
    arrows: dict[tuple[str, str], Arrow],
) -> None:  # fmt: skip
    found = w.study.facts.first("loss.identified", subject)
    key = f"loss {subject}"
    label = w.say("loss", "损失")
    if found is not None and found["expression"]:
        label = Text((name(found, "expression"),))
    nodes[key] = Node(key, "loss", label, Text((w.line(backward),)) if backward.line else Text(), column)
    through = backward["through"] or []
    feeding = {c for row in through for c in (calls[row["call"]]["from"] or [] if row["call"] in calls else [])}
    for row in through:
        if row["call"] in feeding or row["call"] not in calls:
            continue
        call = calls[row["call"]]
        source = f"net {call.subject}"
        label = (
            Text((shape(call, "out", "shape"),)) if isinstance(call["out"], dict) and "shape" in call["out"] else Text()
        )
        if not label and shape_of(call["out"]) is not None:
            label = Text((shape(call, "out", 0, "shape"),)) if isinstance(call["out"], list) else Text()
        arrows[source, key] = Arrow(source, key, label)


def _optimizers(
    w: Writer, backwards: dict[str, str], column: int, nodes: dict[str, Node], arrows: dict[tuple[str, str], Arrow]
) -> None:
    """Optimisers in their column: fed by the losses between their last step and this one, leading to what they own."""
    log = [f for f in w.study.events if f.topic in ("event.backward", "event.step")]
    for optimizer in w.study.optimizers:
        key = f"opt {optimizer.subject}"
        nodes[key] = Node(key, "optimizer", Text((name(optimizer),)), Text((name(optimizer, "class"),)), column)
        step = next((f for f in log if f.topic == "event.step" and f.subject == optimizer.subject), None)
        owners = optimizer["moves"] or []
        if step is not None:
            for backward in _feeding(log, step, set(step["owners"] or {})):
                source = f"loss {backwards.get(backward.id, '')}"
                arrows.setdefault((source, key), Arrow(source, key))
        for owner in owners:
            label = w.say("updates {n}", "更新 {n}", n=Ref(owner, optimizer.id, "name", owner))
            for node in [n for n in nodes if n == f"net {owner}" or n.startswith(f"net {owner}.")]:
                arrows[key, node] = Arrow(key, node, label, back=True)


def _feeding(log: list[Fact], step: Fact, owners: set[str]) -> list[Fact]:
    """The backward passes of the first round before a step that reach what it owns."""
    before = [f for f in log if f.topic == "event.backward" and (f["seq"] or 0) < (step["seq"] or 0)]
    others = [f for f in log if f.topic == "event.step" and (f["seq"] or 0) < (step["seq"] or 0)]
    since = others[-1]["seq"] if others else 0
    near = [f for f in before if f["seq"] > since]
    return [f for f in (near or before[-1:]) if owners & set(f["grads"] or {})] or near
