"""Rules of recurrent networks: where the state of one batch goes, which axis is time, which output is the last."""

from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program
from bowerbird.reading.rules import rule
from bowerbird.reading.running.run import Run


@rule("R03", "The layer takes another axis for time", family="recurrent")
def axis_of_time(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One example was changed and another one's output moved."""
    for fact in facts.of("probe.recurrent_axes"):
        if not fact["others"]:
            yield Finding("R03", "ok", fact.line or 1, f"{fact.subject} keeps examples apart.",
                          f"Changing one example moved no other ({fact.id}).", file=fact.file, facts=(fact.id,))  # fmt: skip
