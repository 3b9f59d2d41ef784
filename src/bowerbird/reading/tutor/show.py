"""Answers on a terminal and in Markdown."""

from pathlib import Path
from typing import Any

from bowerbird.reading.tutor.answer import Answer, Passage
from bowerbird.reading.tutor.claims import plain
from bowerbird.reading.tutor.verify import Verdict
from bowerbird.reading.wording import Language, sentences

WORDS = sentences(Path(__file__).with_name("words.toml"))
_MARKS = {"verified": "✓", "refuted": "✗", "unproven": "?", "background": "·"}


def say(key: str, lang: Language, **values: Any) -> str:
    return WORDS[key][lang].format(**values)


def verdict_text(verdict: Verdict, lang: Language, *, colour: bool = False) -> str:
    """One claim with its mark, its citation, and why it does not hold."""
    text = plain(verdict.claim.text).replace("\n", " ")
    if verdict.status == "refuted":
        text = f"\x1b[9m{text}\x1b[29m" if colour else f"~~{text}~~"
    line = f"{_MARKS[verdict.status]} {text}{_citation(verdict, lang)}"
    if verdict.status == "background":
        return f"{line} ({say('background', lang)})"
    if verdict.status in ("refuted", "unproven"):
        line += f"\n    {say(verdict.status, lang)}: {plain('; '.join(verdict.reasons[:3]))}"
    return line


def _citation(verdict: Verdict, lang: Language) -> str:
    first, last = verdict.claim.lines or (0, 0)
    parts = [_lines(first, last, lang)] if first else []
    parts += [f for f in verdict.claim.facts if f not in verdict.claim.text]
    return f" [{', '.join(parts)}]" if parts else ""


def _lines(first: int, last: int, lang: Language) -> str:
    return say("line", lang, span=first) if first == last else say("lines", lang, span=f"{first}-{last}")


def summary(answer: Answer, price: tuple[float, float] | None = None) -> str:
    """The score and the cost in one line."""
    lang, usage, (verified, total) = answer.lang, answer.usage, answer.score
    parts = [say("score", lang, verified=verified, total=total)]
    for key, n in (("apart", answer.count("background")), ("withdrawn", answer.withdrawn)):
        parts += [say(key, lang, n=n)] if n else []
    if usage.calls:
        key = "counted" if usage.counted else "estimated"
        parts.append(say(key, lang, prompt=usage.prompt_tokens, completion=usage.completion_tokens))
        parts += [say("cost", lang, cost=usage.cost(price))] if price is not None else []
    return " · ".join(parts + ([say("cached", lang)] if usage.cached_calls else []))


def answer_text(answer: Answer, *, price: tuple[float, float] | None = None, colour: bool = False) -> str:
    """The whole answer as text; without colour it is Markdown."""
    if answer.mode == "offline":
        rows = [_passage(passage, answer.lang) for passage in answer.passages] or [say("nothing", answer.lang)]
        return "\n".join([say("offline", answer.lang), "", *rows])
    rows = [verdict_text(v, answer.lang, colour=colour) for v in answer.verdicts]
    head = [say("prose", answer.lang)] if answer.mode == "prose" else []
    return "\n".join([*head, *rows, "", summary(answer, price)])


def _passage(passage: Passage, lang: Language) -> str:
    """What answers without a model, with where it is from."""
    source = passage.source.removeprefix("check ").replace("card ", f"{say('card', lang)} ")
    where = f", {_lines(passage.line, passage.line, lang)}" if passage.line else ""
    return f"- {plain(passage.text)}" + ("" if passage.source in passage.text else f" [{source}{where}]")
