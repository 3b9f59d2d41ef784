"""Emoji: what ships, how the whole is drawn from its packages, and the sheets in which pictures are packed."""

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bowerbird.config import Data
from bowerbird.data import builtin, emoji, packs, split
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.spec import Tensors

STYLES = {"flat", "3d", "noto", "twemoji"}


def noise(n: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8)


def smooth(n: int, side: int = 64) -> np.ndarray:
    """Gradients of any direction and colour."""
    generator = np.random.default_rng(1)
    y, x = np.mgrid[:side, :side][..., None] / side
    from_, across, down = generator.uniform(0, 1, (3, n, 1, 1, 3))
    return (255 * (0.4 * from_ + 0.3 * across * x + 0.3 * down * y)).round().astype(np.uint8)


# ------------------------------------------------------------------------------------------------------ packs


@pytest.mark.parametrize("n", [1, 39, 40, 41, 95])
def test_a_sheet_without_loss_keeps_every_bit(n):
    images = noise(n, 5, 7)
    assert np.array_equal(packs.pictures(*packs.lossless(images)), images)


def test_a_sheet_with_loss_keeps_order_colour_and_white():
    images = smooth(45)
    images[3] = 255
    seen = packs.pictures(*packs.lossy(images, 90))
    assert seen.shape == images.shape
    assert np.square(seen.astype(float) - images).mean() < 255**2 / 10**4  # more than 40 dB
    assert (seen[3] == 255).all()


def test_a_pack_is_read_as_it_was_written_whatever_holds_its_pictures(tmp_path):
    images = noise(50, 6, 6)
    columns = {"split": np.full(50, "train"), "any name": np.arange(50).astype(str)}
    packs.write(tmp_path / "array.xz", {"images": images, **columns})
    packs.write(tmp_path / "sheets.xz", columns, [packs.lossless(images[:41]), packs.lossless(images[41:])])
    one, other = (packs.read(tmp_path / name) for name in ("array.xz", "sheets.xz"))
    assert one.keys() == other.keys() == {"images", "split", "any name"}
    assert all(np.array_equal(one[key], other[key]) for key in one)
    again = (tmp_path / "sheets.xz").read_bytes()
    packs.write(tmp_path / "sheets.xz", columns, [packs.lossless(images[:41]), packs.lossless(images[41:])])
    assert (tmp_path / "sheets.xz").read_bytes() == again


# ------------------------------------------------------------------------------------------------ what ships


@pytest.fixture(scope="module")
def pack() -> dict[str, np.ndarray]:
    return builtin.load("emoji")


def test_every_emoji_that_ships_has_all_styles(pack):
    assert pack["images"].shape == (6_280, 64, 64, 3) and pack["images"].dtype == np.uint8
    assert set(pack) == {"images", "split", "style", "group", "caption", "caption_zh", "tags", "emoji", "code"}
    codes = {style: set(pack["code"][pack["style"] == style]) for style in STYLES}
    assert all(len(one) == 1_570 and one == codes["flat"] for one in codes.values())
    assert len(set(pack["group"])) == 9
    assert len(set(pack["caption"])) == len(set(pack["emoji"])) == 1_570


def test_every_version_of_the_decoders_gives_the_same_pixels(pack):
    assert hashlib.sha256(pack["images"].tobytes()).hexdigest().startswith("4c5cfa0f6765b30f")


