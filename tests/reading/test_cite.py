"""What documentation says of code, checked against the code: content first, line drift second."""

import json
from pathlib import Path

import pytest

from bowerbird import cli
from bowerbird.errors import BowerbirdError
from bowerbird.reading.cite import CiteResult, cite, sentences

CODE = '''"""Trains."""
import torch
import numpy as np


class Trainer:
    """Takes steps."""

    def fit(self, batches):
        for batch in batches:
            self.clip_gradients(1.0)

    def clip_gradients(self, most):
        return torch.nn.utils.clip_grad_norm_(self.parameters, most)


LARGEST = 3
'''


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "src" / "lib").mkdir(parents=True)
    (tmp_path / "src" / "lib" / "train.py").write_text(CODE)
    (tmp_path / "src" / "lib" / "fast.c").write_text("int add(int a) {\n    return a + 1;\n}\n")
    (tmp_path / "docs").mkdir()
    return tmp_path


def judged(repository: Path, page: str) -> CiteResult:
    (repository / "docs" / "page.md").write_text(page)
    return cite([repository / "docs"], repository)


@pytest.mark.parametrize(
    "page",
    [
        "`LARGEST` is set at src/lib/train.py:17.",
        "Gradients are clipped by `clip_gradients` (train.py:13-14).",
        "`Trainer.fit()` goes over the batches (`lib/train.py:10`).",
        "See [the loop](../src/lib/train.py#L10): `for batch in batches:` is all of it.",
        "In C it is `add`: fast.c:2.",
        "The line is train.py:1.",
        "`torch.nn.functional.no_such_function` and `np.whatever_it_is` are others' names.",
        "It listens at http://127.0.0.1:8080/a.py:99 and costs 12:30 of your time.",
        "```\nsrc/lib/gone.py:5 `no_such_name`\n```\n",
        "Write `your_own_name` here. <!-- cite: ignore -->",
        "Read `src/lib` and `lib/train.py`, not `data.npy`.",
    ],
)
def test_what_holds_is_not_reproached(repository: Path, page: str) -> None:
    assert judged(repository, page).wrong == []


@pytest.mark.parametrize(
    ("page", "kind", "now"),
    [
        ("It is at src/lib/gone.py:5.", "no file", None),
        ("It is at train.py:18.", "out of range", None),
        ("It is at train.py:12-99.", "out of range", None),
        ("`LARGEST` is set at train.py:12.", "drifted", 17),
        ("Gradients are clipped\nby `clip_gradients` (train.py:3).", "drifted", 11),
        ("`for batch in batches:` stands at train.py:14.", "drifted", 10),
        ("`shuffle` is at train.py:10.", "content", None),
        ("`Trainer.evaluate()` measures it.", "no name", None),
        ("[the loop](../src/lib/loop.py) runs.", "no file", None),
        ("Read `lib/loop.py`.", "no file", None),
    ],
)
def test_what_does_not_hold_is_named(repository: Path, page: str, kind: str, now: int | None) -> None:
    (wrong,) = judged(repository, page).wrong
    assert (wrong.kind, wrong.now) == (kind, now)


def test_a_place_is_that_of_the_line_it_stands_on(repository: Path) -> None:
    page = "# Title\n\nOne sentence. `LARGEST`\nis at train.py:17, and\nthe rest at train.py:99.\n\n- `no_such_name`\n"
    found = judged(repository, page)
    assert [(w.line, w.cited) for w in found.wrong] == [(5, "train.py:99"), (7, "no_such_name")]
    assert (found.citations, found.names) == (2, 1)


def test_a_sentence_answers_for_what_it_quotes_itself(repository: Path) -> None:
    page = "`LARGEST` bounds it (train.py:17). The loop is at train.py:10. `shuffle` is another word."
    assert judged(repository, page).wrong == []


def test_sentences_end_at_stops_items_and_rows() -> None:
    text = "One. Two `a.b`\ngoes on.\n\n- three\n- four\n| five | six |\n```\nnot this.\n```\n七。八。\n"
    found = [(" ".join(s.text.split()), s.line) for s in sentences(text)]
    told = ["One.", "Two `a.b` goes on.", "- three", "- four", "| five | six |", "七。", "八。"]
    assert [text for text, _ in found] == told and [line for _, line in found] == [1, 1, 4, 5, 6, 10, 10]


def test_the_command_ends_with_one_where_something_is_wrong(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = repository / "docs" / "page.md"
    page.write_text("`LARGEST` is at train.py:12.\n")
    assert cli.main(["cite", str(page), "--root", str(repository)]) == 1
    assert "page.md:1: train.py:12 is cited for `LARGEST`, which is now at line 17." in capsys.readouterr().out
    assert cli.main(["cite", str(page), "--root", str(repository), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["wrong"][0]["now"] == 17
    page.write_text("`LARGEST` is at train.py:17.\n")
    assert cli.main(["cite", str(page), "--root", str(repository)]) == 0


def test_what_is_no_markdown_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BowerbirdError, match="no Markdown"):
        cite([tmp_path])
    with pytest.raises(BowerbirdError, match="no file or folder"):
        cite([tmp_path / "none.md"])
