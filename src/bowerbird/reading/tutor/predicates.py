"""Predicates: the checkable form that a model may give its claim, decided like everything else by code and facts.

    {"is": "contains", "module": "Generator", "part": "BatchNorm1d"}
    {"is": "count", "module": "Generator", "type": "Linear", "n": 3}
    {"is": "updates", "optimizer": "optimizer_G", "module": "generator"}
    {"is": "before", "first": "optimizer.zero_grad()", "second": "loss.backward()"}
    {"is": "fact", "id": "F12", "key": "causal", "value": true}
    {"is": "finding", "rule": "G06"}

``"holds": false`` denies one.  A predicate that holds proves itself and not the sentence beside it: each of its names
must stand in the sentence as well.
"""

from collections.abc import Mapping
from typing import Any

from bowerbird.reading.tutor.material import Material
from bowerbird.reading.tutor.relations import Outcome
from bowerbird.reading.tutor.wording import NEGATION, code_concepts, concept_of, concepts

NAMES = ("contains", "count", "updates", "before", "fact", "finding")


def check_predicate(
    predicate: Mapping[str, Any], material: Material, text: str, lines: tuple[int, int] | None
) -> Outcome:
    """The outcome of a model's predicate; one that cannot be read, or that the sentence does not say, is unknown."""
    kind, holds = predicate.get("is"), predicate.get("holds") is not False
    relations, names = material.relations, material.names

    def named(key: str) -> frozenset[str]:
        return names.keys_of(str(predicate.get(key, "")))

    if kind == "contains" and named("module"):
        part = str(predicate.get("part", predicate.get("type", "")))
        if inner := names.keys_of(part):
            outcome = relations.part_of(named("module"), inner, holds)
        else:
            outcome = relations.contains(named("module"), _concept(part), holds)
    elif kind == "count" and isinstance(predicate.get("n"), int | float):
        what = _concept(str(predicate.get("type", "layer")))
        outcome = relations.count(named("module"), what, float(predicate["n"]))
    elif kind == "updates" and named("optimizer") and named("module"):
        outcome = relations.updates(named("optimizer"), named("module"), holds)
    elif kind == "before":
        first, second = str(predicate.get("first", "")), str(predicate.get("second", ""))
        outcome = relations.before(
            relations.lines_of(first), relations.lines_of(second), f"{first} and {second}", lines, holds
        )
    elif kind in ("fact", "probe"):
        outcome = _fact(predicate, material)
    elif kind == "finding":
        outcome = _finding(predicate, material, lines)
    else:
        return Outcome("unknown", f"no predicate {str(kind)[:40]!r} with these names is known")
    return outcome if outcome.status != "holds" or _said(outcome, text, material, holds) else Outcome(
        "unknown", "the sentence does not say what its predicate says")  # fmt: skip


def _concept(name: str) -> str:
    word = name.removeprefix("nn.").strip()
    known = [c for c in code_concepts(word) if c not in (word.lower(),)]
    return concept_of(word) if not known else min(known, key=lambda c: c not in concepts(word))


def _said(outcome: Outcome, text: str, material: Material, holds: bool) -> bool:
    """Whether a sentence names all that a relation relates, and denies what it denies."""
    mentioned = frozenset().union(*(m.keys for m in material.names.mentions(text)))
    return outcome.keys <= mentioned | {k for k in outcome.keys if k.partition(".")[0] in mentioned} and bool(
        NEGATION.search(text)
    ) == (not holds)


def _fact(predicate: Mapping[str, Any], material: Material) -> Outcome:
    """The recorded outcome of an observation or of a probe."""
    fact = material.facts.get(str(predicate.get("id", "")))
    if fact is None and predicate.get("topic"):
        fact = material.facts.first(str(predicate["topic"]), predicate.get("subject"))
    if fact is None:
        return Outcome("unknown", "there is no such fact")
    key = predicate.get("key")
    value = fact.value if key is None else fact[str(key)]
    says = f"{fact.id}: {fact.topic} of {fact.subject}{f', {key}' if key else ''} is {value}"
    words = frozenset(code_concepts(f"{fact.topic} {fact.subject} {key or ''}"))
    return Outcome("holds" if value is not None and value == predicate.get("value") else "fails", says, words=words)


def _finding(predicate: Mapping[str, Any], material: Material, lines: tuple[int, int] | None) -> Outcome:
    rule = str(predicate.get("rule", ""))
    found = [f for f in material.findings_at(lines) if f.rule == rule and f.severity in ("error", "warning")]
    if found:
        return Outcome(
            "holds",
            f"{rule}, line {found[0].line}: {found[0].message}",
            words=frozenset(material.finding_words(found[0])),
        )
    return Outcome("fails", f"check does not name {rule[:10]} at these lines")