def test_an_emoji_lies_in_one_split_in_every_style(pack):
    for code in set(pack["code"]):
        assert len(set(pack["split"][pack["code"] == code])) == 1
    counts = {name: int((pack["split"] == name).sum()) // 4 for name in split.SPLITS}
    assert counts == {"train": 1_339, "val": 73, "test": 158}
    assert np.array_equal(split.by_name(pack["code"].tolist()), pack["split"])


def test_what_is_known_about_an_emoji(pack):
    i = np.flatnonzero((pack["code"] == "1F3B3") & (pack["style"] == "3d")).item()
    known = {key: str(pack[key][i]) for key in pack if key not in ("images", "split")}
    assert known == {
        "style": "3d",
        "group": "activities",
        "caption": "bowling",
        "caption_zh": "保龄球",
        "tags": "ball, game, sport, strike",
        "emoji": "🎳",
        "code": "1F3B3",
    }


def test_opened_without_options_emoji_have_no_labels_and_columns_choose_them():
    data = open_data(Data("emoji"))
    assert data.spec.target == Tensors((3, 64, 64)) and not data.spec.given
    assert [len(data.train), len(data.val), len(data.test)] == [5_356, 292, 632]
    assert data.preprocessing["split"] == "official"
    assert set(open_data(Data("emoji", label="style")).classes) == STYLES
    assert len(open_data(Data("emoji", label="group")).classes) == 9
    with pytest.raises(BowerbirdError, match="too many to be classes|has no label column"):
        open_data(Data("emoji", label="name"))


def test_the_licences_of_all_parts_lie_beside_the_pack():
    licence = builtin.licence("emoji").read_text(encoding="utf-8")
    for needed in ("Apache License, Version 2.0", "Google", "Microsoft Corporation", "Miles Johnson", "LobeHub",
                   "CC BY 4.0", "Twitter, Inc and other contributors", "Permission is hereby granted"):  # fmt: skip
        assert needed in licence


def test_the_split_by_name_has_its_shares_and_knows_nothing_but_the_name():
    names = [f"name {i}" for i in range(20_000)]
    where = split.by_name(names)
    for name, share in (("val", 1 / 20), ("test", 1 / 10)):
        assert abs((where == name).sum() - 20_000 * share) < 5 * (20_000 * share * (1 - share)) ** 0.5
    assert np.array_equal(split.by_name(names[::-1])[::-1], where)


# ------------------------------------------------------------------------------------------------- the whole


def tarred(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def toy_packages(folder: Path) -> dict[str, Path]:
    """A red square on the left half in each style, for the sun; of the letter A nothing is to be drawn."""
    label = {"hexcode": "2600", "emoji": "☀️", "group": 3, "label": "sun", "tags": ["bright", "rays"]}
    letter = {"hexcode": "1F1E6", "emoji": "🇦", "label": "regional indicator A"}
    names = {
        "en/data.json": as_json([label, letter]),
        "zh/data.json": as_json([label | {"label": "太阳"}, letter]),
        "en/messages.json": as_json({"groups": [{"key": "animals-nature", "order": 3}]}),
    }
    half = '<path fill="#f00" d="M0 0h16v32h-16z"/>'
    icons = {"prefix": "toy", "width": 32, "height": 32, "icons": {"sun": {"body": half}, "a": {"body": half}}}
    drawn = {"icons.json": as_json(icons), "chars.json": as_json({"2600-fe0f": "sun", "1f1e6": "a", "263a": "gone"})}
    picture = Image.new("RGBA", (256, 256), (0, 255, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 128, 256))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, exact=True)
    packages = {style: tarred(folder / f"{style}.tgz", drawn) for style in ("flat", "noto", "twemoji")}
    packages["3d"] = tarred(folder / "3d.tgz", {"assets/2600-fe0f.webp": buffer.getvalue()})
    return packages | {"names": tarred(folder / "names.tgz", names)}


def test_the_whole_is_drawn_on_white_from_its_packages(tmp_path):
    pytest.importorskip("resvg_py")
    emoji.build(toy_packages(tmp_path), tmp_path / "emoji.npz.xz")
    whole = packs.read(tmp_path / "emoji.npz.xz")
    assert set(whole["style"]) == STYLES and len(whole["images"]) == 4
    for image in whole["images"].astype(int):
        assert abs(image[:, :24] - [255, 0, 0]).max() <= 3 and abs(image[:, 40:] - 255).max() <= 3
    assert {key: str(whole[key][0]) for key in ("group", "caption", "caption_zh", "tags", "emoji", "code")} == {
        "group": "animals-nature",
        "caption": "sun",
        "caption_zh": "太阳",
        "tags": "bright, rays",
        "emoji": "☀️",
        "code": "2600",
    }


def test_a_flat_drawing_lies_in_the_middle():
    resvg = pytest.importorskip("resvg_py")
    icons = {"icons": {"a": {"body": '<path d="M0 0h32v16h-32z"/>', "width": 32, "height": 16}}}
    png = bytes(resvg.svg_to_bytes(svg_string=emoji.svg(icons, "a"), width=64, height=64))
    drawn = np.asarray(Image.open(io.BytesIO(png)))[..., 3] > 0
    assert drawn[16:48].all() and not drawn[:16].any() and not drawn[48:].any()


def test_a_drawing_may_have_a_size_of_its_own():
    icons = {"width": 32, "height": 32, "icons": {"a": {"body": "<g/>", "height": 33, "left": -1}, "b": {"body": ""}}}
    assert 'viewBox="-1 0 32 33"' in emoji.svg(icons, "a")
    assert 'viewBox="0 0 32 32"' in emoji.svg(icons, "b")


# ----------------------------------------------------------------------------------------------- shared data


def test_the_pack_is_close_to_pictures_that_were_drawn_elsewhere(pack, shared):
    with zipfile.ZipFile(shared / "images" / "emoji.zip") as archive:
        for style, prefix in {"flat": "flat", "twemoji": "twemoji", "3d": "fluent3d"}.items():
            for i in np.flatnonzero(pack["style"] == style)[::31]:
                png = archive.read(f"{prefix}-{pack['code'][i]}.png")
                error = np.square(np.asarray(Image.open(io.BytesIO(png))).astype(float) - pack["images"][i]).mean()
                assert error == 0 if style != "3d" else error < 255**2 / 10**3.4  # 34 dB in every single picture
