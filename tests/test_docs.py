"""Every example of the documentation runs: Python blocks, and console blocks that call bowerbird.

The blocks of a page run in order, in this process, in a folder with 64 photos and copies of docs/examples.  A block
that should not run says so in its fence: ```console no-run, ```python no-run.
"""

import contextlib
import io
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bowerbird import cli, registry
from bowerbird.diagnosis.rules import RULES

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("README*.md"), *ROOT.glob("CONTRIBUTING.md"), *ROOT.glob("docs/**/*.md")])
RUN_ELSEWHERE = {"plugin.md"}
"""Pages whose examples another test runs, in a smaller size than written: test_plugin.py."""
FENCE = re.compile(r"^```(?P<language>python|console|toml)[ \t]*(?P<words>[^\n]*)\n(?P<text>.*?)^```", re.M | re.S)
LONG = re.compile(r"\bbowerbird (compare|train)\b(?!.*(--budget|--train\.steps|--help))")


class Block(NamedTuple):
    language: str
    text: str
    line: int
    file: str
    """A toml or python block whose fence says file=NAME is written to that file."""


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page that are to be run or written."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        words = match["words"].split()
        file = next((word.removeprefix("file=") for word in words if word.startswith("file=")), "")
        if "no-run" not in words and (file or match["language"] != "toml"):
            yield Block(match["language"], match["text"], text[: match.start()].count("\n") + 1, file)


def without_comments(text: str) -> str:
    """A translated page differs from the original in these alone; what both say is run once."""
    return re.sub(r"[ \t]+#.*", "", text)


def _run_console(block: Block) -> None:
    for command in without_comments(block.text.replace("\\\n", " ")).splitlines():
        if not command.startswith("$ bowerbird"):
            continue
        assert not LONG.search(command), f"line {block.line}: '{command}' has no budget; give it one or mark it no-run"
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            status = cli.main(shlex.split(command.removeprefix("$ bowerbird")))
        found_something = status == 1 and command.startswith("$ bowerbird diagnose")
        assert status == 0 or found_something, f"line {block.line}: {command}\n{errors.getvalue()}"


def pages() -> Iterator[Any]:
    """Those whose blocks are run; trainings of two of them write their reports, which takes longer than they do."""
    for page in PAGES:
        if page.name not in RUN_ELSEWHERE:
            marks = [pytest.mark.reports] if page.name in ("README.md", "training.md") else []
            yield pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks)


@pytest.fixture
def only_what_ships() -> Iterator[None]:
    """What the plugin of a page adds is gone after it."""
    rules = dict(RULES)
    yield
    RULES.clear()
    RULES.update(rules)


@pytest.mark.usefixtures("only_what_ships")
@pytest.mark.parametrize("page", list(pages()))
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "docs" / "examples", tmp_path, dirs_exist_ok=True)
    shutil.copytree(tiny, tmp_path / "photos")
    for known in (one for one in vars(registry).values() if isinstance(one, registry.Registry)):
        list(map(known.get, known.names()))  # those that ship are there before
        monkeypatch.setattr(known, "_classes", dict(known._classes))
    names: dict[str, object] = {"__name__": "__main__"}
    original = page.with_name(page.name.replace(".zh-CN", ""))
    known = {without_comments(block.text) for block in blocks(original)} if original != page else set()
    for block in blocks(page):
        if without_comments(block.text) in known:
            continue
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            _run_console(block)
        else:
            padding = "\n" * block.line  # so that a traceback names the line of the page
            exec(compile(padding + block.text, page.name, "exec"), names)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [name for name in cli.COMMANDS if f"## {name}" not in page] == []
