"""``check``: reads a program, runs it under observation, and asks every rule what it says."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bowerbird.errors import BowerbirdError
from bowerbird.reading import drivers
from bowerbird.reading.counterfactual import settled, still
from bowerbird.reading.exercised import Exercised
from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding, Severity, in_order
from bowerbird.reading.origins import function_at
from bowerbird.reading.patching import Patch, combine
from bowerbird.reading.program import Program
from bowerbird.reading.rules import all_rules
from bowerbird.reading.rules.general import RAISED
from bowerbird.reading.rules.messages import FIRST
from bowerbird.reading.running.launch import Child, warm
from bowerbird.reading.running.observation import observe
from bowerbird.reading.running.request import Driver
from bowerbird.reading.running.run import Run
from bowerbird.reading.source import Source, open_source, parse, printable, python2, write_back


@dataclass(frozen=True)
class CheckResult:
    """What was found; ``run`` and ``program`` hold all that it was found in."""

    stand_ins: list[str]
    findings: list[Finding]
    program: Program = field(repr=False)
    run: Run = field(repr=False)
    steps: int = 6
    seconds: float = 12.0
    rules: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()
    """What a language model answered beside hypotheses that could be tried, one sentence each."""

    @cached_property
    def exercised(self) -> Exercised:
        """How much of the program ran: what the findings, and their absence, are worth."""
        return Exercised(self.program, self.run)

    @property
    def ran(self) -> bool:
        """Whether the program's own modules ran."""
        return self.exercised.ran

    @property
    def facts(self) -> FactStore:
        return self.run.facts

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def exit_status(self) -> int:
        """1 where a defect is proved, 3 where the program could not be judged, else 0."""
        if any(finding.rule != RAISED for finding in self.errors):
            return 1
        return 3 if self.exercised.not_judged else int(bool(self.errors))

    def to_json(self) -> dict[str, Any]:
        return {
            **self.exercised.to_json(),
            "mended": list(self.program.source.mended),
            "stand_ins": self.stand_ins,
            "findings": [finding.to_json() for finding in self.findings],
            **({"left_out": list(self.left_out)} if self.left_out else {}),
        }


def check(
    target: Path | str, *, steps: int = 6, seconds: float = 12.0, rules: tuple[str, ...] | None = None, seed: int = 0,
    driver: Path | None = None, child: Child | None = None,
) -> CheckResult:  # fmt: skip
    """Checks a file, a folder, a notebook or ``module:Class``.

    What the program does not call by itself is called by ``driver``, a file that imports it; where there is no such
    file, by the examples, tests and scripts of its project, and the first of them that ran is written there.

    ``steps`` is how many optimiser steps each training loop may take, ``seconds`` the CPU time of one execution,
    ``rules`` the ids that are asked (default: all).  A warm ``child`` can serve many checks.
    """
    source = open_source(target)
    program = Program(source)
    own = drivers.taken(driver) if driver is not None and driver.exists() else None
    given = (own,) if own is not None else None
    with observe(source, steps=steps, seconds=seconds, seed=seed, child=child, given=given) as run:
        result = _result(program, run, steps, seconds, rules)
    if own is None:
        keep_driver(run, driver)
    return result


def driven(result: CheckResult, driver: Driver, child: Child) -> tuple[CheckResult | None, Run]:
    """The result with a driver beside those that there were, None where more of the program did not run; and the run
    with it."""
    program, given = result.program, (driver, *(d for d in result.run.drivers if d.by != driver.by))
    endless = result.run.defining or not result.run.executed or bool(result.run.why_not)
    with observe(
        program.source,
        steps=result.steps,
        seconds=result.seconds,
        child=child,
        given=given,
        defining=endless,
        like=result.run,
    ) as run:
        more = Exercised(program, run).extent > result.exercised.extent
        return _result(program, run, result.steps, result.seconds, result.rules) if more else None, run


