"""The child that decodes one picture: from standard input to a small PNG on standard output, confined in between.

python -m bowerbird.studio.decoder < photo.jpg > small.png
"""

import contextlib
import io
import os
import sys
from pathlib import Path

from PIL import Image, ImageOps

from bowerbird.reading.running.kernel import confine, packages

SIDE = 512
"""Most pixels a side that are kept."""
LARGEST_PIXELS = 50_000_000
"""Pictures with more are refused before they are unpacked."""
MEMORY = 2_000_000_000
CPU_S = 15


def limit() -> None:
    """Memory, time and files of this process, where the system can limit them."""
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def png_of(content: bytes) -> bytes:
    """The picture upright, on white, at most ``SIDE`` pixels a side, without anything else that the file held."""
    Image.MAX_IMAGE_PIXELS = LARGEST_PIXELS
    opened = Image.open(io.BytesIO(content))
    if opened.width * opened.height > LARGEST_PIXELS:
        raise ValueError("it has too many pixels, perhaps a decompression bomb")
    opened.draft("RGB", (SIDE, SIDE))
    picture = ImageOps.exif_transpose(opened).convert("RGBA")
    picture.thumbnail((SIDE, SIDE))
    flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    buffer = io.BytesIO()
    flat.save(buffer, "PNG")
    return buffer.getvalue()


def main() -> int:
    content = sys.stdin.buffer.read()
    Image.init()  # every decoder is loaded before files are out of reach
    limit()
    confine(Path(os.devnull), packages())  # there is no folder to write to
    try:
        png = png_of(content)
    except Exception as error:
        print(str(error) or type(error).__name__, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
