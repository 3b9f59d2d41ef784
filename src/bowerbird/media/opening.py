"""The door to all data: what a source holds is recognised, and opened as images, text or music."""

import posixpath
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Union

from bowerbird import config
from bowerbird.data import builtin, catalogue, fetch, files
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.media.text import corpus

if TYPE_CHECKING:
    from bowerbird.data.tokens import TokenData
    from bowerbird.media.image.imageset import ImageData

MUSIC_SUFFIXES = (".mid", ".midi", ".abc")
MODALITIES = ("auto", "images", "text", "pairs", "chat", "music")


def open_data(data: config.Data) -> Union["ImageData", "TokenData"]:
    """The examples of a source, split and ready to be batched; errors say what is wrong with it."""
    match modality(data):
        case "images":
            from bowerbird.media.image.imageset import open_images

            return open_images(data)
        case "music":
            from bowerbird.media.music.pieces import open_music

            return open_music(data)
    from bowerbird.media.text.documents import open_text

    record = next((record for record in catalogue.RECORDS if record.name == data.source), None)
    if record is not None:
        return open_text(data, _text_of(record), record.name)
    path = Path(data.source).expanduser()
    return open_text(data, path, path.name or str(path.resolve().name))


def _text_of(record: catalogue.Record) -> Path:
    """The file of text that ships, or what was fetched."""
    if record.built_in:
        return builtin.path(record.name)
    return fetch.needed(record.name) / record.opened


def modality(data: config.Data) -> str:
    """images, music or text, which pairs and chats are too."""
    if data.modality not in MODALITIES:
        raise unknown("data.modality", data.modality, MODALITIES)
    wanted = "text" if data.modality in ("text", "pairs", "chat") else data.modality
    records = {record.name: record for record in catalogue.RECORDS if record.kind == "data"}
    if record := records.get(data.source):
        if wanted not in ("auto", record.modality):
            raise BowerbirdError(
                f"'{data.source}' holds {record.modality}, not {data.modality}; leave out data.modality."
            )
        return record.modality
    path = Path(data.source).expanduser()
    if corpus.BRACES.fullmatch(data.source) and not path.exists():
        return "text"
    if not path.exists():
        if path.name == data.source and not path.suffix:
            raise unknown("data set, file, folder or zip", data.source, records)
        raise BowerbirdError(
            f"The data {data.source} do not exist; give a file, a folder, a zip or one of: {', '.join(records)}."
        )
    return _held(path) if wanted == "auto" else wanted


def _held(path: Path) -> str:
    """What most files of a file, folder or zip are; metadata and captions beside images do not make them text."""
    if path.is_file() and path.suffix.lower() != ".zip" and _kind(path.name):
        return _kind(path.name)
    names = files.visible(files.open_files(path).names())
    counts = Counter(_kind(name) for name in names if posixpath.basename(name) != files.METADATA)
    counts.pop("", None)
    # Ties go to what captions, lyrics and read-me files accompany.
    best = max(("images", "music", "text"), key=lambda kind: counts[kind])
    return best if counts else "images"


def _kind(name: str) -> str:
    if name.lower().endswith(files.SUFFIXES):
        return "images"
    if name.lower().endswith(MUSIC_SUFFIXES):
        return "music"
    return "text" if corpus.is_text(name) else ""