def _result(
    program: Program, run: Run, steps: int, seconds: float, rules: tuple[str, ...] | None
) -> CheckResult:  # fmt: skip
    findings, stand_ins = judge(program, run, rules), [str(stand_in) for stand_in in run.stand_ins]
    return CheckResult(stand_ins, in_order(list(findings)), program, run, steps, seconds, rules)


def keep_driver(run: Run, file: Path | None) -> None:
    """Writes the first driver that ran something, where a file for it is named."""
    if file is not None and run.driven:
        file.write_text(run.driven[0][0].text, encoding="utf-8")


def judge(program: Program, run: Run, only: tuple[str, ...] | None = None) -> Iterator[Finding]:
    """What the rules say, that an exception was raised only where no other says why; numbers of a program that was made
    smaller are told as such."""
    findings = settled(program, run, _judgements(program, run, only), lambda p, r: _judgements(p, r, only))
    explained = {(f.file, f.line) for f in findings if f.rule not in (RAISED, "X09") and f.severity != "ok"}
    note = f" Seen in the program made smaller ({', '.join(run.shrunk[:3])})." if run.shrunk else ""
    for finding in findings:
        if finding.rule == RAISED and (finding.file, finding.line) in explained:
            continue
        serious = finding.severity in ("error", "warning") and finding.facts and finding.rule != RAISED
        if serious and _within_guessed(finding, program, run):
            finding = _guessed(finding)
        elif serious and finding.severity == "error" and _for_a_model(finding, program, run):
            said = f"{finding.evidence} Seen only where the driver that a model wrote called it."
            finding = replace(finding, severity="warning", evidence=said, patch=None)
        yield replace(finding, evidence=f"{finding.evidence}{note}") if finding.facts else finding


def _judgements(program: Program, run: Run, only: tuple[str, ...] | None) -> Iterator[Finding]:
    """What the rules say; a rule that fails says that it could not judge, and stops no other.  Of Python 2 they say
    nothing: there the same words mean other things."""
    if python2(program.main.tree):
        return
    for identity, rule in all_rules().items():
        if only is not None and identity not in only:
            continue
        try:
            for finding in rule.judge(program, run.facts, run):
                if not _elsewhere(finding, run.facts):
                    yield finding if finding.file else replace(finding, file=program.file)
        except Exception as error:  # a rule meets a stranger's program: its failure is no verdict on it
            said = f"Rule {identity} could not be applied ({type(error).__name__}: {error})."
            yield Finding(identity, "info", 1, said, file=program.file)


def _for_a_model(finding: Finding, program: Program, run: Run) -> bool:
    """Whether a finding stands in a function that ran only in the hands of a model's driver: what is odd there may be
    the model's."""
    unit = program.units.get(finding.file)
    function = function_at(unit, finding.line) if unit is not None else None
    if function is None or not any(driver.by == "model" for driver, _ in run.driven) or _whatever_values(finding, run):
        return False
    ran = {line for f in run.facts.of("run.reached", "program") if f.file == finding.file for line in f.value}
    return ran.isdisjoint(range(function.body[0].lineno, (function.end_lineno or 0) + 1))


def _whatever_values(finding: Finding, run: Run) -> bool:
    """Whether a finding rests on facts about the code alone."""
    cited = [fact for identity in finding.facts if (fact := run.facts.get(identity)) is not None]
    return bool(cited) and all(fact.topic in _WHATEVER_VALUES for fact in cited)


def _within_guessed(finding: Finding, program: Program, run: Run) -> bool:
    """Whether a finding stands in a class or function that nothing but guesses has called, with or without success."""
    unit, about = program.units.get(finding.file), run.facts.first("run.program")
    own = next((set(f.value) for f in run.facts.of("run.reached", "own") if f.file == finding.file), None)
    if unit is None or about is None or own is None:
        return False
    waited = [unit.classes[name].node for name in about["guessed"] or () if name in unit.classes]
    function, line = function_at(unit, finding.line), finding.line
    never = function is not None and own.isdisjoint(range(function.body[0].lineno, (function.end_lineno or 0) + 1))
    tried = [unit.functions.get(fact.subject) for fact in run.facts.of("run.tried")]
    cited = [fact for identity in finding.facts if (fact := run.facts.get(identity)) is not None]
    if _whatever_values(finding, run):
        return False
    asked = function in tried or any(fact.topic.startswith("property.") for fact in cited)
    return (never and asked) or any(node.lineno <= line <= (node.end_lineno or 0) for node in waited)


