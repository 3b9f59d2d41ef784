"""What to mend, ordered by evidence: the findings of ``check``, each with its diff."""

from collections.abc import Iterator
from pathlib import Path

from bowerbird.reading.explain import cards
from bowerbird.reading.explain.perturb import compared
from bowerbird.reading.explain.reading import Advice, Block
from bowerbird.reading.explain.steps.settings import in_both
from bowerbird.reading.explain.study import Study
from bowerbird.reading.explain.text import Ref, Text, general, quote, told
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import Patch
from bowerbird.reading.rules import all_rules
from bowerbird.reading.wording import table

MOST_FINDINGS, MOST_FACTS, MOST_LINES, MOST_LOSSES = 20, 4, 8, 3


def remedies() -> dict[str, dict[str, str]]:
    """What each rule finds, why that goes wrong, and what to do, in Chinese."""
    return table(Path(__file__).parents[1] / "remedies.toml")


def shown(study: Study) -> list[Finding]:
    return [f for f in study.findings if f.severity != "ok"]


def write(w: Writer) -> Iterator[Block]:
    if not shown(w.study):
        yield w.said("advice.none")
    for finding, others in _grouped(shown(w.study))[:MOST_FINDINGS]:
        yield _finding(w, finding, others)
        yield from w.questions([c.id for c in cards.for_rule(finding.rule)[:1]], noted(w, finding))
    fine = sorted({f.rule for f in w.study.findings if f.severity == "ok"})
    if fine:
        yield w.said("advice.fine", w.study.add("check.fine", "rules", {"n": len(fine), "rules": fine}))


def _grouped(findings: list[Finding]) -> list[tuple[Finding, list[Finding]]]:
    """Notes of one rule are told once, with the other lines; errors and warnings each by themselves."""
    groups: list[tuple[Finding, list[Finding]]] = []
    for finding in findings:
        same = [g for f, g in groups if f.severity == finding.severity == "info" and f.rule == finding.rule]
        if same:
            same[0].append(finding)
        else:
            groups.append((finding, []))
    return groups


def noted(w: Writer, finding: Finding) -> Fact:
    """The fact of a finding."""
    file = finding.file or w.study.file
    known = [f for f in w.study.facts.of("check.finding", finding.rule, line=finding.line) if f.file == file]
    if known:
        return known[0]
    rule = all_rules().get(finding.rule)
    value = {**finding.to_json(), "title": rule.title if rule is not None else ""}
    value.pop("file")
    kind = "probed" if finding.severity == "error" else "observed" if finding.facts else "static"
    return w.study.add("check.finding", finding.rule, value, file=file, line=finding.line, kind=kind)


def message(w: Writer, fact: Fact) -> Ref:
    """What a finding says, in Chinese the title of its rule where there is one."""
    known = remedies().get(fact.subject) if w.lang == "zh" else None
    return Ref(known["title"], fact.id, "quote") if known is not None else quote(fact, "message")


def _finding(w: Writer, finding: Finding, others: list[Finding]) -> Advice:
    fact = noted(w, finding)
    severity = Ref(w.words(f"severity.{finding.severity}"), fact.id, "quote")
    title = w.say("advice.finding", fact, severity=severity, rule=quote(fact), message=message(w, fact))
    known = remedies().get(finding.rule) if w.lang == "zh" else None
    body = list(_in_chinese(w, finding, fact, known) if known is not None else _in_english(w, finding, fact))
    if others:
        body.append(w.say("advice.also", lines=[w.line(noted(w, f)) for f in others[:MOST_LINES]]))
    if finding.patch is not None:
        body += _effect(w, finding.patch, fact)
    return Advice(finding.severity, title, tuple(body), _diff(w, finding.patch), fact.id)


def _in_english(w: Writer, finding: Finding, fact: Fact) -> Iterator[Text]:
    """Evidence and remedy in the rule's own words."""
    if finding.evidence:
        yield w.say("advice.evidence", what=quote(fact, "evidence", most=600))
    facts = [identity for identity in finding.facts if identity not in finding.evidence]
    if facts:
        yield w.say("advice.rests", facts=[Ref(i, fact.id, "quote") for i in facts[:MOST_LINES]])
    if finding.fix:
        yield w.say("advice.remedy", what=quote(fact, "fix"))


def _in_chinese(w: Writer, finding: Finding, fact: Fact, known: dict[str, str]) -> Iterator[Text]:
    """What goes wrong, the facts, and the remedy in Chinese; the rule's own words, which name the place, last."""
    yield Text((general(fact, known["why"]),))
    facts = [f for identity in finding.facts if (f := w.study.facts.get(identity)) is not None]
    for seen in facts[:MOST_FACTS]:
        said = w.say("advice.seen" if seen.line else "advice.placeless", seen, said=told(seen, w.lang),
                     id=Ref(seen.id, seen.id, "quote"))  # fmt: skip
        yield w.say("advice.evidence", what=said)
    yield w.say("advice.remedy", what=general(fact, known["fix"]))
    words = " ".join(" ".join(part for part in (finding.message, finding.evidence, finding.fix) if part).split())
    yield w.say("advice.own", what=Ref(words, fact.id, "quote", words))


def _effect(w: Writer, patch: Patch, fact: Fact) -> list[Text]:
    """What the patched program did differently, where it can be run."""
    known = w.study.facts.first("patch.effect", patch.label)
    if known is None:
        after = w.study.run.patched(patch) if w.study.run.rerun is not None else None
        if after is None or after.first("run.program") is None:
            return [w.say("advice.unrun")]
        value = compared(w.study.facts, after)
        known = w.study.add("patch.effect", patch.label, value, like=fact, kind="probed", run=f"patched:{patch.label}")
    said = [w.say("advice.raises", known)] if known["failed"] else []
    changed = [(i, row) for i, row in enumerate((known["losses"] or [])[:MOST_LOSSES]) if row["was"] != row["is"]]
    return said + [w.say("advice.loss", **in_both(w, known, i, row)) for i, row in changed] or [w.say("advice.same")]


def _diff(w: Writer, patch: Patch | None) -> str:
    """A diff with the names of files as a reader knows them."""
    diff = patch.diff(w.study.source.texts) if patch is not None else ""
    for file in w.study.source.texts:
        diff = diff.replace(file, w.study.short(file))
    return diff
