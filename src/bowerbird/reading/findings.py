"""A finding: what a rule says of one line of the user's program, with its evidence and its remedy.

``error`` is proved (an observation, a probe, a differential run), ``warning`` strongly indicated, ``info`` harmless or
a matter of taste, ``ok`` checked and fine.  What a language model proposes is ``supported`` where an assertion of its
own bears it out, else ``suggested``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from bowerbird.reading.patching import Patch

Severity = Literal["error", "warning", "supported", "suggested", "info", "ok"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True)
class Finding:
    """``message`` is one plain sentence; ``evidence`` cites numbers and, in ``facts``, the ids they stand on."""

    rule: str
    severity: Severity
    line: int
    message: str
    evidence: str = ""
    fix: str = ""
    file: str = ""
    facts: tuple[str, ...] = ()
    patch: Patch | None = field(default=None, compare=False)
    explains: tuple[str, ...] = ()
    """Other findings that have the same cause: they went away when the patched program ran."""

    def to_json(self) -> dict[str, Any]:
        row = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "patch"}
        row |= {"facts": list(self.facts), "explains": list(self.explains)}
        return row | ({} if self.patch is None else {"patch": self.patch.to_json()})


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Worst first, then by line; what was said twice of one line by one rule is said once, at its worst."""
    ranked = sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.file, f.line, f.rule))
    once = {(f.rule, f.file, f.line): f for f in reversed(ranked)}
    return [finding for finding in ranked if once[finding.rule, finding.file, finding.line] is finding]
