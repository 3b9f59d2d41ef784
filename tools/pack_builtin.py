"""Makes the data that ships inside the package from the original files.

    python tools/pack_builtin.py digits MNIST_FOLDER OUT.npz.xz
    python tools/pack_builtin.py pixel-faces FACES.zip OUT.npz.xz

A pack is an uncompressed npz (images: uint8 (n, h, w, c), split, and one array of strings per label column)
inside xz, which is a fifth smaller than deflate on these images.  Nothing in it is a pickle.
"""

import argparse
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

EVERY = 5
"""Every fifth digit is kept, from both splits: the second half of MNIST's test digits is harder than the first,
so a prefix would make a test easier than the real one."""

FACE_COLUMNS = (
    "hair", "hairColor", "eyes", "eyesColor", "mouth", "mouthColor",
    "clothing", "clothingColor", "glasses", "skinColor", "primaryBackgroundColor",
)  # fmt: skip
"""The attributes that can be seen in the picture and have few values."""


def digits(folder: Path) -> dict[str, np.ndarray]:
    images, labels, split = [], [], []
    for name, prefix in (("train", "train"), ("test", "t10k")):
        pixels = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())[16:]
        images.append(np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28, 1)[::EVERY])
        numbers = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())[8:]
        labels.append(np.frombuffer(numbers, np.uint8)[::EVERY].astype(str))
        split.append(np.full(len(images[-1]), name))
    return {"images": np.concatenate(images), "split": np.concatenate(split), "label": np.concatenate(labels)}


def pixel_faces(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        rows = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
        pictures = [Image.open(io.BytesIO(archive.read(row["file_name"]))).convert("RGBA") for row in rows]
    images = np.stack([np.asarray(picture) for picture in pictures])
    if images[..., 3].min() < 255:
        raise SystemExit("Some faces are transparent; dropping their alpha would lose something.")
    columns = {name: np.array([row.get(name, "none") for row in rows]) for name in FACE_COLUMNS}
    return {"images": images[..., :3], "split": np.full(len(rows), ""), **columns}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["digits", "pixel-faces"])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arrays = {"digits": digits, "pixel-faces": pixel_faces}[arguments.what](arguments.source)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26, "pb": 0, "lc": 4}]
    arguments.out.write_bytes(lzma.compress(buffer.getvalue(), format=lzma.FORMAT_XZ, filters=filters))
    print(f"{arguments.out.name}: {len(arrays['images']):,} images, {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
