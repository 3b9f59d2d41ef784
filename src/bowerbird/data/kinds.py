"""What kind a file is, by its suffix and its first bytes."""

import re
import zipfile
from pathlib import Path

from bowerbird.errors import BowerbirdError

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".pgm", ".ppm", ".pbm", ".pnm", ".tif", ".tiff", ".apng", ".avif",
    ".dds", ".dib", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpf", ".jpx", ".mpo", ".pcx", ".pfm",
    ".psd", ".qoi", ".sgi", ".tga",
)  # fmt: skip
"""What counts as an image file; a file with another name is one if its first bytes say so (``BEGINNINGS``)."""
BEGINNINGS = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*|BM....\0\0\0\0|P[1-6]\s|qoif|8BPS"
    rb"|\0\0\0\x0cjP  |....ftyp(?:avif|avis|heic|heix|heim|heis|hevc|mif1|msf1)",
    re.DOTALL,
)
"""First bytes of the formats of images that can be told by them."""
OTHERS = {
    *(".txt", ".md", ".rst", ".html", ".xml", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".yaml", ".toml", ".py"),
    *(".dng", ".nef", ".cr2", ".arw", ".orf", ".pef", ".rw2", ".sr2"),
}
"""Suffixes of files that are not looked into: text, and raw files of cameras, which look like TIFF and are not."""
FIRST_BYTES = 512
UNPACK, AS_TEXT, RENAME = "unpack it, or make a zip of it", "save its text as .txt", "correct its name"
CONVERT, EXTRACT = "convert it to WAV or FLAC", "save its pictures as PNG, or its sounds as WAV, in a folder"
NO_TEXTS = (
    (rb"\xff\xd8\xff|GIF8[79]a|\x89PNG|RIFF....WEBP|BM....\0\0\0\0|II\*\0|MM\0\*", "a picture", RENAME),
    (rb"RIFF....WAVE|OggS|ID3|fLaC", "a sound", RENAME),
    (rb"MThd", "a MIDI file", RENAME),
    (rb"PAR1", "a Parquet file", RENAME),
    (rb"\x1f\x8b", "a gzip file", UNPACK),
    (rb"\xfd7zXZ", "an xz file", UNPACK),
    (rb"BZh[1-9]", "a bzip2 file", UNPACK),
    (rb"\x28\xb5\x2f\xfd", "a Zstandard file", UNPACK),
    (rb"7z\xbc\xaf\x27\x1c|Rar!|.{257}ustar", "an archive", UNPACK),
    (rb"PK\x03\x04", "a zip (as are the files of Excel and Word)", UNPACK),
    (rb"%PDF", "a PDF", AS_TEXT),
    (rb"\xd0\xcf\x11\xe0", "a document of Word or Excel", AS_TEXT),
)
"""First bytes of files that are no text, what they are, and what to do."""
BY_NAME = {
    **dict.fromkeys((".tar", ".tgz", ".7z", ".rar", ".z01"), ("an archive", UNPACK)),
    **dict.fromkeys((".docx", ".odt", ".pptx", ".xlsx", ".ods", ".epub"), ("a document", AS_TEXT)),
    **dict.fromkeys((".m4a", ".aac", ".wma", ".amr", ".caf"), ("a compressed sound", CONVERT)),
    **dict.fromkeys(
        (".npy", ".npz", ".mat", ".h5", ".hdf5", ".pkl", ".pickle", ".pt", ".pth", ".tfrecord", ".mdb"),
        ("a file of arrays", EXTRACT),
    ),
}
"""Suffixes of files that would be taken for something else by their content, or not at all."""
POINTER = b"version https://git-lfs.github.com/spec/"
"""How a Git LFS pointer begins."""
INSTEAD = (
    (re.escape(POINTER), "Git LFS pointer{s}, which git lfs pull replaces"),
    (rb"\s*<(?:!doctype html|html)", "web page{s}"),
)
"""First bytes of what may stand under the name of a picture, a sound or a film, and what it is."""
TO_UNPACK = "archive{s} to unpack first"
AMONG_OTHERS = {
    **{UNPACK: TO_UNPACK, CONVERT: "sound{s} to convert to WAV or FLAC first"},
    **{EXTRACT: "file{s} of arrays, not of pictures or sounds"},
}
"""What is said of files that lie among pictures, sounds or films, by what is to be done with them."""
PACKED = (".zip", ".gz", ".bz2", ".xz", ".zst")
"""Archives that are read in place where they are the whole source, or hold a text."""
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")


def is_zip(path: Path) -> bool:
    """By its name, or by its beginning and its end: what only ends as a zip may be a tar that holds one."""
    if not path.is_file():
        return False
    is_one = beginning(path).startswith(b"PK") and path.suffix.lower() not in BY_NAME and zipfile.is_zipfile(path)
    return is_one or path.suffix.lower() == ".zip"


def beginning(path: Path) -> bytes:
    """The bytes of a file by which its kind is told; none if it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(FIRST_BYTES)
    except OSError:
        return b""


def no_text(head: bytes) -> tuple[str, str] | None:
    """What a file is by its first bytes if it is no text, and what to do."""
    return next(((what, do) for begin, what, do in NO_TEXTS if re.match(begin, head, re.DOTALL)), None)


def refused(path: Path) -> BowerbirdError | None:
    """The error for a file that is neither read in place nor text, if it is one."""
    kind = BY_NAME.get(path.suffix.lower()) or no_text(beginning(path))
    return BowerbirdError(f"{path.name} is {kind[0]}, which is not read as it is; {kind[1]}.") if kind else None


def not_read(name: str, otherwise: str) -> str:
    """Why a file is not used that lies among pictures, sounds or films, as a reason of ``Unused``."""
    end = Path(name).suffix.lower()
    if end in PACKED:
        return TO_UNPACK
    if end in TABLES:
        return f"table{{s}} not called metadata{end}"
    return AMONG_OTHERS.get(BY_NAME.get(end, ("", ""))[1], otherwise)


def instead(head: bytes) -> str:
    """What a file is that cannot be decoded, by its first bytes, as a reason of ``Unused``; "" if they do not tell."""
    return next((what for begin, what in INSTEAD if re.match(begin, head, re.IGNORECASE)), "")


def require_content(head: bytes, name: str | Path) -> None:
    """BowerbirdError for what a clone without Git LFS has in place of a large file."""
    if head.startswith(POINTER):
        raise BowerbirdError(f"{name} is a Git LFS pointer, not the file itself; fetch the file with: git lfs pull")
