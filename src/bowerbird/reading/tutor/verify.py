"""Verification: the verdict on a claim, computed from the code and its facts alone.

    verified    every citation, number, name and relation holds, and every word is accounted for by what is cited
    refuted     something in it is contradicted
    unproven    nothing contradicts it, and nothing shows it
    background  a reason or mathematics: it says nothing of this program

What the model calls its claim, asks for or asserts about its truth plays no part.
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bowerbird.reading.facts import Fact
from bowerbird.reading.findings import Finding
from bowerbird.reading.tutor.citations import Cited
from bowerbird.reading.tutor.claims import Claim
from bowerbird.reading.tutor.derive import Derived, derive
from bowerbird.reading.tutor.grounds import Ground, of_fact, of_lines
from bowerbird.reading.tutor.material import Material
from bowerbird.reading.tutor.names import CODE
from bowerbird.reading.tutor.numerals import FACT_WORDS, LINE_WORDS, check_numbers, mask, squeezed
from bowerbird.reading.tutor.predicates import check_predicate
from bowerbird.reading.tutor.quantities import quantities
from bowerbird.reading.tutor.relations import PARTS, Outcome
from bowerbird.reading.tutor.wording import (
    DEFECT,
    LAYERS,
    NEGATION,
    PRAISE,
    clauses,
    code_concepts,
    concept_of,
    concepts,
    located_concepts,
)

Status = Literal["verified", "refuted", "unproven", "background"]
_HERE = re.compile(
    r"\b(?:here|this (?:code|program|script|model|file|line|loop|class|implementation|run|example|gan|vae|"
    r"training|network)|"
    r"the (?:code|program|script|file|author|implementation|above|below)|your|our|verified|line|lines)\b"
    r"|这里|此处|本(?:程序|代码|文件|例|模型)|该(?:程序|代码|模型|行|脚本)|这(?:段|个|行|份)|上面|上述|"
    r"你的|作者|已验证|at hand|in question|\bthe (?:present|given|current)\b|"
    r"该(?:网络|生成器|判别器|优化器|损失)|当前|现有",
    re.I,
)
_AUTHORITY = re.compile(
    r"\bet al\b|\barxiv\b|\bdoi\b|\bpapers?\b|\bdocumentation\b|\bdocs\b|\bprove[sdn]?\b|\baccording to\b"
    r"|\b(?:showed|demonstrated|recommends?)\b|论文|文献|文档|证明|等人",
    re.I,
)
"""Somebody else is said to have said so: a model's citation is not looked up, so it is no background."""
_EVERY = re.compile(
    r"\b(?:both|all|every|each|only|always)\b|全部|所有|都|均(?!方|值|匀)|任何|总是|仅|只(?!需|要)", re.I
)
_IS = re.compile(r"`(?P<name>[A-Za-z_]\w*)`\s*(?:is|are|equals|denotes|means|是|表示|等于)\s*(?P<what>.{2,60})", re.I)
_SUFFERS = re.compile(r"\bthe (?:network|model|loss|training)s?\b.*\b(?:suffers?|has|have|is|are|was|were)\b", re.I)
_MANNER = re.compile(
    r"\b(?:takes?|receives?|feeds?|fed|inputs?|outputs?|gives?|given|passes|passed|goes|before|after|than|"
    r"precedes?|follows?|from|into|shares?)\b"
    r"|送入|输入|输出|传|喂|之前|之后|先|再|比",
    re.I,
)
_TRUSTED_WORDS = frozenset("it its they both respectively batch feature dimension shape".split())
"""Pronouns, and words whose numbers are checked by their role."""


@dataclass(frozen=True)
class Verdict:
    claim: Claim
    status: Status
    reasons: tuple[str, ...] = ()
    """Why it is refuted or unproven."""
    evidence: tuple[str, ...] = ()


