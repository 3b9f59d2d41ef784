"""Labels in sound and music: WAV, MP3 and MIDI, with the two functions that ``rasters`` describes.

WAV     a chunk ``AIGC`` with the label, and ``_PMX`` with the rest of the record as XMP (its specification, part 3)
MP3     an ID3v2 tag: the label as the text AIGC, the IPTC's word as another, the rest of the record as private data
MIDI    a text event at the beginning of the first track

The places in WAV and MP3 are those of the guide TC260-PG-202510A, and GB 45438-2025 (6.1) wants one label in a file.
"""

import json
from collections.abc import Iterator

from bowerbird.provenance.rasters import Found, Text, decoded, riff_chunks, riff_file
from bowerbird.provenance.record import AIGC, OWN, SOURCE_TYPE, Record
from bowerbird.provenance.written import labelled_in
from bowerbird.provenance.xmp import packet, properties, record_in

_MARK = '{"AIGC"'
"""What a whole record begins with."""


def label(record: Record) -> bytes:
    """The seven fields of the standard alone."""
    return json.dumps(record[AIGC]).encode()


def apart(record: Record) -> bytes:
    """The rest of the record, as XMP."""
    return packet({key: value for key, value in record.items() if key != AIGC})


def joined(texts: list[Text]) -> list[Text]:
    """The texts of a file, in which a label and the rest of its record are one text again."""
    fields = next((one for one in texts if one.where == AIGC and labelled_in(one).keys() == {AIGC}), None)
    rest = next((one for one in texts if one.where == "xmp" and OWN in record_in(properties(one.text))), None)
    if fields is None or rest is None:
        return texts
    record = labelled_in(fields) | record_in(properties(rest.text))
    return [Text(AIGC, as_text(record)), *(one for one in texts if one not in (fields, rest))]


def as_text(record: Record) -> str:
    """The whole record in ASCII, the label of the standard first."""
    return json.dumps({AIGC: record[AIGC]} | record)


# ---------------------------------------------------------------------------------------------------------------- WAV


def insert_wav(data: bytes, record: Record) -> bytes:
    kept = [one for one in riff_chunks(data) if not _labels_wav(*one)]
    return riff_file(b"WAVE", [*kept, (b"AIGC", label(record)), (b"_PMX", apart(record))])


def _labels_wav(kind: bytes, body: bytes) -> bool:
    return kind in (b"AIGC", b"_PMX")


def read_wav(data: bytes) -> Found:
    texts, content, has_c2pa = [], [], False
    for kind, body in riff_chunks(data):
        if kind in (b"_PMX", b"axml", b"iXML"):
            texts.append(Text("xmp" if kind == b"_PMX" else decoded(kind), decoded(body)))
        elif kind == b"AIGC":
            texts.append(Text(AIGC, decoded(body)))
        elif kind == b"LIST" and body[:4] == b"INFO":
            texts += [Text(decoded(key), decoded(value).rstrip("\0")) for key, value in _info(body[4:])]
        elif kind in (b"id3 ", b"ID3 "):
            texts += read_mp3(body).texts
        has_c2pa |= kind == b"C2PA"
        if kind != b"C2PA" and not _labels_wav(kind, body):
            content.append(kind + body)
    return Found(joined(texts), b"".join(content), has_c2pa)


