"""Pictures that visitors bring: limited in size, decoded in the server's confined child, kept as small PNG files."""

import asyncio
import secrets
from collections import OrderedDict
from pathlib import Path

from PIL import Image

from bowerbird.serve.uploaded import decoded
from bowerbird.studio.language import Gone

LARGEST_PICTURE = 20_000_000
"""Bytes of an uploaded picture …"""
LARGEST_PIXELS = 50_000_000
"""… its pixels …"""
SIDE = 512
"""… and most pixels a side that are kept."""
MOST_KEPT = 200


class Pictures:
    """Uploaded pictures, by token."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._kept: OrderedDict[str, Path] = OrderedDict()

    async def keep(self, content: bytes) -> str:
        """Decodes and keeps a picture and returns its token; NoPicture where it cannot."""
        pixels = await asyncio.to_thread(decoded, content, LARGEST_PIXELS, SIDE, SIDE, cropped=False)
        token = secrets.token_urlsafe(9)
        self.folder.mkdir(exist_ok=True)
        path = self._kept[token] = self.folder / f"{token}.png"
        Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).save(path)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)[1].unlink(missing_ok=True)
        return token

    def path(self, token: str) -> Path:
        if token not in self._kept:
            raise Gone("gone.kept_picture")
        return self._kept[token]
