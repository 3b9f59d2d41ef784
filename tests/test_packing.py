"""Packs: pictures are decoded once, opened without being read, and never taken for others."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from bowerbird.config import Data
from bowerbird.data import packing, room
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.media.image import collecting, pixels
from bowerbird.media.image.imageset import ImageData

SIDE = 12


def folder_of(
    path: Path, n: int = 60, side: int = SIDE, colour: bool = False, seed: int = 0, classes: str = "ba"
) -> Path:
    """Random pictures, in colour or grey, in two folders or (no ``classes``) in one."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        place = path / classes[i % 3 > 0] if classes else path
        place.mkdir(parents=True, exist_ok=True)
        shape = (side, side, 3) if colour else (side, side)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(place / f"{i}.png")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, into which even the smallest set goes."""
    monkeypatch.setenv("BOWERBIRD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(collecting, "SMALL_BYTES", 0)
    return tmp_path / "cache" / "pictures"


@pytest.fixture
def decoded(monkeypatch) -> list[object]:
    """Grows with every picture that is decoded."""
    calls: list[object] = []
    decode = pixels.decode_opened

    def counting(image: Image.Image, height: int, width: int, *ranges: object) -> np.ndarray:
        calls.append(image)
        return decode(image, height, width, *ranges)

    monkeypatch.setattr(pixels, "decode_opened", counting)
    return calls


def unpacked(monkeypatch, data: Data) -> ImageData:
    """The same data, decoded in memory."""
    with monkeypatch.context() as patch:
        patch.setattr(collecting, "SMALL_BYTES", 1 << 40)
        return open_data(data)


def assert_equal(one: ImageData, other: ImageData) -> None:
    assert one.fingerprint == other.fingerprint and one.summary() == other.summary() and one.spec == other.spec
    for name in ("train", "val", "test"):
        a, b = one.split(name), other.split(name)
        assert torch.equal(a.images, b.images) and a.images.stride() == b.images.stride()
        assert a.given.keys() == b.given.keys() and all(torch.equal(a.given[key], b.given[key]) for key in a.given)


@pytest.mark.parametrize(
    ("colour", "strides"), [(False, (SIDE * SIDE, 1, SIDE, 1)), (True, (3 * SIDE**2, SIDE**2, SIDE, 1))]
)
def test_strides_are_what_they_always_were(tmp_path, monkeypatch, colour, strides):
    """A convolution chooses its kernel by them, and another kernel gives losses other last bits."""
    data = Data(str(folder_of(tmp_path / "set", colour=colour)))
    for one in (open_data(data), unpacked(monkeypatch, data)):
        assert one.train.images.stride() == strides
        assert one.train.batch(torch.arange(5))["x"].stride() == strides
    assert open_data(Data("digits")).train.images.stride() == (784, 1, 28, 1)


@pytest.mark.parametrize(
    "wish",
    [{}, {"size": 8}, {"channels": "rgb"}, {"binarize": "static"}, {"halves": "source-left"}, {"label": "folder"}],
    ids=str,
)
@pytest.mark.parametrize("colour", [False, True])
def test_a_pack_holds_what_decoding_gives(tmp_path, monkeypatch, decoded, wish, colour):
    data = Data(str(folder_of(tmp_path / "set", colour=colour)), **wish)
    first = open_data(data)
    assert len(decoded) == 60
    second = open_data(data)
    assert len(decoded) == 60
    monkeypatch.setattr(packing, "LARGEST_IN_MEMORY", 0)  # selections are kept in files too
    third = open_data(data)
    assert len(decoded) == 60
    plain = unpacked(monkeypatch, data)
    for one in (first, second, third):
        assert_equal(one, plain)


def test_pairs_of_folders_come_from_a_pack_too(tmp_path, monkeypatch, decoded):
    for number, name in enumerate(("source", "target")):
        folder_of(tmp_path / "set" / name, n=20, seed=number, classes="")
    monkeypatch.setattr(packing, "LARGEST_IN_MEMORY", 0)
    data = Data(str(tmp_path / "set"))
    first, again = open_data(data), open_data(data)
    assert len(decoded) == 40 and "each from a source" in first.summary()
    assert_equal(again, first)
    assert_equal(first, unpacked(monkeypatch, data))


def test_pictures_of_two_domains_come_from_a_pack_too(tmp_path, monkeypatch):
    for number, name in enumerate(("trainA", "trainB")):
        folder_of(tmp_path / "set" / name, n=20, seed=number, classes="")
    data = Data(str(tmp_path / "set"))
    first = open_data(data)
    assert first.train.unpaired
    assert_equal(open_data(data), first)
    assert_equal(first, unpacked(monkeypatch, data))


def test_the_fingerprint_is_not_computed_twice(tmp_path, monkeypatch):
    data = Data(str(folder_of(tmp_path / "set")))
    first = open_data(data)
    monkeypatch.setattr(packing.Packed, "chunks", lambda self: pytest.fail("pixels were read"))
    assert open_data(data).fingerprint == first.fingerprint


def test_other_labels_of_the_same_pictures_have_another_fingerprint(tmp_path, decoded):
    root = folder_of(tmp_path / "set")
    rows = "".join(f'{{"file_name": "a/{i}.png", "hair": "{"x" if i % 2 else "y"}"}}\n' for i in range(60) if i % 3)
    (root / "metadata.jsonl").write_text(rows)
    one = open_data(Data(str(root), label="hair"))
    (root / "metadata.jsonl").write_text(rows.replace('"y"', '"z"'))
    other = open_data(Data(str(root), label="hair"))
    assert one.fingerprint != other.fingerprint and len(decoded) == 60


@pytest.mark.parametrize("change", ["content", "size", "renamed", "removed", "added", "time"])
def test_a_changed_folder_is_decoded_again(tmp_path, decoded, change):
    root = folder_of(tmp_path / "set")
    first = open_data(Data(str(root)))
    file = root / "a" / "1.png"
    if change == "content":  # as many bytes, and the old time
        before, raw = file.stat(), np.asarray(Image.open(file))
        Image.fromarray(raw[::-1].copy()).save(tmp_path / "other.png", compress_level=0)
        Image.fromarray(raw).save(file, compress_level=0)
        first = open_data(Data(str(root)))
        decoded.clear()
        assert (tmp_path / "other.png").stat().st_size == file.stat().st_size
        file.write_bytes((tmp_path / "other.png").read_bytes())
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "size":
        file.write_bytes(file.read_bytes() + b"\0")
    elif change == "renamed":
        file.rename(root / "a" / "one.png")
    elif change == "removed":
        file.unlink()
    elif change == "added":
        shutil.copy(file, root / "a" / "again.png")
    else:
        os.utime(file)
    decoded.clear()
    second = open_data(Data(str(root)))
    assert len(decoded) >= 59
    assert (second.fingerprint != first.fingerprint) == (change in ("content", "removed", "added", "renamed"))


def test_a_file_that_is_written_again_at_once_is_noticed(tmp_path):
    root = folder_of(tmp_path / "set", n=4)
    prints = set()
    for value in range(5):
        for i in range(4):
            place = root / ("a" if i % 3 else "b")
            Image.fromarray(np.full((SIDE, SIDE), 10 * value + i, np.uint8)).save(place / f"{i}.png", compress_level=0)
        prints.add(open_data(Data(str(root))).fingerprint)
    assert len(prints) == 5


def test_a_moved_zip_keeps_its_pack(tmp_path, decoded):
    root = folder_of(tmp_path / "set")
    shutil.make_archive(str(tmp_path / "set"), "zip", root)
    first = open_data(Data(str(tmp_path / "set.zip")))
    (tmp_path / "other").mkdir()
    shutil.move(tmp_path / "set.zip", tmp_path / "other" / "set.zip")
    again = open_data(Data(str(tmp_path / "other" / "set.zip")))
    assert len(decoded) == 60 and again.fingerprint == first.fingerprint


@pytest.mark.parametrize("where", ["header", "rows", "end", "empty", "longer", "foreign"])
def test_a_damaged_pack_is_made_again(tmp_path, cache, decoded, where):
    data = Data(str(folder_of(tmp_path / "set")))
    first = open_data(data)
    (pack,) = cache.glob(f"*/{packing.PACK}")
    content = bytearray(pack.read_bytes())
    if where == "header":
        content[20] ^= 255
    elif where == "rows":
        start = 8 + int.from_bytes(content[:8], "little")
        content[start + 8] ^= 1
    elif where == "foreign":
        content = bytearray(b"\x02\0\0\0\0\0\0\0{}")
    else:
        content = {"end": content[:-1], "empty": bytearray(), "longer": content + b"\0"}[where]
    pack.write_bytes(content)
    again = open_data(data)
    assert len(decoded) == 120
    assert_equal(again, first)
    assert open_data(data).fingerprint == first.fingerprint and len(decoded) == 120


def test_a_damaged_fingerprint_is_computed_again(tmp_path, cache):
    data = Data(str(folder_of(tmp_path / "set")))
    first = open_data(data)
    (text,) = cache.glob("*/fingerprint-*.txt")
    text.write_text(text.read_text().replace(first.fingerprint, "0" * 16))
    assert open_data(data).fingerprint == first.fingerprint


def test_a_pack_is_a_safetensors_file(tmp_path, cache):
    first = open_data(Data(str(folder_of(tmp_path / "set"))))
    (pack,) = cache.glob(f"*/{packing.PACK}")
    with safe_open(pack, framework="pt") as file:
        assert torch.equal(file.get_slice("images")[: len(first.train)], first.train.images)
    assert {path.name for path in pack.parent.iterdir()} == {packing.PACK, *[p.name for p in pack.parent.glob("*.txt")]}


def test_what_a_user_changes_in_the_tensors_does_not_reach_the_pack(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "LARGEST_IN_MEMORY", 0)
    data = Data(str(folder_of(tmp_path / "set")))
    first = open_data(data)
    kept = first.train.images.clone()
    first.train.images.zero_()
    assert torch.equal(open_data(data).train.images, kept)


# ---------------------------------------------------------------------------------------------------- accidents

BUILDING = """
import sys
from bowerbird.config import Data
from bowerbird.media import open_data
from bowerbird.media.image import collecting, pixels
collecting.SMALL_BYTES = 0
decode, count = pixels.decode_opened, 0
def slow(image, height, width, *ranges):
    global count
    count += 1
    if count == int(sys.argv[2]):
        print("there", flush=True)
        sys.stdin.readline()
    return decode(image, height, width, *ranges)
