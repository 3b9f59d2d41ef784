"""``track``: two versions of a program run under matched random numbers, and what that says about their behaviour.

    equal trajectories, no decisive setting changed      → no behavioural change, whatever a commit message claims
    trajectories part                                    → a change; its cause is named from facts
    the lines that changed did not run                   → inconclusive, and said so

Equality under any coupling of random numbers proves it.  So where runs part without a setting that explains it, they
are run once more with other streams and with the weights of the first version copied into the second.
"""

import ast
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bowerbird.reading.history import normal
from bowerbird.reading.history.change import Change
from bowerbird.reading.history.localise import failures, in_training, localised
from bowerbird.reading.history.settings import named
from bowerbird.reading.history.trajectory import Parting, partings
from bowerbird.reading.history.version import THROUGHOUT, Version, assign_roles, kept_state, run
from bowerbird.reading.running.launch import Child, warm
from bowerbird.reading.source import Source, open_source


@dataclass(frozen=True)
class TrackResult:
    """``how`` is the ground of the verdict: a ``ground`` of words.toml; ``hunks`` are the statements that differ."""

    before: str
    after: str
    changes: tuple[Change, ...] = ()
    how: str = "text"
    numbers: dict[str, Any] = field(default_factory=dict)
    hunks: tuple[normal.Hunk, ...] = field(default=(), repr=False)
    stand_ins: tuple[str, ...] = ()

    @property
    def behavioural_change(self) -> bool:
        """Whether a difference was seen; one that is only known from the text is inconclusive, not a change."""
        return any(change.what != "unverified" for change in self.changes)

    @property
    def inconclusive(self) -> bool:
        return any(change.what == "unverified" for change in self.changes)

    def to_json(self) -> dict[str, Any]:
        return {
            "behavioural_change": self.behavioural_change,
            "inconclusive": self.inconclusive,
            "changes": [change.to_json() for change in self.changes],
        }


def track(before: Path | str, after: Path | str, *, child: Child | None = None) -> TrackResult:
    """Compares two files (folders, notebooks); a warm ``child`` can serve many comparisons."""
    return compare(open_source(before), open_source(after), str(before), str(after), child=child)


def compare(a: Source, b: Source, before: str, after: str, *, child: Child | None = None) -> TrackResult:
    """Compares two sources that are called ``before`` and ``after``."""
    if same_text(a, b):
        return TrackResult(before, after, how="text")
    hunks = normal.hunks(a.trees[a.main], b.trees[b.main])
    with warm(child) as child:
        one = run(a, child)
        if not one.ran:
            return _unrun(TrackResult(before, after, hunks=tuple(hunks)), one)
        two = run(b, child, one.request)
        result = _judged(one, two, hunks, child)
    stand_ins = dict.fromkeys(f"{f.subject}: {f['reason']}" for f in one.facts.of("run.stand_in"))
    return replace(result, before=before, after=after, hunks=tuple(hunks), stand_ins=tuple(stand_ins))


def same_text(a: Source, b: Source) -> bool:
    """Whether two sources are the same statements: only comments, docstrings, annotations, log lines differ."""
    left, right = (
        {str(Path(file).name if file == s.main else Path(file)): _texts(tree) for file, tree in s.trees.items()}
        for s in (a, b)
    )
    return sorted(left.values()) == sorted(right.values())


def _texts(tree: ast.Module) -> list[str]:
    imports = sorted(ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom))
    return [*imports, *(s.text for s in normal.statements(tree))]


def _unrun(result: TrackResult, version: Version) -> TrackResult:
    """Nothing ran: what is left is the text."""
    failed = version.facts.first("run.exception")
    why = version.why or (f"{failed.subject}: {failed['message'][:80]}" if failed is not None else "nothing to run")
    if not result.hunks:
        return replace(result, how="renamed")
    return replace(result, changes=(_unverified(result.hunks[0], "not_run", why),), how="not_run")


def _unverified(hunk: normal.Hunk, reason: str, why: str = "") -> Change:
    old, new = (" ".join(s.text.strip() for s in side)[:120] or "nothing" for side in (hunk.before, hunk.after))
    return Change.of(reason, old, new, key=why).at(_first(hunk.before), _first(hunk.after))


