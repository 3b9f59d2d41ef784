"""The corpus of programs with one defect each, and what is known of them.

``programs/NAME/`` holds ``broken.py``, ``mended.py`` and ``case.toml``: the ids of the catalogue that name the defect
honestly, the line of ``broken.py`` at which it stands (``also``: other lines at which it may as well be named, such as
the other half of a pair that does not fit), and the text of that line.  Of a notebook the line counts through its code
cells, with one empty line after each.  ``clean/`` holds correct programs that look tempting, ``pairs/`` two versions
of one program and whether they behave alike.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bowerbird.reading.findings import Finding

HERE = Path(__file__).parent
NEAR = 2
"""How many lines a finding may be off."""


@dataclass(frozen=True)
class Case:
    name: str
    broken: Path
    mended: Path
    rules: tuple[str, ...]
    line: int
    also: tuple[int, ...]
    text: str
    family: str
    silent: bool
    note: str

    def near(self, line: int) -> bool:
        return any(abs(line - place) <= NEAR for place in (self.line, *self.also))

    def named_by(self, findings: Iterable[Finding]) -> list[Finding]:
        """The findings that name this defect at its line."""
        return [
            finding
            for finding in findings
            if finding.rule in self.rules and finding.severity in ("error", "warning") and self.near(finding.line)
        ]


@dataclass(frozen=True)
class Pair:
    name: str
    before: Path
    after: Path
    behavioural: bool
    what: tuple[str, ...]
    message: str


def cases() -> list[Case]:
    return [_case(folder) for folder in sorted((HERE / "programs").iterdir())]


def pairs() -> list[Pair]:
    found = []
    for folder in sorted((HERE / "pairs").iterdir()):
        told = tomllib.loads((folder / "pair.toml").read_text(encoding="utf-8"))
        what = tuple(told["what"])
        found.append(Pair(folder.name, folder / "a.py", folder / "b.py", told["behavioural"], what, told["message"]))
    return found


def clean() -> list[Path]:
    return sorted((HERE / "clean").glob("*.py"))


def _case(folder: Path) -> Case:
    told = tomllib.loads((folder / "case.toml").read_text(encoding="utf-8"))
    kind = ".ipynb" if (folder / "broken.ipynb").exists() else ".py"
    rules = (told["rule"],) if isinstance(told["rule"], str) else tuple(told["rule"])
    return Case(
        name=folder.name,
        broken=folder / f"broken{kind}",
        mended=folder / f"mended{kind}",
        rules=rules,
        line=told["line"],
        also=tuple(told.get("also", ())),
        text=told["text"],
        family=told["family"],
        silent=told["silent"],
        note=told["note"],
    )
