"""Facts as sentences, in English and Chinese: what the program itself says when no model, or a small one, is asked."""

import json
from collections.abc import Callable
from typing import Any, Literal

from bowerbird.reading.facts import Fact, FactStore

Language = Literal["en", "zh"]
_TELLING = (
    "module.tree",
    "module.parameters",
    "module.io",
    "optimizer.created",
    "loss.call",
    "event.step",
    "run.loop",
    "run.exception",
    "module.calls",
    "data.loader",
    "data.batch",
    "random.draw",
    "softmax.call",
    "run.stand_in",
    "run.warning",
    "scheduler.created",
)


def _shape(rows: Any) -> str:
    rows = [rows] if isinstance(rows, dict) else rows
    shapes = [row["shape"] for row in rows or [] if isinstance(row, dict) and isinstance(row.get("shape"), list)]
    return ", ".join("×".join(map(str, shape)) or "()" for shape in shapes) or "?"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}" if isinstance(value, float) else str(value)


def _owners(fact: Fact) -> str:
    return ", ".join(f"`{name}`" for name in fact["owners"] or {}) or "?"


def _rates(fact: Fact) -> str:
    betas = fact["betas"]
    return f"lr={fact['lr']}" + (f", betas={tuple(betas)}" if isinstance(betas, list) else "")


_WORDINGS: dict[str, dict[Language, Callable[[Fact], str]]] = {
    "module.tree": {
        "en": lambda f: f"`{f.subject}` is a {f['class']} with {_number(f['parameters'])} parameters",
        "zh": lambda f: f"`{f.subject}` 是 {f['class']}，共 {_number(f['parameters'])} 个参数",
    },
    "module.parameters": {
        "en": lambda f: f"`{f.subject}` has {_number(f.value)} parameters",
        "zh": lambda f: f"`{f.subject}` 有 {_number(f.value)} 个参数",
    },
    "module.io": {
        "en": lambda f: f"`{f.subject}` takes {_shape(f['in'])} and returns {_shape(f['out'])}",
        "zh": lambda f: f"`{f.subject}` 的输入形状是 {_shape(f['in'])}，输出形状是 {_shape(f['out'])}",
    },
    "module.calls": {
        "en": lambda f: f"`{f.subject}` was called {_number(f['calls'])} times",
        "zh": lambda f: f"`{f.subject}` 被调用 {_number(f['calls'])} 次",
    },
    "optimizer.created": {
        "en": lambda f: f"`{f.subject}` is {f['class']} ({_rates(f)}) and updates {_owners(f)}",
        "zh": lambda f: f"`{f.subject}` 是 {f['class']}（{_rates(f)}），更新 {_owners(f)}",
    },
    "loss.call": {
        "en": lambda f: f"the loss here is {f.subject}, {f['reduction']}; it was {_number(f['value'])}",
        "zh": lambda f: f"这里的损失是 {f.subject}，归约方式 {f['reduction']}，取值 {_number(f['value'])}",
    },
    "event.step": {
        "en": lambda f: f"`{f.subject}` took step {_number(f['n'])}, norm of gradients {_number(f['grad_norm'])}",
        "zh": lambda f: f"`{f.subject}` 走了第 {_number(f['n'])} 步，梯度范数 {_number(f['grad_norm'])}",
    },
    "run.loop": {
        "en": lambda f: f"the loop ran {_number(f['iterations'])} times",
        "zh": lambda f: f"循环运行了 {_number(f['iterations'])} 次",
    },
    "run.exception": {
        "en": lambda f: f"the program raised {f.subject}: {f['message']}",
        "zh": lambda f: f"程序抛出 {f.subject}：{f['message']}",
    },
    "run.stand_in": {
        "en": lambda f: f"{f.subject} was replaced to run the program: {f['reason']}",
        "zh": lambda f: f"为运行程序，{f.subject} 被替换：{f['reason']}",
    },
    "data.loader": {
        "en": lambda f: f"`{f.subject}` gives batches of {_number(f['batch_size'])}",
        "zh": lambda f: f"`{f.subject}` 的批大小是 {_number(f['batch_size'])}",
    },
    "random.draw": {
        "en": lambda f: f"{f.subject} draws a tensor of shape {'×'.join(map(str, f['shape'] or []))}",
        "zh": lambda f: f"{f.subject} 抽取形状 {'×'.join(map(str, f['shape'] or []))} 的张量",
    },
}  # fmt: skip


def sentence(fact: Fact, lang: Language) -> str:
    """One sentence without its full stop; the line at which it was seen, and its id, follow."""
    wording = _WORDINGS.get(fact.topic)
    if wording is not None and (fact.topic == "module.parameters" or isinstance(fact.value, dict)):
        said = wording[lang](fact)
    else:
        said = f"{fact.topic} · {fact.subject}: {json.dumps(fact.value, ensure_ascii=False)[:160]}"
    where = f" (line {fact.line})" if fact.line and lang == "en" else f"（第 {fact.line} 行）" if fact.line else ""
    return f"{said}{where} [{fact.id}]"


def telling(facts: FactStore) -> list[Fact]:
    """The facts that a reader asks for, one of each line and subject, the important topics first."""
    chosen: dict[tuple[str, str, int | None], Fact] = {}
    for topic in _TELLING:
        for fact in facts.of(topic):
            chosen.setdefault((topic, fact.subject, fact.line), fact)
    probes = {(f.topic, f.subject, f.line): f for f in facts if f.topic.startswith("probe.")}
    return [*chosen.values(), *probes.values()]
