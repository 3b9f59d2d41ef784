"""Folders and zips of images as people have them: what is found, what is said of the rest, and what the values mean."""

import io
import json
import os
import shutil
import socket
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from bowerbird.config import Data
from bowerbird.data import encodings, files
from bowerbird.data.levels import folder_labels
from bowerbird.data.metadata import Index
from bowerbird.data.zips import UNICODE_NAME
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.media.image import pixels
from bowerbird.media.image.imageset import ImageData
from bowerbird.media.image.loose import open_loose
from bowerbird.media.image.supplied import supplied
from bowerbird.spec import Classes, Tokens


@pytest.fixture
def case(shared: Path, tmp_path: Path):
    """A copy of one of the cases beside the shared data, by its number."""

    def copied(number: str) -> Path:
        found = sorted((shared.parent / "cases").glob(f"{number}-*"))
        if not found:
            pytest.skip("needs ../shared/cases")
        shutil.copytree(found[0], tmp_path / number, symlinks=True)
        for folder, _, _ in os.walk(tmp_path / number):
            os.chmod(folder, 0o755)
        return tmp_path / number

    return copied


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(seed: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8))


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def drawn(folder: Path, names: list[str]) -> Path:
    """Images of different content under these names."""
    return write(folder, {name: encoded(noise(i)) for i, name in enumerate(names)})


def opened(path: Path, **settings: object) -> ImageData:
    data = open_data(Data(str(path), **settings))
    assert isinstance(data, ImageData)
    return data


def n_images(data: ImageData) -> int:
    return len(data.split("train+val+test"))


def counts(data: ImageData) -> dict[str, int]:
    labels = data.split("train+val+test").given["label"].tolist()
    return {name: labels.count(number) for number, name in enumerate(data.classes)}


# --------------------------------------------------------------------------------------------- the known cases


def test_case_01_stylegans_labels_and_not_its_shards(case):
    data = opened(case("01") / "sg2")
    assert counts(data) == {"0": 30, "1": 30}
    assert "2 classes 0, 1 (from dataset.json)" in data.summary()


def test_case_02_a_class_that_is_a_link(case):
    folder = case("02") / "sym"
    (folder / "dogs").symlink_to("../dogs-elsewhere")
    assert counts(opened(folder)) == {"cats": 20, "dogs": 20}


@pytest.mark.parametrize("name", ["gbk.zip", "mac.zip"])
def test_case_04_names_in_zips(case, name):
    assert counts(opened(case("04") / name)) == {"狗": 20, "猫": 20}


def test_case_06_the_level_that_tells_images_apart(case):
    folder = case("06")
    tiny = opened(folder / "tiny")
    assert tiny.classes == tuple(f"n0000000{i}" for i in range(4))
    assert "10 images of val or test outside the class folders (test/images/test_0.JPEG …)" in tiny.summary()
    assert set(counts(opened(folder / "months"))) == {f"{y}/{m:02d}" for y in (2022, 2023, 2024) for m in (1, 2, 3)}
    assert opened(folder / "catsimages").classes == ("cats/indoor", "cats/outdoor", "dogs/indoor", "dogs/outdoor")


def test_case_08_metadata_that_are_written_otherwise(case):
    folder = case("08")
    for name in ("backslash", "nfd", "hfcsv"):
        assert sum(counts(opened(folder / name)).values()) == 20
        assert opened(folder / name).classes == ("cat", "dog")
    with pytest.raises(BowerbirdError, match=r"None of the 20 file_name entries of metadata\.jsonl .* images/0\.png"):
        opened(folder / "typo")


@pytest.mark.parametrize("name", ["raw_profile.png", "late_exif.png", "xmp.jpg"])
def test_case_09_orientation_wherever_it_stands(case, name):
    content = (case("09") / name).read_bytes()
    wanted = np.asarray(pixels.ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    for image in (pixels.as_stored(io.BytesIO(content)), pixels.decode(io.BytesIO(content), *wanted.shape[:2])):
        assert np.array_equal(image, wanted)
        assert image[2, 60, 0] > 250 and image[2, 60, 2] < 5


# ------------------------------------------------------------------------------------- what is seen and not used


def test_what_is_not_used_is_counted_with_an_example(tmp_path):
    drawn(tmp_path, [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(6)])
    write(tmp_path, {"notes.docx": b"PK", "plan.docx": b"PK", "cat/sound.wav": b"RIFF", ".hidden/1.png": b"x"})
    write(
        tmp_path, {"README.md": b"hello", "LICENSE": b"free", "Thumbs.db": b"x", ".DS_Store": b"x", "dog/._1.png": b"x"}
    )
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    data = opened(tmp_path)
    assert "2 classes cat, dog (from folders)" in data.summary()
    assert (
        "not used: 3 files of unknown kind (cat/sound.wav …), 1 broken link (gone.png), 1 hidden image (.hidden/1.png)"
        in data.summary()
    )
    assert data.skipped == 0


def test_nothing_is_said_of_what_lies_beside_images_anyway(tmp_path):
    drawn(tmp_path, ["1.png", "2.png", "3.png"])
    write(
        tmp_path,
        {"README.txt": b"x", "LICENSE-CC0.txt": b"x", "desktop.ini": b"x", "metadata.csv": b"file_name,k\n1.png,a\n"},
    )
    assert "none skipped" in opened(tmp_path).summary()


def test_an_error_says_what_is_there_instead(tmp_path):
    write(tmp_path, {"a.docx": b"x", "b.docx": b"y"})
    with pytest.raises(BowerbirdError, match=r"holds no images .*what is there: 2 files of unknown kind \(a\.docx …\)"):
        opened(tmp_path, modality="images")


def test_pipes_and_sockets_are_never_opened(tmp_path):
    drawn(tmp_path, ["a/1.png", "a/2.png", "b/1.png"])
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "b" / "linked.png").symlink_to("../a/pipe.png")
    place = os.getcwd()
    os.chdir(tmp_path)  # the path of a socket has to be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s.png")
        os.chdir(place)
        data = opened(tmp_path)
    assert n_images(data) == 3
    assert "3 pipes, sockets or devices (a/pipe.png …)" in data.summary()


