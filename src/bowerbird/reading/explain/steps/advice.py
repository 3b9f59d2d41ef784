"""Step seven: improvements ordered by evidence: findings of ``check``, then suggestions, each with its diff."""

import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from bowerbird.reading.explain import cards
from bowerbird.reading.explain.evidence import in_chinese
from bowerbird.reading.explain.perturb import compared
from bowerbird.reading.explain.reading import Advice, Block
from bowerbird.reading.explain.steps.settings import place_of
from bowerbird.reading.explain.suggest import Suggestion, suggestions
from bowerbird.reading.explain.text import Ref, Text, general, number, quote
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import Patch
from bowerbird.reading.rules import all_rules

TITLE = ("Improvements, ordered by evidence", "改进建议，按证据强弱排序")
_WORDS = {
    "error": ("error", "错误"),
    "warning": ("warning", "警告"),
    "info": ("note", "提示"),
    "suggestion": ("suggestion", "建议"),
}


@cache
def titles() -> dict[str, str]:
    """What each rule finds, in Chinese."""
    return tomllib.loads(Path(__file__).parents[1].joinpath("titles.toml").read_text(encoding="utf-8"))


@cache
def remedies() -> dict[str, dict[str, str]]:
    """What goes wrong where a rule finds something (``why``), and what to do (``fix``), in Chinese."""
    return tomllib.loads(Path(__file__).parents[1].joinpath("remedies.toml").read_text(encoding="utf-8"))


def write(w: Writer) -> Iterator[Block]:
    shown = [f for f in w.study.findings if f.severity != "ok"]
    fine = [f for f in w.study.findings if f.severity == "ok"]
    if not shown:
        yield w.said("Checking found no defect.", "检查没有发现缺陷。")
    for finding, others in _grouped(shown)[:20]:
        yield _finding(w, finding, others)
        for card in cards.for_rule(finding.rule)[:1]:
            fact = w.study.facts.first("check.finding", finding.rule, line=finding.line)
            if fact is not None:
                yield from w.question(card.id, fact)
    if fine:
        counted = w.study.add(
            "check.fine", "rules", {"n": len({f.rule for f in fine}), "rules": sorted({f.rule for f in fine})}
        )
        yield w.said("Checked and found fine: {n:rule}.", "检查后没有问题的规则：{n} 条。", n=number(counted, "n"))
    offered = list(suggestions(w.study))
    if offered:
        yield w.heading("Well-founded suggestions", "有依据的建议")
    for suggestion in offered:
        yield _suggested(w, suggestion)
        yield from w.question(suggestion.card, suggestion.fact)


def _grouped(findings: list[Finding]) -> list[tuple[Finding, list[Finding]]]:
    """Notes of one rule are told once, with the other lines; errors and warnings each by themselves."""
    groups: list[tuple[Finding, list[Finding]]] = []
    for finding in findings:
        first = next(
            (g for f, g in groups if f.severity == finding.severity == "info" and f.rule == finding.rule), None
        )
        if first is not None:
            first.append(finding)
        else:
            groups.append((finding, []))
    return groups


def _finding(w: Writer, finding: Finding, others: list[Finding]) -> Advice:
    rule = all_rules().get(finding.rule)
    also = [f.line for f in others]
    value = {**finding.to_json(), "title": rule.title if rule is not None else "", "also": also}
    value.pop("file")
    kind = "probed" if finding.severity == "error" else "observed" if finding.facts else "static"
    fact = w.study.add(
        "check.finding", finding.rule, value, file=finding.file or w.study.file, line=finding.line, kind=kind
    )
    en, zh = _WORDS[finding.severity]
    said = quote(fact, "message")
    chinese = titles().get(finding.rule, "") if w.lang == "zh" else ""
    title = w.say(
        "{s} {r} at {l}: {m}", "{s} {r}，{l}：{m}",
        s=Ref(w.words(en, zh), fact.id, "quote"), r=quote(fact), l=w.line(fact),
        m=Ref(chinese, fact.id, "quote") if chinese else said,
    )  # fmt: skip
    known = remedies().get(finding.rule) if chinese else None
    body = _in_chinese(w, finding, fact, known) if known is not None else _in_english(w, finding, fact, bool(chinese))
    if others:
        lines = [w.line(fact, f.line, f.file) for f in others[:8]]
        body.append(w.say("The same at {l}.", "{l}同样如此。", l=lines))
    diff = finding.patch.diff(w.study.source.texts) if finding.patch is not None else ""
    if finding.patch is not None:
        body += _effect(w, finding.patch, fact)
    return Advice(finding.severity, title, tuple(body), _shortened(w, diff), fact.id)


