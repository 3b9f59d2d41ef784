"""Packs: arrays of pictures and of what is known about them in one file, an npz inside xz without a pickle.

The pictures are an array, or sheets: picture files in which many pictures of one size lie as tiles, row by row, 40 in a
row.  A sheet without loss is WebP.  A sheet with loss is a grey AVIF that holds the planes Y, Cb and Cr, each in full
resolution, one below the other.  Decoding AV1 is exact by its specification, and Pillow's conversion of the planes to
RGB is integer arithmetic; of a colour AVIF, in contrast, the last bits depend on how Pillow was built, and with them
the fingerprint of the data.

Imports neither torch nor numpy until a pack is read or written.
"""

import io
import lzma
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bowerbird.errors import BowerbirdError

if TYPE_CHECKING:
    import numpy as np

COLUMNS = 40
"""Tiles in a row of a sheet."""
WHITE = 251
"""In sheets with loss, pixels of at least this in every channel are white: most were, since drawings lie on white."""
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26, "pb": 0, "lc": 4}]
"""A fifth smaller than deflate on small drawings."""


def read(path: Path) -> dict[str, Any]:
    """``images`` uint8 (n, h, w, c), ``split``, and columns as strings (n,); an error if the file is damaged."""
    import numpy as np

    try:
        with np.load(io.BytesIO(lzma.decompress(path.read_bytes())), allow_pickle=False) as pack:
            arrays = {key: pack[key] for key in pack.files}
        if "sheets" in arrays:
            sizes = arrays.pop("sheets").tolist()
            sheets = [pictures(arrays.pop(f"sheet {i}").tobytes(), *size) for i, size in enumerate(sizes)]
            arrays["images"] = np.concatenate(sheets)
    except (lzma.LZMAError, zipfile.BadZipFile, EOFError, KeyError, ValueError, OSError) as error:
        raise BowerbirdError(
            f"The data in {path} cannot be read ({error}); delete the file and get it again."
        ) from error
    return arrays


def write(path: Path, columns: dict[str, Any], sheets: list[tuple[bytes, int, int, int]] | None = None) -> None:
    """``sheets``: files of pictures, each with how many it holds and their height and width.

    Without them the pictures are the column ``images``.  The same arrays give the same bytes.
    """
    import numpy as np

    arrays = dict(columns)
    if sheets:
        arrays["sheets"] = np.array([size for _, *size in sheets])
        arrays |= {f"sheet {i}": np.frombuffer(content, np.uint8) for i, (content, *_) in enumerate(sheets)}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    path.write_bytes(lzma.compress(buffer.getvalue(), format=lzma.FORMAT_XZ, filters=FILTERS))


# ------------------------------------------------------------------------------------------------------ sheets


def lossless(images: "np.ndarray", effort: int = 4) -> tuple[bytes, int, int, int]:
    """A sheet of RGB pictures (n, h, w, 3) that keeps every bit; ``effort`` 0 to 6 trades time for size."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(_grid(images)).save(buffer, "WEBP", lossless=True, quality=100, method=effort)
    return buffer.getvalue(), *images.shape[:3]


def lossy(images: "np.ndarray", quality: int) -> tuple[bytes, int, int, int]:
    """A sheet of RGB pictures (n, h, w, 3) at a quality of AVIF, 0 to 100."""
    import numpy as np
    from PIL import Image

    planes = np.vstack([np.asarray(plane) for plane in Image.fromarray(_grid(images)).convert("YCbCr").split()])
    buffer = io.BytesIO()
    fixed = {"subsampling": "4:0:0", "speed": 4, "max_threads": 1, "advanced": {"tune": "psnr"}}
    Image.fromarray(planes).save(buffer, "AVIF", quality=quality, **fixed)
    return buffer.getvalue(), *images.shape[:3]


def pictures(sheet: bytes, n: int, height: int, width: int) -> "np.ndarray":
    """The first ``n`` tiles of a sheet, uint8 (n, height, width, 3)."""
    import numpy as np
    from PIL import Image, features

    if sheet[4:12] == b"ftypavif":
        if not features.check("avif"):
            raise BowerbirdError("This installation of Pillow cannot read AVIF; run: pip install -U 'pillow>=11.3'")
        y, cb, cr = np.vsplit(np.asarray(Image.open(io.BytesIO(sheet)).convert("L")), 3)
        image = Image.merge("YCbCr", [Image.fromarray(np.ascontiguousarray(plane)) for plane in (y, cb, cr)])
        pixels = np.array(image.convert("RGB"))
        pixels[(pixels >= WHITE).all(-1)] = 255
    else:
        pixels = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"))
    return pixels.reshape(-1, height, COLUMNS, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)[:n]


def _grid(images: "np.ndarray") -> "np.ndarray":
    """(n, h, w, c) → (⌈n/40⌉·h, 40·w, c), white where no picture is left."""
    import numpy as np

    n, height, width, channels = images.shape
    tiles = np.full((-(-n // COLUMNS) * COLUMNS, height, width, channels), 255, np.uint8)
    tiles[:n] = images
    return tiles.reshape(-1, COLUMNS, height, width, channels).swapaxes(1, 2).reshape(-1, COLUMNS * width, channels)