pixels.decode_opened = slow
print(open_data(Data(sys.argv[1])).fingerprint, count)
"""


def building(root: Path, stop_at: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", BUILDING, str(root), str(stop_at)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_a_killed_process_is_continued(tmp_path, cache, decoded, monkeypatch):
    root = folder_of(tmp_path / "set", n=300, side=40)
    process = building(root, 250)
    assert process.stdout is not None and process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (log,) = cache.glob(f"*/{packing.LOG}")
    assert log.stat().st_size > 100 * 1600 and not list(cache.glob(f"*/{packing.PACK}"))
    data = open_data(Data(str(root)))
    assert 50 <= len(decoded) < 200
    assert not log.exists()
    assert_equal(data, unpacked(monkeypatch, Data(str(root))))


def test_two_processes_decode_once(tmp_path, decoded):
    root = folder_of(tmp_path / "set", n=100)
    first = building(root, 50)
    assert first.stdout is not None and first.stdin is not None and first.stdout.readline() == "there\n"
    second = building(root, 10**6)
    time.sleep(0.1)
    first.stdin.write("go on\n")
    first.stdin.flush()
    outputs = [process.communicate()[0].split() for process in (first, second)]
    assert outputs[0][0] == outputs[1][0]
    assert {outputs[0][1], outputs[1][1]} == {"100", "0"}


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_log_is_continued_after_its_last_whole_record(tmp_path, cut):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (3, 2, c), dtype=np.uint8) for c in (1, 3, 3)]
    with open(tmp_path / "log", "w+b") as file:
        log = packing.Log(file)
        log.begin(3, 2)
        log.append((3, 2), pictures[0])
        log.append((9, 9), None, "broken or truncated")
        log.append((5, 4), pictures[1])
    content = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(content[:-cut])
    with open(tmp_path / "log", "r+b") as file:
        log = packing.Log(file)
        log.begin(3, 2)
        whole = len(log)
        rest = [((3, 2), pictures[0], ""), ((9, 9), None, "broken or truncated"), ((5, 4), pictures[1], "")][whole:]
        for size, picture, problem in rest:
            log.append(size, picture, problem)
        assert whole < 3 and len(log) == 3 and log.sizes == [(3, 2), (9, 9), (5, 4)]
        assert log.problems == {1: "broken or truncated"}
        assert np.array_equal(log.read(0), pictures[0]) and np.array_equal(log.read(2), pictures[1])


def test_broken_files_are_remembered(tmp_path, decoded):
    root = folder_of(tmp_path / "set")
    (root / "a" / "5.png").write_bytes(b"no picture")
    whole = (root / "a" / "7.png").read_bytes()
    (root / "a" / "7.png").write_bytes(whole[: len(whole) // 2])
    data = Data(str(root))
    first = open_data(data)
    assert "not used: 2 broken or truncated (a/5.png …)" in first.summary()
    decoded.clear()
    assert_equal(open_data(data), first)
    assert not decoded


def test_mixed_sizes_end_in_the_size_that_they_always_had(tmp_path, monkeypatch, decoded):
    root = folder_of(tmp_path / "set", n=20, side=50)
    folder_of(root / "more", n=30, side=34, seed=1)
    data = Data(str(root))
    assert open_data(data).spec.target.shape == (1, 32, 32)
    assert_equal(open_data(data), unpacked(monkeypatch, data))


# ------------------------------------------------------------------------------------------------------- no room


def test_an_unwritable_cache_is_said_in_one_sentence(tmp_path, monkeypatch, decoded):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BOWERBIRD_CACHE", str(tmp_path / "file" / "cache"))
    data = open_data(Data(str(folder_of(tmp_path / "set"))))
    assert "decoded in memory" in data.summary() and "cannot be used (Not a directory)" in data.summary()
    assert len(data.train) + len(data.val) + len(data.test) == 60


def test_a_full_cache_is_left_empty(tmp_path, monkeypatch, cache):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packing, "write_atomically", full)
    data = open_data(Data(str(folder_of(tmp_path / "set"))))
    assert "is full" in data.summary() and "decoded in memory" in data.summary()
    assert not list(cache.iterdir())


def test_what_fits_nowhere_is_refused_before_it_is_decoded(tmp_path, monkeypatch, decoded):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    monkeypatch.setattr("bowerbird.machine.available_memory", lambda device: 10**9)
    with pytest.raises(BowerbirdError, match=r"5000x5000, the 60 images .* take up to 4.5 GB.* --data.size") as refusal:
        open_data(Data(str(folder_of(tmp_path / "set")), size=5000))
    assert not decoded and "BOWERBIRD_CACHE" in str(refusal.value)


def test_a_built_in_set_is_refused_at_a_size_that_memory_does_not_hold(monkeypatch):
    monkeypatch.setattr(pixels, "fit_array", lambda *_: pytest.fail("it was allocated"))
    with pytest.raises(BowerbirdError, match="At 5000x5000 the 14,000 images of digits take 350.0 GB"):
        open_data(Data("digits", size=5000))


def test_packs_that_were_not_used_for_longest_make_room(tmp_path, monkeypatch, cache):
    sets = [Data(str(folder_of(tmp_path / name, seed=number))) for number, name in enumerate("abc")]
    for number, one in enumerate(sets):
        open_data(one)
        for folder in cache.iterdir():
            if not (folder / "seen").exists():
                (folder / "seen").touch()
                os.utime(folder, (1000 + number, 1000 + number))
    n, n_bytes = room.usage()
    assert n == 3 and n_bytes > 3 * 60 * SIDE * SIDE
    open_data(sets[0])  # used last
    monkeypatch.setattr(room, "LARGEST_CACHE", n_bytes * 5 // 6)
    open_data(Data(str(folder_of(tmp_path / "d", n=2))))
    assert room.usage()[0] == 3
    calls: list[str] = []
    monkeypatch.setattr(packing, "packed", lambda *args: calls.append("") or pytest.fail("it was decoded again"))
    open_data(sets[0]), open_data(sets[2])


def test_gathered_rows_are_given_back(tmp_path):
    stored = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    whole = packing.Packed(stored, np.array([2, 0, 3, 1]))
    assert whole.shape == (4, 2, 2, 3) and len(whole[np.array([1, 2])]) == 2
    assert torch.equal(whole.tensor(), torch.from_numpy(stored[[2, 0, 3, 1]]))
    assert np.array_equal(np.concatenate(list(whole.chunks())), stored[[2, 0, 3, 1]])
    one_after_another = whole[np.array([1, 3])]
    assert one_after_another.tensor().data_ptr() == torch.from_numpy(stored).data_ptr()


def test_data_list_says_how_large_the_packs_are_and_where(tmp_path, cache, capsys):
    from bowerbird.cli import main

    open_data(Data(str(folder_of(tmp_path / "set"))))
    assert main(["data", "list"]) == 0
    said = capsys.readouterr().out
    assert f"Decoded images: 1 pack, 0.0 MB, in {cache}" in said
