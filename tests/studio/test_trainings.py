"""Training from the page: it starts, is watched, pauses, goes on, fails in a sentence, and loses nothing."""

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from studio_site import Site, running

from bowerbird import config
from bowerbird.errors import BowerbirdError
from bowerbird.studio.looking import PAIRS, looked_at
from bowerbird.training.rundir import RunDir

FULL = """
import errno, os

fsync = os.fsync


def full(descriptor):
    if os.path.exists({flag!r}):
        raise OSError(errno.ENOSPC, "No space left on device")
    fsync(descriptor)


os.fsync = full
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A studio without shipped runs."""
    with running(tmp_path_factory.mktemp("own") / "runs", {}) as site:
        yield site


def started(site: Site, source: Path | str, budget: str, recipe: str = "flow", **more: str) -> str:
    answer = site.post("/train/start", {"recipe": recipe, "source": str(source), "budget": budget, **more})
    assert answer.status == 200, answer.text
    return answer.json["go"].removeprefix("/runs/")


async def in_this_process(_module: str, words: list[str], _seconds: float) -> tuple[int, str]:
    """In place of the child that looks at data, which costs seconds to begin; a zip below is looked at by it."""
    return 0, json.dumps(looked_at(*words))


def test_what_data_hold_and_cost_is_said_before_anything_starts(own: Site, tiny: Path, monkeypatch):
    monkeypatch.setattr("bowerbird.studio.train_page.told", in_this_process)
    page = own.post("/train/look", {"source": str(tiny), "budget": "2m"}).text
    assert "64 images, 8x8 grey, 2 classes" in page
    assert "parameters" in page and "s per step" in page and "GB" in page
    assert '<option value="flow" selected>' in page
    assert not list(own.runs.glob("*"))
    with pytest.raises(BowerbirdError, match="do not exist"):
        looked_at("/no/such/folder")
    assert "upload one" in own.post("/train/look", {"source": " "}).error


def pairs_of(folder: Path) -> Path:
    """Outlines and the filled shapes that they belong to, under the same names."""
    rng = np.random.default_rng(0)
    for name in ("filled", "outlined"):
        (folder / name).mkdir(parents=True)
    for i in range(24):
        left, top, width = rng.integers(1, 8), rng.integers(1, 8), rng.integers(4, 8)
        for name, fill in (("filled", "orange"), ("outlined", None)):
            picture = Image.new("RGB", (16, 16), "white")
            box = (left, top, left + width, top + width)
            ImageDraw.Draw(picture).rectangle(box, fill=fill, outline="black" if fill is None else fill)
            picture.save(folder / name / f"{i:02d}.png")
    return folder


def zipped(folder: Path) -> bytes:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.png")):
            file.write(path, path.relative_to(folder).as_posix())
    return archive.read_bytes()


def test_a_zip_of_pairs_gets_the_recipe_of_pairs_and_is_trained_on_to_the_end(own: Site, tmp_path: Path, tiny: Path):
    assert looked_at(str(tiny))["styles"] == [], "its files are numbered alike in both folders"
    name = own.post("/train/upload", zipped(pairs_of(tmp_path / "pairs"))).json["name"]
    page = own.post("/train/look", {"source": name}).text
    assert "each from a source" in page and f'<option value="{PAIRS}" selected>' in page and "filled → outlined" in page
    key = started(own, name, "3steps", PAIRS, style="filled", other_style="outlined", direction="backward")
    finished = own.until(key, "finished", "failed")
    assert (finished["state"], finished["step"], finished["used"]) == ("finished", 3, 1.0)
    data = config.load(str(own.runs / key / "run.toml")).data
    assert (data.from_, data.to) == ("outlined", "filled")
    assert own.get(finished["previews"][-1]["address"]).headers["content-type"] == "image/png"
    assert key in own.get("/runs").text
    assert "not a zip" in own.post("/train/upload", b"not one").error
    assert own.post("/train/start", {"recipe": "vae", "source": "upload:0123456789ab"}).status == 404
    assert [path.suffix for path in (own.runs / "uploads").iterdir()] == [".zip"]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"recipe": "../flow"}, "no recipe"),
        ({"recipe": "flow", "budget": "forever"}, "forever"),
        ({}, "no recipe"),
    ],
)
def test_a_wrong_start_is_refused(own: Site, form, said):
    answer = own.post("/train/start", form)
    assert (answer.status, said in answer.error) == (422, True)


def test_a_training_that_cannot_start_says_why(own: Site, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    key = started(own, empty, "3steps")
    failed = own.until(key, "failed")
    assert "empty" in failed["sentence"]
    assert failed["sentence"].endswith(".")
    assert own.get(f"/runs/{key}").status == 200
    assert not (own.runs / key).exists()


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As long as this file is there, every process that begins now has a full disk."""
    flag = tmp_path / "full"
    (tmp_path / "sitecustomize.py").write_text(FULL.format(flag=str(flag)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    return flag


def test_a_training_stops_fails_on_a_full_disk_goes_on_where_it_was_and_is_saved_at_closing(
    tmp_path, tiny: Path, full_disk: Path
):
    """One life of a run, since every training that begins costs seconds."""
    runs = tmp_path / "runs"
    with running(runs, {}) as own:
        key = started(own, tiny, "100000steps", recipe="vae")
        assert own.get(f"/runs/{key}").status == 200  # before its folder is there
        own.until(key, "training", step=1)
        own.post(f"/stop/{key}", {"for_good": True})
        stopped = own.until(key, "stopped")
        saved = RunDir(runs / key).status()["step"]
        assert saved >= stopped["step"] >= 1
        assert stopped["panels"][0]["series"][0]["y"]
        assert own.made(key, n=1).status == 200
        assert "not being trained" in own.post(f"/stop/{key}").error

        own.post(f"/resume/{key}")
        own.until(key, "training", step=saved + 1)
        assert "already training" in own.post(f"/resume/{key}").error
        full_disk.touch()
        own.post(f"/stop/{key}")
        failed = own.until(key, "failed")
        assert failed["sentence"].startswith("The disk is full")
        assert RunDir(runs / key).status()["step"] == saved

        full_disk.unlink()
        own.post(f"/resume/{key}")
        own.until(key, "training", step=failed["step"] + 1)  # beyond what the failed training had logged
    status = RunDir(runs / key).status()  # closing the studio saves what is being trained
    assert (status["finished"], status["step"] > saved) == (False, True)
    assert not (runs / key / ".lock").exists()
    with running(runs, {}) as later:  # a studio that is opened later knows as much
        assert later.get(f"/live/{key}").json["state"] == "paused"
