"""Image data: what is read from files, how it is labelled and split, and in which order it is seen."""

import io
import json
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bowerbird.config import Data
from bowerbird.data import builtin, fetch, order, split
from bowerbird.eightbit import to_float, to_uint8
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.media.image import collecting, pixels
from bowerbird.media.image.imageset import ImageData, ImageSet, binarized
from bowerbird.spec import Classes, Tensors


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(seed: int, size: tuple[int, int] = (12, 12), mode: str = "L") -> Image.Image:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def decoded(data: bytes, height: int, width: int) -> np.ndarray:
    return pixels.decode(io.BytesIO(data), height, width)


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def label_of(data: ImageData) -> Classes:
    field = data.spec.given["label"]
    assert isinstance(field, Classes) and field.names == data.classes
    return field


def all_images(data: ImageData) -> torch.Tensor:
    return data.split("train+val+test").images


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return open_data(Data("digits"))


# -------------------------------------------------------------------------------------------------- order


def test_every_epoch_is_another_permutation():
    sequence = order.indices(7, seed=3, start=0, count=35).view(5, 7)
    assert all(sorted(epoch.tolist()) == list(range(7)) for epoch in sequence)
    assert len({tuple(epoch.tolist()) for epoch in sequence}) == 5


@pytest.mark.parametrize("n", [1, 3, 10])
@pytest.mark.parametrize("step", [1, 4, 10, 23])
def test_order_does_not_depend_on_how_it_is_asked_for(n, step):
    whole = order.indices(n, seed=5, start=0, count=60)
    pieces = [order.indices(n, 5, start, min(step, 60 - start)) for start in range(0, 60, step)]
    assert torch.equal(torch.cat(pieces), whole)


def test_order_survives_a_cleared_cache_and_a_careless_caller():
    first = order.indices(9, 1, 0, 9)
    kept = first.clone()
    first.zero_()
    assert torch.equal(order.indices(9, 1, 0, 9), kept)
    order._permutation.cache_clear()
    assert torch.equal(order.indices(9, 1, 0, 9), kept)


