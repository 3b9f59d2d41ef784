"""Puts a model's hypotheses to the test: the program and the patched program run side by side.

    error      a property that holds of any right program fails before and holds after, and none that held fails
    supported  an assertion of the model's own fails before and holds after
    suggested  neither; the reason is said

Both runs draw the same random numbers (``track``'s streams), in the same confinement as every run of the program.
"""

import contextlib
from dataclasses import dataclass, replace
from functools import cached_property

from bowerbird.errors import RunFailed
from bowerbird.reading.check import CheckResult
from bowerbird.reading.findings import Finding, Severity, in_order
from bowerbird.reading.history.trajectory import Parting, partings
from bowerbird.reading.history.version import Version, assign_roles, run
from bowerbird.reading.properties import broken, mended, properties
from bowerbird.reading.proposing.hypotheses import Hypothesis, known_already, patched, prompts, read
from bowerbird.reading.proposing.material import Malformed, with_left_out
from bowerbird.reading.running.launch import Child
from bowerbird.reading.tutor.endpoint import Endpoint

SESSION = "bowerbird.reading.proposing.session:Examined"
RULE = "LLM"
LONGEST_ANSWER_TOKENS = 4_000


def propose(
    result: CheckResult, endpoint: Endpoint, *, context: int = 16_000, child: Child | None = None
) -> CheckResult:
    """The result with what a model proposes beside it, each hypothesis as far as it could be proved.

    An endpoint that fails costs the proposals and not the result; a program that does not fit into ``context`` tokens
    is refused.
    """
    found: list[Hypothesis] = []
    left: list[str] = []
    try:
        for messages in prompts(result, context - min(LONGEST_ANSWER_TOKENS, context // 4)):
            pieces = endpoint.stream(messages, json_wanted=True, max_tokens=LONGEST_ANSWER_TOKENS)
            hypotheses, sentences = read("".join(pieces), result.program)
            found, left = [*found, *hypotheses], [*left, *sentences]
    except RunFailed as error:
        left.append(str(error))
    with Child() if child is None else contextlib.nullcontext(child) as warm:
        trial = Trial(result, warm)
        new = [trial.judged(h) for h in found if not known_already(h, result.findings, result.program.file)]
    return with_left_out(replace(result, findings=in_order([*result.findings, *new])), left)


@dataclass
class Trial:
    """The program as it is, against which every hypothesis is tried."""

    result: CheckResult
    child: Child

    @cached_property
    def before(self) -> Version:
        result = self.result
        return run(
            result.program.source, self.child, session=SESSION, probes=True, drivers=result.run.drivers,
            steps=result.steps, seconds=result.seconds,
        )  # fmt: skip

    def judged(self, hypothesis: Hypothesis) -> Finding:
        severity, evidence, facts = self._verdict(hypothesis)
        return Finding(
            RULE, severity, hypothesis.line, hypothesis.claim, evidence, file=self.result.program.file, facts=facts,
            patch=hypothesis.patch,
        )  # fmt: skip

    def _verdict(self, hypothesis: Hypothesis) -> tuple[Severity, str, tuple[str, ...]]:
        if hypothesis.patch is None:
            return "suggested", "The model offers no change that could be run.", ()
        if not self.before.ran:
            return "suggested", f"The program could not be run for comparison{_because(self.before)}.", ()
        try:
            program = patched(self.result.program, hypothesis.patch)
        except Malformed as wrong:
            return "suggested", f"It was not tried: {wrong}.", ()
        after = self._run(program.source, hypothesis.observable)
        if not after.ran or _raised(after) > _raised(self.before):
            return "suggested", f"The program does not run with the change{_because(after)}.", ()
        return self._compared(hypothesis, after)

    def _compared(self, hypothesis: Hypothesis, after: Version) -> tuple[Severity, str, tuple[str, ...]]:
        one, other = properties(self.before.facts), properties(after.facts)
        worse, better = broken(one, other), mended(one, other)
        if worse:
            first = worse[0].after
            return "suggested", f"With the change {first.name} fails for {first.subject}: {first.said}.", ()
        if better:
            turned = better[0]
            said = f"{turned.before.name.capitalize()} of {turned.before.subject}: {turned.before.said}; "
            return "error", f"{said}with the change {turned.after.said}.", ()
        return (*self._asserted(hypothesis, after), ())

    def _asserted(self, hypothesis: Hypothesis, after: Version) -> tuple[Severity, str]:
        """What the model's own assertion says; it is made in the program as it is only if the patched one keeps it."""
        seen = _parted(self.before, after)
        if not hypothesis.observable:
            return "suggested", f"{seen} The model names nothing that could be asserted."
        holds, said = _observed(after)
        if not holds:
            return (
                "suggested",
                f"{seen} Its assertion {'fails' if holds is False else 'could not be made'} with the change{said}.",
            )
        holds, said = _observed(self._run(self.result.program.source, hypothesis.observable))
        if holds is False:
            return "supported", f"{seen} Its assertion fails in the program{said} and holds with the change."
        return (
            "suggested",
            f"{seen} Its assertion {'holds' if holds else 'could not be made'} without the change too{said}.",
        )

    def _run(self, source: object, observable: str) -> Version:
        return run(source, self.child, self.before.request, observable=observable)  # type: ignore[arg-type]


def _observed(version: Version) -> tuple[bool | None, str]:
    fact = version.facts.first("hypothesis.observable")
    if fact is None:
        return None, ""
    holds = fact["holds"]
    return holds if isinstance(holds, bool) else None, f" ({fact['said']})" if fact["said"] else ""


def _raised(version: Version) -> int:
    return len(version.facts.of("run.exception"))


def _because(version: Version) -> str:
    failed = version.facts.last("run.exception")
    if failed is not None:
        return f": {failed.subject}: {str(failed['message'])[:120]}"
    return f": {version.why}" if version.why else ""


def _parted(before: Version, after: Version) -> str:
    """The first difference between the two runs, in words."""
    assign_roles(before, after)
    found: list[Parting] = partings(before, after)
    if not found:
        return "Nothing that the two runs computed differs."
    first = found[0]
    if all(isinstance(value, int | float) for value in (first.before, first.after)):
        place = f" {first.n}" if first.n else ""
        return f"The runs part at {first.kind}{place}: {first.before:.6g} → {first.after:.6g}."
    return f"The runs part at {first.kind}{f' {first.n}' if first.n else ''}."