def _in_english(w: Writer, finding: Finding, fact: Fact, titled: bool) -> list[Text]:
    """Evidence and remedy in the rule's own words; ``titled`` where its message is not the title."""
    body = [Text((quote(fact, "message"),))] if titled else []
    if finding.evidence:
        body.append(w.say("Evidence: {e}", "证据：{e}", e=quote(fact, "evidence", most=600)))
    if finding.facts:
        body.append(w.say("It rests on {f}.", "依据 {f}。", f=[Ref(i, fact.id, "quote") for i in finding.facts[:8]]))
    if finding.fix:
        body.append(w.say("Remedy: {x}", "改法：{x}", x=quote(fact, "fix", most=400)))
    return body


def _in_chinese(w: Writer, finding: Finding, fact: Fact, known: dict[str, str]) -> list[Text]:
    """What goes wrong, the facts, and the remedy in Chinese; the rule's own words, which name the place, last."""
    body = [Text((general(fact, known["why"]),))]
    body += [w.say("证据：{e}", "证据：{e}", e=said) for said in in_chinese(w, finding)]
    body.append(w.say("改法：{x}", "改法：{x}", x=general(fact, known["fix"])))
    words = " ".join(part for part in (finding.message, finding.evidence, finding.fix) if part)
    body.append(w.say("检查的原话：{m}", "检查的原话：{m}", m=Ref(" ".join(words.split()), fact.id, "quote", words)))
    return body


def _suggested(w: Writer, suggestion: Suggestion) -> Advice:
    fact = suggestion.fact
    en, zh = _WORDS["suggestion"]
    title = w.say(
        "{s} at {l}: {m}", "{s}，{l}：{m}", s=Ref(w.words(en, zh), fact.id, "quote"), l=w.line(fact),
        m=Ref(suggestion.said[w.lang], fact.id, "general"),
    )  # fmt: skip
    diff = suggestion.patch.diff(w.study.source.texts) if suggestion.patch is not None else ""
    silent = fact.topic == "suggest.seed"  # readings are seeded anyway
    body = _effect(w, suggestion.patch, fact) if suggestion.patch is not None and not silent else []
    return Advice("suggestion", title, tuple(body), _shortened(w, diff), fact.id)


def _effect(w: Writer, patch: Patch, fact: Fact) -> list[Text]:
    """What the patched program did differently, where it can be run."""
    known = w.study.facts.first("patch.effect", patch.label)
    if known is None:
        after = w.study.run.patched(patch) if w.study.run.rerun is not None else None
        if after is None or after.first("run.program") is None:
            return [w.say("Its diff was not run.", "该修改未经运行。")]
        value = compared(w.study.facts, after)
        known = w.study.add("patch.effect", patch.label, value, like=fact, kind="probed", run=f"patched:{patch.label}")
    said = []
    if known["failed"]:
        said.append(w.say("With it the program raises {m}.", "修改后程序抛出 {m}。", m=quote(known, "failed")))
    for i, row in enumerate((known["losses"] or [])[:3]):
        given: dict[str, Any] = {
            "l": place_of(w, known, row), "n": number(known, "losses", i, "n"),
            "a": number(known, "losses", i, "was"), "b": number(known, "losses", i, "is"),
        }  # fmt: skip
        if row["was"] != row["is"]:
            said.append(
                w.say(
                    "With it the loss of {l} after {n:step} is {b} instead of {a}.",
                    "修改后{l}的损失在第 {n} 步后为 {b}，原为 {a}。", **given,
                )
            )  # fmt: skip
    if said:
        return said
    return [w.say("With it the program ran, and its first losses are the same.", "修改后程序能运行，最初的损失不变。")]


def _shortened(w: Writer, diff: str) -> str:
    """A diff with the names of files as a reader knows them."""
    for file in w.study.source.texts:
        diff = diff.replace(file, w.study.short(file))
    return diff
