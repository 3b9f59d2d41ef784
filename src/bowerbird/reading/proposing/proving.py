"""Puts a model's hypotheses to the test: the program and the patched program run side by side.

    error      a property that holds of any right program fails before and holds after, and none that held fails; or
               the program raises by itself, and with the change it does not
    supported  an assertion of the model's own fails (or the program raises in it) before and holds after; or the
               program raises in the hands of a driver, and with the change it does not
    suggested  neither; the reason is said

An assertion is first made where the program and the changed one are only defined, which takes little time, of every
hypothesis; then they run side by side, the surest hypothesis first, while there is time.  Both runs draw the same
random numbers (``track``'s streams), in the same confinement as every run of the program.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

from bowerbird.errors import RunFailed
from bowerbird.reading.check import CheckResult
from bowerbird.reading.facts import Fact
from bowerbird.reading.findings import Finding, Severity, in_order
from bowerbird.reading.history.trajectory import Parting, partings
from bowerbird.reading.history.version import Version, assign_roles, request_of, run
from bowerbird.reading.properties import broken, mended, properties
from bowerbird.reading.proposing.hypotheses import Hypothesis, known_already, patched, prompts, read
from bowerbird.reading.proposing.material import EXECUTIONS, Budget, with_left_out
from bowerbird.reading.rules.general import RAISED
from bowerbird.reading.running.launch import Child, warm
from bowerbird.reading.running.observation import as_in
from bowerbird.reading.running.request import Request
from bowerbird.reading.source import Source
from bowerbird.reading.tutor.endpoint import Endpoint, Message

SESSION = "bowerbird.reading.proposing.session:Examined"
RULE = "LLM"
LONGEST_ANSWER_TOKENS = 6_000
ALONE_S = 4.0
"""About what it takes to define a program and to make an assertion."""
ORDER = {"error": 0, "supported": 1, "suggested": 2}
AGAIN = """These could not be proved:
{rows}
Answer once more in the same form, with those of them whose claim stands: the same line, with edits and an observable
that are put right. Where a claim does not stand, or belongs to another line, which you then name as well, say
{{"line": ..., "claim": "...", "withdraw": true}}."""


def propose(
    result: CheckResult, endpoint: Endpoint, *, context: int = 16_000, child: Child | None = None,
    budget: Budget | None = None,
) -> CheckResult:  # fmt: skip
    """The result with what a model proposes beside it, each hypothesis as far as it could be proved.

    They are tried in the order of the answer, the surest first, until the budget is used up.

    An endpoint that fails costs the proposals and not the result; a program that does not fit into ``context`` tokens
    is refused.
    """
    left: list[str] = []
    new: list[Finding] = []
    with warm(child) as child:
        trial = Trial(result, child, budget or Budget(child, EXECUTIONS * result.seconds))
        try:
            for part, messages in enumerate(prompts(result, context - min(LONGEST_ANSWER_TOKENS, context // 4))):
                if part and trial.over():
                    left.append(f"Nothing more was asked: {trial.budget}.")
                    break
                judged, sentences = _asked(trial, endpoint, messages)
                new, left = [*new, *judged], [*left, *sentences]
        except RunFailed as error:
            left.append(str(error))
    return with_left_out(replace(result, findings=in_order([*result.findings, *new])), left)


def _asked(trial: "Trial", endpoint: Endpoint, messages: list[Message]) -> tuple[list[Finding], list[str]]:
    """What the model proposes, judged; what could not be proved it may put right once, or withdraw."""
    answer, found, left = _answer(trial, endpoint, messages)
    unproved = {f.line: f.evidence for f in found.values() if f is not None and f.severity == "suggested"}
    if (not unproved and not left) or trial.over():
        return [f for f in found.values() if f is not None], left
    again = AGAIN.format(
        rows="\n".join([*(f"- line {n}: {why}" for n, why in unproved.items()), *(f"- {row}" for row in left)])
    )
    messages = [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": again}]
    try:
        _, second, more = _answer(trial, endpoint, messages)
    except RunFailed:
        return [f for f in found.values() if f is not None], left
    for line, finding in second.items():
        before = found.get(line)
        if finding is None or before is None or ORDER[finding.severity] <= ORDER[before.severity]:
            found[line] = finding if before is None or before.severity == "suggested" else before
    return [f for f in found.values() if f is not None], more if second else left


def _answer(
    trial: "Trial", endpoint: Endpoint, messages: list[Message]
) -> tuple[str, dict[int, Finding | None], list[str]]:  # fmt: skip
    """An answer, its hypotheses judged by their lines (None: withdrawn), and what of it was left out."""
    answer = "".join(endpoint.stream(messages, json_wanted=True, max_tokens=LONGEST_ANSWER_TOKENS))
    found, left = read(answer, trial.result.program)
    news = [h for h in found if not known_already(h, trial.result.findings, trial.result.program.file)]
    once = {h.line: h for h in reversed(news)}  # of two at one line, the first
    tried = sorted(once.values(), key=news.index)
    alone = {h.line: trial.alone(h) for h in tried if not h.withdrawn}
    return answer, {h.line: None if h.withdrawn else trial.judged(h, alone[h.line]) for h in tried}, left


@dataclass
class Trial:
    """The program as it is, against which every hypothesis is tried."""

    result: CheckResult
    child: Child
    budget: Budget
    cost_s: float = 0.0
    """The processor time of an execution beside which another is put, as far as one was seen."""

    def __post_init__(self) -> None:
        self.cost_s = self.child.last_cpu_s

    def over(self) -> bool:
        return self.budget.over(needs=self.cost_s)

    @cached_property
    def before(self) -> Version:
        """The program as it is; only its definitions where it comes to no end."""
        result = self.result
        for defining in (result.run.defining, True):
            version = self._run(result.program.source, replace(self._request, defining=defining))
            if _ran(version):
                break
        return version

    @cached_property
    def _request(self) -> Request:
        """How the program ran when it was read, and what is asked beyond that."""
        result = self.result
        request = replace(
            request_of(result.program.source), probes=True, drivers=result.run.drivers, steps=result.steps,
            seconds=result.seconds,
        )  # fmt: skip
        return replace(as_in(request, result.facts), session=SESSION)

    def alone(self, hypothesis: Hypothesis) -> str:
        """What an assertion shows where the program is only defined; empty where it does not tell the two apart."""
        if hypothesis.patch is None or not hypothesis.observable or self.budget.over(needs=2 * ALONE_S):
            return ""
        asserted = replace(self._request, probes=False, drivers=(), defining=True, observable=hypothesis.observable)
        changed = patched(self.result.program, hypothesis.patch).source
        if _observed(run(changed, self.child, asserted)).holds is not True:
            return ""
        return _observed(run(self.result.program.source, self.child, asserted)).turned

    def judged(self, hypothesis: Hypothesis, alone: str = "") -> Finding:
        severity, evidence = self._verdict(hypothesis, alone)
        return Finding(
            RULE, severity, hypothesis.line, hypothesis.claim, evidence, file=self.result.program.file,
            patch=hypothesis.patch,
        )  # fmt: skip

    def _verdict(self, hypothesis: Hypothesis, alone: str) -> tuple[Severity, str]:
        if hypothesis.patch is None:
            return "suggested", "The model offers no change that could be run."
        sure: Severity = "supported" if alone else "suggested"
        if self.over():
            return sure, alone or f"It was not tried: {self.budget}."
        if not _ran(self.before):
            return sure, alone or f"The program could not be run for comparison{_because(self.before)}."
        program = patched(self.result.program, hypothesis.patch)
        after = self._run(
            program.source, replace(self.before.request, observable="" if alone else hypothesis.observable)
        )
        if not _ran(after) or len(_raised(after)) > len(_raised(self.before)):
            return "suggested", f"The program does not run with the change{_because(after)}."
        return self._compared(hypothesis, after, alone)

    def _compared(self, hypothesis: Hypothesis, after: Version, alone: str) -> tuple[Severity, str]:
        one, other = properties(self.before.facts), properties(after.facts)
        worse, better = broken(one, other), mended(one, other)
        if better and not worse:
            turned = better[0]
            said = f"{turned.before.name.capitalize()} of {turned.before.subject}: {turned.before.said}; "
            return "error", f"{said}with the change {turned.after.said}."
        severity, said = self._raised_no_more(after) or self._asserted(hypothesis, after, alone)
        if worse:
            first = worse[0].after
            said = f"{said} With the change {first.name} fails for {first.subject}: {first.said}."
        return severity, said

    def _raised_no_more(self, after: Version) -> tuple[Severity, str] | None:
        """An exception that the change takes away; proved where nothing of ours took part in it."""
        before, left = _raised(self.before), Counter(map(_kind, _raised(after)))
        gone = [f for f in before if _kind(f) not in left]
        if not gone or left.total() >= len(before):
            return None
        fact = gone[0]
        own = any(f.rule == RAISED and f.severity == "error" and f.line == fact.line for f in self.result.findings)
        said = f"Line {fact.line} raises {fact.subject} ({str(fact['message'])[:160]}); with the change it does not."
        return "error" if own and fact["phase"] == "program" else "supported", said

    def _asserted(self, hypothesis: Hypothesis, after: Version, alone: str) -> tuple[Severity, str]:
        """What the model's own assertion says; it is made in the program as it is only if the patched one keeps it."""
        seen = _parted(self.before, after)
        if alone:
            return "supported", f"{seen} {alone}"
        if not hypothesis.observable:
            return "suggested", f"{seen} The model names nothing that could be asserted."
        made = _observed(after)
        if made.holds is not True:
            outcome = "fails" if made.holds is False else "could not be made"
            return "suggested", f"{seen} Its assertion {outcome} with the change{made.said}."
        request = replace(self.before.request, observable=hypothesis.observable)
        made = _observed(self._run(self.result.program.source, request))
        if made.turned:
            return "supported", f"{seen} {made.turned}"
        outcome = "holds" if made.holds else "could not be made"
        return "suggested", f"{seen} Its assertion {outcome} without the change too{made.said}."

    def _run(self, source: Source, request: Request) -> Version:
        version = run(source, self.child, request)
        self.cost_s = self.child.last_cpu_s
        return version


