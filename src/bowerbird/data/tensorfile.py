"""Tensors in safetensors files whose bytes follow from their content alone, with a checksum of every byte.

safetensors writes its metadata in random order, so that equal tensors would give unequal files.  Here all metadata are
one JSON text under one name.  Before it stand the eight digits of the CRC-32 of the whole file, which
is computed with zeros in their place.  Files of version 0.1 have one entry per key and no checksum; they are read too.
"""

import json
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bowerbird.data.kinds import beginning, require_content
from bowerbird.data.writing import write_atomically
from bowerbird.errors import BowerbirdError

_KEY = "bowerbird"
_MARK = f'"{_KEY}":"'.encode()
_ZEROS = b"0" * 8
_OF_FIRST_VERSION = {"counters", "spec", "step", "score", "format"}
_BLOCK = 1 << 20


class Damaged(BowerbirdError):
    """A file does not hold what was written into it."""


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Writes the file as a whole or not at all; equal tensors and headers give equal bytes."""
    metadata = {_KEY: _ZEROS.decode() + json.dumps(dict(sorted(header.items())))}

    def write(unfinished: Path) -> None:
        safetensors.torch.save_file(tensors, unfinished, metadata)
        with open(unfinished, "r+b") as file:
            place = _place(file)
            crc = _crc32(file, place)
            file.seek(place)
            file.write(crc)

    write_atomically(path, write)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that is as it was written; Damaged if it is not."""
    verify(path)
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, KeyError) as error:  # KeyError: a type of numbers that there is not
        raise Damaged(f"{path} is damaged: {error}.") from error


def read_header(path: Path) -> dict[str, Any]:
    """The metadata, read without looking at the tensors; empty in a file of another program, Damaged if unreadable."""
    metadata = _metadata(path)
    try:
        if _KEY in metadata:
            header = json.loads(metadata[_KEY][len(_ZEROS) :])
        else:
            header = {key: json.loads(value) for key, value in metadata.items() if key != "format"}
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is damaged: its header cannot be read.") from error
    if not isinstance(header, dict):
        raise Damaged(f"{path} is damaged: its header cannot be read.")
    return header


def verify(path: Path) -> None:
    """Damaged if any byte is not the one that was written; files without a checksum are only looked at."""
    metadata = _metadata(path)
    with open(path, "rb") as file:
        place = _place(file)
        if place < 0:
            intact = metadata.keys() <= _OF_FIRST_VERSION
        else:
            file.seek(place)
            intact = file.read(len(_ZEROS)) == _crc32(file, place)
    if not intact:
        raise Damaged(f"{path} is damaged: its content does not match its checksum.")


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        require_content(beginning(path), path)
        raise Damaged(f"{path} is damaged: {error}.") from error


def _place(file: BinaryIO) -> int:
    """Where the checksum stands, -1 if there is none."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    found = file.read(length).find(_MARK)
    return found if found < 0 else 8 + found + len(_MARK)


def _crc32(file: BinaryIO, place: int) -> bytes:
    """Of all bytes, with zeros for the checksum's own digits."""
    file.seek(0)
    crc = zlib.crc32(_ZEROS, zlib.crc32(file.read(place)))
    file.seek(place + len(_ZEROS))
    while block := file.read(_BLOCK):
        crc = zlib.crc32(block, crc)
    return b"%08x" % crc
