"""Labels in films: where MP4 and QuickTime keep XMP.

A file is a row of boxes, each its size and kind before its content.  XMP lies in a box ``uuid`` of a known number
(XMP Specification Part 3, section 1.3.4).  It is put last: boxes before the pictures could not grow without moving what
the index points at.
"""

import struct
from collections.abc import Iterator

from bowerbird.provenance.rasters import Found, Text, decoded

XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
BEGINNING = b"ftyp"


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Kind, content and the whole of each box; ValueError for a file that is cut short."""
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at) if at + 8 <= len(data) else (0, b"")
        head = 8
        if size == 1 and at + 16 <= len(data):
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        size = len(data) - at if size == 0 and kind else size
        if size < head or at + size > len(data):
            raise ValueError("cut short")
        yield kind, data[at + head : at + size], data[at : at + size]
        at += size


def _is_xmp(kind: bytes, body: bytes) -> bool:
    return kind == b"uuid" and body.startswith(XMP)


def insert_mp4(data: bytes, packet: bytes) -> bytes:
    """A last box; a packet that is there already makes room."""
    kept = b"".join(whole for kind, body, whole in _boxes(data) if not _is_xmp(kind, body))
    return kept + struct.pack(">I4s", 24 + len(packet), b"uuid") + XMP + packet


def read_mp4(data: bytes) -> Found:
    """The packets; the content is that of the boxes ``mdat``, pictures and sound, which signing leaves alone."""
    boxes = [*_boxes(data)]
    texts = [Text("xmp", decoded(body[len(XMP) :])) for kind, body, _ in boxes if _is_xmp(kind, body)]
    has_c2pa = any(kind == b"uuid" and body.startswith(C2PA) for kind, body, _ in boxes)
    return Found(texts, b"".join(body for kind, body, _ in boxes if kind == b"mdat"), has_c2pa)