@dataclass(frozen=True)
class Made:
    """What became of an assertion: ``holds`` is None where it could not be made, ``within`` the line that raised."""

    holds: bool | None = None
    said: str = ""
    within: int | None = None

    @property
    def turned(self) -> str:
        """What is said of it in the program, where it holds with the change; empty where it does not tell the two
        apart."""
        if self.holds is False:
            return f"Its assertion fails in the program{self.said} and holds with the change."
        if self.within is not None:
            return f"Line {self.within} raises when it is asserted{self.said}, and not with the change."
        return ""


def _observed(version: Version) -> Made:
    fact = version.facts.first("hypothesis.observable")
    if fact is None:
        return Made()
    holds, within = fact["holds"], fact["within"]
    said = f" ({fact['said']})" if fact["said"] else ""
    return Made(holds if isinstance(holds, bool) else None, said, within if isinstance(within, int) else None)


def _ran(version: Version) -> bool:
    """Whether the program came so far that its definitions are there."""
    program = version.facts.first("run.program")
    return bool(program and program["ran"])


def _raised(version: Version) -> list[Fact]:
    """What the program raised by itself or in the hands of a driver; not what guesses of ours did."""
    return [f for f in version.facts.of("run.exception") if f["phase"] in ("program", "driver") and not f["follows"]]


_OF_A_RUN = re.compile(
    r"0x[0-9a-f]+|\b\d{9,}\b|\S*/(?:tmp|scratch-\d+|bowerbird-\w+)\b[^\s'\")]*|(?<=process )\d+|(?<=pid[ =])\d+", re.I
)
"""What of a message differs from run to run: addresses, identities, temporary paths, numbers of processes."""


def _kind(fact: Fact) -> tuple[str, str, str]:
    """What makes an exception the same in both versions: its type, its function, and what it says in every run."""
    stack = fact["stack"] or ()
    return fact.subject, str(stack[-1][2]) if stack else "", _OF_A_RUN.sub("…", str(fact["message"]))


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
