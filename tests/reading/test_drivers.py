"""Drivers: what a program only defines is used as its docstrings, its project's pages, tests and scripts use it."""

import json
from pathlib import Path

import pytest

from bowerbird import cli
from bowerbird.errors import BowerbirdError
from bowerbird.reading.check import as_text, check
from bowerbird.reading.drivers import found, likely, needed, taken
from bowerbird.reading.running.launch import Child
from bowerbird.reading.source import open_source, parse, project_of

NETS = '''
import torch
from torch import nn

class Table(nn.Module):
    """Needs what nobody could make up.

    >>> import torch
    >>> Table({"width": 3})(torch.randn(2, 3)).shape
    torch.Size([2, 2])
    """
    def __init__(self, sizes):
        super().__init__()
        self.layer = nn.Linear(sizes["width"], 2)
    def forward(self, x):
        return self.layer(x)

class Pair(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.layer = nn.Linear(spec["rows"][0], 2)
    def forward(self, pair):
        return self.layer(pair["left"])
'''
USE = "import torch\nfrom nets.parts import Pair\nprint(Pair({'rows': [5]})({'left': torch.randn(2, 5)}).shape)\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "__init__.py").write_text("from .parts import Pair\n")
    (tmp_path / "nets" / "parts.py").write_text(NETS)
    return tmp_path


def places(project: Path) -> list[str]:
    return [driver.place for driver in found(open_source(project / "nets" / "parts.py"))]


def test_what_only_defines_needs_a_driver() -> None:
    assert needed(parse(NETS, "nets"))
    assert not needed(parse(NETS + "net = Pair({'rows': [3]})\n", "nets"))
    assert not needed(parse("import torch\nprint(torch.ones(3))\n", "script"))


def test_a_project_ends_where_its_settings_lie(project: Path) -> None:
    assert project_of(project / "nets") == project
    assert open_source(project / "nets" / "parts.py").project == project


def test_a_repository_that_is_a_package_ends_where_it_lies(tmp_path: Path) -> None:
    (repository := tmp_path / "repository").mkdir()
    (repository / ".git").mkdir()
    (repository / "__init__.py").write_text("")
    (repository / "nets.py").write_text(NETS)
    (tmp_path / "README.md").write_text("somebody else's")
    source = open_source(repository / "nets.py")
    assert source.root == tmp_path and source.project == repository


def test_users_are_found_in_their_order_and_nobody_else_is(project: Path) -> None:
    (project / "README.md").write_text(f"# Nets\n\n```python\n{USE}```\n\n```python\nprint('Pair')\n```\n")
    (project / "docs.md").write_text("```bash\nPair\n```\n")
    (project / "train.py").write_text(USE.replace("nets.parts", "nets"))
    (project / "through.py").write_text("from nets import Pair\ndef build():\n    return Pair({'rows': [3]})\n")
    (project / "far.py").write_text("from through import build\nprint(build())\n")
    (project / "unrelated.py").write_text("class Pair: ...\nprint(Pair())\n")
    (project / "test_parts.py").write_text(
        "import pytest\nfrom nets.parts import Pair\n"
        "@pytest.mark.parametrize('width, n', [(3, 1), (4, 2)])\n"
        "def test_it(width, n):\n    assert Pair({'rows': [width]})\n"
        "def test_with_a_fixture(net):\n    assert isinstance(net, Pair)\n"
    )
    assert places(project) == ["the docstring of Table", "README.md, line 4", "test_parts.py", "train.py", "far.py"]
    test = found(open_source(project / "nets" / "parts.py"))[2]
    assert test.text.endswith("test_it(width=3, n=1)\n") and "parametrize" not in test.text


def test_drivers_run_what_could_not_be_guessed_and_are_told(project: Path, child: Child) -> None:
    (project / "README.md").write_text(f"```python\n{USE}```\n")
    result = check(project / "nets" / "parts.py", child=child)
    assert result.exercised.modules == {"Table": True, "Pair": True} and result.exit_status == 0
    told = result.to_json()
    assert [(d["place"], d["ran"]) for d in told["drivers"]] == [
        ("the docstring of Table", ["Table"]),
        ("README.md, line 2", ["Pair"]),
    ]
    assert told["drivers"][1]["text"] == USE and told["guessed"] == [] and told["own_steps"] == 0
    assert "  driver    README.md, line 2: Pair ran" in list(as_text(result))


