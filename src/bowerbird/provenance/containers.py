"""Which kind a file is, by its first bytes, and how that kind is labelled and read."""

from collections.abc import Callable
from typing import NamedTuple

from bowerbird.provenance import audio, films, rasters, written
from bowerbird.provenance.rasters import Found, Text
from bowerbird.provenance.record import AIGC, Record
from bowerbird.provenance.xmp import packet, packets

Insert = Callable[[bytes, Record], bytes]


class Kind(NamedTuple):
    """A kind of file that holds labels itself."""

    name: str
    media_type: str
    insert: Insert
    read: Callable[[bytes], Found]


def _with_packet(insert: Callable[[bytes, bytes], bytes]) -> Insert:
    return lambda data, record: insert(data, packet(record))


PNG = Kind("PNG", "image/png", _with_packet(rasters.insert_png), rasters.read_png)
JPEG = Kind("JPEG", "image/jpeg", _with_packet(rasters.insert_jpeg), rasters.read_jpeg)
GIF = Kind("GIF", "image/gif", _with_packet(rasters.insert_gif), rasters.read_gif)
WEBP = Kind("WebP", "image/webp", _with_packet(rasters.insert_webp), rasters.read_webp)
WAV = Kind("WAV", "audio/wav", audio.insert_wav, audio.read_wav)
MP3 = Kind("MP3", "audio/mpeg", audio.insert_mp3, audio.read_mp3)
MP4 = Kind("MP4", "video/mp4", _with_packet(films.insert_mp4), films.read_mp4)
MIDI = Kind("MIDI", "audio/midi", audio.insert_midi, audio.read_midi)


MP4_BRANDS = (b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"M4V ", b"qt  ")
"""Others that begin alike are pictures: AVIF, HEIC."""


def kind_of(data: bytes) -> Kind | None:
    """None for kinds that hold no labels, or that are written as text."""
    if data[:4] == b"RIFF":
        return {b"WEBP": WEBP, b"WAVE": WAV}.get(data[8:12])
    if data[4:8] == films.BEGINNING and data[8:12] in MP4_BRANDS:
        return MP4
    begins = ((rasters.PNG, PNG), (b"\xff\xd8\xff", JPEG), (b"GIF8", GIF), (b"ID3", MP3), (b"MThd", MIDI))
    found = next((kind for begin, kind in begins if data.startswith(begin)), None)
    is_frame = len(data) > 2 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2  # MPEG audio, layer III
    return found or (MP3 if is_frame else None)


def labelled(data: bytes, suffix: str, make: Callable[[bytes], Record]) -> bytes | None:
    """The file with its label inside; None where its kind has no room for one, so that it needs a sidecar."""
    if suffix == ".json":
        return written.insert_json(data, make)
    if suffix == ".jsonl":
        return written.insert_jsonl(data, make)
    kind = kind_of(data)
    return None if kind is None else kind.insert(data, make(kind.read(data).content))


def read(data: bytes) -> Found:
    """All texts of a file's metadata and what a label of it is about; of a file of an unknown kind, its XMP.

    ValueError for a damaged file of a known kind.
    """
    if kind := kind_of(data):
        found = kind.read(data)
        known = [text.text for text in found.texts if text.where == "xmp"]
        astray = [Text("xmp", text) for text in packets(data) if not any(text in one for one in known)]
        return found._replace(texts=found.texts + astray)
    if is_text(data):
        return Found([], data)
    return Found([Text("xmp", text) for text in packets(data)], data, has_c2pa=b"jumb" in data and b"c2pa" in data)


def is_text(data: bytes) -> bool:
    """Whether a file is for people to read: XMP in it is a quotation."""
    try:
        data[: 1 << 16].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(data[: 1 << 16]) - 4:
            return False
    return b"\0" not in data[: 1 << 16] and b"<svg" not in data[:1024]


def front_matter(data: bytes) -> dict[str, str]:
    """The label at the beginning of a text between lines of dashes, as some services write it."""
    head = data[: 1 << 14].removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").splitlines()
    if not head or head[0].strip() != "---":
        return {}
    fields: dict[str, str] = {}
    inside = False
    for line in head[1:]:
        if line.strip() == "---":
            break
        key, _, value = line.partition(":")
        inside = key.strip() == AIGC if not line.startswith((" ", "\t")) else inside
        if inside and line.startswith((" ", "\t")):
            fields[key.strip()] = value.strip().strip("\"'")
    return fields
