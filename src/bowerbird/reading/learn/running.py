"""Checks answers to exercises by running them in the child that runs the programs that are read; loads no torch."""

from dataclasses import dataclass

from bowerbird.reading.facts import FactStore
from bowerbird.reading.learn.exercise import Exercise, seen_in
from bowerbird.reading.running.launch import Child, warm
from bowerbird.reading.running.observation import execute
from bowerbird.reading.running.request import Request
from bowerbird.reading.wording import Language

SESSION = "bowerbird.reading.learn.session:Answered"


@dataclass(frozen=True)
class Seen:
    """One observation in both languages; ``ok``: it is as it should be."""

    ok: bool
    en: str
    zh: str

    def text(self, lang: Language = "en") -> str:
        return self.en if lang == "en" else self.zh


@dataclass(frozen=True)
class Verdict:
    """What running an answer showed."""

    exercise: str
    observations: tuple[Seen, ...]

    @property
    def passed(self) -> bool:
        return bool(self.observations) and all(seen.ok for seen in self.observations)

    @property
    def wrong(self) -> list[Seen]:
        return [seen for seen in self.observations if not seen.ok]


def check_answer(found: Exercise, source: str) -> Verdict:
    """Runs one answer and its check."""
    return check_answers([(found, source)])[0]


def check_answers(answers: list[tuple[Exercise, str]]) -> list[Verdict]:
    """Runs several answers, each in a fork of one child."""
    with warm() as child:
        return [Verdict(found.id, _seen(_run(child, found, source))) for found, source in answers]


def _run(child: Child, found: Exercise, source: str) -> FactStore:
    request = Request(found.file_name, {found.file_name: source}, "", "", "", session=SESSION, wanted=found.id)
    return execute(child, request)[0]


def _seen(facts: FactStore) -> tuple[Seen, ...]:
    """What an answer's process said, which may be anything: only rows in form are observations."""
    rows = [
        f.value for f in facts.of("learn.seen") if isinstance(f.value, dict) and {"ok", "en", "zh"} <= f.value.keys()
    ]
    found = [Seen(row["ok"] is True, str(row["en"]), str(row["zh"])) for row in rows]
    if facts.first("learn.end") is None or not found:
        stopped = seen_in("every")["stopped"]
        found.append(Seen(False, stopped["en"], stopped["zh"]))
    return tuple(found)
