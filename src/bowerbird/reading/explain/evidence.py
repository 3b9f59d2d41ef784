"""The facts of a finding as sentences in Chinese; a rule's own words are English."""

from collections.abc import Iterator
from typing import Any

from bowerbird.reading.explain.text import Ref, Text, figure, name, number
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact
from bowerbird.reading.findings import Finding

MOST_FACTS, MOST_VALUES = 4, 5
_PHRASES = {
    "event.backward": "从 {loss} 反向传播",
    "event.step": "{n} 走一步",
    "event.forward": "调用 {n}",
    "event.zero_grad": "清空 {n} 的梯度",
    "event.scheduler": "{n} 调整学习率",
    "event.clip": "用 {n} 裁剪梯度",
    "event.clamp": "{n} 的权重被截断",
    "event.mode": "{n} 切换模式",
    "run.exception": "抛出 {n}",
    "loss.call": "损失 {n} 得到 {value}",
    "loss.last": "损失 {n} 最后得到 {value}",
    "optimizer.created": "建立 {class}，学习率 {lr}",
    "module.tree": "{n} 有 {parameters} 个参数",
    "module.calls": "{n} 被调用 {calls} 次",
    "module.io": "{n} 的输入与输出",
    "softmax.call": "{n} 沿第 {dim} 维归一",
    "random.draw": "{n} 抽取随机数",
    "tensor.broadcast": "{n} 广播了形状",
    "function.call": "调用函数 {n}",
    "image.saved": "{n} 保存图像",
    "data.batch": "{n} 给出一批数据",
    "data.loader": "读取 {dataset}",
}


def in_chinese(w: Writer, finding: Finding) -> list[Text]:
    """What was observed, one sentence for each fact that a finding cites."""
    facts = [f for identity in finding.facts if (f := w.study.facts.get(identity)) is not None]
    return [_told(w, fact) for fact in facts[:MOST_FACTS]]


def _told(w: Writer, fact: Fact) -> Text:
    template = _PHRASES.get(fact.topic, "对 {n} 的试验")
    given: dict[str, Any] = {"n": name(fact)}
    for key in ("loss", "value", "lr", "parameters", "calls", "dim"):
        given[key] = number(fact, key)
    for key in ("class", "dataset"):
        given[key] = name(fact, key)
    said = w.say(template, template, **given)
    if fact.line:
        said = w.say("{l}：", "{l}：", l=w.line(fact)) + said
    if fact.topic not in _PHRASES:
        values = list(_values(fact))
        if values:
            said += w.say("，测得 {v}", "，测得 {v}", v=values)
    return said + w.say("（{f}）。", "（{f}）。", f=Ref(fact.id, fact.id, "quote"))


def _values(fact: Fact) -> Iterator[Text]:
    """The plain entries of what a probe measured."""
    entries = fact.value.items() if isinstance(fact.value, dict) else ()
    plain = [(k, v) for k, v in entries if isinstance(v, bool | int | float) or (isinstance(v, str) and len(v) < 40)]
    for key, value in plain[:MOST_VALUES]:
        shown = {True: "是", False: "否"}[value] if isinstance(value, bool) else figure(value)
        yield Text((Ref(f"{key} = {shown}", fact.id, "quote", value),))
