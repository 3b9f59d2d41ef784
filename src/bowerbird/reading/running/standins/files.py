"""Files: reading finds the user's own first, then a stand-in; writing goes to the scratch folder."""

import builtins
import contextlib
import functools
import glob
import gzip
import io
import json
import linecache
import os
import pathlib
import pickle
import sys
import urllib.request
import wave
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from bowerbird.reading.running.putting import put
from bowerbird.reading.running.recorder import Recorder
from bowerbird.reading.running.standins import fragments, pictures, words

Replace = Callable[[str, str], None]
_TEXT = (*".txt .text .md .csv .tsv .json .jsonl .en .de .fr .zh .cn .vocab .py".split(), "")
_PASSING = (
    "bowerbird/reading/running/", "/pathlib.py", "/os.py", "<frozen ", "genericpath.py", "posixpath.py", "/glob.py",
    "/gzip.py", "/zipfile.py", "/PIL/", "/numpy/", "/codecs.py", "/tarfile.py", "/shutil.py", "/torch/serialization.py",
    "/pickle.py", "/contextlib.py", "/scipy/",
)  # fmt: skip
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
_SOUNDS = (".wav", ".flac", ".mp3", ".ogg")
_WEIGHTS = (".pt", ".pth", ".ckpt", ".pkl", ".bin")
_SETTINGS = (".yaml", ".yml")
_CHINESE = ("zh", "chinese", "tang", "poet", "cn", "poem", "诗", "中")


class Files:
    """Decides where a path that the program names really lies."""

    def __init__(self, recorder: Recorder, replace: Replace, root: Path) -> None:
        self.recorder, self.replace, self.root = recorder, replace, root
        self.scratch = Path.cwd()

    def reading(self, path: Any, *, make: bool = True) -> Any:
        """A path that can be read, if there is any way."""
        if isinstance(path, int) or not isinstance(path, str | bytes | os.PathLike):
            return path
        wanted = Path(os.fsdecode(path))
        if wanted.exists() or (not self.asked_by_user()):
            return path
        moved = self._elsewhere(os.path.realpath(wanted))
        if moved.exists():
            return str(moved)
        own = self.root / wanted
        if not wanted.is_absolute() and own.exists():
            return str(own)
        if make and wanted.suffix.lower() in (
            *_TEXT,
            *_PICTURES,
            *_SOUNDS,
            ".pkl",
            ".gz",
            ".npy",
            ".bin",
            *_WEIGHTS,
            *_SETTINGS,
        ):
            made = self._made(wanted)
            if made is not None:
                return made
        return path

    def writing(self, path: Any) -> Any:
        """A path in the scratch folder for one that lies elsewhere; the folder it lies in is made."""
        if isinstance(path, int) or not isinstance(path, str | bytes | os.PathLike) or not self.asked_by_user():
            return path
        text = os.fsdecode(path)
        real = os.path.realpath(text)
        if real == os.devnull or real == str(self.scratch) or real.startswith(f"{self.scratch}{os.sep}"):
            return path
        target = self._elsewhere(real)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.replace("writing elsewhere", "what is written outside the working folder goes to a scratch folder")
        return str(target)

    def _elsewhere(self, real: str) -> Path:
        return self.scratch / "elsewhere" / real.lstrip(os.sep)

    def names(self, folder: Any, pattern: str = "") -> list[str]:
        """Names of files for a folder that is not there: texts where the pattern asks for them, else pictures.

        The files are made when they are opened.
        """
        suffix = os.path.splitext(pattern)[1].lower()
        kind, suffix, number = ("texts", suffix, 6) if suffix in _TEXT[:-1] else ("pictures", ".png", 64)
        self.replace(f"folder {str(folder)[-60:]}", f"it is not there; stand-in {kind} took its place")
        return [f"{place:06d}{suffix}" for place in range(number)]

    def asked_by_user(self) -> bool:
        """Whether the call that is going on was made by the user's code, however deep."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if self.recorder.is_project_code(code):
                return True
            if not any(part in code.co_filename for part in _PASSING):
                return False
            frame = frame.f_back
        return False

    def asserted(self) -> bool:
        """Whether the user's line that asks is an assertion: then a stand-in should be found."""
        frame = self.recorder.user_frame(sys._getframe(1))
        return frame is not None and "assert" in linecache.getline(frame.f_code.co_filename, frame.f_lineno)

    def _made(self, wanted: Path) -> str | None:
        target = self.scratch / "stand-ins" / wanted.name
        target.parent.mkdir(exist_ok=True)
        try:
            if not target.exists():
                self._write(wanted, target)
        except OSError:
            return None
        if wanted.suffix.lower() in _PICTURES:
            self.replace("pictures", "the files are not there; stand-in pictures took their place")
        elif wanted.suffix in _SETTINGS:
            self.replace(f"file {wanted.name}", "it is not there; the settings of the project took its place")
        else:
            self.replace(f"file {wanted.name}", "it is not there; short text or made-up numbers took its place")
        return str(target)

    def _write(self, wanted: Path, target: Path) -> None:
        chinese = any(word in str(wanted).lower() for word in _CHINESE)
        if wanted.suffix.lower() in _PICTURES:
            number = int("".join(c for c in wanted.stem if c.isdigit())[-6:] or 0)
            array, _ = pictures.picture(number, size=64, channels=3)
            Image.fromarray(array).save(target, format="PNG")
        elif wanted.suffix in _SETTINGS:
            target.write_text(json.dumps(fragments.Options.project, default=str), encoding="utf-8")
        elif wanted.suffix == ".json":
            target.write_text(json.dumps({"words": words.ENGLISH.split()}), encoding="utf-8")
        elif wanted.suffix in (".csv", ".tsv"):
            comma = "," if wanted.suffix == ".csv" else "\t"
            rows = [comma.join(f"{i * j % 7}" for j in range(1, 5)) for i in range(200)]
            target.write_text("\n".join([comma.join("abcd"), *rows]), encoding="utf-8")
        elif wanted.suffix.lower() in _SOUNDS:
            _write_sound(target)
        elif wanted.suffix in (".pt", ".pth", ".ckpt"):
            target.write_bytes(b"")
        elif wanted.suffix == ".pkl":
            target.write_bytes(pickle.dumps({"vocab_size": 512, "stoi": {}, "itos": {}}))
        elif wanted.suffix == ".gz":
            target.write_bytes(gzip.compress(words.text(30_000, chinese=chinese).encode()))
        elif wanted.suffix == ".npy":
            np.save(target, np.random.default_rng(0).normal(size=(256, 32)).astype(np.float32))
        elif wanted.suffix == ".bin":
            np.arange(20_000, dtype=np.uint16).__mod__(50).astype(np.uint16).tofile(target)
        else:
            target.write_text(words.text(30_000, chinese=chinese), encoding="utf-8")