def test_a_pipe_as_the_source_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BowerbirdError, match="is a pipe, a socket or a device"):
        opened(tmp_path / "pipe")


def test_links_are_followed_once(tmp_path):
    drawn(tmp_path / "in", ["cat/1.png", "cat/2.png", "cat/3.png"])
    drawn(tmp_path / "out", ["dogs/1.jpg", "dogs/deep/2.png", "x.png"])
    (tmp_path / "in" / "dog").symlink_to("../out/dogs")
    (tmp_path / "in" / "again").symlink_to("../out/dogs/deep")
    (tmp_path / "in" / "cat" / "round").symlink_to("..")
    (tmp_path / "in" / "cat" / "above").symlink_to("../..")
    (tmp_path / "in" / "cat" / "4.png").symlink_to("../../out/x.png")
    (tmp_path / "in" / "cat" / "5.png").symlink_to("4.png")
    (tmp_path / "in" / "cat" / "self.png").symlink_to("self.png")
    source = files.Folder(tmp_path / "in")
    names = source.names()
    assert sorted(names) == ["again/2.png", "cat/1.png", "cat/2.png", "cat/3.png", "cat/4.png", "dog/1.jpg"]
    assert source.unused.counts == {
        "link{s} to what is listed already": 3,
        "link{s} to a parent folder": 1,
        "broken link{s}": 1,
    }


def test_hard_links_are_files_of_their_own(tmp_path):
    drawn(tmp_path, ["a/1.png", "b/2.png"])
    os.link(tmp_path / "a" / "1.png", tmp_path / "b" / "1.png")
    assert n_images(opened(tmp_path)) == 3


