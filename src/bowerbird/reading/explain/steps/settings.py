"""Step four: every parameter that somebody chose: what it means, where it is set and used, why, and what it changes."""

from collections.abc import Iterator
from typing import Any

from bowerbird.reading.explain import glossary
from bowerbird.reading.explain.glossary import Entry
from bowerbird.reading.explain.perturb import shrunk
from bowerbird.reading.explain.reading import Block
from bowerbird.reading.explain.text import Ref, Text, figure, general, joined, name, number, quote
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact

TITLE = ("Every parameter", "每个参数")
MOST_TOLD, MOST_LISTED = 14, 40
_KINDS = {
    "constant": ("a constant", "常量"),
    "option": ("an option of the command line", "命令行选项"),
    "entry": ("an entry of a table", "表中的一项"),
    "field": ("a field of {of}", "{of} 的字段"),
    "default": ("a default of {of}", "{of} 的默认值"),
    "argument": ("an argument of {of}", "{of} 的参数"),
    "rounds": ("the rounds of a loop", "循环次数"),
}


def write(w: Writer) -> Iterator[Block]:
    found = _ranked(w)
    if not found:
        yield w.said("No settings with fixed values were found.", "没有发现固定取值的设置。")
        return
    changed = {f["setting"]: f for f in w.study.facts.of("setting.changed")}
    told: set[str] = set()
    rest: list[tuple[Fact, Entry | None]] = []
    for fact, entry in found:
        if entry is None or entry.rank >= 40 or entry.id in told or len(told) >= MOST_TOLD:
            rest.append((fact, entry))
            continue
        told.add(entry.id)
        yield from _told(w, fact, entry, changed)
    if changed:
        yield w.said(
            "Measured means: the program ran again with only that value altered, under the same seed, for as many "
            "steps. It shows what the setting does at once, not its effect on a finished model.",
            "“实测”指：只改动该值，在同一随机种子下重跑同样多的步数。它显示立刻产生的变化，而不是对训练完成的模型的影响。",
        )
    if rest:
        yield w.heading("The others", "其余参数")
        head = (("name", "名称"), ("value", "取值"), ("set at", "设置于"), ("used at", "用于"), ("meaning", "含义"))
        yield w.table(head, [_listed(w, fact, entry) for fact, entry in rest[:MOST_LISTED]])


def _ranked(w: Writer) -> list[tuple[Fact, Entry | None]]:
    pairs = [(fact, glossary.fitting(fact.subject, fact["value"])) for fact in w.study.facts.of("setting.value")]
    order = {"constant": 0, "option": 0, "entry": 0, "field": 1, "argument": 2, "rounds": 3, "default": 4}
    kept = [(f, e) for f, e in pairs if e is not None or f["uses"] or f["help"]]
    return sorted(kept, key=lambda p: (p[1].rank if p[1] else 99, order.get(p[0]["kind"], 5), p[0].position))


def _told(w: Writer, fact: Fact, entry: Entry, changed: dict[str, Fact]) -> Iterator[Block]:
    yield w.heading("{n} = {v}", "{n} = {v}", n=name(fact), v=_value(fact))
    en, zh = _KINDS[fact["kind"]]
    given: dict[str, Any] = {"of": name(fact, "of")} if "{of}" in en else {}
    kind = w.say(en, zh, **given)
    uses = fact["uses"] or []
    where = w.say("Set at {l}, {k}", "设置于{l}，{k}", l=w.line(fact), k=kind)
    where += w.say("; used at {u}.", "；用于{u}。", u=w.lines(fact, uses)) if uses else w.say(".", "。")
    items = [where]
    if fact["help"]:
        items.append(w.say("In the program's words: “{h}”", "程序中的说明：“{h}”", h=quote(fact, "help", most=220)))
    smaller = shrunk(w.study, fact.subject)
    if smaller is not None:
        items.append(w.say("Made smaller for this run: {s}.", "这次运行中缩小为：{s}。", s=quote(smaller)))
    items.append(Text((general(fact, entry.meaning[w.lang]),)))
    items.append(w.say("Why this value: {y}", "为何取此值：{y}", y=general(fact, entry.why[w.lang])))
    items.append(w.say("If it changes: {c}", "改变它会怎样：{c}", c=general(fact, entry.change[w.lang])))
    items.append(_measured(w, fact, changed.get(fact.id)))
    yield from w.items(items)
    for card in entry.cards:
        if w.concerns(card):
            yield from w.question(card, fact)


def _value(fact: Fact) -> Ref:
    value = fact["value"]
    return Ref(str(fact["text"]), fact.id, "name" if isinstance(value, str) else "number", value)


def _measured(w: Writer, fact: Fact, changed: Fact | None) -> Text:
    if changed is None:
        return w.say("Not measured.", "未实测。")
    parts: list[Text] = []
    before, after = changed["parameters"] or [0, 0]
    if changed["failed"]:
        parts.append(w.say("the program fails ({m})", "程序报错（{m}）", m=quote(changed, "failed", most=120)))
    if before != after:
        parts.append(
            w.say(
                "parameters {a} → {b}",
                "参数量 {a} → {b}",
                a=number(changed, "parameters", 0),
                b=number(changed, "parameters", 1),
            )
        )
    for i, row in enumerate((changed["losses"] or [])[:3]):
        if figure(row["was"]) != figure(row["is"]):
            parts.append(
                w.say(
                    "loss of {p} after {n:step} {a} → {b}", "{p}的损失在第 {n} 步后 {a} → {b}",
                    p=place_of(w, changed, row), n=number(changed, "losses", i, "n"),
                    a=number(changed, "losses", i, "was"), b=number(changed, "losses", i, "is"),
                )
            )  # fmt: skip
    first = changed["first_step"]
    if first and figure(first[0]) != figure(first[1]):
        parts.append(
            w.say(
                "length of the first step {a} → {b}", "第一步的长度 {a} → {b}",
                a=number(changed, "first_step", 0), b=number(changed, "first_step", 1),
            )
        )  # fmt: skip
    if not parts and not changed["losses"]:
        return w.say("Not measured: nothing in this run was trained with it.", "未实测：这次运行中没有用它训练。")
    what = joined(parts, w.lang) if parts else w.say("nothing that a few steps show", "几步之内看不出变化")
    return w.say(
        "Measured with {v}: {w}.",
        "实测取 {v}：{w}。",
        v=Ref(str(changed["is"]), changed.id, "number", changed["is"]),
        w=what,
    )


def place_of(w: Writer, fact: Fact, row: dict[str, Any]) -> Text:
    """Where a compared loss is differentiated, and through which networks where one line has several."""
    if not row["line"]:
        return w.say("what it returns", "它返回的值")
    at = w.line(fact, row["line"], row["file"])
    if not row["through"]:
        return Text((at,))
    return w.say("{l} through {m}", "{l}经过 {m} ", l=at, m=[Ref(m, fact.id, "name", m) for m in row["through"]])


def _listed(w: Writer, fact: Fact, entry: Entry | None) -> list[Text]:
    meaning = Text()
    if fact["help"]:
        meaning = Text((quote(fact, "help", most=160),))
    elif entry is not None:
        meaning = Text((general(fact, entry.meaning[w.lang]),))
    uses = fact["uses"] or []
    return [
        Text((name(fact),)), Text((_value(fact),)), Text((w.line(fact),)), w.lines(fact, uses) if uses else Text(),
        meaning,
    ]  # fmt: skip
