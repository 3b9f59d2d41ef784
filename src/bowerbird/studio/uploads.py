"""Pictures that visitors bring: limited in size, decoded in a confined child process, kept as small PNG files.

A decoder is where a hostile file bites, so none runs in the studio's own process: the child has no files, no network,
little memory and little time, and all that comes back are the pixels of a PNG that it wrote anew.
"""

import asyncio
import secrets
import sys
from collections import OrderedDict
from pathlib import Path

from bowerbird.errors import BowerbirdError
from bowerbird.studio.language import Gone

LARGEST_PICTURE = 20_000_000
"""Bytes of an uploaded picture …"""
SECONDS = 20.0
"""… and the time that decoding it may take."""
MOST_KEPT = 200
NOT_READ = "This file could not be read as a picture"


class Pictures:
    """Uploaded pictures, by token."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._kept: OrderedDict[str, Path] = OrderedDict()

    async def keep(self, content: bytes) -> str:
        """Decodes and keeps a picture and returns its token; BowerbirdError with the reason where it cannot."""
        png = await decoded(content)
        token = secrets.token_urlsafe(9)
        self.folder.mkdir(exist_ok=True)
        path = self._kept[token] = self.folder / f"{token}.png"
        path.write_bytes(png)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)[1].unlink(missing_ok=True)
        return token

    def path(self, token: str) -> Path:
        if token not in self._kept:
            raise Gone("gone.kept_picture")
        return self._kept[token]


async def decoded(content: bytes) -> bytes:
    """The picture as a PNG of at most ``decoder.SIDE`` pixels a side."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "bowerbird.studio.decoder",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        png, said = await asyncio.wait_for(child.communicate(content), SECONDS)
    except TimeoutError:
        child.kill()
        await child.wait()
        raise BowerbirdError(f"{NOT_READ}: decoding took more than {SECONDS:.0f} s.") from None
    if child.returncode != 0 or not png.startswith(b"\x89PNG"):
        lines = said.decode(errors="replace").strip().splitlines()
        raise BowerbirdError(f"{NOT_READ}: {lines[-1][:200] if lines else 'its decoder was stopped'}")
    return png
