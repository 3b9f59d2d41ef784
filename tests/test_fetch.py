"""Fetching: every way in which a source can be absent, wrong or broken, without a network."""

import dataclasses
import errno
import gzip
import hashlib
import io
import lzma
import os
import stat
import sys
import tarfile
import threading
import types
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from bowerbird.config import Data
from bowerbird.data import builtin, catalogue, fetch, packs
from bowerbird.data.catalogue import RECORDS, File, Record, Source
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data

A, B = b"first file " * 500, b"second file"
NOWHERE = "http://127.0.0.1:9/{name}.gz"  # the discard port: connections are refused


def pinned(name: str, data: bytes) -> File:
    return File(name, len(data), hashlib.sha256(data).hexdigest())


def record(*places: Source) -> Record:
    return Record("toy", "data", "CC0", "two files", (pinned("a", A), pinned("b", B)), places)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BOWERBIRD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BOWERBIRD_DATA", raising=False)
    return tmp_path / "cache"


def known(monkeypatch, *places: Source) -> None:
    monkeypatch.setattr(fetch, "RECORDS", (record(*(places or [Source("url", NOWHERE)])),))


def check(folder: Path) -> None:
    assert (folder / "a").read_bytes() == A
    assert (folder / "b").read_bytes() == B
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]  # nothing temporary is left
    assert fetch.locate("toy") == folder


def wheel(path: Path, a: bytes = A) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pkg/a", a)
        archive.writestr("pkg/data/b", B)
    return path


