"""Programs as pages print them: quotes escaped, the end cut off."""

import ast
import textwrap
from pathlib import Path

import pytest

from bowerbird.errors import BowerbirdError
from bowerbird.reading.check import as_text, check, fix
from bowerbird.reading.running.launch import Child
from bowerbird.reading.source import open_source, pasted

WHOLE = textwrap.dedent(
    """
    import torch
    from torch import nn
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 1)
        def forward(self, x):
            return self.layer(x)
    """
)


@pytest.mark.parametrize(
    ("text", "lines", "said"),
    [
        (WHOLE, 9, 0),
        (WHOLE + "class Other(nn.Module):\n    def __init__(self, size, hid", 9, 1),
        (WHOLE + 'print(f\\"{3}\\")\n', 10, 1),
        (WHOLE + 'print(f\\"{3}\\")\nprint(f\\"{4', 10, 2),
        (WHOLE + 'x = "a \\" quote"\n', 10, 0),
    ],
)
def test_what_is_cut_off_or_escaped_is_read_and_said(text: str, lines: int, said: int) -> None:
    read, mended = pasted(text)
    assert ast.parse(read) and len(read.rstrip("\n").splitlines()) == lines and len(mended) == said
    assert text.startswith(read.rstrip("\n")) or '\\"' in text


@pytest.mark.parametrize("text", ["x = = 3\n", "x = = 3\n" + "y = 1\n" * 20, "(" * 3])
def test_what_is_wrong_in_the_middle_stays_wrong(text: str, tmp_path: Path) -> None:
    assert pasted(text) == (text, ())
    (tmp_path / "p.py").write_text(text)
    with pytest.raises(BowerbirdError, match="not valid Python: line 1"):
        open_source(tmp_path / "p.py")


def test_a_program_that_was_cut_off_is_run_and_never_changed(tmp_path: Path, child: Child) -> None:
    file = tmp_path / "p.py"
    file.write_text(WHOLE.replace("return self.layer(x)", "return (self.lay"))
    assert [f.rule for f in check(file, child=child).findings if f.severity != "ok"] == [], "its end may use the layer"
    text = WHOLE + "net = Net()\nprint(net(torch.randn(2, 3)).shape)\nnet.train\nfor batch in load"
    file.write_text(text)
    result = check(file, child=child)
    assert result.ran and result.to_json()["mended"] == ["it breaks off; nothing after line 12 was read"]
    assert any("as pasted  it breaks off" in line for line in as_text(result))
    with pytest.raises(BowerbirdError, match="no Python as it stands"):
        fix(result)
    assert file.read_text() == text
