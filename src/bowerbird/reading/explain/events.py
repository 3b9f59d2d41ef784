"""One round of training, as the event log tells it, and how the losses moved over all rounds."""

from collections import Counter
from typing import Any

from bowerbird.reading.explain.study import Study
from bowerbird.reading.facts import Fact

_KINDS = tuple(f"event.{kind}" for kind in "zero_grad forward backward clip step scheduler clamp".split())
LONGEST = 60


def note(study: Study) -> None:
    """Adds ``training.round``, ``loss.moved`` of each backward's place and ``optimizer.moved`` of each optimiser."""
    events = [f for f in study.events if f.topic in _KINDS and _trains(f)]
    stepping = {f.subject for f in events if f.topic == "event.step"}
    found = one_round(events, stepping)
    if found:
        steps = Counter(f.subject for f in found if f.topic == "event.step")
        study.add("training.round", "round", {"events": collapsed(found), "steps": dict(steps)}, like=found[0])
    for subject, backwards in study.passes().items():
        _moved(study, subject, backwards)
    for subject in dict.fromkeys(f.subject for f in events if f.topic == "event.step"):
        _stepped(study, [f for f in events if f.topic == "event.step" and f.subject == subject])


def _trains(fact: Fact) -> bool:
    return fact.topic != "event.forward" or (bool(fact["grad_enabled"]) and fact["graph"] is not False)


def one_round(events: list[Fact], stepping: set[str]) -> list[Fact]:
    """From the first event of training to where it comes again, once every optimiser has stepped."""
    if not events or not stepping:
        return []
    found: list[Fact] = []
    waiting = set(stepping)
    start = _place(events[0])
    for event in events:
        if found and not waiting and _place(event) == start:
            break
        if event.topic == "event.step":
            waiting.discard(event.subject)
        found.append(event)
        if len(found) > LONGEST:
            break
    while found and not waiting and found[-1].topic not in ("event.step", "event.scheduler", "event.clamp"):
        found.pop()
    return found


def _place(event: Fact) -> tuple[str, str, int | None]:
    return event.topic, event.subject, event.line


def collapsed(events: list[Fact]) -> list[dict[str, Any]]:
    """Events as rows; a run of rows that repeats (a critic's five steps) is told once, with how often."""
    rows: list[dict[str, Any]] = []
    i = 0
    while i < len(events):
        length, times = _repeat(events, i)
        for event in events[i : i + length]:
            rows.append(
                {"fact": event.id, "topic": event.topic, "subject": event.subject, "line": event.line, "times": times}
            )
        i += length * times
    return rows


def _repeat(events: list[Fact], at: int) -> tuple[int, int]:
    """The shortest stretch that is repeated at once from here, and how often; (1, 1) if there is none."""
    for length in range(1, (len(events) - at) // 2 + 1):
        piece = [_place(e) for e in events[at : at + length]]
        times = 1
        while [_place(e) for e in events[at + times * length : at + (times + 1) * length]] == piece:
            times += 1
        if times > 1:
            return length, times
    return 1, 1


def _moved(study: Study, subject: str, backwards: list[Fact]) -> None:
    values = [f["loss"] for f in backwards if isinstance(f["loss"], int | float)]
    if values:
        value = {
            "first": values[0], "last": values[-1], "n": len(values), "lowest": min(values), "highest": max(values),
            "values": values[:60], "facts": [backwards[0].id, backwards[-1].id],
        }  # fmt: skip
        study.add("loss.moved", subject, value, like=backwards[0])


def _stepped(study: Study, steps: list[Fact]) -> None:
    detailed = [f for f in steps if isinstance(f["delta"], int | float) and f["weight_norm"]]
    value = {"n": len(steps), "class": steps[0]["class"], "lr": steps[0]["lr"], "last_lr": steps[-1]["lr"]}
    if detailed:
        ratios = [f["delta"] / f["weight_norm"] for f in detailed]
        value |= {
            "ratio": float(f"{sum(ratios) / len(ratios):.4g}"), "grad_first": detailed[0]["grad_norm"],
            "grad_last": detailed[-1]["grad_norm"], "owners": list(detailed[0]["owners"] or {}),
        }  # fmt: skip
    study.add("optimizer.moved", steps[0].subject, value, like=steps[0])
