"""The entry point for all data: recognises what a source contains and has its medium open it."""

import posixpath
from collections import Counter
from itertools import chain, islice
from pathlib import Path

from bowerbird import config
from bowerbird.data import catalogue, files
from bowerbird.data.kinds import is_zip, refused
from bowerbird.data.listing import BESIDE, begins_as_image
from bowerbird.data.names import BRACES, base, printable, visible
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.media.medium import Medium, Opened, media

BY_LOOKING = "auto"
LOOKED_INTO = 64
"""Files with names that no medium knows, of which the first bytes are read."""
ORDER = ("image", "music", "speech", "video", "text")
"""If media have equally many files, the first of these wins: captions, lyrics and read-me files go with the others."""


def open_data(data: config.Data) -> Opened:
    """The examples of a source, split and ready to be batched; errors say what is wrong with it."""
    return medium_of(data).open(data)


def medium_of(data: config.Data) -> Medium:
    """The medium of a source: the one requested, that of a built-in data set, or that of most of its files."""
    known = media()
    wanted = _asked_for(data, known)
    records = {record.name: record for record in catalogue.RECORDS if record.kind == "data"}
    if record := records.get(data.source):
        if wanted is not None and record.modality not in wanted.modalities:
            raise BowerbirdError(
                f"'{data.source}' holds {record.modality}, not {data.modality}; leave out data.modality."
            )
        return next(medium for medium in known if record.modality in medium.modalities)
    path = Path(data.source).expanduser()
    if printable(data.source) != data.source:
        raise BowerbirdError(f"The path {printable(data.source)} is not UTF-8, so no run could record it; rename it.")
    if BRACES.fullmatch(data.source) and not path.exists():
        return next(medium for medium in known if "pairs" in medium.modalities)
    if not path.exists():
        if path.name == data.source and not path.suffix:
            raise unknown("data set, file, folder or zip", data.source, records)
        raise BowerbirdError(
            f"The data {data.source} do not exist; give a file, a folder, a zip or one of: {', '.join(records)}."
        )
    return wanted or _held(path, known)


def _asked_for(data: config.Data, known: list[Medium]) -> Medium | None:
    if data.modality == BY_LOOKING:
        return None
    for medium in known:
        if data.modality in (medium.name, *medium.modalities):
            return medium
    names = [BY_LOOKING, *(modality for medium in known for modality in medium.modalities)]
    raise unknown("data.modality", data.modality, names)


def _held(path: Path, known: list[Medium]) -> Medium:
    """The medium of most files in a file, folder or zip, of images by their content too; metadata do not count."""
    names, source = [path.name], None
    if not path.is_dir() and not path.is_file():
        raise BowerbirdError(f"{path} is a pipe, a socket or a device; give a file, a folder or a zip.")
    if path.is_dir() or is_zip(path):
        source = files.open_files(path)
        names = visible(source.names())
        names = [name for name in names if not _is_metadata(name)] or names
    held = {medium.name: [name for name in names if medium.holds(name)] for medium in known}
    counts = _counted(held)
    of_any = set(chain.from_iterable(held.values()))
    unnamed = islice((name for name in names if name not in of_any), LOOKED_INTO)
    if source is not None:
        counts[ORDER[0]] += sum(begins_as_image(source, name) for name in unnamed)
    elif not of_any:
        raise refused(path) or BowerbirdError(
            f"The name of {path.name} does not say what it holds: give it a suffix such as .txt, .jsonl or .mid, or "
            "add --data.modality text."
        )
    if not any(counts.values()) and (pair := _parallel(names)):
        raise BowerbirdError(f"{path} holds no file of a known kind; name parallel files as '{path}/{pair}'.")
    rank = {name: -place for place, name in enumerate(ORDER)}
    best = max(known, key=lambda medium: (counts[medium.name], rank.get(medium.name, -len(ORDER))))
    return best if any(counts.values()) else next(medium for medium in known if medium.name == ORDER[0])


def _counted(held: dict[str, list[str]]) -> Counter[str]:
    """How many files each medium has; a text that has the name of a picture or a piece belongs to it."""
    counts = Counter({medium: len(found) for medium, found in held.items()})
    if texts := held.get(ORDER[-1]):
        others = {name for medium, found in held.items() if medium != ORDER[-1] for name in found}
        others |= {posixpath.splitext(name)[0] for name in others}
        counts[ORDER[-1]] = sum(posixpath.splitext(name)[0] not in others for name in texts)
    return counts


def _parallel(names: list[str]) -> str:
    """Two of the files that differ in their suffix alone, as train.{de,en}; "" if there are none."""
    ends: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: (not name.startswith("train."), name)):
        stem, end = posixpath.splitext(name)
        ends.setdefault(stem, []).append(end.lstrip("."))
    return next((f"{stem}.{{{','.join(found[:2])}}}" for stem, found in ends.items() if len(found) > 1), "")


def _is_metadata(name: str) -> bool:
    return bool(BESIDE.fullmatch(base(name)))