class _Case(Cited):
    """A claim on its way to a verdict."""

    def check_relations(self) -> Derived:
        derived = derive(self.text, self.mentions, self.material, self.lines)
        outcomes = list(derived.outcomes)
        if self.claim.predicate:
            outcomes.append(check_predicate(self.claim.predicate, self.material, self.text, self.lines))
        for outcome in outcomes:
            self._weigh(outcome)
        return derived

    def _weigh(self, outcome: Outcome) -> None:
        if outcome.status == "fails":
            self.refuted.append(outcome.says)
        elif outcome.status == "unknown":
            self.unproven.append(f"not known: {outcome.says}")
        else:
            self.evidence.append(outcome.says)
            self.words |= outcome.words | {w for k in outcome.keys for w in code_concepts(k)}

    def check_pairs(self, derived: Derived) -> None:
        """Two things named in one clause must be shown to belong together."""
        shown = [o.keys for o in derived.outcomes if o.status == "holds"]
        for a, b in clauses(self.text):
            here = [m for m in self.mentions if a <= m.start < b]
            for one, two in itertools.pairwise(here):
                related = bool(one.keys & two.keys) or any(one.keys & keys and two.keys & keys for keys in shown)
                owned = any(two.keys & self.material.owners.get(k, frozenset()) for k in one.keys) or any(
                    one.keys & self.material.owners.get(k, frozenset()) for k in two.keys
                )
                nested = any(x.startswith(f"{y}.") or y.startswith(f"{x}.") for x in one.keys for y in two.keys)
                manner = _MANNER.search(self.text[a:b])
                together = not manner and (
                    self.one_line(one, two) or any(self.in_fact(f, one, two) for f in self.facts)
                )
                ordered = derived.ordered
                if not (related or owned or nested or together or ordered):
                    self.unproven.append(f"how {one.text} and {two.text} belong together is not shown")
            codes = CODE.findall(self.text[a:b])
            settled = derived.ordered or any(len(keys) > 1 for keys in shown)
            joined = any(all(map(self._in_line(line), codes)) for line in self.code.splitlines())
            if len(codes) > 1 and not settled and not joined:
                self.unproven.append(f"no cited line has {', '.join(codes)} together")

    def _in_line(self, line: str) -> Callable[[str], bool]:
        """Whether a line holds a piece of code as a whole, or stands in the function or class of that name."""
        around = self.around()

        def holds(code: str) -> bool:
            spaced = r"\s*".join(map(re.escape, re.findall(r"\w+|[^\w\s]", code)))
            return code in around or bool(re.search(rf"(?<!\w){spaced}(?!\w)", line))

        return holds

    def check_reach(self, derived: Derived) -> None:
        """What is said of each of several, or of one name as another: neither is shown by words that stand there."""
        for a, b in clauses(self.text):
            if _EVERY.search(CODE.sub(" ", self.text[a:b])) and not derived.ordered and not self.claim.predicate:
                self.unproven.append("that it is so of each of them, or of no other, is not shown")
            named = _IS.search(self.text[a:b])
            if named is None or NEGATION.search(self.text[a:b]):
                continue
            if re.search(r"\bof\b|的", named["what"]):  # it is computed from the other, which is another question
                continue
            said, own = concepts(CODE.sub(" ", named["what"])), code_concepts(named["name"])
            for other in self.material.unit.assignments:
                if other != named["name"] and re.search(rf"\b{re.escape(other)}\b", self.code):
                    if code_concepts(other) & said and not own & said:
                        self.unproven.append(f"`{named['name']}` and `{other}` are two names")

    def check_truths(self, derived: Derived) -> set[int]:
        """Yes-or-no facts against clauses that name them; returns the starts of clauses whose denial is settled."""
        settled: set[int] = set()
        for fact in self.facts:
            for key, truth in _truths(fact):
                for a, b in clauses(self.text):
                    if concept_of(key) in concepts(self.text[a:b]) or code_concepts(key) & concepts(self.text[a:b]):
                        denied = bool(NEGATION.search(self.text[a:b]))
                        if truth == denied:
                            self.refuted.append(f"{fact.id} says that {key} is {str(truth).lower()}")
                        else:
                            self.evidence.append(f"{fact.id} says that {key} is {str(truth).lower()}")
                            settled.add(a)
        return settled

    def check_denials(self, derived: Derived, settled: set[int]) -> None:
        for a, b in clauses(self.text):
            if (
                NEGATION.search(CODE.sub(" ", self.text[a:b]))
                and a not in settled
                and not any(a <= s < b for s in derived.denials)
            ):
                self.unproven.append(f"what “{self.text[a:b].strip()[:60]}” denies is not shown")

    def check_numbers(self, derived: Derived) -> None:
        grounds: list[Ground] = [g for f in self.facts for g in of_fact(f, self.material.names)]
        if self.lines is not None:
            grounds += of_lines(self.material.unit, *self.lines, self.material.names)
        done = check_numbers(self.text, grounds, self.mentions, self.code, derived.counted, self.material.owners)
        self.refuted += done.refuted
        self.unproven += done.unproven
        self.evidence += done.evidence
        self.words |= done.words

    def check_defect(self) -> None:
        """A bug is one when a rule named it at these lines; praise needs a rule that checked and found it fine."""
        praise = bool(PRAISE.search(self.said)) and not NEGATION.search(self.said)
        found = self.material.findings_at(self.lines)
        found += [f for f in self.material.findings if set(f.facts) & set(self.claim.facts) and f not in found]
        wanted = ("ok",) if praise and not DEFECT.search(self.said) else ("error", "warning")
        named = [f for f in found if f.severity in wanted]
        fitting = [f for f in named if self._is_about(f)]
        if fitting:
            best = self.finding = fitting[0]
            self.evidence.append(f"{best.rule}, line {best.line}: {best.message}")
            self.words |= self.material.finding_words(best)
        elif wanted == ("ok",) and any(f.severity == "error" for f in found):
            self.refuted.append(f"check found an error there: {found[0].message}")
        elif any(f.severity == "ok" for f in found) and wanted != ("ok",):
            self.refuted.append("check looked at these lines and found them fine")
        else:
            self.unproven.append(
                "no rule of check says so at these lines"
                if self.lines
                else "it cites no line that a rule of check names"
            )

    def _is_about(self, finding: Finding) -> bool:
        said = concepts(CODE.sub(" ", self.text)) | code_concepts(" ".join(CODE.findall(self.text)))
        words = self.material.finding_words(finding)
        own = {c for c in said if not DEFECT.search(c) and not PRAISE.search(c)} - {
            w for m in self.mentions for w in code_concepts(m.text)
        }
        return finding.rule.lower() in self.text.lower() or (bool(own & words) and len(own - words) <= len(own) // 3)

    def find_evidence(self) -> None:
        """What carries a claim that states neither number nor relation: the words of the cited lines or facts."""
        if self.evidence or self.claim_is_judgement:
            return
        spoken = self.material.relations.code_concepts(*self.lines) if self.lines is not None else set()
        if self.mentions and self.lines is not None:
            self.evidence.append("the names stand in the cited lines")
        elif self.facts and concepts(self.text) & set().union(*(spoken for spoken, _ in self.sources())):
            self.evidence.append(f"stands in {', '.join(f.id for f in self.facts)}")
        elif (CODE.search(self.text) and self.lines is not None) or concepts(self.text) & spoken:
            self.evidence.append("stands in the cited lines")

    def check_residue(self, derived: Derived) -> None:
        """Words that nothing cited accounts for: nobody has checked what they say."""
        shown = (
            self.words
            | {w for n in self.around() for w in code_concepts(n)}
            | {w for o in derived.outcomes if o.status == "holds" for w in o.words}
        )
        shown |= {
            w
            for m in self.mentions
            for k in m.keys
            for w in (*code_concepts(k), *(c for n in self.kinds(k) for c in code_concepts(n)))
        }
        sources = self.sources()
        self.words |= set().union(*(spoken for spoken, _ in sources)) | shown
        spans = [m.span() for m in LINE_WORDS.finditer(self.text)] + [m.span() for m in FACT_WORDS.finditer(self.text)]
        spans += [m.span() for m in CODE.finditer(self.text)] + [(m.start, m.end) for m in self.mentions]
        spans += [(q.start, q.end) for q in quantities(self.text)] + [m.span() for m in NEGATION.finditer(self.text)]
        if self.finding and self.claim_is_judgement:
            spans += [m.span() for m in (*DEFECT.finditer(self.text), *PRAISE.finditer(self.text))]
        located = [(at, c) for at, _, c in located_concepts(mask(self.text, *spans)) if c not in _TRUSTED_WORDS]
        left = [c for _, c in located if c not in self.words]
        for concept in dict.fromkeys(left):
            if concept in LAYERS:
                there = "" if self.material.relations.anywhere(concept) else "; there is none in the program"
                self.refuted.append(f"nothing cited is {concept}{there}")
        rest = [c for c in dict.fromkeys(left) if c not in LAYERS]
        if rest:
            self.unproven.append(f"nothing cited shows: {', '.join(rest[:8])}")
        for a, b in clauses(self.text):
            open_words = {c for at, c in located if a <= at < b and c not in shown}
            codes = [squeezed(c) for c in CODE.findall(self.text[a:b])]
            shown_by = [text for spoken, text in sources if open_words <= spoken]
            if open_words and not any(
                not codes or not text or any(c in squeezed(text) for c in codes) for text in shown_by
            ):
                self.unproven.append(f"no single line or fact shows: {', '.join(sorted(open_words)[:8])}")

    @property
    def said(self) -> str:
        """The sentence without the code in it."""
        return CODE.sub(lambda m: " " * len(m[0]), self.text)

    @property
    def claim_is_judgement(self) -> bool:
        return self.claim.kind == "defect" or bool(DEFECT.search(self.said)) or bool(PRAISE.search(self.said))

    # ------------------------------------------------------------------------------------------------ the verdict

    def is_background(self) -> bool:
        """Whether the claim says nothing of this program: no number, line, fact, name of code, or deed of "
        "its modules."""
        if (
            self.claim.kind != "reason"
            or self.claim.facts
            or self.claim.quote
            or self.claim.lines
            or self.claim.predicate
        ):
            return False
        if (
            quantities(self.text)
            or CODE.search(self.text)
            or _HERE.search(self.text)
            or _AUTHORITY.search(self.text)
            or (DEFECT.search(self.text) and _SUFFERS.search(self.text))
            or self.material.names.unknown(self.text)
        ):
            return False
        telling = [m for m in self.mentions if re.search(r"[A-Z_.\d]", m.text) or len(m.text) == 1]
        said = concepts(self.text)
        judged = (
            NEGATION.search(self.text)
            or DEFECT.search(self.text)
            or said & (PARTS | {"optimizer", "loss", "detach", "zero_grad"})
        )
        return not telling and not (self.mentions and judged)

    def verdict(self) -> Verdict:
        if self.is_background():
            return Verdict(self.claim, "background", (), ("says nothing of this program",))
        self.cite()
        if self.claim_is_judgement:
            self.check_defect()
        self.check_names()
        self.check_facts()
        derived = self.check_relations()
        self.check_pairs(derived)
        self.check_reach(derived)
        settled = self.check_truths(derived)
        self.check_denials(derived, settled)
        self.check_numbers(derived)
        self.find_evidence()
        self.check_residue(derived)
        if not self.evidence:
            self.unproven.append("it cites nothing that shows it")
        status: Status = "refuted" if self.refuted else "unproven" if self.unproven else "verified"
        reasons = self.refuted if self.refuted else self.unproven
        return Verdict(self.claim, status, tuple(dict.fromkeys(reasons)), tuple(dict.fromkeys(self.evidence)))


def _truths(fact: Fact) -> list[tuple[str, bool]]:
    if isinstance(fact.value, bool):
        return [(fact.topic.rpartition(".")[2], fact.value)]
    if isinstance(fact.value, dict):
        return [(k, v) for k, v in fact.value.items() if isinstance(v, bool)]
    return []


def verify(claim: Claim, material: Material) -> Verdict:
    """The verdict on one claim."""
    return _Case(claim, material).verdict()
