"""A plugin that a recipe or a run folder names is code of somebody: it runs for whom the user trusts it."""

import sys
from pathlib import Path

import pytest

from bowerbird import api, cli, config, registry, trust
from bowerbird.errors import BowerbirdError

CODE = """
from pathlib import Path
with open(Path(__file__).with_name("ran"), "a") as file:
    file.write("x")
"""
RECIPE = """
plugin = "strange.py"
[model]
family = "vae"
n_latent = 2
[model.net]
name = "mlp"
hidden = [8]
[data]
source = "{data}"
[train]
steps = 2
batch_size = 4
device = "cpu"
precision = "fp32"
threads = 1
sample_every = 0
"""


@pytest.fixture
def place(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe and its plugin, which leaves a mark whenever it runs, and a user who trusts nobody."""
    (tmp_path / "strange.py").write_text(CODE)
    (tmp_path / "strange.toml").write_text(RECIPE.format(data=tiny))
    monkeypatch.setenv("BOWERBIRD_CONFIG", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "bowerbird_plugin_strange", raising=False)
    return tmp_path


def run(*words: str) -> int:
    """As a new process: nothing is loaded."""
    sys.modules.pop("bowerbird_plugin_strange", None)
    return cli.main([*words])


def times(place: Path) -> int:
    return len((place / "ran").read_text()) if (place / "ran").exists() else 0


TRAIN = ("train", "strange.toml", "--quiet")


@pytest.mark.parametrize("words", [TRAIN, ("compare", "strange.toml", "vae"), ("train", "strange.toml", "--help")])
def test_a_recipe_runs_no_code_in_silence(
    words: tuple[str, ...], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert f"strange.toml names the plugin {place / 'strange.py'}" in said and "--allow-plugin" in said
    assert times(place) == 0 and not (place / "runs").exists()


@pytest.mark.parametrize("verb", ["sample", "resume", "measure", "diagnose"])
def test_a_run_folder_runs_no_code_in_silence(
    verb: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*TRAIN, "--plugin", "strange.py", "--out", "run") == 0
    monkeypatch.setenv("BOWERBIRD_CONFIG", str(place / "another user"))
    before = times(place)
    assert run(verb, "run") == 2
    assert f"run.toml names the plugin {place / 'strange.py'}" in capsys.readouterr().err
    assert times(place) == before
    assert run(verb, "run", "--allow-plugin", *(("--n-samples", "4") if verb == "measure" else ())) in (0, 1)
    assert times(place) > before


def test_what_the_user_named_or_allowed_is_remembered(place: Path) -> None:
    assert run(*TRAIN, "--plugin", "strange.py", "--out", "run") == 0
    assert run("sample", "run", "-n", "1") == 0
    assert run(*TRAIN, "--out", "again") == 0
    with open(place / "strange.py", "a") as file:
        file.write("# changed\n")
    assert run("sample", "run", "-n", "1") == 2
    assert run("sample", "run", "-n", "1", "--allow-plugin") == 0
    assert run("sample", "run", "-n", "1") == 0


def test_the_same_code_elsewhere_is_not_trusted(place: Path) -> None:
    """It may read other files beside it."""
    assert run(*TRAIN, "--plugin", "strange.py", "--out", "run") == 0
    (place / "copy").mkdir()
    for name in ("strange.py", "strange.toml"):
        (place / "copy" / name).write_bytes((place / name).read_bytes())
    assert run("train", "copy/strange.toml", "--quiet") == 2


def test_python_asks_as_well(place: Path) -> None:
    with pytest.raises(BowerbirdError, match="allow_plugin=True"):
        api.train("strange.toml", "run", quiet=True)
    assert times(place) == 0
    assert api.train("strange.toml", "run", quiet=True, allow_plugin=True) == Path("run")
    assert times(place) == 1


def test_the_environment_allows(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust.ENVIRONMENT, "0")
    with pytest.raises(BowerbirdError, match="names the plugin"):
        config.load("strange.toml")
    monkeypatch.setenv(trust.ENVIRONMENT, "1")
    config.load("strange.toml")
    assert times(place) == 1


def test_settings_that_cannot_be_written_are_no_obstacle(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "config").write_text("a file where the folder would be")
    registry.load_plugin(place / "strange.py")
    assert times(place) == 1
