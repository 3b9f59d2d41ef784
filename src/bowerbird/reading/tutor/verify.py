"""Verification: the verdict on a claim, computed from the code and its facts alone, and the sentence that says it.

verified    it holds
refuted     it does not; the reason says what does
unproven    it cannot be decided
background  a reason: it says nothing of this program, and is not checked
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bowerbird.reading.tutor.claims import FORMS, Claim
from bowerbird.reading.tutor.material import Material, sentence
from bowerbird.reading.tutor.relations import Outcome
from bowerbird.reading.wording import Language, sentences

Status = Literal["verified", "refuted", "unproven", "background"]
WORDS = sentences(Path(__file__).with_name("words.toml"))
_HERE = re.compile(
    r"\d|[零二两三四五六七八九十百千万亿]\s*[个层种次行]|这里|此处|本程序|这段|这个|该|上面|作者|论文|文献|文档"
    r"|\b(?:here|this|above|below|your|our|line|lines|it|its|et al|arxiv|papers?|documentation|docs|"
    r"according|two|three|four|five|six|seven|eight|nine|ten|dozen|hundred|thousand|million)\b",
    re.I,
)
"""What a sentence about no program in particular does not say: numbers, pointers, authorities that nobody looks up."""


@dataclass(frozen=True)
class Verdict:
    claim: Claim
    status: Status
    reasons: tuple[str, ...] = ()
    """Why it is refuted or unproven."""
    evidence: tuple[str, ...] = ()


def verify(claim: Claim, material: Material, lang: Language = "en") -> Verdict:
    """The verdict on one claim, with the sentence that says it."""
    missing = [name for name in FORMS[claim.kind] if claim.states.get(name) in (None, "")]
    if missing:
        said = replace(claim, text=claim.text or " ".join(str(v) for v in claim.states.values()))
        return Verdict(said, "unproven", (f"it says no {missing[0]}",))
    if claim.kind == "reason":
        return _background(claim, material)
    outcome, claim = _DECIDED[claim.kind](claim, material, lang)
    denied = claim.states.get("holds") is False
    claim = claim if claim.text else replace(claim, text=_said(claim, lang, denied))
    if outcome.truth is None:
        return Verdict(claim, "unproven", (f"not known: {outcome.says}",))
    if outcome.truth == denied:
        return Verdict(claim, "refuted", (outcome.says,))
    return Verdict(claim, "verified", (), (outcome.says,))


def _said(claim: Claim, lang: Language, denied: bool) -> str:
    states = {key: str(value).strip("`") for key, value in claim.states.items()}
    space = " " if lang == "zh" else ""
    whose = f"`{states['module']}`{space}" if states.get("module") else WORDS["program"][lang]
    return WORDS[f"{'denied' if denied else 'claim'}.{claim.kind}"][lang].format(**{"whose": whose, **states})


def _background(claim: Claim, material: Material) -> Verdict:
    """Words of the model's own stand where they are about no program in particular."""
    claim = replace(claim, text=str(claim.states["text"]))
    if _HERE.search(claim.text) or material.names.speaks_of(claim.text):
        return Verdict(claim, "unproven", ("it speaks of this program, and in words that nobody can check",))
    return Verdict(claim, "background", (), ("says nothing of this program",))


# ------------------------------------------------------------------------------------------------ the forms

Decided = tuple[Outcome, Claim]


def _related(method: str, *names: str) -> Callable[[Claim, Material, Language], Decided]:
    def decided(claim: Claim, material: Material, lang: Language) -> Decided:
        given = [str(claim.states.get(name, "")).strip("`") for name in names]
        return getattr(material.relations, method)(*given), claim

    return decided


def _count(claim: Claim, material: Material, lang: Language) -> Decided:
    n = claim.states["n"]
    if not isinstance(n, int | float):
        return Outcome(None, "how many it means"), claim
    module = str(claim.states.get("module", "")).strip("`")
    return material.relations.count(module, str(claim.states["type"]), n), claim


def _line(claim: Claim, material: Material, lang: Language) -> Decided:
    number, code = claim.states["line"], str(claim.states["code"])
    if not isinstance(number, int) or not 1 <= number <= len(material.unit.lines):
        return Outcome(False, f"the program has lines 1 to {len(material.unit.lines)}"), claim
    claim = replace(claim, lines=(number, number))
    stands = material.unit.lines[number - 1].partition("#")[0].strip()
    squeezed = [re.sub(r"\s+", "", text) for text in (code, stands)]
    return Outcome(bool(squeezed[0]) and squeezed[0] in squeezed[1], f"line {number} is `{stands[:80]}`"), claim


def _fact(claim: Claim, material: Material, lang: Language) -> Decided:
    """The claim of a fact, said in the program's own words."""
    fact = next((f for f in material.telling() if f.id == claim.states["id"]), None)
    if fact is None:
        return Outcome(False, "there is no such fact among those that were given"), claim
    if claim.states.get("holds") is False:
        return Outcome(True, sentence(fact, lang)), claim
    lines = (fact.line, fact.line) if fact.line else None
    return Outcome(True, f"it is {fact.id}"), replace(claim, text=sentence(fact, lang), facts=(fact.id,), lines=lines)


def _finding(claim: Claim, material: Material, lang: Language) -> Decided:
    """A defect is one when a rule names it: then its own sentence is said, at its line."""
    named = [f for f in material.findings if f.rule == claim.states["rule"] and f.severity in ("error", "warning")]
    at: Any = claim.states.get("line")
    found = next((f for f in named if at in (None, f.line)), None)
    if found is None:
        where = f"; it does at line {named[0].line}" if named else ""
        return Outcome(False, f"`check` does not say so there{where}"), claim
    says = f"{found.rule}, line {found.line}: {found.message}"
    if claim.states.get("holds") is not False:
        claim = replace(claim, text=found.message, lines=(found.line, found.line))
    return Outcome(True, says), claim


_DECIDED: dict[str, Callable[[Claim, Material, Language], Decided]] = {
    "contains": _related("contains", "module", "part"), "updates": _related("updates", "optimizer", "module"),
    "made_of": _related("made_of", "name", "class"), "before": _related("before", "first", "second"),
    "called": _related("called", "module"), "count": _count, "line": _line, "fact": _fact, "finding": _finding,
}  # fmt: skip
