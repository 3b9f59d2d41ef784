"""An exercise: a small faulty or unfinished program, what it should do, and a solution; one TOML file each.

A starter's first line names its exercise, so that ``bowerbird learn check FILE`` knows what to check.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bowerbird.errors import BowerbirdError, unknown
from bowerbird.reading.wording import LANGUAGES, Both, Language, joined_lines, sentences, table

FOLDER = Path(__file__).with_name("exercises")
ORDER: tuple[str, ...] = tuple(table(FOLDER.with_name("order.toml"))["exercises"])
"""From easier to harder within a topic, topics as one learns them."""
_MARK = "# bowerbird exercise: "
_HOW = {"en": "check with: bowerbird learn check", "zh": "检查命令：bowerbird learn check"}


@dataclass(frozen=True)
class Exercise:
    """One exercise in both languages."""

    id: str
    topic: str
    titles: Both
    tasks: Both
    hints: Both
    starter_code: str
    solution_code: str
    rules: tuple[str, ...]
    """Rules of ``bowerbird check`` about the defects that the starter has."""

    def title(self, lang: Language = "en") -> str:
        return self.titles[lang]

    def task(self, lang: Language = "en") -> str:
        return self.tasks[lang]

    def hint(self, lang: Language = "en") -> str:
        return self.hints[lang]

    @property
    def file_name(self) -> str:
        return f"{self.id.replace('-', '_')}.py"

    def starter(self, lang: Language = "en") -> str:
        """What the learner begins with: the task as a comment, then the code."""
        return self._program(self.starter_code, lang)

    def solution(self, lang: Language = "en") -> str:
        return self._program(self.solution_code, lang)

    def _program(self, code: str, lang: Language) -> str:
        task = "\n".join(f"# {line}" for line in _wrapped(self.task(lang)))
        return f"{_MARK}{self.id}\n# {_HOW[lang]} {self.file_name}\n#\n{task}\n\n{code.strip()}\n"


@cache
def exercises() -> dict[str, Exercise]:
    """All exercises by id, in the order of ``ORDER``."""
    return {id: _read(id) for id in ORDER}


def exercise(id: str) -> Exercise:
    """The exercise of this id; BowerbirdError if there is none."""
    if id not in exercises():
        raise unknown("exercise", id, exercises())
    return exercises()[id]


def of_topic(topic: str) -> list[Exercise]:
    return [found for found in exercises().values() if found.topic == topic]


def seen_in(id: str) -> dict[str, Both]:
    """What may be observed of an answer, by the key of its sentence."""
    told = sentences(FOLDER / "every.toml") | sentences(FOLDER / f"{id}.toml")
    return {key.removeprefix("seen."): words for key, words in told.items() if key.startswith("seen.")}


def exercise_of(path: Path) -> Exercise:
    """The exercise that a file says it answers."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BowerbirdError(f"There is no file {path}; name the answer to an exercise.") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise BowerbirdError(f"{path} is no Python file; name the answer to an exercise.") from None
    marked = re.search(rf"^{_MARK}([\w-]+)", text, re.M)
    if marked is None:
        raise BowerbirdError(
            f"{path} names no exercise; keep the line '{_MARK}…' of the starter, or say --exercise NAME."
        )
    return exercise(marked[1])


def write_starter(found: Exercise, folder: Path, lang: Language = "en") -> Path:
    """Writes the starter into a folder; a file that is there already is left alone."""
    path = folder / found.file_name
    if path.exists():
        raise BowerbirdError(f"{path} is there already; move or delete it to begin again.")
    path.write_text(found.starter(lang), encoding="utf-8")
    return path


def _read(id: str) -> Exercise:
    row = table(FOLDER / f"{id}.toml")
    title, task, hint = (
        {lang: joined_lines(row[k][lang], lang) for lang in LANGUAGES} for k in ("title", "task", "hint")
    )
    return Exercise(id, row["topic"], title, task, hint, row["starter"], row["solution"], tuple(row["rules"]))


def _wrapped(text: str, width: int = 96) -> list[str]:
    """Lines of at most ``width`` columns; a Chinese character takes two, and may end a line anywhere."""
    lines, line, columns = [], "", 0
    for word in re.findall(r"[⺀-鿿　-〿＀-￯]|[^\s⺀-鿿　-〿＀-￯]+\s*|\s+", text):
        size = sum(2 if ord(c) >= 0x2E80 else 1 for c in word.rstrip())
        if line and columns + size > width:
            lines.append(line.rstrip())
            line, columns = "", 0
        line += word
        columns += size + len(word) - len(word.rstrip())
    return [*lines, line.rstrip()]
