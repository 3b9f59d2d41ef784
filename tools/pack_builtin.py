"""Makes the data that ships inside the package from the original files.

    python tools/pack_builtin.py digits MNIST_FOLDER OUT.npz.xz
    python tools/pack_builtin.py pixel-faces FACES.zip OUT.npz.xz
    python tools/pack_builtin.py emoji WHOLE.npz.xz OUT.npz.xz

where WHOLE is what `bowerbird data get emoji` built.  `bowerbird.data.packs` says what a pack is.
"""

import argparse
import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from bowerbird.data import packs

EVERY = 5
"""Every fifth digit is kept, from both splits: the second half of MNIST's test digits is harder than the first,
so a prefix would make a test easier than the real one."""

FACE_COLUMNS = (
    "hair", "hairColor", "eyes", "eyesColor", "mouth", "mouthColor",
    "clothing", "clothingColor", "glasses", "skinColor", "primaryBackgroundColor",
)  # fmt: skip
"""The attributes that can be seen in the picture and have few values."""


LOSSY = {"3d": 65, "noto": 58}
"""The styles with gradients, which would take 9 MB without loss, and the quality of AVIF at which they are stored."""

Pack = tuple[dict[str, np.ndarray], list[tuple[bytes, int, int, int]]]
"""Columns (with the images, if they are not in sheets) and sheets."""


def digits(folder: Path) -> Pack:
    images, labels, split = [], [], []
    for name, prefix in (("train", "train"), ("test", "t10k")):
        pixels = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())[16:]
        images.append(np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28, 1)[::EVERY])
        numbers = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())[8:]
        labels.append(np.frombuffer(numbers, np.uint8)[::EVERY].astype(str))
        split.append(np.full(len(images[-1]), name))
    arrays = {"images": np.concatenate(images), "split": np.concatenate(split), "label": np.concatenate(labels)}
    return arrays, []


def pixel_faces(path: Path) -> Pack:
    with zipfile.ZipFile(path) as archive:
        rows = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
        pictures = [Image.open(io.BytesIO(archive.read(row["file_name"]))).convert("RGBA") for row in rows]
    images = np.stack([np.asarray(picture) for picture in pictures])
    if images[..., 3].min() < 255:
        raise SystemExit("Some faces are transparent; dropping their alpha would lose something.")
    columns = {name: np.array([row.get(name, "none") for row in rows]) for name in FACE_COLUMNS}
    return {"images": images[..., :3], "split": np.full(len(rows), ""), **columns}, []


def emoji(path: Path) -> Pack:
    """The emoji that all styles have, those with gradients with a loss that the eye does not see."""
    whole = packs.read(path)
    styles, code = list(dict.fromkeys(whole["style"])), whole["code"]
    drawn = [set(code[whole["style"] == style]) for style in styles]
    kept = np.isin(code, list(set.intersection(*drawn)))
    arrays = {key: values[kept] for key, values in whole.items()}
    images, sheets = arrays.pop("images"), []
    for style in styles:
        original = images[arrays["style"] == style]
        sheets.append(packs.lossy(original, LOSSY[style]) if style in LOSSY else packs.lossless(original, effort=6))
        print(f"{style}: {len(sheets[-1][0]):,} bytes, {psnr(original, packs.pictures(*sheets[-1])):.1f} dB")
    return arrays, sheets


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    """10 log10(255² / mean squared error), in dB."""
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(255**2 / np.square(x.astype(float) - y).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["digits", "pixel-faces", "emoji"])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    make = {"digits": digits, "pixel-faces": pixel_faces, "emoji": emoji}[arguments.what]
    columns, sheets = make(arguments.source)
    packs.write(arguments.out, columns, sheets)
    print(f"{arguments.out.name}: {len(columns['split']):,} images, {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
