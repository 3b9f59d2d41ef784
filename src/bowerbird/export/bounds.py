"""Whether the lengths in the header of a GGUF file stay inside of the file.

The package ``gguf`` believes them: a damaged length makes it read empty values until the memory is full.
"""

import struct
from pathlib import Path
from typing import BinaryIO

WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by the number of its type."""
STRING, ARRAY = 8, 9


def inside(path: Path) -> bool:
    """Whether all metadata end inside of the file (versions 2 and 3, little-endian)."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        try:
            _, _, _, n_values = struct.unpack("<IIQQ", file.read(24))
            for _ in range(min(n_values, size)):
                _skip(file, STRING, size)
                _skip(file, int.from_bytes(file.read(4), "little"), size)
        except (struct.error, KeyError, EOFError, RecursionError):
            return False
    return n_values <= size


def _skip(file: BinaryIO, kind: int, size: int) -> None:
    if kind == ARRAY:
        kind, n = struct.unpack("<IQ", file.read(12))
        if kind in WIDTHS:
            _forward(file, WIDTHS[kind] * n, size)
        else:
            for _ in range(min(n, size)):
                _skip(file, kind, size)
    elif kind == STRING:
        _forward(file, struct.unpack("<Q", file.read(8))[0], size)
    else:
        _forward(file, WIDTHS[kind], size)


def _forward(file: BinaryIO, n_bytes: int, size: int) -> None:
    if file.tell() + n_bytes > size:
        raise EOFError
    file.seek(n_bytes, 1)
