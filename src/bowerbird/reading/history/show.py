"""A comparison and a changelog as text: for the terminal and as Markdown, in English or Chinese."""

from collections.abc import Iterator
from pathlib import Path

from bowerbird.reading.history.changelog import Entry
from bowerbird.reading.history.track import TrackResult
from bowerbird.reading.wording import Language, sentences

WORDS = sentences(Path(__file__).with_name("words.toml"))


def verdict(result: TrackResult, lang: Language = "en") -> str:
    """The verdict in two or three words."""
    key = "inconclusive" if result.inconclusive else "changed" if result.behavioural_change else "same"
    return WORDS[f"verdict.{key}"][lang]


def lines(result: TrackResult, lang: Language = "en", *, markdown: bool = False) -> Iterator[str]:
    """The verdict, its ground, and each change with its lines and evidence."""
    words = {key: row[lang] for key, row in WORDS.items()}
    yield from [f"## {result.before} → {result.after}", ""] if markdown else [f"{result.before} → {result.after}"]
    ground = words[f"ground.{result.how}"].format(**{"losses": 0, "steps": 0} | result.numbers)
    yield words["head_marked" if markdown else "head"].format(verdict=verdict(result, lang), ground=ground)
    for change in result.changes:
        yield ("- " if markdown else "  ") + words["change"].format(
            what=words[f"what.{change.what}"], phase=words[f"phase.{change.phase}"], told=change.told(lang),
            before=change.line_before or "-", after=change.line_after or "-",
        )  # fmt: skip
    if result.stand_ins and not markdown:
        yield words["stand_ins"].format(names="; ".join(name.partition(":")[0] for name in result.stand_ins))


def changelog_lines(entries: list[Entry], lang: Language = "en", *, markdown: bool = False) -> Iterator[str]:
    """One line for each commit: what it did."""
    if not entries:
        yield WORDS["no_commit"][lang]
    for entry in entries:
        yield f"{'- ' if markdown else ''}{entry.commit[:9]}  {entry.message}\n    {_told(entry, lang)}"


def _told(entry: Entry, lang: Language) -> str:
    result = entry.result
    if result is None:
        return entry.problem
    if not result.behavioural_change or result.inconclusive:
        return verdict(result, lang)
    return "; ".join(f"{WORDS[f'what.{c.what}'][lang]}: {c.before} → {c.after}" for c in result.changes)