@pytest.mark.parametrize(("n", "batch"), [(1000, 8), (1003, 8), (5, 8), (64, 64)])
def test_batches_of_similar_length_hold_each_example_once_per_epoch(n, batch):
    lengths = torch.randint(1, 40, (n,), generator=torch.Generator().manual_seed(0))
    n_batches = -(-3 * n // batch)
    rows = [order.indices(n, 2, i * batch, batch, lengths) for i in range(n_batches)]
    sequence = torch.cat(rows)
    for epoch in range(len(sequence) // n):
        assert torch.equal(sequence[epoch * n : (epoch + 1) * n].sort().values, torch.arange(n))
    order._by_length.cache_clear()
    assert torch.equal(order.indices(n, 2, batch, batch, lengths), rows[1])  # a pure function of the position
    if n >= 1000:
        spread = torch.stack([lengths[row].max() - lengths[row].min() for row in rows]).float().mean()
        plain = torch.stack([lengths[i].max() - lengths[i].min() for i in torch.randperm(n)[:800].split(batch)])
        assert spread < 0.2 * plain.float().mean()


def test_neighbouring_seeds_do_not_share_epochs():
    n = 20
    assert not torch.equal(order.indices(n, seed=0, start=n, count=n), order.indices(n, seed=1, start=0, count=n))


def test_order_is_uniform_over_positions():
    n, epochs = 5, 4000
    drawn = order.indices(n, 0, 0, n * epochs).view(epochs, n)
    counts = torch.stack([(drawn == value).sum(0) for value in range(n)]).double()
    spread = (epochs * (1 / n) * (1 - 1 / n)) ** 0.5
    assert ((counts - epochs / n).abs() < 5 * spread).all()


# ------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("BMP", {}), ("PPM", {}), ("GIF", {}), ("TIFF", {}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_keep_every_pixel(format, options):
    image = noise(0, mode="L")
    assert np.array_equal(decoded(encoded(image, format, **options), 12, 12)[..., 0], np.asarray(image))


def test_jpeg_is_close():
    smooth = Image.linear_gradient("L").resize((16, 16))
    error = decoded(encoded(smooth, "JPEG", quality=95), 16, 16)[..., 0].astype(int) - np.asarray(smooth)
    assert abs(error).max() <= 4


def test_colour_stays_colour_and_grey_rgb_becomes_grey():
    colour = noise(1, mode="RGB")
    assert np.array_equal(decoded(encoded(colour), 12, 12), np.asarray(colour))
    assert decoded(encoded(noise(1).convert("RGB")), 12, 12).shape == (12, 12, 1)


def test_sixteen_bits_are_scaled_not_cut():
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    assert decoded(encoded(Image.fromarray(values)), 1, 4)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparency_shows_white():
    image = Image.new("RGBA", (2, 1))
    image.putdata([(200, 0, 0, 0), (0, 0, 0, 51)])  # invisible red; black at 51/255 = 1/5
    assert decoded(encoded(image), 1, 2)[0, :, 0].tolist() == [255, 204]


def test_transparent_palette_entries_show_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    assert decoded(encoded(image, transparency=0), 1, 2)[0].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_only_the_first_frame_counts():
    frames = [Image.new("L", (3, 3), value) for value in (10, 200)]
    assert (decoded(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), 3, 3) == 10).all()


def test_photographs_are_upright():
    exif = Image.Exif()
    exif[pixels.EXIF_ORIENTATION] = 6  # the camera's right side was up
    image = noise(2, size=(8, 4))
    data = encoded(image, exif=exif)
    assert pixels.header(io.BytesIO(data))[:2] == (8, 4)
    assert np.array_equal(decoded(data, 8, 4)[..., 0], np.rot90(np.asarray(image), -1))


def test_the_centre_is_cut_out():
    image = Image.new("L", (30, 10), 255)
    image.paste(0, (10, 0, 20, 10))
    assert (decoded(encoded(image), 10, 10) == 0).all()
    assert (decoded(encoded(image.transpose(Image.Transpose.ROTATE_90)), 10, 10) == 0).all()


@pytest.mark.parametrize("side", [64, 640])
def test_reduction_does_not_alias(side):
    board = (np.indices((side, side)).sum(0) % 2 * 255).astype(np.uint8)
    assert abs(decoded(encoded(Image.fromarray(board)), 16, 16).astype(float) - 127.5).max() < 12


def test_resizing_an_array_is_resizing_the_image():
    image = noise(3, size=(20, 20), mode="RGB")
    assert np.array_equal(pixels.fit_array(np.asarray(image)[None], 8, 8)[0], decoded(encoded(image), 8, 8))


def test_grey_from_colour_is_luma():
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    assert pixels.with_channels([primaries], 1)[0, 0, :, 0].tolist() == [76, 150, 29]
    assert (pixels.with_channels([primaries[..., :1]], 3)[0] == primaries[..., :1]).all()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(28, 20)] * 3, (28, 20)),
        ([(64, 64)], (64, 64)),
        ([(65, 65)], (64, 64)),
        ([(112, 92)] * 2, (64, 64)),
        ([(30, 40), (50, 34), (90, 20)], (24, 24)),  # shorter sides 30, 34, 20: median 30
        ([(5, 6), (5, 7)], (5, 5)),
    ],
)
def test_default_size(sizes, expected):
    assert collecting.default_size(sizes) == expected


# --------------------------------------------------------------------------------------- folders and zips


def faces(n: int = 24) -> dict[str, bytes]:
    return {f"person {i % 12}/{i}.png": encoded(noise(i)) for i in range(n)}