def _info(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(body):
        size = int.from_bytes(body[at + 4 : at + 8], "little")
        yield body[at : at + 4], body[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


# ---------------------------------------------------------------------------------------------------------------- MP3

_LATIN, _UTF16, _UTF16BE, _UTF8 = range(4)
_OWNER = b"XMP\0"


def _syncsafe(size: int) -> bytes:
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def _from_syncsafe(raw: bytes) -> int:
    return sum((byte & 0x7F) << shift for byte, shift in zip(raw, (21, 14, 7, 0), strict=True))


def _tag(data: bytes) -> tuple[int, bytes, int]:
    """Version, frames and end of the ID3v2 tag at the beginning; end 0 where there is none."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 4, b"", 0
    end = 10 + _from_syncsafe(data[6:10])
    if end > len(data):
        raise ValueError("cut short")
    frames = data[10:end]
    if data[5] & 0x40 and len(frames) >= 4:  # an extended header
        skipped = _from_syncsafe(frames[:4]) if data[3] == 4 else 4 + int.from_bytes(frames[:4], "big")
        frames = frames[skipped:]
    return data[3], frames, end + (10 if data[5] & 0x10 else 0)


def _frames(version: int, raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    head = 6 if version == 2 else 10
    at = 0
    while at + head <= len(raw) and raw[at]:
        if version == 2:
            kind, size = raw[at : at + 3], int.from_bytes(raw[at + 3 : at + 6], "big")
        else:
            kind, size = raw[at : at + 4], int.from_bytes(raw[at + 4 : at + 8], "big")
            size = _from_syncsafe(raw[at + 4 : at + 8]) if version == 4 else size
        yield kind, raw[at + head : at + head + size]
        at += head + size


def _frame(kind: bytes, body: bytes) -> bytes:
    return kind + _syncsafe(len(body)) + b"\0\0" + body


def insert_mp3(data: bytes, record: Record) -> bytes:
    """A tag of version 2.4 with the label and the frames of the tag that was there."""
    version, raw, end = _tag(data)
    if raw and (version not in (3, 4) or data[5]):
        raise ValueError("with a tag of a kind that is not rewritten")
    kept = [one for one in _frames(version, raw) if not _labels_mp3(*one)]
    labels = [
        (b"TXXX", b"\x03AIGC\0" + label(record)),
        (b"TXXX", f"\x03{SOURCE_TYPE}\0{record[SOURCE_TYPE]}".encode()),
        (b"PRIV", _OWNER + apart(record)),
    ]
    frames = b"".join(_frame(*one) for one in [*labels, *kept])
    return b"ID3\x04\0\0" + _syncsafe(len(frames)) + frames + data[end:]


def _labels_mp3(kind: bytes, body: bytes) -> bool:
    mine = kind == b"TXXX" and body[1:].split(b"\0")[0] in (AIGC.encode(), SOURCE_TYPE.encode())
    return mine or (kind == b"PRIV" and body.startswith(_OWNER))


def read_mp3(data: bytes) -> Found:
    version, raw, end = _tag(data)
    texts, content, has_c2pa = [], [], False
    for kind, body in _frames(version, raw):
        if kind == b"PRIV" and body.startswith(_OWNER):
            texts.append(Text("xmp", decoded(body[len(_OWNER) :])))
        elif kind[:1] == b"T" or kind in (b"COMM", b"COM"):
            texts.append(_id3_text(kind, body))
        is_c2pa = kind == b"GEOB" and b"c2pa" in body[:64]
        has_c2pa |= is_c2pa
        if not _labels_mp3(kind, body) and not is_c2pa:
            content.append(kind + body)
    return Found(joined(texts), b"".join(content) + data[end:], has_c2pa)


def _id3_text(kind: bytes, body: bytes) -> Text:
    """The text of a frame under its description where it has one."""
    encoding = {_LATIN: "latin-1", _UTF16: "utf-16", _UTF16BE: "utf-16-be"}.get(body[0] if body else 0, "utf-8")
    body = body[4:] if kind in (b"COMM", b"COM") else body[1:]
    parts = body.decode(encoding, "replace").strip("\0").split("\0")
    where = parts[0] if kind in (b"TXXX", b"TXX") and len(parts) > 1 else kind.decode("latin-1")
    return Text(where, parts[-1].lstrip("\ufeff"))


# --------------------------------------------------------------------------------------------------------------- MIDI

_TEXT = b"\0\xff\x01"
"""A text event without delay."""


def _number(value: int) -> bytes:
    """A number of variable length: seven bits a byte, the last without the eighth."""
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F | 0x80)
    return bytes(reversed(parts))


def _parsed_number(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for end in range(at, min(at + 4, len(data))):
        value = value << 7 | data[end] & 0x7F
        if data[end] < 0x80:
            return value, end + 1
    raise ValueError("damaged")


def _first_track(data: bytes) -> tuple[int, int]:
    """Where the events of the first track begin and end."""
    at = 8 + int.from_bytes(data[4:8], "big")
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "big")
        if end > len(data):
            raise ValueError("cut short")
        if data[at : at + 4] == b"MTrk":
            return at + 8, end
        at = end
    raise ValueError("without a track")


def _labels_midi(data: bytes) -> tuple[list[str], int, int, int]:
    """The labels that the first track begins with, where they begin and end, and where the track does."""
    begin, last = _first_track(data)
    at, labels = begin, []
    while data[at : at + 3] == _TEXT:
        size, body = _parsed_number(data, at + 3)
        text = decoded(data[body : body + size])
        if not text.startswith(_MARK) or body + size > last:
            break
        labels.append(text)
        at = body + size
    return labels, begin, at, last


def insert_midi(data: bytes, record: Record) -> bytes:
    _, begin, at, last = _labels_midi(data)
    text = as_text(record).encode()
    track = _TEXT + _number(len(text)) + text + data[at:last]
    return data[: begin - 4] + len(track).to_bytes(4, "big") + track + data[last:]


def read_midi(data: bytes) -> Found:
    labels, begin, at, last = _labels_midi(data)
    texts = [Text("text event", label) for label in labels] + list(_meta_texts(data[at:last]))
    return Found(texts, data[: begin - 4] + (last - at).to_bytes(4, "big") + data[at:])


def _meta_texts(track: bytes) -> Iterator[Text]:
    """The other texts that stand before the first note."""
    at = 0
    while at + 4 <= len(track) and track[at] < 0x80 and track[at + 1] == 0xFF:
        size, body = _parsed_number(track, at + 3)
        if track[at + 2] in range(1, 8):
            yield Text("text event", decoded(track[body : body + size]))
        at = body + size
