"""Rules of the optimisation loop, of every family."""

from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import insert_before
from bowerbird.reading.program import Program
from bowerbird.reading.rules import rule
from bowerbird.reading.running.run import Run


@rule("L01", "Gradients are never cleared between steps", family="loop")
def zero_grad_missing(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Before a backward pass the gradients of what was already stepped are still those of the step before."""
    cleared = facts.of("event.zero_grad")
    steps = facts.of("event.step")
    for owner in {name for step in steps for name in step["owners"] or {}}:
        own = [step for step in steps if owner in (step["owners"] or {})]
        if len(own) < 2:
            continue
        first, last = own[0], own[-1]
        between = [f for f in cleared if first.position < f.position < last.position]
        stale = [
            f
            for f in facts.of("event.backward")
            if first.position < f.position < last.position
            and (f["grads"] or {}).get(owner, {}).get("norm_before", 0) > 0
        ]
        if between or not stale:
            continue
        before = stale[0]["grads"][owner]
        lines = program.main.lines
        line = stale[0].line or 1
        yield Finding(
            "L01", "error", line,
            f"The gradients of {owner} are never cleared: every step adds the gradients of all batches before.",
            f"Before the backward pass of step {stale[0]['step']} their norm was already {before['norm_before']:.4g} "
            f"({stale[0].id}); no zero_grad was seen between steps ({first.id}, {last.id}).",
            "Call zero_grad() on the optimiser before backward().",
            facts=(stale[0].id, first.id, last.id),
            patch=insert_before(
                program.file, line, f"{first.subject}.zero_grad()", lines, label="L01: zero_grad"
            ) if stale[0].file == program.file else None,
        )  # fmt: skip
