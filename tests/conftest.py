"""What all tests share: one thread, checked tensor shapes, a tiny data set, and the larger data beside the checkout."""

import gc
import os
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
import torch.export
from PIL import Image

import shapes

# While tests are imported everything stays, and every worker imports them all: a fifth of that time went to looking for
# garbage.
gc.disable()

# Before the first import of bowerbird: the annotated shapes of every function are checked when a test calls it.
shapes.install()

from bowerbird.api import training  # noqa: E402
from bowerbird.data import builtin, packs  # noqa: E402
from bowerbird.media.image import pixels  # noqa: E402

_write_report = training._write_report

torch.set_num_threads(1)


def _unchecked(record: Callable[..., Any]) -> Callable[..., Any]:
    """While ``torch.export`` records, sizes are symbols, which a comparison with a number would fix."""

    def run(*args: Any, **kwargs: Any) -> Any:
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            return record(*args, **kwargs)
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)

    return run


LONGEST = ("test_newcomer.py", "test_families.py", "test_docs.py", "test_resume.py", "test_studio.py", "test_fuzz.py")
"""Files that begin first, or one worker would be left with them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(50_000)  # in place of 700: looking for garbage took 6 % of the time
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    shapes.seen.clear()
    training._write_report = _write_report if item.get_closest_marker("reports") else lambda folder: None


torch.export.export = _unchecked(torch.export.export)
# Plugins that tests allow are not trusted by the user who runs them.
os.environ["BOWERBIRD_CONFIG"] = tempfile.mkdtemp(prefix="bowerbird-config-")

ROOT = Path(__file__).parents[1]


def _once(read: Callable[[Path], dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
    """Decodes the packs that ship once in each worker: emoji take more than a second, and a hundred tests open them."""
    shipped = cache(read)

    def copied(path: Path) -> dict[str, Any]:
        if path.parent != builtin.FOLDER:
            return read(path)
        return {name: array.copy() for name, array in shipped(path).items()}

    return copied


packs.read = _once(packs.read)


def _fitted_once(fit: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Reduces a whole data set once in each worker, whoever opens it: emoji take another second."""
    sets: dict[tuple[Any, ...], np.ndarray] = {}

    def fitted(images: np.ndarray, height: int, width: int) -> np.ndarray:
        if len(images) < 100:
            return fit(images, height, width)
        key = (images.shape, zlib.crc32(np.ascontiguousarray(images)), height, width)
        if key not in sets:
            sets[key] = fit(images, height, width)
        return sets[key].copy()

    return fitted


pixels.fit_array = _fitted_once(pixels.fit_array)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 64 grey 8×8 PNG files in two sub-folders: bright in the upper half, bright in the lower half."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for label in ("lower", "upper"):
        (folder / label).mkdir()
        for i in range(32):
            image = rng.integers(0, 64, (8, 8), dtype=np.uint8)
            image[slice(0, 4) if label == "upper" else slice(4, 8)] += 160
            Image.fromarray(image).save(folder / label / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of larger data: $BOWERBIRD_SHARED, or shared/data in or beside the checkout."""
    for folder in (os.environ.get("BOWERBIRD_SHARED"), ROOT / "shared" / "data", ROOT.parent / "shared" / "data"):
        if folder and Path(folder).is_dir():
            return Path(folder)
    pytest.skip("needs the larger data sets: set BOWERBIRD_SHARED to their folder, or put them at ../shared/data")