def test_sub_folders_are_labels_in_natural_order(tmp_path):
    data = open_data(Data(str(write(tmp_path, faces()))))
    assert data.classes == tuple(f"person {i}" for i in range(12))
    assert data.spec.target.shape == (1, 12, 12)
    originals = {np.asarray(noise(i)).tobytes(): i % 12 for i in range(24)}
    for name in split.SPLITS:
        part = data.split(name)
        assert part.given["label"].tolist() == [originals[x.numpy().tobytes()] for x in part.images]
    assert list(label_of(data).counts) == torch.bincount(data.train.given["label"], minlength=12).tolist()


def test_a_zip_is_its_folder(tmp_path):
    contents = faces() | {".DS_Store": b"x", "readme.txt": b"faces"}
    folder = open_data(Data(str(write(tmp_path / "faces", contents))))
    archive = {f"outer/inner/{name}": data for name, data in contents.items()} | {
        "__MACOSX/outer/0.png": b"?",
        "outer/._0.png": b"?",
    }
    data = open_data(Data(str(zipped(tmp_path / "faces.zip", archive))))
    assert data.fingerprint == folder.fingerprint
    assert data.skipped == 0


def test_nothing_of_a_zip_is_written(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    names = ["../../up.png", "/root.png", "a/../../b.png", "good.png"]
    path = zipped(home / "evil.zip", {name: encoded(noise(i)) for i, name in enumerate(names)})
    before = sorted(tmp_path.rglob("*"))
    assert len(all_images(open_data(Data(str(path))))) == 2  # what climbs out of the zip is not looked at
    assert sorted(tmp_path.rglob("*")) == before


def metadata(rows: list[dict]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def test_labels_from_metadata(tmp_path):
    contents = {f"{i}.png": encoded(noise(i)) for i in range(30)}
    rows = [{"file_name": f"{i}.png", "hair": ["red", "black"][i % 2], "id": i, "hat": None} for i in range(29)]
    source = str(write(tmp_path, contents | {"metadata.jsonl": metadata(rows)}))
    assert open_data(Data(source)).classes == ()
    data = open_data(Data(source, label="hair"))
    assert data.classes == ("black", "none", "red")  # one image is not mentioned
    assert len(data.train.given["label"]) == len(data.train)
    with pytest.raises(BowerbirdError, match=r"no label column 'beard'; its columns: hair, id"):
        open_data(Data(source, label="beard"))
    with pytest.raises(BowerbirdError, match="too many to be classes"):
        open_data(Data(source, label="id"))


def test_a_column_named_label_is_the_default_and_metadata_belong_to_their_folder(tmp_path):
    rows = metadata([{"file_name": "1.png", "label": "a"}, {"file_name": "sub/2.png", "label": "b"}])
    contents = {"set/1.png": encoded(noise(1)), "set/sub/2.png": encoded(noise(2)), "set/metadata.jsonl": rows}
    source = str(write(tmp_path, contents))
    assert open_data(Data(source)).classes == ("set", "sub")  # folders come first
    assert open_data(Data(source, label="label")).classes == ("a", "b")
    assert open_data(Data(source + "/set")).classes == ("a", "b")


@pytest.mark.parametrize("line", ["{", "[]", '{"label": "x"}'])
def test_broken_metadata_are_named_by_line(tmp_path, line):
    rows = '{"file_name": "1.png", "label": "a"}\n' + line
    write(tmp_path, {"1.png": encoded(noise(1)), "metadata.jsonl": rows.encode()})
    with pytest.raises(BowerbirdError, match=r"metadata\.jsonl, line 2"):
        open_data(Data(str(tmp_path)))


def test_a_few_colour_pictures_do_not_make_the_set_colourful(tmp_path):
    contents = {f"{i}.png": encoded(noise(i, mode="RGB" if i == 0 else "L")) for i in range(5)}
    source = str(write(tmp_path, contents))
    grey = open_data(Data(source))
    assert grey.spec.target == Tensors((1, 12, 12))
    assert "1 of the images" in grey.summary()
    assert open_data(Data(source, channels="rgb")).spec.target.shape[0] == 3


# ------------------------------------------------------------------------------------------ what is broken


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""
    data = bytearray(encoded(Image.new("L", (1, 1))))
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


BROKEN = {"truncated.png": encoded(noise(0, (40, 40)))[:700], "text.jpg": b"not an image", "empty.gif": b""}


@pytest.mark.parametrize("size", [None, 12])
@pytest.mark.parametrize("pack", [write, zipped])
def test_broken_files_are_skipped_and_counted(tmp_path, size, pack):
    good = {f"{i}.png": encoded(noise(i)) for i in range(6)}
    bombs = {"big.png": bomb(10_000), "bigger.png": bomb(20_000)}  # Pillow only warns of the first
    data = open_data(Data(str(pack(tmp_path / "set.zip", good | BROKEN | bombs)), size=size))
    assert data.skipped == 5
    assert len(all_images(data)) == 6
    assert "\n" not in data.summary()
    for part in ("6 images", "not used: ", "3 broken or truncated", "2 too large, perhaps a decompression bomb"):
        assert part in data.summary()


def test_a_damaged_member_of_a_zip_is_one_broken_file(tmp_path):
    path = zipped(tmp_path / "set.zip", {f"{i}.bmp": encoded(noise(i), "BMP") for i in range(4)})
    raw = bytearray(path.read_bytes())
    raw[raw.index(encoded(noise(2), "BMP")) + 300] ^= 255  # its checksum no longer holds
    path.write_bytes(raw)
    assert open_data(Data(str(path))).skipped == 1


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({}, "holds no images"),
        ({"readme.doc": b"hello"}, "holds no images"),
        (BROKEN, "None of the 3 images .* can be read: 3 broken or truncated"),
    ],
)
def test_useless_folders_are_errors(tmp_path, contents, message):
    with pytest.raises(BowerbirdError, match=message):
        open_data(Data(str(write(tmp_path, contents))))


