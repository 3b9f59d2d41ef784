"""Programs that users brought: four on which a verdict was dishonest or wrong, five as well-known pages print them."""

from pathlib import Path

import pytest

from bowerbird.reading.check import CheckResult, as_text, check
from bowerbird.reading.running.launch import Child


@pytest.fixture
def given(shared: Path) -> Path:
    folder = shared.parent / "reading"
    if not folder.is_dir():
        pytest.skip("needs the programs that users brought, at ../shared/reading")
    return folder


def said(result: CheckResult) -> list[tuple[str, str, int]]:
    return [(f.severity, f.rule, f.line) for f in result.findings if f.severity in ("error", "warning")]


@pytest.mark.parametrize(
    ("file", "right", "status"),
    [
        ("crash.py", [("error", "X17", 3)], 3),
        ("mask.py", [], 0),
        ("topk.py", [], 0),
        ("pkg/train.py", [("error", "L01", 7)], 1),
    ],
)
def test_a_program_on_which_the_verdict_was_wrong(
    given: Path, file: str, right: list[tuple[str, str, int]], status: int, child: Child
) -> None:
    result = check(given / "dishonest" / file, child=child)
    assert said(result) == right and result.exit_status == status and result.ran
    last = list(as_text(result))[-1]
    assert last.startswith("Not judged: it raised AttributeError") if status == 3 else "Not judged" not in last


def test_a_relative_path_gives_the_same_verdict(given: Path, monkeypatch: pytest.MonkeyPatch, child: Child) -> None:
    monkeypatch.chdir(given / "dishonest")
    assert said(check("pkg/train.py", child=child)) == [("error", "L01", 7)]


@pytest.mark.parametrize(
    ("file", "modules", "mended", "judged"),
    [
        ("gan.py", ["Discriminator", "Generator"], 0, True),
        ("gan-partial.py", ["Generator"], 1, True),
        ("transformer.py", ["SelfAttention", "TransformerBlock"], 1, True),
        ("gan-faces.py", ["Discriminator", "Generator"], 0, False),
        ("gan-lsgan.py", ["Discriminator", "Generator"], 1, None),
    ],
)
def test_a_program_as_a_page_prints_it_is_run(
    given: Path, file: str, modules: list[str], mended: int, judged: bool | None, child: Child
) -> None:
    result = check(given / "tutorials" / file, child=child)
    raises = ["Discriminator"] if file == "gan-lsgan.py" else []  # it takes flat images and is given others
    assert sorted(result.exercised.parts) == modules and result.exercised.never == raises
    assert len(result.program.source.mended) == mended
    assert judged is None or (not result.exercised.not_judged) == judged
