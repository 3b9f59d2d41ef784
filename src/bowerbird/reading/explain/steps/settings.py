"""Every parameter that somebody chose: what it means, where it is set and used, why, and what it changes."""

from collections.abc import Iterator
from typing import Any

from bowerbird.reading.explain import glossary
from bowerbird.reading.explain.glossary import Entry
from bowerbird.reading.explain.perturb import shrunk
from bowerbird.reading.explain.reading import Block
from bowerbird.reading.explain.text import Ref, Text, figure, general, joined, name, number, quote
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact

MOST_TOLD, MOST_LISTED, MOST_LOSSES = 14, 40, 3
RARE = 40
"""From this rank on a setting is listed, not told."""
_ORDER = {"constant": 0, "option": 0, "entry": 0, "local": 0, "field": 1, "argument": 2, "rounds": 3, "default": 4}
Known = tuple[Fact, Entry | None]


def write(w: Writer) -> Iterator[Block]:
    found = _ranked(w)
    if not found:
        yield w.said("setting.none")
        return
    changed = {f["setting"]: f for f in w.study.facts.of("setting.changed")}
    told = _told(found)
    for fact, entry in told:
        yield w.heading("setting.title", fact, value=_value(fact))
        yield from w.items(_items(w, fact, entry, changed.get(fact.id)))
        yield from w.questions([card for card in entry.cards if w.concerns(card)], fact)
    if changed:
        yield w.said("setting.note")
    rest = [pair for pair in found if pair not in told]
    if rest:
        yield w.heading("setting.others")
        yield from w.table("setting", [_listed(w, fact, entry) for fact, entry in rest[:MOST_LISTED]])


def _ranked(w: Writer) -> list[Known]:
    family = w.study.family.id
    pairs = [(f, glossary.fitting(f.subject, f["value"], family)) for f in w.study.facts.of("setting.value")]
    kept = [(f, e) for f, e in pairs if e is not None or f["uses"] or f["help"]]
    return sorted(kept, key=lambda p: (p[1].rank if p[1] else 99, _ORDER[p[0]["kind"]], p[0].position))


def _told(found: list[Known]) -> list[tuple[Fact, Entry]]:
    """The first setting of each meaning that is worth telling."""
    first: dict[str, tuple[Fact, Entry]] = {}
    for fact, entry in found:
        if entry is not None and entry.rank < RARE:
            first.setdefault(entry.id, (fact, entry))
    return list(first.values())[:MOST_TOLD]


def _value(fact: Fact) -> Ref:
    value = fact["value"]
    return Ref(str(fact["text"]), fact.id, "name" if isinstance(value, str) else "number", value)


def _items(w: Writer, fact: Fact, entry: Entry, changed: Fact | None) -> Iterator[Text]:
    kind, uses = w.say(f"setting.{fact['kind']}", fact), fact["uses"] or []
    said = w.say("setting.set", fact, meaning=general(fact, entry.meaning[w.lang]), kind=kind)
    yield said + (w.say("setting.used", lines=w.lines(fact, uses)) if uses else w.say("setting.end"))
    if fact["help"]:
        yield w.say("setting.help", fact)
    smaller = shrunk(w.study, fact.subject)
    if smaller is not None:
        yield w.say("setting.smaller", smaller)
    yield w.say("setting.why", why=general(fact, entry.why[w.lang]))
    yield w.say("setting.change", change=general(fact, entry.change[w.lang]))
    if changed is not None:
        yield _measured(w, changed)


# ------------------------------------------------------------------------------------------------------ what changed


def _measured(w: Writer, changed: Fact) -> Text:
    parts = list(_differences(w, changed))
    if not parts and not changed["losses"]:
        return w.say("setting.untrained")
    what = joined(parts, w.lang) if parts else w.say("setting.nothing")
    return w.say("setting.measured", what=what, **{"is": Ref(str(changed["is"]), changed.id, "number", changed["is"])})


def _differences(w: Writer, changed: Fact) -> Iterator[Text]:
    before, after = changed["parameters"] or [0, 0]
    if changed["failed"]:
        yield w.say("setting.fails", changed)
    if before != after:
        yield w.say("setting.parameters", changed)
    for i, row in enumerate((changed["losses"] or [])[:MOST_LOSSES]):
        if figure(row["was"]) != figure(row["is"]):
            yield w.say("setting.loss", **in_both(w, changed, i, row))
    first = changed["first_step"]
    if first and figure(first[0]) != figure(first[1]):
        yield w.say("setting.first", changed)


def in_both(w: Writer, fact: Fact, i: int, row: dict[str, Any]) -> dict[str, Any]:
    """What a sentence on a loss in two runs needs."""
    return {"place": _place(w, fact, row), **{key: number(fact, "losses", i, key) for key in ("n", "was", "is")}}


def _place(w: Writer, fact: Fact, row: dict[str, Any]) -> Text:
    """Where a compared loss is differentiated, and through which networks where one line has several."""
    if not row["line"]:
        return w.say("setting.returned")
    at = w.line(fact, row["line"], row["file"])
    through = [Ref(m, fact.id, "name", m) for m in row["through"]]
    return w.say("setting.through", line=at, through=through) if through else Text((at,))


def _listed(w: Writer, fact: Fact, entry: Entry | None) -> list[Text]:
    meaning: tuple[Ref, ...] = (general(fact, entry.meaning[w.lang]),) if entry is not None else ()
    meaning = (quote(fact, "help", most=160),) if fact["help"] else meaning
    uses = w.lines(fact, fact["uses"]) if fact["uses"] else Text()
    return [Text((name(fact),)), Text((_value(fact),)), Text((w.line(fact),)), uses, Text(meaning)]
