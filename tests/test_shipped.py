"""Runs that ship with the package: each loads by its name, makes what it says, and is as good as it claims."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import bowerbird
from bowerbird import api, cli, config, shipped
from bowerbird.data.tensorfile import read_tensors
from bowerbird.errors import BowerbirdError
from bowerbird.provenance.origins import origin
from bowerbird.training.rundir import RunDir

RUNS = shipped.runs()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_ships() -> None:
    assert set(RUNS) == {"poem", "chorale", "digits", "emoji-3d", "emoji-text"}
    sizes = {
        name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for name, folder in RUNS.items()
    }
    assert sum(sizes.values()) < 10.5e6, sizes
    needed = {"run.toml", "model.safetensors", "tokenizer.json", "environment.json", "README.md"}
    for folder in RUNS.values():
        assert {file.name for file in folder.iterdir()} <= needed
        assert all(t.dtype != torch.float32 for t in read_tensors(folder / "model.safetensors").values())


def test_finding_them_loads_no_torch() -> None:
    code = (
        "import sys; from bowerbird import shipped; assert len(shipped.runs()) == 5; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", RUNS)
def test_each_has_a_readme_with_its_recipe_licence_and_figures(name: str) -> None:
    text, run = (RUNS[name] / "README.md").read_text(), RunDir.open(name).config()
    about = origin(name)
    assert about["data"] == run.data.source and len(about["data_fingerprint"]) == 16 and about["data_licence"] in text
    assert "Recipe" in text and "licence" in text and run.data.source in text
    assert run.expect and all(claim.measured is not None and claim.minutes for claim in run.expect)
    for claim in run.expect:
        assert claim.met_by(claim.measured) and f"{claim.metric} | {claim.measured:.4g}" in text
    assert str(Path.home()) not in text and "/tmp" not in (RUNS[name] / "run.toml").read_text()


# ------------------------------------------------------------------------------------------------ what they make


def test_a_poem_goes_on_from_its_first_line() -> None:
    (poem,) = bowerbird.generate("poem", 1, given={"prompt": "春眠不覺曉，"}, device="cpu")
    assert poem.startswith("春眠不覺曉，") and len(poem.strip()) == 24


def test_a_chorale_has_four_voices() -> None:
    (piece,) = bowerbird.generate("chorale", 1, seed=1, device="cpu")
    assert len(piece.voices) == 4 and piece.quarters > 16
    assert {note.voice for note in piece.notes} == {0, 1, 2, 3}


def test_digits_are_of_the_class_asked_for() -> None:
    drawn = bowerbird.generate("digits", 4, given={"label": "3"}, device="cpu")
    assert drawn.x.shape == (4, 1, 28, 28) and [row["label"] for row in drawn.rows] == ["3"] * 4


def test_an_emoji_is_changed_but_stays_itself() -> None:
    flat = np.full((64, 64, 3), 255, np.uint8)
    flat[16:48, 16:48] = (250, 200, 30)
    (made,) = bowerbird.generate("emoji-3d", 1, given={"source": flat}, device="cpu")
    assert made.shape == (64, 64, 3)
    assert 1 < np.abs(made.astype(float) - flat).mean() < 60


def test_an_emoji_is_drawn_from_words_in_either_language() -> None:
    options = {"steps": 4}
    drawn = bowerbird.generate("emoji-text", 1, given={"prompt": "owl", "style": "3d"}, options=options, device="cpu")
    assert drawn.x.shape == (1, 3, 64, 64) and drawn.rows[0] == drawn.rows[0] | {"caption": "owl", "style": "3d"}
    chinese = bowerbird.generate(
        "emoji-text", 1, given={"prompt": "猫头鹰", "style": "3d"}, options=options, device="cpu"
    )
    assert chinese.rows[0]["caption"] == "猫头鹰" and chinese.x.std() > 0.1
    with pytest.raises(BowerbirdError, match=r"no word 'owll' \(did you mean 'owl'\?\)"):
        bowerbird.generate("emoji-text", 1, given={"prompt": "owll"})


@pytest.mark.parametrize("name", RUNS)
def test_a_figure_is_within_its_claim(name: str) -> None:
    """The cheapest of its figures, from few samples: what ``benchmarks/shipped.py`` measures, with room for chance."""
    few = {"text_form": 32, "class_accuracy": 64, "l1": None, "nll_per_note": None}
    claim = next(claim for claim in RunDir.open(name).config().expect if claim.metric in few)
    options = {"digits": {"steps": 6}, "emoji-text": {"steps": 2}}.get(name, {})
    n_samples = 24 if name == "emoji-text" else few[claim.metric]
    (found,) = api.measure(
        name, metrics=[claim.metric], n_samples=n_samples, split=claim.split, device="cpu", options=options
    )[name]
    room = 0.05 if n_samples else 1e-3
    assert found.value <= claim.at_most + room if claim.at_most is not None else found.value >= claim.at_least - room


# ------------------------------------------------------------------------------------------------ names and places


def test_samples_are_written_beside_the_user_not_into_the_package(tmp_path: Path, capsys) -> None:
    assert cli.main(["sample", "poem", "-n", "1", "--prompt", "白日依山盡，", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == "samples/poem/seed-0" and "samples.txt" in said["files"]
    assert not (RUNS["poem"] / "samples").exists()
    row = json.loads((tmp_path / "samples/poem/seed-0/metadata.jsonl").read_text().splitlines()[0])
    assert row["generated_by"] == "poem"
    assert bowerbird.sample("digits", 1, options={"steps": 2}, out=tmp_path / "there") == tmp_path / "there"


def test_options_of_a_run_that_ships_are_flags(capsys) -> None:
    assert cli.main(["sample", "digits", "--help"]) == 0
    assert "--guidance" in capsys.readouterr().out


def test_a_folder_wins_over_a_run_that_ships(tmp_path: Path) -> None:
    (tmp_path / "poem").mkdir()
    assert shipped.folder_of("poem") == Path("poem")
    with pytest.raises(BowerbirdError, match=r"poem is not a run folder.*ship with Bowerbird: chorale, digits"):
        bowerbird.load("poem")
    assert shipped.folder_of("digits") == RUNS["digits"] and shipped.folder_of("nothing") == Path("nothing")


def test_a_run_that_ships_is_exported_but_cannot_be_diagnosed(tmp_path: Path) -> None:
    assert bowerbird.export("poem", "huggingface") == Path("export/poem/huggingface")
    assert (tmp_path / "export/poem/huggingface/config.json").is_file()
    with pytest.raises(BowerbirdError, match=r"poem says nothing about its training: it has no metrics.jsonl"):
        bowerbird.diagnose("poem")


def test_a_run_that_ships_is_not_trained_on_but_another_can_start_from_it(tmp_path: Path) -> None:
    with pytest.raises(BowerbirdError, match=r"poem ships with Bowerbird and stays as it is; .*--start poem"):
        bowerbird.resume("poem")
    run = config.load(str(RUNS["poem"] / "run.toml"))
    folder = bowerbird.train(run, tmp_path / "mine", start="poem", budget="1steps", quiet=True)
    assert str(RUNS["poem"]) in RunDir.open(folder).config().train.start