def test_wrong_sources_are_errors(tmp_path):
    write(tmp_path, {"a.zip": b"no zip", "a.doc": b"text"})
    for source, message in [
        ("digit", "did you mean 'digits'"),
        (str(tmp_path / "absent.zip"), "do not exist"),
        (str(tmp_path / "a.zip"), "not a readable zip"),
        (str(tmp_path / "a.doc"), "neither a folder nor a zip|does not say what it holds"),
    ]:
        with pytest.raises(BowerbirdError, match=message):
            open_data(Data(source))
    with pytest.raises(ValueError, match="data.size = 0 must be at least 1"):
        open_data(Data("digits", size=0))


# ------------------------------------------------------------------------------------------------- splits


def random_images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 1), dtype=np.uint8)


def test_shares_of_the_splits():
    n = 20_000
    where = split.assign(split.digests(random_images(n)), np.full(n, ""))
    for name, share in (("train", 18 / 20), ("val", 1 / 20), ("test", 1 / 20)):
        assert abs((where == name).sum() - n * share) < 5 * (n * share * (1 - share)) ** 0.5


@pytest.mark.parametrize(("part", "other", "share"), [("test", "val", 1 / 12), ("val", "test", 1 / 20)])
def test_a_missing_split_is_taken_from_training_alone(part, other, share):
    n = 20_000
    official = np.array(["train"] * n + [part] * 100)
    where = split.assign(split.digests(random_images(n + 100)), official)
    assert (where[n:] == part).all() and (where[:n] != part).all()
    assert abs((where == other).sum() - n * share) < 5 * (n * share * (1 - share)) ** 0.5


def test_copies_lie_on_one_side_and_other_images_do_not_matter():
    images = random_images(500)
    where = split.assign(split.digests(images), np.full(500, ""))
    twice = np.concatenate([images, images[::-1]])
    assert (split.assign(split.digests(twice), np.full(1000, "")) == np.concatenate([where, where[::-1]])).all()
    assert (split.assign(split.digests(images[100:400]), np.full(300, "")) == where[100:400]).all()


