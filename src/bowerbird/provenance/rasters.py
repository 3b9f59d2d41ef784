"""Labels in pictures: where PNG, JPEG, GIF and WebP keep XMP, and what else in them is text.

Each format has two functions: ``insert(data, packet)`` adds an XMP packet, and ``read(data)`` gives all texts and the
content, that is, the bytes which a label is about: those of every part except XMP and C2PA.  No other part is
changed, so a picture stays what it was to the last bit.  ValueError for a file that is cut short or is none.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

LARGEST_TEXT = 1 << 20
"""Bytes of one text that is read, decompressed."""


class Text(NamedTuple):
    """One text of a file's metadata."""

    where: str
    """The part and key that it stands under, such as ``parameters``; ``xmp`` for a packet."""
    text: str


class Found(NamedTuple):
    """What a file holds besides what is seen and heard."""

    texts: list[Text]
    content: bytes
    has_c2pa: bool = False
    exif: bytes = b""


def decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


# ---------------------------------------------------------------------------------------------------------------- PNG

PNG = b"\x89PNG\r\n\x1a\n"
_XMP_IN_PNG = b"XML:com.adobe.xmp"
BEHIND = b""
"""Stands for the type of what lies behind the last chunk, which no program shows."""


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(PNG)
    while at < len(data):
        if at + 12 > len(data):
            raise ValueError("cut short")
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        if at + 12 + length > len(data):
            raise ValueError("cut short")
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IEND":
            if data[at:]:
                yield BEHIND, data[at:]
            return
    raise ValueError("cut short")


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    if kind == BEHIND:
        return body
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def insert_png(data: bytes, packet: bytes) -> bytes:
    """An iTXt chunk behind the header; a packet that is there already makes room."""
    chunks = [
        (kind, body) for kind, body in _png_chunks(data) if not (kind == b"iTXt" and body.startswith(_XMP_IN_PNG))
    ]
    label = (b"iTXt", _XMP_IN_PNG + b"\0\0\0\0\0" + packet)
    return PNG + b"".join(_png_chunk(*one) for one in (chunks[0], label, *chunks[1:]))


def read_png(data: bytes) -> Found:
    texts, content, exif, has_c2pa = [], [], b"", False
    for kind, body in _png_chunks(data):
        has_c2pa |= kind == b"caBX"
        exif = body if kind == b"eXIf" else exif
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            texts.append(_png_text(kind, body))
        if kind != b"caBX" and not (kind == b"iTXt" and body.startswith(_XMP_IN_PNG)):
            content.append(_png_chunk(kind, body))
    return Found(texts, b"".join(content), has_c2pa, exif)


def _png_text(kind: bytes, body: bytes) -> Text:
    key, _, rest = body.partition(b"\0")
    if kind == b"tEXt":
        return Text(key.decode("latin-1"), rest.decode("latin-1")[:LARGEST_TEXT])
    packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    if kind == b"zTXt" or rest[:1] == b"\1":
        packed = _unpacked(packed)
    text = packed.decode("latin-1") if kind == b"zTXt" else decoded(packed)
    return Text("xmp" if key == _XMP_IN_PNG else decoded(key), text[:LARGEST_TEXT])


def _unpacked(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, LARGEST_TEXT)
    except zlib.error:
        return b""


# --------------------------------------------------------------------------------------------------------------- JPEG

JPEG = b"\xff\xd8"
_XMP_IN_JPEG, _EXIF = b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0"
_APP0, _APP1, _APP11, _COMMENT, _SCAN = 0xE0, 0xE1, 0xEB, 0xFE, 0xDA


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) up to the first scan, whose body is the rest of the file."""
    at = 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise ValueError("damaged")
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker == _SCAN:
            yield marker, data[at + 2 :]
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        if length < 2 or at + 2 + length > len(data):
            raise ValueError("cut short")
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length
    raise ValueError("cut short")


def _jpeg_segment(marker: int, body: bytes) -> bytes:
    size = b"" if marker == _SCAN else struct.pack(">H", len(body) + 2)
    return bytes((0xFF, marker)) + size + body


def insert_jpeg(data: bytes, packet: bytes) -> bytes:
    """An APP1 segment behind JFIF's APP0; a packet that is there already makes room."""
    segments = [one for one in _jpeg_segments(data) if not (one[0] == _APP1 and one[1].startswith(_XMP_IN_JPEG))]
    first = 1 if segments[0][0] == _APP0 else 0
    segments.insert(first, (_APP1, _XMP_IN_JPEG + packet))
    return JPEG + b"".join(_jpeg_segment(*one) for one in segments)


def read_jpeg(data: bytes) -> Found:
    texts, content, exif, has_c2pa = [], [], b"", False
    for marker, body in _jpeg_segments(data):
        is_xmp = marker == _APP1 and body.startswith(_XMP_IN_JPEG)
        if is_xmp:
            texts.append(Text("xmp", decoded(body[len(_XMP_IN_JPEG) :])))
        elif marker == _APP1 and body.startswith(_EXIF):
            exif = body[len(_EXIF) :]
        elif marker == _COMMENT:
            texts.append(Text("comment", decoded(body)))
        has_c2pa |= marker == _APP11 and b"jumb" in body[:64]
        if not is_xmp and marker != _APP11:
            content.append(_jpeg_segment(marker, body))
    return Found(texts, b"".join(content), has_c2pa, exif)


