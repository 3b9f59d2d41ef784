"""The folder of the cache in which packs of decoded pictures lie: where it is, how large, and what is deleted when.

Imports no torch.
"""

import shutil
from pathlib import Path

from bowerbird.data.fetch import cache_folder

LARGEST_CACHE = 1 << 36
"""Bytes (69 GB) of all packs together; beyond, those not used for longest are deleted."""


def packs_folder() -> Path:
    return cache_folder() / "pictures"


def usage() -> tuple[int, int]:
    """How many packs there are, and their bytes."""
    sizes = _sizes(packs_folder())
    return len(sizes), sum(sizes.values())


def make_room(keep: Path) -> None:
    """Deletes the packs that were not used for longest, until all fit ``LARGEST_CACHE``; never ``keep``."""
    sizes = _sizes(packs_folder())
    oldest = sorted(sizes, key=lambda folder: folder.stat().st_mtime)
    while sum(sizes.values()) > LARGEST_CACHE and (others := [folder for folder in oldest if folder != keep]):
        shutil.rmtree(others[0], ignore_errors=True)
        oldest.remove(others[0])
        del sizes[others[0]]


def _sizes(place: Path) -> dict[Path, int]:
    """Bytes of each pack; none where there is no such folder, or another process is deleting from it."""
    try:
        folders = [folder for folder in place.iterdir() if folder.is_dir()]
        return {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders}
    except OSError:
        return {}
