"""The corpus of programs with one defect each, and what is known of them.

``bases/`` holds right programs.  A case of ``programs.toml`` names its base, what is its ``own`` in it, and what is
``broken``: lines first to last give way to others, of the base and then of the mended program.  It says the ids of the
catalogue that name the defect honestly, the line of the broken program at which it stands (``also``: other lines at
which it may as well be named, such as the other half of a pair that does not fit), and the text of that line.
``notebooks/NAME/`` hold such cases whole; their lines count through the code cells, with one empty line after each.
``pairs.toml`` holds two versions of one program and whether they behave alike, ``clean/`` right programs that look
tempting.  The programs are written to a folder of their own when they are first asked for.
"""

import atexit
import shutil
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import Edit, Patch

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
    return list(_cases())


def pairs() -> list[Pair]:
    return list(_pairs())


BASES_IN_WHICH_NOTHING_IS_FOUND = (
    "ddpm_with_ema",
    "documented",
    "encoder_decoder",
    "gpt",
    "guidance",
    "hinge_gan",
    "predictor",
    "sequence_classifier",
    "vae",
    "word_language_model",
)


def clean() -> list[Path]:
    """Right programs, of which nothing may be said."""
    bases = [HERE / "bases" / f"{name}.py" for name in BASES_IN_WHICH_NOTHING_IS_FOUND]
    return sorted([*(HERE / "clean").glob("*.py"), *bases])


@cache
def _cases() -> tuple[Case, ...]:
    found = [_case(told, _written(told, "mended", "broken"), ".py") for told in _told("programs.toml", "case")]
    for folder in (HERE / "notebooks").iterdir():
        told = tomllib.loads((folder / "case.toml").read_text(encoding="utf-8"))
        found.append(_case({**told, "name": folder.name}, folder, ".ipynb"))
    return tuple(sorted(found, key=lambda case: case.name))


@cache
def _pairs() -> tuple[Pair, ...]:
    return tuple(
        Pair(told["name"], (folder := _written(told, "before", "after")) / "before.py", folder / "after.py",
             told["behavioural"], tuple(told["what"]), told["message"])
        for told in _told("pairs.toml", "pair")
    )  # fmt: skip


def _told(name: str, what: str) -> list[dict[str, Any]]:
    return list(tomllib.loads((HERE / name).read_text(encoding="utf-8"))[what])


def _case(told: dict[str, Any], folder: Path, kind: str) -> Case:
    rules = (told["rule"],) if isinstance(told["rule"], str) else tuple(told["rule"])
    return Case(
        told["name"], folder / f"broken{kind}", folder / f"mended{kind}", rules, told["line"],
        tuple(told.get("also", ())), told["text"], told["family"], told["silent"], told["note"],
    )  # fmt: skip


def _written(told: dict[str, Any], first: str, second: str) -> Path:
    """The folder with both versions of a program: the base with its own lines, and that changed by the second."""
    folder = _folder() / told["name"]
    folder.mkdir()
    text = (HERE / "bases" / f"{told['base']}.py").read_text(encoding="utf-8")
    for name, edits in ((first, told.get("own", ())), (second, told.get(second, ()))):
        patch = Patch(name, tuple(Edit("", e["first"], e["last"], tuple(e["new"])) for e in edits))
        text = patch.apply({"": text})[""]
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="bowerbird-corpus-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
