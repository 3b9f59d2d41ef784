"""The command for learners: a path per subject, and exercises that are checked by running the answer."""

import json as jsonlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from bowerbird.cli.command import Command, Switch
from bowerbird.errors import BowerbirdError

_SAID = {
    "en": {
        "passed": "Passed: all {n} observations are as they should be.",
        "wrong": "Not yet: {wrong} of {n} observations are not as they should be.",
        "hint": "Hint: ",
        "more": "See a hint with --hint, the solution with --solution.",
    },
    "zh": {
        "passed": "通过：{n} 项观察全部符合要求。",
        "wrong": "还没有：{n} 项观察中有 {wrong} 项不符合要求。",
        "hint": "提示：",
        "more": "加 --hint 看提示，加 --solution 看答案。",
    },
}


@dataclass(frozen=True)
class Learn(Command):
    """Teaches a subject from the idea to running it; `learn check FILE` runs the answer to an exercise."""

    words: Positional[tuple[str, ...]] = ()
    """A topic, or: check FILE.  Nothing: the list of topics and exercises."""
    exercise: str | None = None
    """Write the starter of this exercise into the current folder."""
    lang: Literal["en", "zh"] = "en"
    """Language of texts and comments."""
    hint: Switch = False
    """Show the exercise's hint."""
    solution: Switch = False
    """Show the exercise's solution."""
    json: Switch = False
    """Print JSON."""

    def __call__(self) -> None:
        match self.words:
            case ("check", file):
                self._check(Path(file))
            case ("check",):
                raise BowerbirdError("Say which file to check: bowerbird learn check FILE.")
            case () | (_,):
                self._teach(self.words[0] if self.words else None)
            case _:
                raise BowerbirdError("Say one topic, or: bowerbird learn check FILE.")

    def _teach(self, subject: str | None) -> None:
        from bowerbird.reading.learn import exercise, learning, topic

        if subject is not None:
            topic.topic(subject)
        if self.exercise is None:
            text = learning.learn(subject, self.lang)
            print(jsonlib.dumps({"topic": subject, "text": text}, ensure_ascii=False) if self.json else text)
            return
        found = exercise.exercise(self.exercise)
        if subject is not None and found.topic != subject:
            raise BowerbirdError(f"The exercise {found.id} belongs to the topic {found.topic}, not to {subject}.")
        if self.hint or self.solution:
            print(found.solution(self.lang) if self.solution else found.hint(self.lang))
            return
        path = learning.start(found.id, lang=self.lang)
        print(jsonlib.dumps({"file": str(path)}) if self.json else path)

    def _check(self, file: Path) -> None:
        from bowerbird.reading.learn import exercise, learning

        verdict = learning.check(file, self.exercise)
        found = exercise.exercise(verdict.exercise)
        if self.json:
            rows = [{"ok": seen.ok, "text": seen.text(self.lang)} for seen in verdict.observations]
            answer = {"exercise": found.id, "passed": verdict.passed, "observations": rows}
            print(jsonlib.dumps(answer, ensure_ascii=False, indent=2))
        else:
            said, n = _SAID[self.lang], len(verdict.observations)
            print(said["passed" if verdict.passed else "wrong"].format(n=n, wrong=len(verdict.wrong)))
            for seen in verdict.observations if verdict.passed else verdict.wrong:
                print(f"  {'✓' if seen.ok else '✗'} {seen.text(self.lang)}")
            if not verdict.passed:
                print(said["hint"] + found.hint(self.lang) if self.hint else "" if self.solution else said["more"])
            if self.solution:
                print(found.solution(self.lang))
        if not verdict.passed:
            sys.exit(1)
