"""The rate-distortion curve of a run that compresses with loss, beside JPEG and WebP, on pictures that it has not seen.

python benchmarks/bench_lossy.py RUN DATA [N] [PICTURE]      N: about so many, evenly chosen; PICTURE: a curve.png

Bits per pixel count whole files.  The run keeps all pictures in one file; so that the others do not pay for a header in
every small picture, they are measured twice: each picture by itself, and all in one sheet, 20 in a row.  JPEG with and
without subsampled colours, whichever is nearer at its size.  PSNR is of the mean squared error over all pictures, SSIM
the mean over pictures.
"""

import io
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

import bowerbird
from bowerbird import config
from bowerbird.editing import Request, action_from, edit
from bowerbird.eightbit import to_uint8
from bowerbird.media import open_data
from bowerbird.metrics.pixelwise import psnr, ssim

COLUMNS = 20
QUALITIES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
OTHERS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [
        {"quality": q, "subsampling": s, "optimize": True} for s in (0, 2) for q in (5, 10, 20, 35, 50, 70, 85, 92)
    ],
    "WebP": [{"quality": q, "method": 6} for q in (0, 5, 15, 30, 50, 70, 85, 95)],
}


class Point(NamedTuple):
    bits_per_pixel: float
    psnr: float
    ssim: float


def point(images: np.ndarray, kept: np.ndarray, n_bytes: int) -> Point:
    x, y = torch.from_numpy(images), torch.from_numpy(np.ascontiguousarray(kept))
    n_pixels = images.size / images.shape[1]
    return Point(8 * n_bytes / n_pixels, psnr(x, y)[0], float(ssim(x, y).mean()))


def kept_by(kind: str, pictures: list[np.ndarray], how: dict[str, Any]) -> tuple[list[np.ndarray], int]:
    """What comes back of pictures (h, w, 3), and the bytes that they took."""
    back, total = [], 0
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, kind, **how)
        total += buffer.tell()
        back.append(np.asarray(Image.open(buffer).convert("RGB")))
    return back, total


def sheet_of(images: np.ndarray) -> np.ndarray:
    """(n, c, h, w) → tiles of one picture, the last row filled with white."""
    n, c, h, w = images.shape
    rows = -(-n // COLUMNS)
    tiles = np.full((rows * COLUMNS, c, h, w), 255, np.uint8)
    tiles[:n] = images
    return tiles.reshape(rows, COLUMNS, c, h, w).transpose(0, 3, 1, 4, 2).reshape(rows * h, COLUMNS * w, c)


def tiles_of(sheet: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of ``sheet_of``."""
    n, c, h, w = shape
    return sheet.reshape(-1, h, COLUMNS, w, c).transpose(0, 2, 4, 1, 3).reshape(-1, c, h, w)[:n]


def of_others(images: np.ndarray) -> Iterator[tuple[str, Point]]:
    alone, sheet = list(images.transpose(0, 2, 3, 1)), sheet_of(images)
    for kind, settings in OTHERS.items():
        for how in settings:
            back, size = kept_by(kind, alone, how)
            yield kind, point(images, np.stack(back).transpose(0, 3, 1, 2), size)
            (together,), size = kept_by(kind, [sheet], how)
            yield f"{kind}, one sheet", point(images, tiles_of(together, images.shape), size)


def of_run(run: str, images: np.ndarray) -> Iterator[Point]:
    model = bowerbird.load(run, device="cpu")
    source = {"source": list(images.transpose(0, 2, 3, 1))}
    for quality in QUALITIES:
        before = time.process_time()
        made = edit(action_from("compress", {"quality": quality}), Request(model, source))
        print(f"quality {quality}: {time.process_time() - before:.1f} CPU s", flush=True)
        yield point(images, to_uint8(made.x).numpy(), len(made.content))  # type: ignore[attr-defined]


def best(points: list[Point]) -> list[Point]:
    """Those that no smaller file is nearer than, by size."""
    ordered, found = sorted(points), list[Point]()
    for one in ordered:
        if not found or one.psnr > found[-1].psnr:
            found.append(one)
    return found


def draw(curves: dict[str, list[Point]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8))
    looks = {"JPEG": ("tab:orange", "--"), "WebP": ("tab:blue", "--")}
    for name, points in curves.items():
        colour, style = looks.get(name.split(",")[0], ("black", "-"))
        style = "-" if "sheet" in name else style
        for axis, values in zip(axes, ([one.psnr for one in points], [one.ssim for one in points]), strict=True):
            axis.plot([one.bits_per_pixel for one in points], values, style, color=colour, marker=".", label=name)
    for axis, label in zip(axes, ("PSNR in dB", "SSIM"), strict=True):
        axis.set(xlabel="bits per pixel", ylabel=label, xlim=(0, 6))
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(run: str, source: str, n: int | None, path: str | None) -> None:
    images = open_data(config.Data(source)).test.images.numpy()  # type: ignore[union-attr]
    images = images[:: max(1, len(images) // (n or len(images)))]
    curves: dict[str, list[Point]] = {"this run": list(of_run(run, images))}
    for name, one in of_others(images):
        curves.setdefault(name, []).append(one)
    curves = {name: points if name == "this run" else best(points) for name, points in curves.items()}
    for name, points in curves.items():
        for one in points:
            print(f"{name:18} {one.bits_per_pixel:7.3f} bits per pixel {one.psnr:7.2f} dB  SSIM {one.ssim:.4f}")
    if path:
        draw(curves, path)


if __name__ == "__main__":
    words = sys.argv[1:]
    main(words[0], words[1], next((int(w) for w in words[2:] if w.isdigit()), None),
         next((w for w in words[2:] if w.endswith(".png")), None))  # fmt: skip