# ---------------------------------------------------------------------------------------------------------------- GIF

_XMP_IN_GIF, _C2PA_IN_GIF = b"XMP DataXMP", b"C2PA_GIF"
_END_OF_XMP = b"\x01" + bytes(range(0xFF, -1, -1)) + b"\x00"
"""Leads programs that know nothing of XMP to the end of the block, wherever in the packet they are."""


def _gif_blocks(data: bytes) -> Iterator[bytes]:
    """The header with its palette, then every block, the trailer last."""
    if len(data) < 13:
        raise ValueError("cut short")
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    yield data[:at]
    while at < len(data):
        begin = at
        if data[at] == 0x3B:
            yield data[at:]
            return
        if data[at] == 0x21:
            at = _gif_data(data, at + 2)
        elif data[at] == 0x2C and at + 10 < len(data):
            flags = data[at + 9]
            at = _gif_data(data, at + 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0))
        else:
            raise ValueError("damaged")
        yield data[begin:at]
    raise ValueError("cut short")


def _gif_data(data: bytes, at: int) -> int:
    """Where the sub-blocks that begin here end."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    if at >= len(data):
        raise ValueError("cut short")
    return at + 1


def insert_gif(data: bytes, packet: bytes) -> bytes:
    """An application extension before the first frame; a packet that is there already makes room."""
    header, *blocks = (block for block in _gif_blocks(data) if not block[3:].startswith(_XMP_IN_GIF))
    label = b"\x21\xff\x0b" + _XMP_IN_GIF + packet + _END_OF_XMP
    first = next(i for i, block in enumerate(blocks) if block[:2] == b"\x21\xf9" or block[0] in b"\x2c\x3b")
    blocks.insert(first, label)
    return b"GIF89a" + header[6:] + b"".join(blocks)


def read_gif(data: bytes) -> Found:
    texts, content, has_c2pa = [], [], False
    for i, block in enumerate(_gif_blocks(data)):
        if block.startswith(b"\x21\xff") and block[3:].startswith(_XMP_IN_GIF):
            texts.append(Text("xmp", decoded(block[14 : -len(_END_OF_XMP)])))
        elif block.startswith(b"\x21\xff") and block[3:].startswith(_C2PA_IN_GIF):
            has_c2pa = True
        else:
            content.append(block if i else block[6:])
        if block.startswith(b"\x21\xfe"):
            texts.append(Text("comment", decoded(_joined(block[2:]))))
    return Found(texts, b"".join(content), has_c2pa)


def _joined(subblocks: bytes) -> bytes:
    at, parts = 0, []
    while subblocks[at]:
        parts.append(subblocks[at + 1 : at + 1 + subblocks[at]])
        at += 1 + subblocks[at]
    return b"".join(parts)


# --------------------------------------------------------------------------------------------------------------- WebP

RIFF = b"RIFF"
_XMP_FLAG, _ALPHA_FLAG = 0x04, 0x10


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a RIFF file."""
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    if end < 8 + int.from_bytes(data[4:8], "little"):
        raise ValueError("cut short")
    at = 12
    while at + 8 <= end:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + size > end:
            raise ValueError("cut short")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def riff_file(kind: bytes, chunks: list[tuple[bytes, bytes]]) -> bytes:
    body = kind + b"".join(riff_chunk(*one) for one in chunks)
    return RIFF + struct.pack("<I", len(body)) + body


def insert_webp(data: bytes, packet: bytes) -> bytes:
    """A chunk at the end, which a file of the extended form alone can have."""
    chunks = [(kind, body) for kind, body in riff_chunks(data) if kind != b"XMP "]
    if not chunks:
        raise ValueError("without a picture")
    if chunks[0][0] != b"VP8X":
        chunks.insert(0, (b"VP8X", _extended(*chunks[0])))
    flags = chunks[0][1]
    chunks[0] = (b"VP8X", bytes((flags[0] | _XMP_FLAG,)) + flags[1:])
    return riff_file(b"WEBP", [*chunks, (b"XMP ", packet)])


def _extended(kind: bytes, body: bytes) -> bytes:
    """The header of the extended form for a file of the simple one: flags, and the size less 1 in three bytes each."""
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        width, height, flags = bits & 0x3FFF, bits >> 14 & 0x3FFF, _ALPHA_FLAG if bits >> 28 & 1 else 0
    elif kind == b"VP8 " and len(body) >= 10:
        width, height = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (6, 8))
        width, height, flags = width - 1, height - 1, 0
    else:
        raise ValueError("damaged")
    return bytes((flags, 0, 0, 0)) + width.to_bytes(3, "little") + height.to_bytes(3, "little")


def read_webp(data: bytes) -> Found:
    texts, content, exif, has_c2pa = [], [], b"", False
    for kind, body in riff_chunks(data):
        if kind == b"XMP ":
            texts.append(Text("xmp", decoded(body)))
        elif kind == b"C2PA":
            has_c2pa = True
        elif kind == b"EXIF":
            exif = body.removeprefix(_EXIF)
        if kind not in (b"XMP ", b"C2PA", b"VP8X"):
            content.append(riff_chunk(kind, body))
    return Found(texts, b"".join(content), has_c2pa, exif)