def test_a_folder_that_may_not_be_read_is_said(tmp_path, monkeypatch):
    drawn(tmp_path, ["a/1.png", "a/2.png", "b/1.png"])
    scan = os.scandir

    def scandir(path: str):
        if path.endswith("b"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert "1 folder that cannot be listed (b)" in opened(tmp_path).summary()


def member(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def test_links_inside_a_zip_lead_nowhere(tmp_path):
    write(tmp_path, {"secret.png": encoded(noise(9))})
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"{i}.png", encoded(noise(i)))
        archive.writestr(member("link.png", 0o120777), "secret.png")
        archive.writestr(member("pipe.png", 0o010644), "")
        archive.writestr("../up.png", encoded(noise(5)))
    data = opened(tmp_path / "a.zip")
    assert n_images(data) == 3
    for part in ("1 link inside an archive (link.png)", "1 pipe, socket or device (pipe.png)", "1 name that lead"):
        assert part in data.summary()


def test_what_a_zip_hides_is_said(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(4):
            archive.writestr(f"{i}.png", encoded(noise(i)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("0.png", encoded(noise(7)))
    raw = bytearray(path.read_bytes())
    first = raw.rindex(b"PK\x01\x02", 0, raw.index(b"3.png", raw.index(b"PK\x01\x02")))
    raw[first + 8] |= 1  # 3.png claims to be encrypted
    path.write_bytes(raw)
    summary = opened(path).summary()
    assert "1 earlier file of the same name (0.png)" in summary and "1 encrypted (3.png)" in summary


# --------------------------------------------------------------------------------------------------- names


def renamed(path: Path, names: dict[str, bytes], flags: int = 0, system: int = 3) -> Path:
    """A zip in which the bytes of each name are others of the same length."""
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(names):
            info = zipfile.ZipInfo(name)
            info.create_system = system
            archive.writestr(info, encoded(noise(i)))
    raw = path.read_bytes()
    for name, other in names.items():
        assert len(name) == len(other)
        raw = raw.replace(name.encode(), other)
    path.write_bytes(raw)
    return path


def as_bytes(names: list[str], encoding: str) -> dict[str, bytes]:
    raw = [name.encode(encoding) for name in names]
    return {f"{i:02d}".ljust(len(name), "_"): name for i, name in enumerate(raw)}


WORDS = {
    "gb18030": ["猫/1.png", "狗/2.png", "风景照片/3.png"],
    "cp932": ["ねこ/1.png", "犬/2.png", "カタカナ/3.png"],
    "big5": ["貓/1.png", "照片/2.png", "風景/3.png"],
    "cp949": ["고양이/1.png", "강아지/2.png", "사과/3.png"],
    "cp437": ["café/1.png", "Mädchen/2.png", "straße/3.png"],
    "cp866": ["кошки/1.png", "собаки/2.png", "птицы/3.png"],
    "cp1251": ["кошки/1.png", "собаки/2.png", "птицы/3.png"],
    "cp1252": ["Mädchen/1.png", "Äpfel/2.png", "été/3.png"],
}


@pytest.mark.parametrize("encoding", WORDS)
def test_names_in_a_zip_are_read_in_the_encoding_of_all(tmp_path, encoding):
    path = renamed(tmp_path / "a.zip", as_bytes(WORDS[encoding], encoding))
    data = opened(path)
    assert set(data.classes) == {name.split("/")[0] for name in WORDS[encoding]}
    assert f"names read as {encoding}, which is a guess" in data.summary()


def test_utf_8_without_a_flag_is_no_guess(tmp_path):
    composed = ["ガラス/1.png", "é/2.png", "한국/3.png"]
    path = renamed(tmp_path / "a.zip", as_bytes([unicodedata.normalize("NFD", n) for n in composed], "utf-8"))
    data = opened(path)
    assert set(data.classes) == {"ガラス", "é", "한국"}
    assert "guess" not in data.summary()


def test_the_encoding_of_names_can_be_set(tmp_path):
    path = renamed(tmp_path / "a.zip", as_bytes(["사진/1.png", "other/2.png"], "cp949"))
    assert opened(path).classes == ("other", "荤柳")  # two characters can be Chinese too
    data = opened(path, names="cp949")
    assert data.classes == ("other", "사진") and "guess" not in data.summary()
    with pytest.raises(BowerbirdError, match="is not ascii"):
        opened(path, names="ascii")
    with pytest.raises(BowerbirdError, match="no encoding 'nonsense'"):
        opened(path, names="nonsense")


def test_the_extra_field_of_a_zip_states_a_name(tmp_path):
    raw = "猫".encode("gbk")
    extra = b"\1" + struct.pack("<I", zlib.crc32(raw + b"/1.png")) + "猫/1.png".encode()
    info = zipfile.ZipInfo("~~/1.png")
    info.extra = struct.pack("<HH", UNICODE_NAME, len(extra)) + extra
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, encoded(noise(0)))
        archive.writestr("dog/2.png", encoded(noise(1)))
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes().replace(b"~~/1", raw + b"/1"))
    assert opened(tmp_path / "a.zip").classes == ("dog", "猫")


def test_backslashes_in_a_zip_are_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i, name in enumerate(["cat\\1.png", "cat\\2.png", "dog\\1.png"]):
            archive.writestr(name, encoded(noise(i)))
    assert counts(opened(tmp_path / "a.zip")) == {"cat": 2, "dog": 1}


def test_names_on_disk_that_are_not_utf_8(tmp_path, capsys):
    for i, name in enumerate(["猫", "狗"]):
        folder = os.fsencode(tmp_path) + b"/" + name.encode("gbk")
        try:
            os.mkdir(folder)
        except OSError:
            pytest.skip("this file system takes names in UTF-8 alone")
        for k in range(3):
            Path(os.fsdecode(folder + b"/%d.png" % k)).write_bytes(encoded(noise(10 * i + k)))
    data = opened(tmp_path)
    assert counts(data) == {"狗": 3, "猫": 3}
    print(data.summary().encode())
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png")).symlink_to("nowhere")
    assert r"1 broken link (\xff\xfe.png)" in opened(tmp_path).summary()


def test_a_source_that_no_run_could_record_is_refused(tmp_path):
    with pytest.raises(BowerbirdError, match=r"\\xff.* is not UTF-8"):
        opened(tmp_path / "\udcff")


def test_chosen_encodings_explain_all_names():
    assert encodings.chosen([b"plain", "é".encode()]) == "utf-8"
    assert encodings.chosen(["猫".encode("gbk"), "狗".encode("gbk")]) == "gb18030"  # the first alone is UTF-8 too
    assert encodings.chosen([b"\x81\xff\xff", b"\x98\xff"]) in ("", "cp437", "cp866", "cp1251", "cp1252")


# -------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("names", "splits", "expected"),
    [
        (["a/1", "b/1"], "", ["a", "b"]),
        (["a/images/1", "b/images/1"], "", ["a", "b"]),
        (["x/cats/1", "y/dogs/1"], "", ["cats", "dogs"]),
        (["2022/01/1", "2022/02/1", "2023/01/1"], "", ["2022/01", "2022/02", "2023/01"]),
        (["top/2022/01/a/1", "top/2023/01/a/1"], "", ["2022", "2023"]),
        (["train/a/images/1", "train/b/images/1", "val/images/1"], "train train val", ["a", "b", ""]),
        (["train/a/1", "train/b/1", "val/flat/1", "test/a/1"], "train train val test", ["a", "b", "", "a"]),
        (["train/a/1", "train/b/1", "test/c/1", "test/d/1"], "train train test test", ["a", "b", "c", "d"]),
        (["set/1", "set/sub/1"], "", ["set", "sub"]),
        (["1", "a/1"], "", []),
        (["a/1", "a/2"], "", []),
        (["train/1", "val/1"], "train val", []),
        (["train/1", "val/1"], "", []),
    ],
)
def test_which_folder_is_the_class(names, splits, expected):
    assert folder_labels(names, np.array(splits.split() if splits else [""] * len(names))) == expected


def test_images_without_a_class_stay_where_another_label_is_asked_for(tmp_path):
    names = [f"train/{c}/images/{i}.png" for c in "ab" for i in range(4)] + ["val/images/8.png", "val/images/9.png"]
    drawn(tmp_path, names)
    rows = "".join(f"{name},{'xy'[i % 2]}\n" for i, name in enumerate(names))
    write(tmp_path, {"metadata.csv": f"file_name,kind\n{rows}".encode()})
    assert n_images(opened(tmp_path)) == 8
    assert len(opened(tmp_path, label="kind").val) == 2
    given = opened(tmp_path, given=("folder",)).spec.given["folder"]
    assert given.names == ("a", "b", "none")


def test_an_image_outside_of_the_folders_is_said(tmp_path):
    drawn(tmp_path, ["a/1.png", "b/1.png", "loose.png"])
    assert "folders are not labels, because 1 images lie outside them (loose.png …)" in opened(tmp_path).summary()


# ------------------------------------------------------------------------------------------------ metadata


def labelled(rows: list[tuple[str, object]], **more: object) -> bytes:
    return "\n".join(json.dumps({"file_name": name, "label": label} | more) for name, label in rows).encode()


def test_partial_matches_are_counted_both_ways(tmp_path):
    drawn(tmp_path, [f"{i}.png" for i in range(6)])
    rows = [(f"{i}.png", "ab"[i % 2]) for i in range(2, 9)] + [("2.png", "a")]
    write(tmp_path, {"metadata.jsonl": labelled(rows, tags=["x"])})
    summary = opened(tmp_path).summary()
    for part in (
        "3 rows of metadata.jsonl that name no image (6.png …)",
        "1 earlier row of metadata.jsonl about the same image (2.png)",
        "5 lists or objects in the column tags (2.png …)",
        "the metadata do not mention 2 of the images (0.png …)",
    ):
        assert part in summary


def test_a_row_about_a_broken_image_is_no_stranger(tmp_path):
    drawn(tmp_path, ["1.png", "2.png", "3.png"])
    write(tmp_path, {"4.png": b"", "metadata.jsonl": labelled([(f"{i}.png", "ab"[i % 2]) for i in (1, 2, 3, 4)])})
    assert "not used: 1 broken or truncated (4.png)" in opened(tmp_path).summary()


def test_names_are_matched_only_where_one_image_is_meant():
    index = Index(["a/X.png", "a/x.png", "b/É.png", "c/Y.PNG", "c\\d.png"])
    assert index.find("a", "x.png") == "a/x.png"
    assert index.find("", "A/X.png") is None  # two differ in nothing but case
    assert index.find("b", unicodedata.normalize("NFD", "É.png")) == "b/É.png"
    assert index.find("", ".\\C\\y.png") == "c/Y.PNG"
    assert index.find("", "c\\d.png") == "c\\d.png"
    assert index.find("c", "../b/É.png") == "b/É.png"
    assert index.find("", "É.png") is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", b"file_name,label\n1.png,a,b\n", r"metadata\.csv, line 2 has 3 cells, but .* 2 columns"),
        ("metadata.csv", b"file_name,label\n1.png\n", r"line 2 has 1 cells"),
        ("metadata.csv", b"name,label\n1.png,a\n", r"has no column file_name; its first row is: name, label"),
        (
            "metadata.csv",
            "file_name,label\n1.png,狗\n".encode("gbk"),
            r"metadata\.csv is not UTF-8: byte 0x.. at offset 22",
        ),
        ("metadata.csv", b'file_name,label\n"1.png,a\n', r"line 2 is not CSV: a quotation mark opens"),
        ("metadata.jsonl", b'{"file_name": 3}', r"line 1 must be a JSON object with a file_name"),
        ("dataset.json", b'{"labels": [["1.png"]]}', r"must be pairs"),
        ("dataset.json", b'{"labels": [["img1.png", 0]]}', r"None of the 1 file_name entries of dataset\.json"),
    ],
)
def test_wrong_metadata_are_refused_at_their_place(tmp_path, name, content, message):
    drawn(tmp_path, ["1.png", "2.png"])
    write(tmp_path, {name: content})
    with pytest.raises(BowerbirdError, match=message):
        opened(tmp_path)


