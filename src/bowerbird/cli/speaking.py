"""The command that lets a run speak."""

import json as jsonlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tyro.conf import Positional, Suppress

from bowerbird.cli.command import Command, Switch
from bowerbird.cli.commands import named
from bowerbird.cli.options import chosen, parse_with_options
from bowerbird.cli.printing import heard, only_json, print_notes
from bowerbird.ranges import Whole
from bowerbird.shipped import place_beside


@dataclass(frozen=True)
class Say(Command):
    """Speaks a text with a run that was trained on recordings of words, such as spoken digits.

    `say RUN "314" --given speaker=george` writes said.wav and its spectrogram.  `say RUN TEXT --help` shows the options
    of that run's family as well.
    """

    run: Positional[Path]
    """The run folder."""
    text: Positional[str]
    """Words that the run knows, or numbers, which are read digit by digit: "three one four", 314."""
    given: tuple[str, ...] = ()
    """What else the speech is made from: NAME=VALUE, such as speaker=george (default: drawn at random)."""
    seed: Whole = 0
    """The same seed gives the same speech."""
    vocoder: Path | None = None
    """A run of the recipe vocoder, which makes the waveforms (default: the algorithm of Griffin and Lim)."""
    out: Path | None = None
    """Folder to write to (default: said/TEXT inside the run)."""
    device: str = "auto"
    """Where to compute: auto (a GPU when there is one), cpu, cuda, cuda:1 or mps."""
    no_label: Switch = False
    """Write files that do not say that they were generated; metadata.jsonl records it."""
    json: Switch = False
    """Print JSON."""
    options: Suppress[Any] = None

    @classmethod
    def parse(cls, argv: Sequence[str], prog: str) -> Self:
        return parse_with_options(cls, argv, prog)

    def __call__(self) -> None:
        from bowerbird import api

        with heard() as notes, only_json(self.json):
            said = api.say(
                self.run,
                self.text,
                seed=self.seed,
                given=dict(named(word) for word in self.given),
                options=chosen(self.options),
                vocoder=self.vocoder,
                device=self.device,
            )
            place = "".join(letter if letter.isalnum() else "-" for letter in self.text)[:40]
            path = said.save(self.out or place_beside(self.run, "said") / place, labelled=not self.no_label)
        if self.json:
            print(jsonlib.dumps({"file": str(path), **said.about, "notes": notes}, indent=2, ensure_ascii=False))
            return
        print(path)
        print_notes(notes)