def _write_sound(target: Path) -> None:
    """Two seconds of a falling tone in noise, 16 bits at 22,050 Hz."""
    seconds = np.arange(44_100) / 22_050
    noise = np.random.default_rng(0).normal(size=len(seconds))
    samples = 0.3 * np.sin(2 * np.pi * (440 - 60 * seconds) * seconds) + 0.02 * noise
    with wave.open(str(target), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22_050)
        file.writeframes((samples * 32_767).astype("<i2").tobytes())


def install(recorder: Recorder, replace: Replace, root: Path) -> None:
    """Patches open, numpy's readers and downloads."""
    files = Files(recorder, replace, root)
    _patch_open(files)
    _patch_numpy(files)
    _patch_downloads(files, replace)
    _patch_existence(files)
    _patch_pictures(replace)


def _patch_pictures(replace: Replace) -> None:
    original = Image.open

    def opened(path: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(path, *args, **kwargs)
        except (FileNotFoundError, IsADirectoryError, UnidentifiedImageError):
            replace("pictures", "the files are not there; stand-in pictures took their place")
            return Image.fromarray(pictures.picture(0, size=64, channels=3)[0])

    put(Image, open=opened)


def _patch_open(files: Files) -> None:
    original = builtins.open

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        path = files.writing(file) if any(c in mode for c in "wax") else files.reading(file)
        if path is not file and "b" not in mode:
            kwargs["encoding"], args = "utf-8", args[:1]
        return original(path, mode, *args, **kwargs)

    put(builtins, open=opened)
    put(io, open=opened)
    path_open = pathlib.Path.open

    def opened_path(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        where = self if any(c in mode for c in "wax") else Path(files.reading(self))
        return path_open(where, mode, *args, **kwargs)

    put(pathlib.Path, open=opened_path)


def _patch_numpy(files: Files) -> None:
    for name in ("load", "loadtxt", "genfromtxt", "fromfile"):
        original = getattr(np, name)

        def read(file: Any, *args: Any, _original: Any = original, **kwargs: Any) -> Any:
            return _original(files.reading(file), *args, **kwargs)

        setattr(np, name, read)
    memmap: Any = np.memmap

    class Memmap(memmap):
        """A memory map of the file, or of its stand-in."""

        def __new__(cls, filename: Any, *args: Any, **kwargs: Any) -> Any:
            return memmap.__new__(cls, files.reading(filename), *args, **kwargs)

    put(np, memmap=Memmap)


def _patch_downloads(files: Files, replace: Replace) -> None:
    def retrieved(url: str, filename: Any = None, *_: Any, **__: Any) -> tuple[str, None]:
        replace(f"download {str(url)[-60:]}", "there is no network; short text took its place")
        target = Path(filename or "download.txt")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(words.text(30_000), encoding="utf-8")
        return str(target), None

    def opened(url: Any, *_: Any, **__: Any) -> Any:
        replace(f"download {getattr(url, 'full_url', url)!s:.60}", "there is no network; short text took its place")
        return io.BytesIO(words.text(30_000).encode())

    put(urllib.request, urlretrieve=retrieved)
    put(urllib.request, urlopen=opened)
    put(torch.hub, load=lambda *a, **k: torch.nn.Identity())


def _patch_existence(files: Files) -> None:
    """``os.path.exists`` and ``os.listdir`` see the user's folder beside the scratch folder."""
    exists, listdir, mkdir, makedirs, path_mkdir = os.path.exists, os.listdir, os.mkdir, os.makedirs, Path.mkdir

    def within(path: Any) -> Any:
        target = files.writing(path)
        around = os.path.dirname(os.path.abspath(target))
        if not os.path.isdir(around) and files.asked_by_user():
            for folder in reversed([Path(around), *Path(around).parents]):
                with contextlib.suppress(OSError):
                    mkdir(folder)
        return target

    def made(path: Any, *args: Any, **kwargs: Any) -> None:
        mkdir(within(path), *args, **kwargs)

    def made_all(name: Any, *args: Any, **kwargs: Any) -> None:
        makedirs(files.writing(name), *args, **kwargs)

    def path_made(self: Path, *args: Any, **kwargs: Any) -> None:
        path_mkdir(Path(within(self)), *args, **kwargs)

    def there(path: Any) -> bool:
        return exists(path) or exists(files.reading(path, make=files.asserted()))

    def listed(path: Any = ".") -> list[str]:
        where = files.reading(path, make=False)
        if isinstance(where, int) or exists(where) or not files.asked_by_user():
            return listdir(where)
        return files.names(path)

    find = glob.glob

    def found(pathname: Any, *args: Any, **kwargs: Any) -> list[str]:
        names = find(pathname, *args, **kwargs) or find(os.path.join(files.root, pathname), *args, **kwargs)
        if names or not files.asked_by_user() or not pathname.endswith(("*", "*.*", *_PICTURES, *_TEXT[:-1])):
            return names
        folder = os.path.dirname(pathname).replace("*", "all")
        return [os.path.join(folder, name) for name in files.names(pathname, pathname)]

    def matched(self: Path, pattern: str, *, _find: Any, **kwargs: Any) -> list[Path]:
        names = list(_find(self, pattern, **kwargs))
        asked = pattern.endswith(("*", "*.*", *_PICTURES, *_TEXT[:-1]))
        if names or self.exists() or not asked or not files.asked_by_user():
            return names
        return [self / name for name in files.names(self, pattern)]

    put(glob, glob=found)
    put(Path, glob=functools.partialmethod(matched, _find=Path.glob))
    put(Path, rglob=functools.partialmethod(matched, _find=Path.rglob))
    put(os, mkdir=made, makedirs=made_all)
    put(Path, mkdir=path_made)
    put(os.path, exists=there)
    put(os, listdir=listed)


def report(recorder: Recorder, scratch: Path) -> None:
    """What the program wrote."""
    found = [p for p in sorted(scratch.rglob("*")) if p.is_file() and "stand-ins" not in p.parts]
    for path in found[:60]:
        recorder("run.file", str(path.relative_to(scratch)), {"bytes": path.stat().st_size}, line=None, file="")
