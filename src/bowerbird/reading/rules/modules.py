"""Rules of modules and their parameters."""

from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program
from bowerbird.reading.rules import rule
from bowerbird.reading.running.run import Run


@rule("P01", "Modules are kept in a plain list", family="modules")
def plain_list(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Modules that no module holds have parameters that no optimiser, no ``.to`` and no checkpoint sees."""
    for fact in facts.of("module.unregistered"):
        yield Finding(
            "P01", "error", fact.line or 1,
            f"{fact['count']} modules lie in the plain {fact['container']} {fact.subject}: nothing registers their "
            f"{fact['parameters']} parameters.",
            f"They are absent from parameters() of {fact['holder']} ({fact.id}).",
            "Use nn.ModuleList (or nn.ModuleDict).",
            facts=(fact.id,),
        )  # fmt: skip
