"""What a claim cites: its lines, its quote, its names and its facts, and whether they are what it says they are."""

import ast
import re

from bowerbird.reading.facts import Fact
from bowerbird.reading.findings import Finding
from bowerbird.reading.tutor.claims import Claim
from bowerbird.reading.tutor.grounds import of_fact, of_lines
from bowerbird.reading.tutor.material import Material
from bowerbird.reading.tutor.names import CODE, Mention
from bowerbird.reading.tutor.numerals import FACT_WORDS, LINE_WORDS, line_numbers, mask, squeezed
from bowerbird.reading.tutor.quantities import normalise, quantities
from bowerbird.reading.tutor.wording import clauses, code_concepts, concepts


class Cited:
    """One claim with what it cites; what is wrong with that is collected in ``refuted`` and ``unproven``."""

    def __init__(self, claim: Claim, material: Material) -> None:
        self.claim, self.material = claim, material
        self.text = normalise(claim.text)
        self.refuted: list[str] = []
        self.unproven: list[str] = []
        self.evidence: list[str] = []
        self.words: set[str] = set()
        self.facts: list[Fact] = []
        self.mentions: list[Mention] = material.names.mentions(self.text)
        self.lines = claim.lines
        self.code = ""
        self.finding: Finding | None = None

    def cite(self) -> None:
        count = len(self.material.unit.lines)
        named = line_numbers(self.text)
        if self.lines is None and named:
            self.lines = (min(named), max(named))
        for identity in self.claim.facts:
            fact = self.material.facts.get(identity)
            if fact is None:
                self.refuted.append(f"there is no fact {identity}")
            else:
                self.facts.append(fact)
        for identity in FACT_WORDS.findall(self.text):
            if self.material.facts.get(identity.strip("[]{}")) is None:
                self.refuted.append(f"there is no fact {identity.strip('[]{}')}")
        if self.lines is not None:
            first, last = self.lines
            if not 1 <= first <= last <= count:
                self.refuted.append(f"the program has lines 1 to {count}, not {first} to {last}")
                self.lines = None
            else:
                self.code = "\n".join(self.material.unit.lines[first - 1 : last])
        allowed = set(range(self.lines[0], self.lines[1] + 1)) if self.lines else set()
        allowed |= {f.line for f in self.facts if f.line is not None}
        for number in named:
            if number not in allowed:
                self.refuted.append(f"line {number} is not among what is cited")
        for a, b in clauses(self.text):
            self._named_lines(self.text[a:b])
        self._quote()

    def _quote(self) -> None:
        quote = self.claim.quote.strip()
        if quote and squeezed(quote) not in squeezed(self.code):
            self.refuted.append(f"the cited lines do not hold the quoted “{quote[:60]}”")
        elif len(squeezed(quote)) > 2:
            self.evidence.append("the quote stands in the cited lines")

    def _named_lines(self, clause: str) -> None:
        """Code in a clause that names a line must stand in that very line."""
        named = line_numbers(clause)
        there = (
            "".join(squeezed(line) for line in self.material.unit.lines[min(named) - 1 : max(named)]) if named else ""
        )
        for code in CODE.findall(clause) if there else ():
            if squeezed(code) not in there and squeezed(code) in squeezed(self.code):
                self.refuted.append(f"`{code}` does not stand in line {min(named)}")

    def check_names(self) -> None:
        for name in self.material.names.unknown(self.text):
            self.refuted.append(f"{name} occurs nowhere in the program")
        cited = squeezed(self.code) + "".join(squeezed(f"{f.subject} {f.value} {f.topic}") for f in self.facts)
        owners = self.around()
        for code in CODE.findall(self.text) if self.lines is not None else ():
            names = re.findall(r"[A-Za-z_][\w.]*", code)
            if names and not any(
                n in cited or n in owners for n in (squeezed(code), code.partition("(")[0].strip(), names[0])
            ):
                self.refuted.append(f"`{code}` does not stand in the cited lines")
        if self.lines is not None and not self.finding:
            self._lines_are_about(owners)

    def around(self) -> set[str]:
        """The class and the function that the cited lines stand in."""
        if self.lines is None:
            return set()
        first, last = self.lines
        unit = self.material.unit
        nodes = [i.node for i in unit.classes.values()] + list(unit.functions.values())
        return {n.name for n in nodes if n.lineno <= first and last <= (n.end_lineno or n.lineno)}

    def _lines_are_about(self, owners: set[str]) -> None:
        """The cited lines must name what the claim names, and speak of something that it says."""
        assert self.lines is not None
        spoken = self.material.relations.code_concepts(*self.lines)
        said = concepts(mask(self.text, *(m.span() for m in LINE_WORDS.finditer(self.text))))
        named = {
            n for m in self.mentions for k in m.keys for w in (k, *self.kinds(k)) for n in (w, w.rpartition(".")[2])
        }
        written = set(re.findall(r"[A-Za-z_]\w*", self.code)) | owners
        grounds = of_lines(self.material.unit, *self.lines, self.material.names)
        numbers = {q.value for q in quantities(self.text)} & {g.value for g in grounds}
        code = any(squeezed(c) in squeezed(self.code) for c in CODE.findall(self.text))
        if not self.code.strip() or not (named & written or spoken & said or numbers or code):
            self.refuted.append("the cited lines speak of nothing that the claim says")
        elif self.mentions and not named & written:
            self.unproven.append(
                f"the cited lines do not speak of {', '.join(dict.fromkeys(m.text for m in self.mentions))}"
            )

    def kinds(self, key: str) -> set[str]:
        entity = self.material.names.entities.get(key)
        return {entity.kind, key.partition(".")[0]} if entity else set()

    def check_facts(self) -> None:
        """A cited fact must have to do with what is said."""
        said = concepts(self.text) | {w for m in self.mentions for k in m.keys for w in code_concepts(k)}
        values = list(quantities(self.text))
        for fact in self.facts:
            own = code_concepts(f"{fact.topic} {fact.subject}")
            grounds = list(of_fact(fact, self.material.names))
            states = any(
                not isinstance(g.value, tuple) and any(q.states(g.value, measured=g.measured) for q in values)
                for g in grounds
            )
            subjects = self.material.names.keys_of(fact.subject)
            spoken = {key for mention in self.mentions for key in mention.keys}
            others = subjects and spoken and not any(_akin(key, s) for key in spoken for s in subjects)
            mentioned = any(
                m.text in str(fact.value) or m.keys & {str(v) for v in strings(fact.value)} for m in self.mentions
            )
            if (others and not mentioned) or not (own & said or states):
                self.refuted.append(f"{fact.id} says something else: {fact.topic} of {fact.subject}")

    def sources(self) -> list[tuple[set[str], str]]:
        """What each cited statement and each cited fact speaks of, and the text of the statement."""
        each: list[tuple[set[str], str]] = []
        for fact in self.facts:
            roles = {w for g in of_fact(fact, self.material.names) for w in g.roles}
            each.append((code_concepts(f"{fact.topic} {fact.subject} {fact.value}") | roles, ""))
        if self.lines is None:
            return each
        relations, unit, statements = self.material.relations, self.material.unit, 0
        for node in unit.all(ast.stmt):
            if self.lines[0] <= node.lineno <= self.lines[1]:
                body = getattr(node, "body", None)
                last = body[0].lineno - 1 if isinstance(body, list) else node.end_lineno or node.lineno
                last = max(node.lineno, min(last, self.lines[1]))
                each.append((relations.code_concepts(node.lineno, last), "\n".join(unit.lines[node.lineno - 1 : last])))
                statements += 1
        return each if statements else [*each, (relations.code_concepts(*self.lines), self.code)]

    def one_line(self, one: Mention, two: Mention) -> bool:
        """Whether one cited line names both, or names one and stands in the other."""
        return any(all(self._writes(line, m) for m in (one, two)) for line in self.code.splitlines())

    def _writes(self, line: str, mention: Mention) -> bool:
        words = set(re.findall(r"[A-Za-z_]\w*", line)) | self.around()
        return any({k.rpartition(".")[2], *self.kinds(k)} & words for k in mention.keys) or mention.text in line

    def in_fact(self, fact: Fact, one: Mention, two: Mention) -> bool:
        said = {fact.subject, *strings(fact.value)}
        return all(m.keys & said or m.text in said for m in (one, two))


def _akin(one: str, two: str) -> bool:
    """Whether two names are the same module, or one is part of the other."""
    return one == two or one.startswith(f"{two}.") or two.startswith(f"{one}.")


def strings(value: object) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, list):
        return {s for one in value for s in strings(one)}
    if isinstance(value, dict):
        return {s for k, v in value.items() for s in {str(k), *strings(v)}}
    return set()