_WHATEVER_VALUES = ("probe.binding", "probe.handed", "probe.ungiven", "property.in place", "module.calls")
"""Facts about the code alone (that a layer whose name is read nowhere was not called among them): no value that it is
called with makes them other."""


def _guessed(finding: Finding) -> Finding:
    """A finding of code that nothing but guesses has called: what was proved is a warning there, and what was only seen
    a remark, since other values may show something else."""
    said = f"{finding.evidence} Seen when it was called with values that were made up."
    severity: Severity = "warning" if finding.severity == "error" else "info"
    return replace(finding, severity=severity, evidence=said, patch=None)


def _elsewhere(finding: Finding, facts: FactStore) -> bool:
    """Whether what a finding is about happened in code that is not the program's, a driver's: what is recorded there
    has no line, and so the finding stands at the first one for want of a place."""
    cited = [fact for identity in finding.facts if (fact := facts.get(identity)) is not None]
    lost = finding.line == FIRST and any(fact.line is None for fact in cited)
    return lost and all((fact.file or finding.file, fact.line) != (finding.file, FIRST) for fact in cited)


@dataclass(frozen=True)
class Fixed:
    """The files that were changed, and the findings whose patches were left out."""

    files: list[str]
    left: list[Finding]


def fix(result: CheckResult, *, child: Child | None = None) -> Fixed:
    """Applies the patches of errors and warnings, as many as leave a program that runs clean with them.

    A patch is left out where it touches a line that another has changed, or where the program with it raises more than
    before, still has the finding, or has a new error.
    """
    source = result.program.source
    if source.path.suffix == ".ipynb":
        raise BowerbirdError("Notebooks are not changed; their findings say what to change in which cell.")
    if source.mended:
        raise BowerbirdError(f"{source.path} is no Python as it stands, so --fix does not change it; mend that first.")
    offered = [f for f in result.findings if f.severity in ("error", "warning") and _within(f.patch, source)]
    apart = list(_apart(offered))
    with warm(child) as child:
        kept = apart if _clean(result, apart, child) else []
        for finding in apart if not kept else ():
            kept = [*kept, finding] if _clean(result, [*kept, finding], child) else kept
    texts = _patch(kept).apply(source.texts)
    changed = [file for file, text in texts.items() if kept and text != source.texts[file]]
    for file in changed:
        write_back(Path(file), texts[file])
    return Fixed(changed, [finding for finding in offered if finding not in kept])


def _within(patch: Patch | None, source: Source) -> bool:
    """Whether a patch changes files that were named alone, and none that they import."""
    return patch is not None and all(edit.file in source.texts for edit in patch.edits)


def _apart(findings: list[Finding]) -> Iterator[Finding]:
    """Findings whose patches touch different lines."""
    taken: set[tuple[str, int]] = set()
    for finding in findings:
        lines = {(e.file, n) for e in _patch([finding]).edits for n in range(e.first, max(e.last, e.first) + 1)}
        if not lines & taken:
            taken |= lines
            yield finding


def _patch(findings: list[Finding]) -> Patch:
    return combine("fix", [finding.patch for finding in findings if finding.patch is not None])