def test_tables_of_metadata(tmp_path):
    drawn(tmp_path, ["a/1.png", "a/2.png", "a/3.png"])
    write(tmp_path, {"a/metadata.tsv": b"\xef\xbb\xbffile_name\tlabel\r\n1.png\tx\r\n\r\n2.png\t\r\n3.png\tx, y\r\n"})
    assert opened(tmp_path).classes == ("none", "x", "x, y")  # an empty cell says nothing


@pytest.mark.parametrize("separator", ";|\t")
def test_cells_are_separated_as_the_first_row_separates_them(tmp_path, separator):
    """Spreadsheets write semicolons where a comma is the decimal point."""
    drawn(tmp_path, ["1.png", "2.png", "3.png"])
    rows = ["file_name;label", "1.png;a, b", "2.png;c", "3.png;c"]
    write(tmp_path, {"metadata.csv": "\r\n".join(rows).replace(";", separator).encode("utf-8-sig")})
    assert opened(tmp_path).classes == ("a, b", "c")


def test_files_of_another_kind_are_said_with_what_to_do(tmp_path):
    drawn(tmp_path, ["cat/1.png", "cat/2.png", "dog/1.png"])
    write(
        tmp_path,
        {"cat/more.zip": b"PK", "x.npy": b"", "voice.m4a": b"", "train.csv": b"file,label\n", "notes.docx": b""},
    )
    (tmp_path / "bird").mkdir()
    (tmp_path / ".git" / "refs").mkdir(parents=True)
    summary = opened(tmp_path).summary()
    for part in (
        "1 archive to unpack first (cat/more.zip)", "1 file of arrays, not of pictures or sounds (x.npy)",
        "1 sound to convert to WAV or FLAC first (voice.m4a)", "1 table not called metadata.csv (train.csv)",
        "1 file of unknown kind (notes.docx)", "1 empty folder (bird)",
    ):  # fmt: skip
        assert part in summary, f"{part} is not in: {summary}"


