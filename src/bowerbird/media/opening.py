"""The entry point for all data: recognises what a source contains and has its medium open it."""

import posixpath
from collections import Counter
from pathlib import Path

from bowerbird import config
from bowerbird.data import catalogue, files
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.media.medium import Medium, Opened, media

BY_LOOKING = "auto"
ORDER = ("image", "music", "text")
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
    if files.BRACES.fullmatch(data.source) and not path.exists():
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
    """The medium of most files in a file, folder or zip; metadata files do not count."""
    names = [path.name]
    if not path.is_file() or path.suffix.lower() == ".zip" or not any(medium.holds(path.name) for medium in known):
        names = [name for name in files.visible(files.open_files(path).names()) if not _is_metadata(name)]
    counts = Counter(medium.name for medium in known for name in names if medium.holds(name))
    rank = {name: -place for place, name in enumerate(ORDER)}
    best = max(known, key=lambda medium: (counts[medium.name], rank.get(medium.name, -len(ORDER))))
    return best if counts else next(medium for medium in known if medium.name == ORDER[0])


def _is_metadata(name: str) -> bool:
    return posixpath.basename(name) == files.METADATA
