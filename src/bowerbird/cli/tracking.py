"""The command that says what a change to an algorithm really changed."""

import json as jsonlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from bowerbird.cli.command import Command, Switch
from bowerbird.cli.printing import only_json
from bowerbird.errors import BowerbirdError


@dataclass(frozen=True, kw_only=True)
class Track(Command):
    """Says what a change really changed: two files, or the commits A..B of a repository, run side by side."""

    targets: Positional[tuple[str, ...]] = ()
    """A.py B.py, or REPO [FILE] A..B."""
    changelog: Switch = False
    """For a range of commits: print one line for each commit."""
    lang: Literal["en", "zh"] = "en"
    """Language of the text."""
    md: Path | None = None
    """Write Markdown here."""
    json: Switch = False
    """Print JSON."""

    def __call__(self) -> None:
        from bowerbird.reading.history import show
        from bowerbird.reading.history.changelog import changelog, track_range
        from bowerbird.reading.history.track import track

        words, is_range = self.targets, bool(self.targets) and ".." in Path(self.targets[-1]).name
        with only_json(self.json):
            if is_range and 2 <= len(words) <= 3:
                file = words[1] if len(words) == 3 else None
                made: Any = (changelog if self.changelog else track_range)(words[0], file, words[-1])
            elif len(words) == 2 and not is_range:
                made = track(words[0], words[1])
            else:
                raise BowerbirdError("Give two files, or a repository, a file of it and a range: REPO FILE A..B.")
        entries = made if isinstance(made, list) else None
        self._print(made, entries, show)
        if entries is None and made.inconclusive:
            sys.exit(3)

    def _print(self, made: Any, entries: list[Any] | None, show: Any) -> None:
        if self.json:
            rows = made.to_json() if entries is None else [entry.to_json() for entry in entries]
            print(jsonlib.dumps(rows, indent=2, ensure_ascii=False))
            return
        write: Any = show.lines if entries is None else show.changelog_lines
        text = "\n".join(write(made, self.lang, markdown=self.md is not None))
        if self.md is None:
            print(text)
            return
        self.md.write_text(text + "\n", encoding="utf-8")
        print(f"wrote {self.md}", file=sys.stderr)