def test_empty_folders_of_a_zip_are_said(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i, name in enumerate(["cat/1.png", "cat/2.png", "dog/1.png"]):
            archive.writestr(f"pets/{name}", encoded(noise(i)))
        for folder in ("pets/", "pets/cat/", "pets/bird/", "pets/bird/small/", "__MACOSX/"):
            archive.writestr(folder, "")
    assert "not used: 1 empty folder (pets/bird/small)" in opened(tmp_path / "a.zip").summary()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269\n"


def test_what_stands_in_place_of_an_image_is_named(tmp_path):
    """A clone without Git LFS, and what a site answers where there is no image."""
    drawn(tmp_path, ["1.png", "2.png"])
    page = b"\n<!DOCTYPE html>\n<html><title>404</title></html>"
    write(tmp_path, {"3.png": POINTER, "4.jpg": page, "5.jpg": page, "6.png": b"<3"})
    summary = opened(tmp_path).summary()
    for part in (
        "1 Git LFS pointer, which git lfs pull replaces (3.png)", "2 web pages (4.jpg …)",
        "1 broken or truncated (6.png)",
    ):  # fmt: skip
        assert part in summary, f"{part} is not in: {summary}"


@pytest.mark.parametrize("name", ["texts.txt", "texts.jsonl", "texts.parquet", "texts.txt.gz"])
def test_texts_that_are_git_lfs_pointers_are_refused(tmp_path, name):
    with pytest.raises(BowerbirdError, match=f"{name} is a Git LFS pointer, .* git lfs pull"):
        opened(write(tmp_path, {name: POINTER}) / name)


@pytest.mark.parametrize("name", ["cifar.npz", "faces.pkl", "voice.m4a"])
def test_a_source_of_another_kind_is_refused_with_what_to_do(tmp_path, name):
    np.savez(tmp_path / "cifar.npz", images=np.zeros((2, 8, 8)))
    path = tmp_path / name
    path.touch()
    with pytest.raises(BowerbirdError, match=f"{name} is a .*, which is not read as it is; (write|convert|save) "):
        opened(path)


def test_a_column_that_no_file_has_is_refused_with_where_columns_come_from(tmp_path):
    drawn(tmp_path, ["1.png", "2.png"])
    write(tmp_path, {"captions.tsv": b"image\ttext\n"})
    with pytest.raises(BowerbirdError, match=r"metadata\.csv.*Not used: 1 table not called metadata\.tsv \(captions"):
        opened(tmp_path, given=("text",))


def test_stylegans_labels(tmp_path):
    names = [f"0000{i % 2}/img{i}.png" for i in range(6)]
    drawn(tmp_path, names)
    write(tmp_path, {"dataset.json": json.dumps({"labels": None}).encode()})
    summary = opened(tmp_path).summary()
    assert "no labels" in summary and "1 metadata table without a row (dataset.json)" in summary
    one_hot = [[name, [int(k == i % 3) for k in range(3)]] for i, name in enumerate(names)]
    write(tmp_path, {"dataset.json": json.dumps({"labels": one_hot}).encode()})
    assert counts(opened(tmp_path)) == {"0": 2, "1": 2, "2": 2}
    several = [[name, [i % 2, 1, 1]] for i, name in enumerate(names)]
    write(tmp_path, {"dataset.json": json.dumps({"labels": several}).encode()})
    assert opened(tmp_path, label="label0").classes == ("0", "1")
    attributes = [[name, [1.0, 0.0] if i == 0 else [0.5, i]] for i, name in enumerate(names)]
    write(tmp_path, {"dataset.json": json.dumps({"labels": attributes}).encode()})
    summary = opened(tmp_path).summary()
    assert "no labels" in summary and "vectors, not classes: columns label0, label1" in summary
    write(tmp_path, {"dataset.json": json.dumps({"title": "cats"}).encode()})
    assert "1 file of unknown kind (dataset.json)" in opened(tmp_path).summary()
    assert opened(tmp_path).classes == ("00000", "00001")


def test_captions_beside_images(tmp_path):
    drawn(tmp_path, [f"{i}.png" for i in range(30)])
    write(tmp_path, {f"{i}.txt": f"number {i}\n".encode() for i in range(29)} | {"other.txt": b"x"})
    summary = opened(tmp_path).summary()
    assert "29 texts beside images, which --data.given caption reads (0.txt …)" in summary
    assert "1 file of unknown kind (other.txt)" in summary
    assert "caption (texts)" in opened(tmp_path, given=("caption",)).summary()


@pytest.mark.parametrize("n_missing", [1, 8])
def test_captions_stay_captions_where_some_images_have_none(tmp_path, n_missing):
    """What says nothing is an empty text, neither one more value nor the word none."""
    drawn(tmp_path, [f"{i}.png" for i in range(12)])
    rows = [{"file_name": f"{i}.png", "said": f"number {i}"} for i in range(12 - n_missing)]
    write(tmp_path, {"metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    data = opened(tmp_path, given=("said",))
    assert isinstance(data.spec.given["said"], Tokens)
    said = np.concatenate(
        [one.batch(torch.arange(len(one)))["given"]["said"] for one in (data.train, data.val, data.test)]
    )
    empty = [row[0] == data.spec.given["said"].eos for row in said]
    assert sum(empty) == n_missing


def test_cyclegans_four_folders(tmp_path):
    names = [f"{part}{side}/{i}.png" for part in ("train", "test") for side in "AB" for i in range(4)]
    data = opened(drawn(tmp_path, names))
    assert data.train.unpaired and not data.classes and len(data.test) == 4 and len(data.test.given["source"]) == 4


def test_sources_of_pairs_are_found_by_names_written_otherwise(tmp_path):
    drawn(tmp_path, [f"in/{i}.png" for i in range(4)] + [f"out/{i}.png" for i in range(4)])
    rows = [json.dumps({"file_name": f"out/{i}.png", "source": f"..\\in\\{i}.png"}) for i in range(4)]
    write(tmp_path, {"metadata.jsonl": "\n".join(rows).encode()})
    assert "each from a source" in opened(tmp_path).summary()
    write(tmp_path, {"metadata.jsonl": "\n".join(rows).replace("in", "on").encode()})
    assert "the values of the column source name no images" in opened(tmp_path).summary()


# ------------------------------------------------------------------------------------------------- formats


LOSSLESS = ["TGA", "QOI", "PCX", "SGI", "DIB", "JPEG2000"]
ENDING = {"JPEG2000": "jp2"}


@pytest.mark.parametrize("format", LOSSLESS)
def test_other_formats_keep_every_pixel(tmp_path, format):
    image = Image.merge("RGB", [noise(i, (10, 10)) for i in range(3)])
    drawn(tmp_path, [])
    write(tmp_path, {f"{i}.{ENDING.get(format, format.lower())}": encoded(image, format) for i in range(3)})
    data = opened(tmp_path)
    assert np.array_equal(data.train.images[0].permute(1, 2, 0).numpy(), np.asarray(image))


@pytest.mark.parametrize(("ending", "format"), [("jfif", "JPEG"), ("jpe", "JPEG"), ("avif", "AVIF"), ("JPEG", "JPEG")])
def test_other_endings(tmp_path, ending, format):
    smooth = Image.linear_gradient("L").resize((16, 16))
    write(tmp_path, {f"{i}.{ending}": encoded(smooth, format, quality=95) for i in range(3)})
    assert abs(opened(tmp_path).train.images[0, 0].int().numpy() - np.asarray(smooth).astype(int)).max() <= 6


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI"])
def test_images_without_a_known_ending_are_found_by_content(tmp_path, format):
    image = Image.merge("RGB", [noise(i, (16, 16)) for i in range(3)])
    write(tmp_path, {"one": encoded(image, format), "two.jpg_large": encoded(image, format), "README.txt": b"two"})
    write(tmp_path, {"three": b"something else"})
    data = opened(tmp_path)
    assert n_images(data) == 2 and "1 file of unknown kind (three)" in data.summary()


def test_raw_files_of_cameras_are_not_taken_for_their_thumbnails(tmp_path):
    drawn(tmp_path, ["1.png", "2.png"])
    write(tmp_path, {"3.dng": encoded(noise(3), "TIFF")})
    assert "1 file of unknown kind (3.dng)" in opened(tmp_path).summary()


def test_heic_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "_reads_heif", lambda: False)
    drawn(tmp_path, ["1.png", "2.png"])
    write(tmp_path, {"3.heic": b"\0\0\0\x18ftypheic" + bytes(40)})
    assert "1 HEIC, which needs: pip install pillow-heif (3.heic)" in opened(tmp_path).summary()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "TGA", "QOI"])
