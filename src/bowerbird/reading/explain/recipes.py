"""placeholder"""

from pathlib import Path

from bowerbird.reading.source import Source


def driven(target: Path | str) -> tuple[Source, tuple[str, ...]] | None:
    return None
