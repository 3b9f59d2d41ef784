"""What the general experiments found: each knows a property that any right program has, and no pattern of the text."""

import ast
from collections.abc import Iterator

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.places import function_at, unit_of
from bowerbird.reading.running.run import Run


def _failing(facts: FactStore, name: str) -> Iterator[Fact]:
    return (fact for fact in facts.of(f"property.{name}") if fact["holds"] is False)


def _sentence(fact: Fact) -> str:
    said = str(fact["said"])
    return f"{said[:1].upper()}{said[1:]} ({fact.id})."


@rule("X18", "Examples of a batch depend on one another", family="general", exact=True)
def coupled(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One example was changed, and the answers to others moved."""
    for fact in _failing(facts, "independence"):
        yield Finding(
            "X18", "error", fact.line or 1,
            f"The examples of a batch mix in {fact.subject}: `{fact['function']}` reaches across them.",
            _sentence(fact), "Give it the axis that is meant.", fact.file, (fact.id,),
        )  # fmt: skip


@rule("X05", "The result of an operation is thrown away", family="general", exact=True)
def discarded(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A statement that only computes: ``x.clamp(0, 1)`` changes nothing."""
    for fact in _failing(facts, "dataflow"):
        for row in fact["unused"]:
            if row["how"] == "discarded":
                yield Finding(
                    "X05", "error", row["line"],
                    f"The result of {row['text'][:60]} is thrown away: the operation does not change its operand.",
                    f"The line ran on tensors and nothing keeps what it gave ({fact.id}).",
                    "Assign the result, or use the operation in place.", fact.file, (fact.id,),
                )  # fmt: skip


@rule("X08", "What is computed is never used", family="general")
def unused(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A term of the loss that is left out, a noise that is drawn and not added."""
    for fact in _failing(facts, "dataflow"):
        for row in fact["unused"]:
            if row["how"] == "never read":
                loss = (
                    " and enters no loss: nothing is trained by it" if row["graph"] else ", and nothing depends on it"
                )
                yield Finding(
                    "X08", "info" if row["kind"] == "filled" else "warning", row["line"],
                    f"{row['name']} is computed{loss}.",
                    f"`{row['text'][:80]}` ran, and no result of it was taken ({fact.id}).",
                    f"Use {row['name']}, or leave it out.", fact.file, (fact.id,),
                )  # fmt: skip


@rule("P09", "What was trained is not saved", family="parameters", exact=True)
def unsaved(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A tensor that training changes, beside parameters and buffers."""
    for fact in _failing(facts, "state"):
        name = str(fact["lost"][0]).rpartition(".")[2]
        unit = unit_of(program, fact)
        lines = [line for line, text in enumerate(unit.lines, 1) if f"self.{name} =" in text]
        yield Finding(
            "P09", "error", (lines or [fact.line or 1])[0],
            f"{name} is trained and not saved: a model that is loaded from state_dict() answers otherwise.",
            _sentence(fact),
            f'Make it a buffer: self.register_buffer("{name}", …).', fact.file, (fact.id,),
        )  # fmt: skip


@rule("M01", "A number that is reported depends on the batch size", family="reporting", exact=True)
def batch_size(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Sums over examples belong over the number of examples, means of batches over the number of batches."""
    for fact in facts.of("property.batch size"):
        unit = unit_of(program, fact)
        function = function_at(unit, fact.line)
        divided = [n.lineno for n in unit.all(ast.BinOp, ast.AugAssign, under=function) if isinstance(n.op, ast.Div)]
        line = max(divided, default=fact.line or 1)
        said = _sentence(fact)
        if fact["holds"]:
            yield Finding("M01", "ok", line, f"What {fact.subject} reports is an average.", said, file=fact.file)
            continue
        yield Finding(
            "M01", "error", line, f"What {fact.subject} reports depends on the batch size: it is no average.", said,
            "Divide sums over examples by their number, and means of batches by the number of batches.", fact.file,
            (fact.id,),
        )  # fmt: skip