def _judged(a: Version, b: Version, hunks: list[normal.Hunk], child: Child) -> TrackResult:
    assign_roles(a, b)
    numbers = {
        "steps": len(a.facts.of("event.step")), "losses": len(a.facts.of("event.backward")),
        "forwards": len(a.facts.of("event.forward")),
    }  # fmt: skip
    found, settings = partings(a, b), named(a, b)
    decisive = [change for change in settings if change.decisive]
    broken = failures(a, b)
    strong = decisive or any(c.what in ("architecture", "dropout", "parameters") for c in settings)
    if found and not strong and broken is None:
        again = _matched(a, b, child)
        if again is not None and not partings(*again):
            found, settings = [], [c for c in settings if c.what == "initialisation"]
            decisive = settings
            numbers["matched"] = True
    if not found and not decisive and broken is None:
        unseen = [h for h in hunks if not a.ran_at(h.before) and not b.ran_at(h.after)]
        if unseen:
            stopped = a.facts.first("run.exception")
            why = f"{stopped.subject}: {stopped['message'][:80]}" if stopped is not None else ""
            change = _unverified(unseen[0], "stopped" if why else "unseen", why)
            return TrackResult("", "", (change,), "unseen", numbers)
        return TrackResult("", "", (), "matched" if "matched" in numbers else "trajectory", numbers)
    changes = [_placed(c, hunks) for c in _causes(a, b, found, settings, broken)]
    return TrackResult("", "", tuple(_of_loss(c, hunks) for c in changes), "parted", numbers)


def _causes(
    a: Version, b: Version, found: list[Parting], settings: list[Change], broken: Change | None
) -> list[Change]:  # fmt: skip
    """Settings that differ, else what the first parting shows; what merely follows from another is left out."""
    changes = list(settings)
    if any(c.what in ("architecture", "data", "data range", "dropout") for c in changes):
        changes = [c for c in changes if c.what not in ("schedule", "gradients", "EMA") or c.decisive]
    if not changes or (in_training(found) and all(c.phase == "sampling" for c in changes)):
        shown = localised(a, b, found)
        changes += [shown] if shown is not None else []
    elif all(c.what == "gradients" for c in changes):
        shown = localised(a, b, found)
        changes += [shown] if shown is not None and shown.what != "gradients" else []
    if broken is not None and not changes:
        changes.append(broken)
    if not changes:
        first = found[0]
        changes.append(Change.of("returned", first.before, first.after, who=first.kind))
    return changes


def _matched(a: Version, b: Version, child: Child) -> tuple[Version, Version] | None:
    """Both versions with draws numbered over the whole run, the second with the first one's weights."""
    one = run(a.source, child, a.request, session=THROUGHOUT)
    kept = kept_state(child)
    two = run(b.source, child, a.request, session=THROUGHOUT, adopt=kept)
    if not one.ran or not two.ran:
        return None
    assign_roles(one, two)
    return one, two


def _placed(change: Change, hunks: list[normal.Hunk]) -> Change:
    """A change at the statements that differ, where the fact itself stands elsewhere."""
    hunk = normal.place(hunks, change.line_before, change.line_after, change.words or ".")
    if hunk is None:
        return change
    before = change.line_before if hunk.holds(change.line_before) else _first(hunk.before)
    after = change.line_after if hunk.holds(change.line_after, after=True) else _first(hunk.after)
    return change.at(before or change.line_before, after or change.line_after)


_LOSSLIKE = re.compile(r"\b\w*(loss|objective|penalty|criterion|\bkl|elbo)\w*\b.*=|return .*loss", re.I)
_CUTTING = re.compile(r"backward|zero_grad|clip|requires_grad|\.step\(|autocast|no_grad", re.I)


def _of_loss(change: Change, hunks: list[normal.Hunk]) -> Change:
    """Gradients that part at a statement which computes a loss are the loss's own."""
    hunk = next((h for h in hunks if h.holds(change.line_before) or h.holds(change.line_after, after=True)), None)
    if change.reason != "gradient" or hunk is None or _CUTTING.search(hunk.text) or not _LOSSLIKE.search(hunk.text):
        return change
    return replace(change, what="loss", reason="pull")


def _first(found: tuple[normal.Statement, ...]) -> int | None:
    return found[0].first if found else None