@pytest.mark.parametrize("n", range(1, 12))
def test_small_sets_have_no_empty_split(n):
    for seed in range(10):
        where = split.assign(split.digests(random_images(n, seed)), np.full(n, ""))
        assert set(where) == set(split.SPLITS if n > 2 else ("train", "val")[:n])


@pytest.mark.parametrize("n", [2, 5])
def test_copies_alone_still_train_and_validate(n):
    where = split.assign(np.full(n, 7, np.uint64), np.full(n, ""))
    assert {"train", "val"} <= set(where)


def test_official_splits_are_kept(tmp_path):
    contents = {f"{part}/{i % 2}/{i}.png": encoded(noise(i)) for i in range(40) for part in [["train", "test"][i > 29]]}
    data = open_data(Data(str(zipped(tmp_path / "a.zip", {f"top/{k}": v for k, v in contents.items()}))))
    tests = {np.asarray(noise(i)).tobytes() for i in range(30, 40)}
    assert {x.numpy().tobytes() for x in data.test.images} == tests
    assert data.classes == ("0", "1")
    assert len(data.val) > 0
    assert data.preprocessing["split"].startswith("official test")


def test_split_folders_are_not_labels(tmp_path):
    contents = {f"{part}/{i}.png": encoded(noise(i)) for i in range(9) for part in [["train", "val", "test"][i % 3]]}
    data = open_data(Data(str(write(tmp_path, contents))))
    assert data.classes == ()
    assert [len(data.train), len(data.val), len(data.test)] == [3, 3, 3]


def test_splits_have_names_and_sums(digits):
    both = digits.split("train+val")
    assert len(both) == 12_000 == len(both.given["label"])
    assert both.flip is False
    with pytest.raises(BowerbirdError, match="did you mean 'train'"):
        digits.split("trian")


# -------------------------------------------------------------------------------------------- binarisation


def test_binarisation_is_a_bernoulli_draw():
    x = torch.arange(256, dtype=torch.uint8).expand(5000, 1, 1, 256)
    drawn = binarized(x, seed=0)
    assert set(drawn.unique().tolist()) == {0, 255}
    p = torch.arange(256) / 255
    error = (drawn.float() / 255).mean((0, 1, 2)) - p
    assert (error.abs() <= 5 * (p * (1 - p) / 5000).sqrt()).all()  # exact at 0 and 255
    assert torch.equal(drawn, binarized(x, seed=0))
    assert not torch.equal(drawn, binarized(x, seed=1))


def test_binarised_sets_keep_their_splits_and_labels(digits):
    static = open_data(Data("digits", binarize="static"))
    assert torch.equal(static.val.given["label"], digits.val.given["label"])
    assert torch.equal(static.test.images[digits.test.images == 0].unique(), torch.tensor([0], dtype=torch.uint8))
    assert static.preprocessing["binarize"] == "static"
    assert static.fingerprint != digits.fingerprint


# ------------------------------------------------------------------------------------------------ batches


def test_batches_are_floats_in_order(digits):
    at = torch.tensor([5, 0, 5])
    batch = digits.train.batch(at)
    x = batch["x"]
    assert torch.equal(x, to_float(digits.train.images[at]))
    assert torch.equal(batch["given"]["label"], digits.train.given["label"][at])
    assert x.min() == -1 and x.max() <= 1
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(every)), every)


def test_flips_come_from_the_global_generator_and_from_training_alone():
    data = open_data(Data("pixel-faces", flip=True))
    assert [data.train.flip, data.val.flip, data.test.flip] == [True, False, False]
    at = torch.arange(1000)
    torch.manual_seed(4)
    x = data.train.batch(at)["x"]
    torch.manual_seed(4)
    mirrored = torch.rand(1000) < 0.5
    plain = to_float(data.train.images[at])
    assert torch.equal(x[mirrored], plain[mirrored].flip(-1))
    assert torch.equal(x[~mirrored], plain[~mirrored])
    assert 400 < mirrored.sum() < 600


