"""Which extractor `auto` picks, and what is measured where none suits the pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bowerbird.cli import main
from bowerbird.config import Data, Train
from bowerbird.errors import BowerbirdError
from bowerbird.measuring import extractors
from bowerbird.measuring.evaluating import InTraining
from bowerbird.measuring.extractors import choose, choose_by_shape
from bowerbird.measuring.folders import measure_folder
from bowerbird.measuring.request import Measuring
from bowerbird.media import open_data
from bowerbird.media.image.imageset import ImageData
from bowerbird.metrics.pixelwise import sliced_wasserstein


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without fetched weights."""
    monkeypatch.setenv("BOWERBIRD_CACHE", str(tmp_path / "cache"))


def photographs(folder: Path, n: int = 60, seed: int = 0, shift: int = 0, side: int = 40, colour: bool = True) -> Path:
    """Smooth pictures of two classes that are named like digits."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        place = folder / str(i % 2)
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 200, (4, 4, 3), dtype=np.uint8)).resize((side, side))
        picture = Image.fromarray(np.asarray(coarse) + np.uint8(shift))
        (picture if colour else picture.convert("L")).save(place / f"{i:03d}.png")
    return folder


def opened(folder: Path) -> ImageData:
    data = open_data(Data(source=str(folder)))
    assert isinstance(data, ImageData)
    return data


def test_digits_are_known_by_being_read_and_not_by_the_names_of_classes(tmp_path: Path) -> None:
    digits = open_data(Data(source="digits"))
    found = choose("auto", digits)
    assert found is not None and found.name == "digits" and not found.caveat
    assert choose("auto", opened(photographs(tmp_path / "colour"))) is None
    grey = choose("auto", opened(photographs(tmp_path / "grey", side=28, colour=False)))
    assert grey is not None and grey.name == "digits" and "sees little else" in grey.caveat
    assert choose("auto", opened(photographs(tmp_path / "large", colour=False))) is None
    with pytest.warns(UserWarning, match="data get inception-2015 .or efficientnet-lite0"):
        grey.load()


def test_weights_that_are_present_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractors, "locate", lambda name: Path(name) if name == "efficientnet-lite0" else None)
    for shape in ((64, 64, 3), (28, 28, 1)):
        found = choose_by_shape("auto", [shape])
        assert found is not None and found.name == "efficientnet-lite0"
    assert choose_by_shape("dinov2:FILE", [(64, 64, 3)]) == ("dinov2:FILE", "")


def test_folders_of_photographs_are_compared_by_pixels_and_it_is_said_why(tmp_path: Path) -> None:
    real, near = photographs(tmp_path / "real"), photographs(tmp_path / "near", seed=1)
    far = photographs(tmp_path / "far", seed=1, shift=40)
    values = []
    for made in (real, near, far):
        with pytest.warns(UserWarning, match="No extractor.*sliced Wasserstein.*bowerbird data get inception-2015"):
            (found,) = measure_folder(made, Measuring(against=str(real)))
        assert found.name == "sliced_wasserstein" and found.protocol.extractor == ""
        assert dict(found.protocol.preprocessing) == {"resize": "antialiased bilinear to 32x32"}
        values.append(found.value)
    assert values[0] == 0 < values[1] < 20 < values[2] == pytest.approx(40, rel=0.2)
    with pytest.raises(BowerbirdError, match="kid does not apply .*No extractor.*data get"):
        measure_folder(near, Measuring(against=str(real), metrics=("kid",)))
    for photo in list(real.glob("*/*.png"))[5:]:
        photo.unlink()
    with pytest.raises(BowerbirdError, match="sliced_wasserstein needs at least 10 reference images; real has 5"):
        measure_folder(near, Measuring(against=str(real), metrics=("sliced_wasserstein",)))


def test_a_model_of_photographs_is_measured_without_the_digit_classifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = photographs(tmp_path / "photos", n=300, side=8)
    small = ["--data.size", "8", "--train.steps", "1", "--train.evaluate-every", "1", "--train.evaluate-samples", "16"]
    assert main(["train", "vae", "--data", str(data), "--out", str(tmp_path / "run"), "--quiet", *small]) == 0
    assert "note: No extractor on this machine" in capsys.readouterr().err
    assert main(["measure", str(tmp_path / "run"), "--n-samples", "16"]) == 0
    told = capsys.readouterr()
    assert "sliced_wasserstein" in told.out and "psnr" in told.out
    assert not any(name in told.out for name in ("frechet", "kid", "copied", "class_accuracy"))
    assert "note: No extractor on this machine suits these images" in told.err


def test_scores_in_training_fall_back_on_pixels(tmp_path: Path) -> None:
    data = opened(photographs(tmp_path / "photos", n=200, side=8))
    with pytest.warns(UserWarning, match="sliced Wasserstein"):
        scores = InTraining(data, Train(steps=1, evaluate_every=1, evaluate_samples=16))
    images = data.val.images[:8]
    found = scores._of_pixels(images.float() / 127.5 - 1)
    expected, error = sliced_wasserstein(samples=images, reference=data.val.images[: len(images)])
    assert list(found) == ["sliced_wasserstein", "sliced_wasserstein_stderr"]
    assert len(data.val.images) > 8 or found["sliced_wasserstein"] == pytest.approx(expected)
    assert error >= 0 and scores._of_pixels(torch.full((4, 3, 8, 8), torch.nan)) == {"sliced_wasserstein": torch.inf}
