"""What is known of a run while it trains, in memory and in its folder, and what the rules make of it."""

import math
from collections.abc import Callable
from typing import Any

from bowerbird.diagnosis.finding import Finding
from bowerbird.diagnosis.rules import find
from bowerbird.diagnosis.signals import FILE, Signals
from bowerbird.training.rundir import RunDir

RECORDED = "diagnosis.json"
GROWTH = 1.2
"""Rules are asked again when so many times as many steps are done: they look at all that was logged."""


class Record:
    """Writes signals.jsonl and diagnosis.json, and says what is found, each cause once."""

    def __init__(
        self,
        rundir: RunDir,
        signals: Signals,
        say: Callable[[str], None],
        word: Callable[[Finding], Finding] = lambda finding: finding,
    ):
        """``say`` shows a line to the user; ``word`` may change the words of a finding."""
        self.rundir, self.signals, self.say, self.word = rundir, signals, say, word
        self.said: set[str] = set()
        self.next_judgement = 0

    def write(self, row: dict[str, Any]) -> None:
        self.signals.add(row)
        self.rundir.append_line(FILE, row)

    def judge_if_due(self, step: int, ended: bool) -> None:
        if ended or step >= self.next_judgement:
            self.next_judgement = math.ceil(step * GROWTH)
            self.judge(step)

    def judge(self, step: int) -> None:
        found = [self.word(finding) for finding in find(self.signals)]
        self.rundir.write_json(RECORDED, {"step": step, "findings": [one.to_json() for one in found]})
        for finding in found:
            if finding.cause not in self.said and not finding.because:
                self.said.add(finding.cause)
                self.say(
                    f"  found  {finding.title} ({finding.certainty}): {finding.evidence[0].text}; what to do: "
                    f"bowerbird diagnose {self.rundir.path}"
                )