def test_a_driver_that_runs_nothing_is_not_kept_and_its_failure_is_no_finding(project: Path, child: Child) -> None:
    (project / "train.py").write_text("from nets.parts import Pair, Table\nPair(None)\n")
    result = check(f"{project / 'nets' / 'parts.py'}:Pair", child=child)
    (driver,) = result.run.facts.of("run.driver", "train.py")
    assert not driver["kept"] and "TypeError" in driver["failures"][0]
    assert result.to_json()["drivers"] == [] and result.errors == [] and result.exit_status == 3


def test_a_driver_is_written_once_and_used_again(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "train.py").write_text(USE)
    target, kept = str(project / "nets" / "parts.py"), tmp_path / "driver.py"
    assert cli.main(["check", f"{target}:Pair", "--driver", str(kept)]) == 0
    assert kept.read_text() == USE and "driver    train.py: Pair ran" in capsys.readouterr().out
    (project / "train.py").unlink()
    assert cli.main(["check", f"{target}:Pair", "--driver", str(kept), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["drivers"][0]["place"] == str(kept)
    kept.write_text("Pair(\n")
    with pytest.raises(BowerbirdError, match="not valid Python"):
        taken(kept)


def test_a_program_that_trains_by_itself_is_given_no_driver(project: Path) -> None:
    (project / "train.py").write_text(USE)
    assert likely(open_source(project / "train.py")) == []


def test_files_of_a_project_import_from_its_top(tmp_path: Path, child: Child) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "models.py").write_text("raise RuntimeError('not this one')\n")
    (tmp_path / "models" / "parts.py").write_text("from torch.nn import Linear as Layer\n")
    code = NETS.replace("from torch import nn\n", "from torch import nn\nfrom models.parts import Layer\n")
    (tmp_path / "models" / "nets.py").write_text(code.replace("nn.Linear(sizes", "Layer(sizes"))
    result = check(f"{tmp_path / 'models' / 'nets.py'}:Table", child=child)
    assert result.exercised.modules == {"Table": True} and not result.run.exceptions()


def test_a_data_set_without_its_files_becomes_one_of_pictures(tmp_path: Path, child: Child) -> None:
    (tmp_path / "train.py").write_text(
        "from pathlib import Path\nimport torch\nfrom torch.utils.data import DataLoader, Dataset\n"
        "class Flowers(Dataset):\n"
        "    def __init__(self, root):\n        self.names = Path(root, 'names.xyz').read_text()\n"
        "    def __getitem__(self, i):\n        return torch.zeros(3)\n    def __len__(self):\n        return 3\n"
        "net = torch.nn.Conv2d(3, 1, 3)\nopt = torch.optim.SGD(net.parameters(), lr=0.1)\n"
        "for x in DataLoader(Flowers('flowers'), batch_size=4):\n    x = x.to('cpu')\n    opt.zero_grad()\n"
        "    net(x).square().mean().backward()\n    opt.step()\n"
    )
    result = check(tmp_path / "train.py", child=child)
    assert result.exercised.own_steps > 1 and not result.run.exceptions()
    assert any(s.name == "data set Flowers" for s in result.run.stand_ins)


def test_blocks_of_a_page_that_go_on_from_one_are_one_driver(project: Path) -> None:
    blocks = "from nets import Pair", "pair = Pair(SPEC)", "print(1)"
    page = "".join(f"```python\n{code}\n```\nand then\n" for code in blocks)
    (project / "README.md").write_text("```python\nalone = Pair\n```\n" + page)
    (driver,) = [d for d in found(open_source(project / "nets" / "parts.py")) if d.place.startswith("README")]
    assert driver.place == "README.md, line 5"
    assert driver.text.split() == " ".join(blocks).split()
