"""What changes if a setting changes: the program runs again with one number altered, under the same seed.

A run of a few steps shows what a setting does at once (parameters, cost, the first losses, failures), not what it does
to a model that has been trained to its end; readings say so.
"""

import time
from typing import Any

from bowerbird.reading.explain import glossary
from bowerbird.reading.explain.glossary import Entry
from bowerbird.reading.explain.study import Study, passes
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.patching import Edit, Patch

MOST = 6
PATIENCE = 40.0
_SET = ("constant", "option", "entry", "local", "argument")
"""Kinds that hold, where a default or a field may be overridden."""


def note(study: Study, *, most: int = MOST, seconds: float = PATIENCE) -> None:
    """Adds ``setting.changed`` for at most so many settings, the most telling first, until the time is over."""
    if not study.run.executed or study.run.rerun is None:
        return
    until = time.monotonic() + seconds
    for fact, entry in candidates(study)[:most]:
        if time.monotonic() > until:
            return
        text = other(fact["value"], entry)
        patch = _patch(study, fact, text)
        if text and patch is not None:
            after = study.run.patched(patch)
            if after is not None and after.first("run.program") is not None:
                value = {"was": fact["text"], "is": text, "setting": fact.id, **compared(study.facts, after)}
                study.add(
                    "setting.changed", fact.subject, value, like=fact, kind="probed", run=f"patched:{patch.label}"
                )


def shrunk(study: Study, setting: str) -> Fact | None:
    """The stand-in by which a setting was made smaller, so that the program runs within the time."""
    found = study.facts.of("run.stand_in")
    return next((f for f in found if "→" in f.subject and f.subject.partition(" ")[0] == setting), None)


def candidates(study: Study) -> list[tuple[Fact, Entry]]:
    """The numeric settings that have a meaning and can be altered in place, one for each meaning."""
    found: dict[str, tuple[Fact, Entry]] = {}
    for fact in study.facts.of("setting.value"):
        entry = glossary.fitting(fact.subject, fact["value"], study.family.id)
        if entry is None or not entry.perturb or fact["from"] is None or not other(fact["value"], entry):
            continue
        if (fact["kind"] in _SET or fact["uses"]) and shrunk(study, fact.subject) is None:
            known = found.get(entry.id)
            if known is None or (known[0]["kind"] not in _SET and fact["kind"] in _SET):
                found[entry.id] = (fact, entry)
    return sorted(found.values(), key=lambda pair: pair[1].rank)


def other(value: Any, entry: Entry) -> str:
    """The altered value as source text; empty where there is none."""
    if entry.perturb == "first-beta":
        if isinstance(value, list) and len(value) == 2:
            return f"({0.5 if value[0] > 0.7 else 0.9}, {value[1]})"
        return "" if not isinstance(value, float) else repr(0.5 if value > 0.7 else 0.9)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if entry.perturb == "double":
        return repr(value * 2) if value else ""
    if entry.perturb == "half":
        halved = value // 2 if isinstance(value, int) else value / 2
        return repr(halved) if halved else ""
    return ("" if value == 0 else "0.0" if isinstance(value, float) else "0") if entry.perturb == "zero" else ""


def _patch(study: Study, fact: Fact, text: str) -> Patch | None:
    line = fact.line or 0
    old = study.text(fact.file, line)
    start, end = fact["from"], fact["to"]
    raw = old.encode()
    if raw[start:end].decode(errors="replace").replace(" ", "") != str(fact["text"]).replace(" ", "") and not _same(
        raw[start:end].decode(errors="replace"), fact["value"]
    ):
        return None
    new = (raw[:start] + text.encode() + raw[end:]).decode(errors="replace")
    return Patch(f"setting {fact.subject}", (Edit(fact.file, line, line, (new,)),))


def _same(text: str, value: Any) -> bool:
    try:
        return float(text.replace("_", "")) == value
    except (ValueError, TypeError):
        return text.startswith(("(", "["))


def compared(before: FactStore, after: FactStore) -> dict[str, Any]:
    """What two runs of a program differ in, as far as a reader asks."""
    found: dict[str, Any] = {"parameters": [_parameters(before), _parameters(after)], "failed": "", "losses": []}
    raised = after.first("run.exception")
    if raised is not None and before.first("run.exception", raised.subject) is None:
        found["failed"] = f"{raised.subject}: {str(raised['message'])[:160]}"
        found["failed_line"] = raised.line
    changed = passes(after)
    for subject, facts in passes(before).items():
        a, b = [f["loss"] for f in facts], [f["loss"] for f in changed.get(subject, [])]
        n = min(len(a), len(b))
        if n and isinstance(a[n - 1], int | float) and isinstance(b[n - 1], int | float):
            through = list(dict.fromkeys(row["module"] for row in facts[0]["through"] or []))
            row = {"line": facts[0].line, "file": facts[0].file, "through": through if " through " in subject else []}
            found["losses"].append({**row, "n": n, "was": a[n - 1], "is": b[n - 1], "first": [a[0], b[0]]})
    times = [store.first("run.program") for store in (before, after)]
    found["steps"] = [t["steps"] if t is not None else 0 for t in times]
    deltas = [
        [f["delta"] for f in store.of("event.step") if isinstance(f["delta"], int | float)] for store in (before, after)
    ]
    if all(deltas):
        found["first_step"] = [d[0] for d in deltas]
    return found


def _parameters(store: FactStore) -> int:
    return sum(f["parameters"] or 0 for f in store.of("module.tree"))