def test_a_set_can_move(digits):
    moved = digits.val.to("cpu")
    assert isinstance(moved, ImageSet)
    assert len(moved) == len(digits.val)


# --------------------------------------------------------------------------------------- what is built in


def test_digits(digits):
    assert digits.spec.target.shape == (1, 28, 28)
    assert digits.classes == tuple("0123456789")
    assert [len(digits.train), len(digits.val), len(digits.test)] == [10_997, 1_003, 2_000]
    assert min(label_of(digits).counts) > 900
    ink = [digits.train.images[digits.train.given["label"] == k].float().mean() for k in (0, 1)]
    assert ink[0] > 1.8 * ink[1]  # a zero has about twice the ink of a one


def test_pixel_faces_have_attributes():
    assert open_data(Data("pixel-faces")).classes == ()
    data = open_data(Data("pixel-faces", label="hair"))
    assert data.spec.target.shape == (3, 32, 32)
    assert len(data.classes) == 45
    assert sum(label_of(data).counts) == len(data.train)
    assert len(all_images(data)) == 6_000


def test_size_and_colour_of_built_in_sets():
    assert open_data(Data("pixel-faces", size=8, channels="grey")).spec.target.shape == (1, 8, 8)
    data = open_data(Data("digits", channels="rgb"))
    assert data.spec.target.shape == (3, 28, 28)
    assert torch.equal(data.train.images[:, 0], data.train.images[:, 2])


def test_the_fingerprint_is_of_the_content(digits, tmp_path):
    assert open_data(Data("digits")).fingerprint == digits.fingerprint
    contents = faces()
    one = open_data(Data(str(write(tmp_path / "a", contents)))).fingerprint
    renamed = {name.replace("person", "someone"): data for name, data in contents.items()}
    assert open_data(Data(str(write(tmp_path / "b", renamed)))).fingerprint != one
    other = contents | {"person 0/0.png": encoded(noise(99))}
    assert open_data(Data(str(write(tmp_path / "c", other)))).fingerprint != one


def test_the_fingerprint_is_of_the_labels_too(tmp_path):
    prints = set()
    for labels in ("ab", "ba"):
        rows = metadata([{"file_name": f"{i}.png", "label": labels[i % 2]} for i in range(8)])
        contents = {f"{i}.png": encoded(noise(i)) for i in range(8)} | {"metadata.jsonl": rows}
        prints.add(open_data(Data(str(write(tmp_path / labels, contents)))).fingerprint)
    assert len(prints) == 2


def test_every_pack_has_its_licence_and_the_whole_is_small():
    names = {record.ships_as for record in fetch.catalogue() if record.built_in}
    assert names
    assert all(builtin.licence(name).stat().st_size > 100 for name in names)
    assert sum(builtin.path(name).stat().st_size for name in names) < 9_400_000


def test_listing_imports_neither_torch_nor_numpy():
    code = (
        "import sys, bowerbird.data, bowerbird.data.builtin, bowerbird.data.fetch as fetch\n"
        "fetch.catalogue(); fetch.locate('digits')\n"
        "assert not {'torch', 'numpy', 'PIL'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --------------------------------------------------------------------------------------------- shared data


def test_the_pack_holds_the_original_faces(shared):
    pack = builtin.load("pixel-faces")
    with zipfile.ZipFile(shared / "images" / "pixel-faces.zip") as archive:
        rows = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
        for i in range(0, 6000, 97):
            assert np.array_equal(decoded(archive.read(rows[i]["file_name"]), 32, 32), pack["images"][i])
            assert [pack[key][i] for key in ("hair", "glasses")] == [rows[i]["hair"], rows[i].get("glasses", "none")]


def test_att_faces(shared):
    data = open_data(Data(str(shared / "images" / "att-faces.zip")))
    assert data.spec.target.shape == (1, 64, 64)
    assert {f"s{i}" for i in range(1, 41)} <= set(data.classes)
    assert data.skipped == 1  # one JPEG in it breaks off