def tarball(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in (("package/a.gz", gzip.compress(A)), ("package/b", B)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def local_folder(tmp_path: Path, where: str) -> Path:
    folder = tmp_path / "copy" / where
    folder.mkdir(parents=True)
    (folder / "a.gz").write_bytes(gzip.compress(A))
    (folder / "b").write_bytes(B)
    return tmp_path / "copy"


@pytest.mark.parametrize("where", ["", "toy", "images/toy"])
def test_a_local_folder(cache, tmp_path, monkeypatch, where):
    known(monkeypatch)
    assert fetch.locate("toy") is None
    check(fetch.get("toy", progress=False, local=local_folder(tmp_path, where)))


@pytest.mark.parametrize("pack", [wheel, tarball])
def test_a_local_package(cache, tmp_path, monkeypatch, pack):
    known(monkeypatch)
    check(fetch.get("toy", progress=False, local=pack(tmp_path / "package")))


def test_a_folder_with_the_package(cache, tmp_path, monkeypatch):
    known(monkeypatch, Source("pip", "the-toy==1.0"))
    wheel(tmp_path / "the_toy-1.0-py3-none-any.whl")
    check(fetch.get("toy", progress=False, local=tmp_path))


def test_the_environment_names_a_folder(cache, tmp_path, monkeypatch):
    known(monkeypatch)
    monkeypatch.setenv("BOWERBIRD_DATA", str(local_folder(tmp_path, "toy")))
    check(fetch.get("toy", progress=False))


def test_what_is_there_is_not_fetched_again(cache, tmp_path, monkeypatch):
    known(monkeypatch)
    folder = fetch.get("toy", progress=False, local=local_folder(tmp_path, ""))
    assert fetch.get("toy", progress=False) == folder
    (folder / "b").unlink()
    assert fetch.locate("toy") is None


def test_offline_is_one_sentence_that_says_what_to_do(cache, monkeypatch):
    known(monkeypatch)
    with pytest.raises(BowerbirdError, match=r"'toy' could not be fetched .*refused.* --from PATH") as caught:
        fetch.get("toy", progress=False)
    assert "\n" not in str(caught.value)


def test_a_wrong_file_is_refused_and_leaves_nothing(cache, tmp_path, monkeypatch):
    known(monkeypatch)
    forged = wheel(tmp_path / "forged.whl", a=A[:-1] + b"!")
    with pytest.raises(BowerbirdError, match="its a is not the expected file"):
        fetch.get("toy", progress=False, local=forged)
    assert list((cache / "data" / "toy").iterdir()) == []


@pytest.mark.parametrize(
    "data", [gzip.compress(A)[:-30], b"no gzip", gzip.compress(A + A)], ids=["short", "other", "long"]
)
def test_a_broken_file_is_not_a_crash(cache, tmp_path, monkeypatch, data):
    known(monkeypatch)
    copy = local_folder(tmp_path, "")
    (copy / "a.gz").write_bytes(data)
    with pytest.raises(BowerbirdError, match="could not be fetched"):
        fetch.get("toy", progress=False, local=copy)


def test_a_package_that_is_none(cache, tmp_path, monkeypatch):
    known(monkeypatch)
    (tmp_path / "x.whl").write_bytes(b"no package")
    with pytest.raises(BowerbirdError, match="not a readable package"):
        fetch.get("toy", progress=False, local=tmp_path / "x.whl")
    with pytest.raises(BowerbirdError, match="does not exist"):
        fetch.get("toy", progress=False, local=tmp_path / "absent")


def test_an_address_after_one_that_fails(cache, tmp_path, monkeypatch):
    handler = partial(SimpleHTTPRequestHandler, directory=str(local_folder(tmp_path, "")))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    (tmp_path / "copy" / "b.gz").write_bytes(gzip.compress(B))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        known(monkeypatch, Source("url", here + "/gone/{name}"), Source("url", here + "/{name}.gz"))
        check(fetch.get("toy", progress=False))
        server.shutdown()


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for npm is a script with a #! line")
def test_npm_packs_by_name(cache, tmp_path, monkeypatch):
    tarball(tmp_path / "toy-1.tgz")
    script = tmp_path / "bin" / "npm"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport shutil, sys\n"
        "assert sys.argv[1:4] == ['pack', 'toy@1', '--pack-destination'], sys.argv\n"
        f"shutil.copy({str(tmp_path / 'toy-1.tgz')!r}, sys.argv[4])\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(script.parent))
    known(monkeypatch, Source("npm", "toy@1"))
    check(fetch.get("toy", progress=False))


def test_a_client_that_is_not_there(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    known(monkeypatch, Source("npm", "toy@1"))
    with pytest.raises(BowerbirdError, match="npm toy@1: npm is not installed"):
        fetch.get("toy", progress=False)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ("WARNING: Retrying: NewConnectionError\nERROR: No matching distribution", "cannot be reached"),
        ("npm error code E404\nnpm error 404 Not Found", "404 Not Found"),
        ("/usr/bin/python: No module named pip", "No module named pip"),
    ],
)
def test_what_a_client_says_becomes_a_reason(messages, problem):
    assert problem in fetch._problem(messages)


def test_a_full_disk_is_said(cache, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    known(monkeypatch)
    monkeypatch.setattr(fetch, "_store", full)
    with pytest.raises(BowerbirdError, match="no room for its"):
        fetch.get("toy", progress=False, local=local_folder(tmp_path, ""))


def test_unknown_names_and_sets_that_are_not_here(cache):
    with pytest.raises(BowerbirdError, match="did you mean 'mnist'"):
        fetch.get("mnsit")
    with pytest.raises(BowerbirdError, match="bowerbird data get mnist"):
        open_data(Data("mnist"))


def set_of_packages(monkeypatch, builder: str = "toy_builder") -> None:
    """A set that ships in part, whose whole is made of two packages; the builder packs what the files hold."""

    def build(packages: dict[str, Path], target: Path) -> None:
        values = [int(packages[name].read_bytes()[-1]) for name in ("a", "b")]
        images = np.array(values, np.uint8).repeat(4 * 4 * 3).reshape(2, 4, 4, 3)
        packs.write(target, {"images": images, "split": np.array(["train", "test"]), "style": np.array(["x", "y"])})

    module = types.ModuleType("toy_builder")
    module.build, module.require = build, lambda: None
    monkeypatch.setitem(sys.modules, "toy_builder", module)
    parts = tuple(
        Record(name, "data", "CC0", "a package", (pinned(f"{name}-1.tgz", data),), (Source("npm", f"@toy/{name}@1"),))
        for name, data in (("a", A), ("b", B))
    )
    emoji = next(one for one in RECORDS if one.name == "emoji")
    records = (dataclasses.replace(emoji, packages=parts, builder=builder),)
    monkeypatch.setattr(fetch, "RECORDS", records)
    monkeypatch.setattr(catalogue, "RECORDS", records)


def packages_in(folder: Path, a: bytes = A) -> Path:
    folder.mkdir()
    (folder / "a-1.tgz").write_bytes(a)
    (folder / "b-1.tgz").write_bytes(B)
    return folder


def test_what_ships_in_part_is_built_whole_and_then_used(cache, tmp_path, monkeypatch):
    set_of_packages(monkeypatch)
    assert fetch.locate("emoji") == builtin.path("emoji")
    assert "data get emoji builds the whole" in open_data(Data("emoji")).note
    whole = fetch.get("emoji", progress=False, local=packages_in(tmp_path / "packages"))
    assert whole == fetch.locate("emoji") == cache / "data" / "emoji" / "emoji.npz.xz"
    assert list(whole.parent.iterdir()) == [whole]  # neither packages nor anything temporary
    data = open_data(Data("emoji"))
    assert data.note == "the whole set, from the cache"
    assert sorted(data.split("train+val+test").images[:, 0, 0, 0].tolist()) == sorted([A[-1], B[-1]])
    assert fetch.get("emoji", progress=False) == whole  # no package is asked for again


def test_a_forged_package_builds_nothing(cache, tmp_path, monkeypatch):
    set_of_packages(monkeypatch)
    with pytest.raises(BowerbirdError, match=r"'emoji' could not be fetched .*a-1\.tgz is not the expected file"):
        fetch.get("emoji", progress=False, local=packages_in(tmp_path / "packages", a=A + b"!"))
    assert fetch.locate("emoji") == builtin.path("emoji")


def test_a_damaged_whole_is_said(cache, tmp_path, monkeypatch):
    set_of_packages(monkeypatch)
    whole = fetch.get("emoji", progress=False, local=packages_in(tmp_path / "packages"))
    for content in (whole.read_bytes()[:-40], b"", lzma.compress(b"no arrays")):
        whole.write_bytes(content)
        with pytest.raises(BowerbirdError, match="cannot be read .*delete the file and get it again"):
            open_data(Data("emoji"))


def test_drawing_without_its_package_is_one_sentence_before_anything_is_fetched(cache, tmp_path, monkeypatch):
    set_of_packages(monkeypatch, builder="bowerbird.data.emoji")
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(BowerbirdError, match=r"pip install 'bowerbird\[emoji\]'"):
        fetch.get("emoji", progress=False, local=tmp_path)


def test_the_catalogue_pins_every_file():
    for one in RECORDS:
        assert one.licence and one.description
        for file in (file for part in (one, *one.packages) for file in part.files):
            assert len(file.sha256) == 64
        if one.built_in:
            data = builtin.path(one.ships_as).read_bytes()
        if one.built_in and not one.made_from:
            assert [(len(data), hashlib.sha256(data).hexdigest())] == [(f.size_bytes, f.sha256) for f in one.files]


def test_mnist_is_the_canonical_one_and_digits_a_fifth_of_it(cache, shared):
    folder = fetch.get("mnist", progress=False, local=shared)
    for file in next(one for one in RECORDS if one.name == "mnist").files:
        assert hashlib.md5((folder / file.name).read_bytes()).hexdigest() == file.md5
    data, fifth = open_data(Data("mnist")), open_data(Data("digits"))
    assert [len(data.split("train+val")), len(data.test)] == [60_000, 10_000]
    assert abs(len(data.val) - 5_000) < 5 * (60_000 * 11 / 144) ** 0.5
    assert (data.test.images[::5] == fifth.test.images).all()
    assert torch.equal(data.test.given["label"][::5], fifth.test.given["label"])
    held_out = {image.numpy().tobytes() for image in data.val.images}
    assert {image.numpy().tobytes() for image in fifth.val.images} <= held_out  # the split depends on content alone
