"""What a claim is checked against: one program, its facts, and the findings of its rules."""

from dataclasses import replace
from typing import Protocol

from bowerbird.reading.explain.text import told
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, Unit
from bowerbird.reading.running.run import Run
from bowerbird.reading.tutor.names import Names
from bowerbird.reading.tutor.relations import Relations
from bowerbird.reading.wording import Language


class Checked(Protocol):
    """What ``bowerbird check`` found: the part of its result that a tutor needs."""

    @property
    def program(self) -> Program: ...
    @property
    def facts(self) -> FactStore: ...
    @property
    def run(self) -> Run: ...
    @property
    def findings(self) -> list[Finding]: ...


class Material:
    def __init__(self, program: Program, facts: FactStore, findings: list[Finding], run: Run | None = None) -> None:
        self.program, self.facts, self.findings = program, facts, findings
        self.run = run or Run(facts=facts)
        self.names = Names(program, facts)
        self.relations = Relations(program, facts, self.names)

    @classmethod
    def of(cls, checked: Checked) -> "Material":
        return cls(checked.program, checked.facts, list(checked.findings), checked.run)

    @property
    def unit(self) -> Unit:
        return self.program.main

    def telling(self) -> list[Fact]:
        """The facts that a reader asks for, under the names of the code: an optimiser is recorded before it has one."""
        facts = []
        for fact in telling(self.facts):
            known = self.names.keys_of(fact.subject)
            renamed = fact.subject not in self.names.entities and len(known) == 1
            facts.append(replace(fact, subject=min(known)) if renamed else fact)
        return facts


_TELLING = (
    "module.tree module.parameters module.io optimizer.created loss.call event.step run.loop run.exception "
    "module.calls data.loader data.batch random.draw softmax.call run.stand_in run.warning scheduler.created"
).split()
"""What a reader asks for, the important topics first."""


def sentence(fact: Fact, lang: Language) -> str:
    """One sentence without its full stop; the line at which it was seen, and its id, follow."""
    where = f" (line {fact.line})" if lang == "en" else f"（第 {fact.line} 行）"
    return f"{told(fact, lang)}{where if fact.line else ''} [{fact.id}]"


def telling(facts: FactStore) -> list[Fact]:
    """The facts that a reader asks for, one of each line and subject."""
    chosen: dict[tuple[str, str, int | None], Fact] = {}
    for topic in _TELLING:
        for fact in facts.of(topic):
            chosen.setdefault((topic, fact.subject, fact.line), fact)
    probes = {(f.topic, f.subject, f.line): f for f in facts if f.topic.startswith("probe.")}
    return [*chosen.values(), *probes.values()]
