"""Whether a finding survives its own remedy: the program is run again with the patch, and judged again.

A finding whose patch does not make it go away, or makes the program fail, is no error: it is said as a warning, without
the patch.  What else goes away with the patch had the same cause, and is told as a part of the finding that has it.  An
error without a patch stays one where an experiment on the program's own objects bears it out, or an identity that holds
or not; where something was only seen that looks wrong, it is a warning too.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding, in_order
from bowerbird.reading.patching import Patch
from bowerbird.reading.program import Program
from bowerbird.reading.rules import all_rules
from bowerbird.reading.running.run import Run
from bowerbird.reading.source import parse

Judge = Callable[[Program, Run], Iterable[Finding]]
MOST_RUNS = 4
NEAR = 2
"""How many lines a finding may have moved beyond what the patch moved it."""


def settled(program: Program, run: Run, findings: Iterable[Finding], judge: Judge) -> list[Finding]:
    """The findings after each error that has a patch was put to the test; worst first, at most ``MOST_RUNS`` runs."""
    left = [_grounded(finding, run.facts) for finding in in_order(findings)]
    tried = 0
    for finding in list(left):
        if finding not in left or finding.severity != "error" or finding.patch is None:
            continue
        if tried >= MOST_RUNS:
            left[left.index(finding)] = _doubted(finding, "It was not put to the test, after so many others")
            continue
        tried += 1
        after = _after(program, run, finding.patch, judge)
        place = left.index(finding)
        if after is None or still(finding, finding.patch, after):
            left[place] = _doubted(finding, "The patched program could not be run" if after is None else _PERSISTS)
            continue
        same = [f for f in left if f is not finding and _serious(f) and not still(f, finding.patch, after)]
        left[place] = replace(finding, explains=tuple(f"{f.rule} at line {f.line}" for f in same))
        left = [f for f in left if f not in same]
    return left


_PERSISTS = "With the patch applied it is still there"


def _grounded(finding: Finding, facts: FactStore) -> Finding:
    if finding.severity != "error" or finding.patch is not None:
        return finding
    if not finding.facts:
        return _doubted(finding, "Judged by the text alone")
    cited = [fact for identity in finding.facts if (fact := facts.get(identity)) is not None]
    rule = all_rules().get(finding.rule)
    proved = (rule is not None and rule.exact) or any(fact.kind == "probed" for fact in cited)
    return finding if proved else _doubted(finding, "Seen, and not put to the test by an experiment")


def _doubted(finding: Finding, why: str) -> Finding:
    return replace(finding, severity="warning", evidence=f"{finding.evidence} {why}.".strip(), patch=None)


def _serious(finding: Finding) -> bool:
    return finding.severity in ("error", "warning")


def _after(program: Program, run: Run, patch: Patch, judge: Judge) -> list[Finding] | None:
    """What is found in the patched program; None where it cannot be run or fails where it did not before."""
    facts = run.patched(patch)
    if facts is None or facts.first("run.program") is None:
        return None
    again = Run(executed=True, facts=facts, stand_ins=run.stand_ins)
    if len(again.exceptions()) > len(run.exceptions()):
        return None
    source = program.source
    texts = patch.apply(source.texts)
    trees = {file: parse(text, file) for file, text in texts.items()}
    return list(judge(Program(replace(source, texts=texts, trees=trees)), again))


def still(finding: Finding, patch: Patch, after: Iterable[Finding]) -> bool:
    """Whether a finding is among those of the patched program, as serious, and at its line."""
    moved = finding.line + sum(
        len(edit.new) - (edit.last - edit.first + 1)
        for edit in patch.edits
        if edit.file == finding.file and edit.first <= finding.line
    )
    return any(
        f.rule == finding.rule and f.file == finding.file and _serious(f) and abs(f.line - moved) <= NEAR for f in after
    )
