"""Answers on a terminal and in Markdown."""

import re

from bowerbird.reading.tutor.answer import Answer
from bowerbird.reading.tutor.claims import plain
from bowerbird.reading.tutor.sentences import Language
from bowerbird.reading.tutor.verify import Verdict

_MARKS = {"verified": "✓", "refuted": "✗", "unproven": "?", "background": "·"}
_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "refuted": "refuted",
        "unproven": "unproven",
        "background": "background, not checked",
        "line": "line",
        "lines": "lines",
        "score": "verified {verified} of {total}",
        "apart": "background {n}",
        "withdrawn": "withdrawn {n}",
        "offline": "No language model was asked (see --llm and --model). The nearest facts, findings and cards:",
        "prose": "The facts are the program's; the model only joined them.",
        "nothing": "Nothing here has to do with the question.",
        "tokens": "{prompt} + {completion} tokens",
        "about": "about ",
        "cached": "from the cache",
        "cost": "cost {cost:.4f}",
    },
    "zh": {
        "refuted": "被驳倒",
        "unproven": "未证实",
        "background": "背景知识，未核对",
        "line": "第",
        "lines": "第",
        "score": "已核实 {verified}/{total}",
        "apart": "背景 {n}",
        "withdrawn": "撤回 {n}",
        "offline": "没有询问语言模型（用 --llm URL --model NAME 询问）。最相关的事实、发现和卡片：",
        "prose": "事实由程序给出，模型只负责连接。",
        "nothing": "这里没有与问题相关的内容。",
        "tokens": "{prompt} + {completion} 个词元",
        "about": "约 ",
        "cached": "来自缓存",
        "cost": "费用 {cost:.4f}",
    },
}


def verdict_text(verdict: Verdict, lang: Language, *, colour: bool = False) -> str:
    """One claim with its mark, its citation, and why it does not hold."""
    words = _WORDS[lang]
    text = plain(verdict.claim.text).replace("\n", " ")
    if verdict.status == "refuted":
        text = f"\x1b[9m{text}\x1b[29m" if colour else f"~~{text}~~"
    line = f"{_MARKS[verdict.status]} {text}{_citation(verdict, lang)}"
    if verdict.status == "background":
        return f"{line} ({words['background']})"
    if verdict.status in ("refuted", "unproven"):
        line += f"\n    {words[verdict.status]}: {plain('; '.join(verdict.reasons[:3]))}"
    return line


def _citation(verdict: Verdict, lang: Language) -> str:
    parts = []
    if verdict.claim.lines:
        first, last = verdict.claim.lines
        span = f"{first}" if first == last else f"{first}-{last}"
        parts.append(f"第 {span} 行" if lang == "zh" else f"line{'s' if first != last else ''} {span}")
    parts += [f for f in verdict.claim.facts if f not in verdict.claim.text]
    return f" [{', '.join(parts)}]" if parts else ""


def summary(answer: Answer, price: tuple[float, float] | None = None) -> str:
    """The score and the cost in one line."""
    words = _WORDS[answer.lang]
    verified, total = answer.score
    parts = [words["score"].format(verified=verified, total=total)]
    if n := answer.count("background"):
        parts.append(words["apart"].format(n=n))
    if answer.withdrawn:
        parts.append(words["withdrawn"].format(n=answer.withdrawn))
    usage = answer.usage
    if usage.calls:
        counted = words["tokens"].format(prompt=usage.prompt_tokens, completion=usage.completion_tokens)
        parts.append(counted if usage.counted else words["about"] + counted)
        if price is not None:
            parts.append(words["cost"].format(cost=usage.cost(price)))
    if usage.cached_calls:
        parts.append(words["cached"])
    return " · ".join(parts)


def answer_text(answer: Answer, *, price: tuple[float, float] | None = None, colour: bool = False) -> str:
    """The whole answer as text; without colour it is Markdown."""
    words = _WORDS[answer.lang]
    if answer.mode == "offline":
        rows = [
            f"- {plain(p.text)}" + ("" if p.source in p.text else f" [{_source(p.source, p.line, answer.lang)}]")
            for p in answer.passages
        ]
        return "\n".join([words["offline"], "", *(rows or [words["nothing"]])])
    rows = [verdict_text(v, answer.lang, colour=colour) for v in answer.verdicts]
    head = [words["prose"]] if answer.mode == "prose" else []
    return "\n".join([*head, *rows, "", summary(answer, price)])


def _source(source: str, line: int | None, lang: Language) -> str:
    where = f", 第 {line} 行" if lang == "zh" else f", line {line}"
    return re.sub(r"^(card|check) ", "" if source.startswith("check") else r"\1 ", source) + (where if line else "")