def test_truncated_files_are_counted(tmp_path, format):
    whole = encoded(Image.merge("RGB", [noise(i, (40, 40)) for i in range(3)]), format)
    drawn(tmp_path, ["a.png", "b.png"])
    write(tmp_path, {f"c.{ENDING.get(format, format.lower())}": whole[: len(whole) // 2]})
    assert "not used: 1 broken or truncated" in opened(tmp_path).summary()


def test_several_frames_are_said_and_the_first_counts(tmp_path):
    frames = [Image.new("L", (4, 4), value) for value in (10, 200, 90)]
    for format in ("GIF", "WEBP", "TIFF", "PNG"):
        more = {"lossless": True} if format == "WEBP" else {}
        write(
            tmp_path,
            {f"x.{format.lower()}": encoded(frames[0], format, save_all=True, append_images=frames[1:], **more)},
        )
    drawn(tmp_path, ["y.png"])
    data = opened(tmp_path)
    assert "only the first frame of 4 that have more (x.gif …)" in data.summary()
    assert sum(bool((x == 10).all()) for x in data.split("train+val+test").images) == 4


def test_cmyk_and_palettes():
    ink = Image.new("CMYK", (2, 1), (0, 255, 255, 0))
    for format in ("JPEG", "TIFF"):
        assert abs(pixels.as_stored(io.BytesIO(encoded(ink, format))).astype(int) - [255, 0, 0]).max() <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    image = pixels.as_stored(io.BytesIO(encoded(palette, transparency=b"\0\x80")))
    assert image[0].tolist() == [[255, 255, 255], [147, 152, 157]]


def turned(exif: int, **options: object) -> Image.Exif:
    tags = Image.Exif()
    tags[pixels.EXIF_ORIENTATION] = exif
    return tags


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_in_every_format(format, orientation):
    image = Image.linear_gradient("L").resize((24, 16))
    image.paste(255, (0, 0, 8, 4))
    content = encoded(image, format, exif=turned(orientation), **({"lossless": True} if format == "WEBP" else {}))
    wanted = np.asarray(pixels.ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("L"))
    stored = pixels.as_stored(io.BytesIO(content))
    assert pixels.header(io.BytesIO(content))[:2] == stored.shape[:2] == wanted.shape
    assert abs(stored[..., 0].astype(int) - wanted).max() <= 1


def test_metadata_that_are_no_exif_turn_nothing(tmp_path):
    image = noise(0)
    assert np.array_equal(
        pixels.as_stored(io.BytesIO(encoded(image, exif=b"Exif\0\0nonsense")))[..., 0], np.asarray(image)
    )


def png_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG file of grey (h, w) or colour (h, w, c) with all 16 bits of each number."""
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    coded = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(coded)


@pytest.mark.parametrize(
    ("dtype", "format", "values", "white", "expected"),
    [
        (np.uint16, "PNG", [0, 2048, 4000], "16-bit values from 0 (black) to 4095 (white)", [0, 128, 249]),
        (np.uint16, "TIFF", [0, 512, 1023], "16-bit values from 0 (black) to 1023 (white)", [0, 128, 255]),
        (np.uint16, "PNG", [0, 257 * 128, 65535], "16-bit values from 0 (black) to 65535 (white)", [0, 128, 255]),
        (np.uint16, "PNG", [0, 100, 200], "16-bit values from 0 (black) to 255 (white)", [0, 100, 200]),
        (np.int32, "TIFF", [0, 100, 200], "32-bit values from 0 (black) to 255 (white)", [0, 100, 200]),
        (np.int32, "TIFF", [-1000, 0, 3000], "32-bit values from -1000 (black) to 3000 (white)", [0, 64, 255]),
        (np.int32, "TIFF", [0, 500_000, 1_000_000], "32-bit values from 0 (black) to 1e+06 (white)", [0, 128, 255]),
        (np.float32, "TIFF", [0, 0.5, 0.9], "floating-point values from 0 (black) to 1 (white)", [0, 128, 229]),
        (np.float32, "TIFF", [-1, 0, 0.5], "floating-point values from -1 (black) to 1 (white)", [0, 128, 191]),
        (np.float32, "TIFF", [0, 100, 250], "floating-point values from 0 (black) to 250 (white)", [0, 102, 255]),
    ],
)
def test_the_range_of_deep_pixels_is_found_and_said(tmp_path, dtype, format, values, white, expected):
    for i in range(3):  # the files of a set share one range, although only one of them reaches it
        part = np.full((4, 4), values[i], dtype)
        write(tmp_path, {f"{i}.{format.lower()}": encoded(Image.fromarray(part), format)})
    data = opened(tmp_path)
    found = sorted(x.flatten()[0].item() for x in data.split("train+val+test").images)
    assert found == expected and white in data.summary()
    loose = open_loose(tmp_path)
    assert [x.flatten()[0] for x in loose.read(slice(0, 3))] == expected and white in loose.summary()
    with pytest.warns(UserWarning, match="were scaled"):
        assert len(supplied([tmp_path], (1, 4, 4))[0]) == 3


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_12_bits_in_16(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 4096, (6, 5, channels))
    values[..., 3:] = 4095
    write(
        tmp_path,
        {"1.png": png_of_16_bits(values), "2.png": png_of_16_bits(values // 2), "3.png": png_of_16_bits(values // 3)},
    )
    data = opened(tmp_path)
    assert "16-bit colour values from 0 (black) to 4095 (white)" in data.summary()
    whole = [x for x in data.split("train+val+test").images if x.max() > 250 and channels == 3]
    for x in whole:
        assert np.array_equal(x.permute(1, 2, 0).numpy(), (values[..., :3] / 4095 * 255).round().astype(np.uint8))
    assert whole or channels == 4


@pytest.mark.parametrize("channels", [2, 4])
def test_opacity_of_16_bits_does_not_widen_the_range_of_colours_of_10(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 1024, (6, 5, channels))
    values[..., -1] = 65535
    values[0, 0, -1] = 0
    write(tmp_path, {f"{i}.png": png_of_16_bits(values // i) for i in (1, 2, 3)})
    data = opened(tmp_path)
    assert "16-bit colour values from 0 (black) to 1023 (white)" in data.summary()
    expected = np.broadcast_to((values[..., :-1] / 1023 * 255).round(), (6, 5, 3)).copy()
    expected[0, 0] = 255
    images = data.split("train+val+test").images.permute(0, 2, 3, 1).numpy()
    assert any((image == expected).all() for image in images)


def test_colour_of_16_bits_is_what_pillow_reads():
    values = np.random.default_rng(0).integers(0, 65536, (6, 5, 3))
    assert np.array_equal(pixels.as_stored(io.BytesIO(png_of_16_bits(values))), values >> 8)


def test_deep_pixels_without_a_range_are_refused(tmp_path):
    drawn(tmp_path, ["1.png", "2.png"])
    write(tmp_path, {"3.tiff": encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF")})
    assert "1 with non-finite values (3.tiff)" in opened(tmp_path).summary()


def test_grey_maps_state_their_white():
    content = b"P5 2 1 4095\n" + struct.pack(">2H", 4095, 2048)
    assert pixels.as_stored(io.BytesIO(content))[0, :, 0].tolist() == [255, 128]


def test_a_class_without_a_training_image_is_said(tmp_path):
    for split_, classes in (("train", ("cat", "dog")), ("test", ("cat", "dog", "owl"))):
        for name in classes:
            drawn(tmp_path, [f"{split_}/{name}/{i}.png" for i in range(4)])
    assert "no training image of owl" in opened(tmp_path).summary()


@pytest.mark.parametrize("folder", ["@eaDir", "#recycle", "$RECYCLE.BIN"])
def test_folders_of_systems_are_no_classes(folder, tmp_path):
    drawn(tmp_path, [f"{name}/{i}.png" for name in ("cats", "dogs") for i in range(4)])
    drawn(tmp_path, [f"{folder}/cats/{i}.png" for i in range(3)])
    found = opened(tmp_path)
    assert found.classes == ("cats", "dogs") and len(found.train) + len(found.val) + len(found.test) == 8


def test_colour_profiles_are_said_unless_they_are_srgb(tmp_path):
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for number, profile in enumerate([None, srgb, srgb, lab]):
        Image.new("RGB", (8, 8), (10 * number, 0, 0)).save(tmp_path / f"{number}.png", icc_profile=profile)
    for _ in range(2):  # also from the cache
        assert "colour profiles of 1 were not applied (3.png …)" in opened(tmp_path).summary()


def test_images_without_a_text_beside_them_are_said(tmp_path):
    drawn(tmp_path, [f"{i}.png" for i in range(5)])
    write(tmp_path, {f"{i}.txt": f"picture {i}".encode() for i in range(4)})
    assert "no text lies beside 1 of the images (4.png …)" in opened(tmp_path, given=("caption",)).summary()


def test_a_dozen_different_captions_are_texts_and_names_are_classes(tmp_path):
    drawn(tmp_path, [f"{i}.png" for i in range(12)])
    write(tmp_path, {f"{i}.txt": f"picture {i}".encode() for i in range(12)})
    assert isinstance(opened(tmp_path, given=("caption",)).spec.given["caption"], Tokens)
    write(tmp_path, {f"{i}.txt": f"cat{i}".encode() for i in range(12)})
    assert isinstance(opened(tmp_path, given=("caption",)).spec.given["caption"], Classes)


def test_folders_inside_of_cyclegans_and_its_val_folders(tmp_path):
    drawn(
        tmp_path, [f"{part}{domain}/{i}.png" for part in ("train", "val", "test") for domain in "AB" for i in range(3)]
    )
    drawn(tmp_path, [f"trainA/sub/{i}.png" for i in range(2)])
    (tmp_path / "testA").rename(tmp_path / "Testa")
    found = opened(tmp_path)
    assert (len(found.train), len(found.val), len(found.test)) == (3, 3, 3)
    assert len(found.train.given["source"]) == 5 and found.train.unpaired


def test_three_parallel_files_are_no_pictures(tmp_path):
    for language in ("en", "de", "fr"):
        write(tmp_path, {f"train.{language}": b"one\ntwo\n"})
    with pytest.raises(BowerbirdError, match=r"name parallel files as '.*/train\.\{de,en\}'"):
        opened(tmp_path)


def test_a_long_listing_says_how_far_it_is(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").touch()
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=iter(range(0, 1000, 5)).__next__))
    with pytest.warns(UserWarning, match="1 files so far") as said:
        assert sorted(files.open_files(tmp_path).names()) == ["a/x.txt", "b/x.txt", "c/x.txt"]
    assert len(said) == 1