def _clean(result: CheckResult, findings: list[Finding], child: Child) -> bool:
    """Whether the program runs as far with these patches, without these findings and without an error that is new."""
    if not findings:
        return True
    patch, source = _patch(findings), result.program.source
    try:
        texts = patch.apply(source.texts)
        trees = {file: parse(text, file) for file, text in texts.items()}
    except BowerbirdError:
        return False
    program = Program(replace(source, texts=texts, trees=trees))
    with observe(program.source, steps=result.steps, seconds=result.seconds, child=child) as run:
        after = list(judge(program, run))
    worse = len(run.exceptions()) > len(result.run.exceptions()) or (result.run.executed and not run.executed)
    new = [f for f in after if f.severity == "error" and not any(f.rule == old.rule for old in result.findings)]
    return not worse and not new and not any(still(finding, patch, after) for finding in findings)


def as_json(result: CheckResult) -> str:
    """The result as the command prints it for machines."""
    return json.dumps(result.to_json(), indent=2, ensure_ascii=False)


def as_text(result: CheckResult, *, everything: bool = False) -> Iterator[str]:
    """The result as the command prints it for people; ``everything`` shows also what is fine."""
    yield from map(printable, _lines(result, everything))


def _lines(result: CheckResult, everything: bool) -> Iterator[str]:
    source, exercised = result.program.source, result.exercised
    yield f"{source.path}: {_status(exercised)}"
    yield from (f"  stand-in  {stand_in}" for stand_in in result.stand_ins)
    for driver, fact in result.run.driven:
        yield f"  driver    {driver.place}: {', '.join(fact['ran']) or 'more lines'} ran"
        yield from (f"            | {line}" for line in driver.text.splitlines() if driver.by == "model")
    yield from (f"  as pasted  {words}" for words in source.mended)
    unreached = exercised.never
    if result.run.shrunk:
        yield f"  It ran made smaller ({', '.join(result.run.shrunk)}); numbers below are of that, not of the program."
    shown = [f for f in result.findings if everything or f.severity != "ok"]
    for finding in shown:
        other = f" of {finding.file}" if finding.file != source.main else ""
        yield f"{finding.severity:<9}  {finding.rule}  {source.where(finding.line)}{other}: {finding.message}"
        same = finding.explains and f"The same cause: {', '.join(finding.explains)}."
        said = (finding.evidence, same, finding.fix and f"Fix: {finding.fix}")
        yield from (f"             {text}" for text in said if text)
        if finding.severity in ("supported", "suggested") and finding.patch is not None:
            yield from (f"             {row}" for row in finding.patch.diff(source.texts).splitlines()[2:])
    fine = sum(finding.severity == "ok" for finding in result.findings)
    if fine and not everything:
        yield f"Checked and fine: {fine} (--all shows them)."
    yield from result.left_out
    if exercised.not_judged:
        yield f"Not judged: {exercised.not_judged}."
    elif not shown and unreached:
        yield f"Nothing was found in what ran; never reached: {', '.join(unreached)}."
    elif not shown and exercised.kind == "function" and exercised.guessed:
        told = ", ".join(exercised.guessed)
        yield f"Nothing was found; its functions ran with arguments that were made up ({told})."
    elif not shown:
        yield "Nothing was found."


def _status(exercised: Exercised) -> str:
    """``3 of 4 modules ran, 6 optimiser steps, 87 of 102 lines (never: 40-52, 60).``"""
    run, parts, (covered, of) = exercised.run, exercised.parts, exercised.covered
    if not run.executed:
        return "not run; only its text was read."
    number = f"{sum(parts.values())} of {len(parts)} {exercised.kind}{'s' * (len(parts) != 1)} ran, " if parts else ""
    steps = f"{exercised.steps} optimiser step{'s' * (exercised.steps != 1)}, "
    own = [(first, last) for file, first, last in exercised.missed if file == exercised.program.file]
    missed = [str(first) if first == last else f"{first}-{last}" for first, last in own]
    more = f" and {len(missed) - 8} more stretches" if len(missed) > 8 else ""
    never = f" (never: {', '.join(missed[:8])}{more})" if missed else ""
    return f"{number}{steps}{covered} of {of} lines{never}."
