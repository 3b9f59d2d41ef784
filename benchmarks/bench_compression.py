"""Bits per number of pictures that a run compresses without loss, beside PNG, WebP, gzip, bzip2, xz and zstd.

python benchmarks/bench_compression.py RUN DATA [N] [--binarize]      RUN: a VAE without labels, or of the family local
python benchmarks/bench_compression.py RUN DATA [N] --every=8         every eighth of the held-out pictures
python benchmarks/bench_compression.py RUN DATA --price=FIELD         compresses nothing: what the family local says of
                                                                      all of them, and of each class of a field

The others get what suits them best: PNG and WebP each picture by itself with the greatest effort, and the general
programs all pictures at once, black-and-white ones with eight pixels in a byte, colours by planes or by pixels,
whichever is shorter.  Then another process, with another number of threads, decompresses, and what it gives back is
compared bit by bit.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import bowerbird
from bowerbird import config
from bowerbird.editing import Request, action_from, edit
from bowerbird.media import open_data
from bowerbird.models.base import Batch
from bowerbird.samplers.bitsback import values_of

OTHER = """
import sys, hashlib, torch, bowerbird, resource
torch.set_num_threads(int(sys.argv[3]))
from bowerbird.editing.compress import from_bytes
from bowerbird.editing.decompress import decompressed
images = decompressed(from_bytes(open(sys.argv[2], "rb").read(), "x"), bowerbird.load(sys.argv[1], device="cpu"), "x")
used = resource.getrusage(resource.RUSAGE_SELF)
print(hashlib.sha256(images.tobytes()).hexdigest(), torch.get_num_threads(), round(used.ru_utime + used.ru_stime, 1))
"""


def pictures(source: str, n: int | None, every: int, binarize: str) -> np.ndarray:
    data: Any = open_data(config.Data(source, binarize=binarize))  # type: ignore[arg-type]
    return data.test.images[::every][:n].numpy()


def files(images: np.ndarray, kind: str, **how: object) -> int:
    """Bytes of every picture as a file of its own."""
    total = 0
    binary = values_of(images) == 2
    for image in images:
        picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        buffer = io.BytesIO()
        (picture.convert("1") if binary and kind == "PNG" else picture).save(buffer, kind, **how)
        total += buffer.tell()
    return total


def zstd(raw: bytes) -> bytes:
    return subprocess.run(["zstd", "--ultra", "-22", "-c"], input=raw, capture_output=True, check=True).stdout


def programs() -> dict[str, Callable[[bytes], bytes]]:
    """The general ones, zstd where it is installed."""
    found: dict[str, Callable[[bytes], bytes]] = {
        "gzip -9": partial(gzip.compress, compresslevel=9),
        "bzip2 -9": partial(bz2.compress, compresslevel=9),
        "xz -9e": partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME),
    }
    return found | ({"zstd --ultra -22": zstd} if shutil.which("zstd") else {})


def others(images: np.ndarray) -> dict[str, int]:
    together = images.transpose(0, 2, 3, 1)
    raw = [np.packbits(images > 127).tobytes()] if values_of(images) == 2 else [images.tobytes()]
    raw += [together.tobytes()] if images.shape[1] > 1 else []
    strip = together.reshape(-1, *together.shape[2:]).squeeze()
    whole, buffer = Image.fromarray(strip), io.BytesIO()
    (whole.convert("1") if values_of(images) == 2 else whole).save(buffer, "PNG", optimize=True)
    return {
        "PNG": files(images, "PNG", optimize=True),
        "PNG, all in one": buffer.tell(),
        "WebP, lossless": files(images, "WEBP", lossless=True, quality=100, method=6),
        **{name: min(len(program(one)) for one in raw) for name, program in programs().items()},
    }


def report(title: str, images: np.ndarray, sizes: Mapping[str, float]) -> None:
    print(f"{len(images):,} pictures {images.shape[1:]} of {values_of(images)} values; {title}")
    for name, size in sorted(sizes.items(), key=lambda item: item[1]):
        print(f"{name:20} {size:>10,.0f} bytes  {8 * size / images.size:.4f} bits per number", flush=True)


def price(run: str, source: str, field: str) -> None:
    """What the run says that all held-out pictures cost, and those of each class, beside the files of the others."""
    data: Any = open_data(config.Data(source, label=field))
    model: Any = bowerbird.load(run, device="cpu").eval()
    before = time.process_time()
    nats = -model.log_prob(Batch(data.test.images.float() / 127.5 - 1)).numpy()
    print(f"{time.process_time() - before:.1f} CPU s for the price; every kind as one file of the general programs")
    labels = data.test.given["label"].numpy()
    kinds = {"all": labels >= 0} | {name: labels == k for k, name in enumerate(data.classes)}
    for name, chosen in kinds.items():
        images = data.test.images.numpy()[chosen]
        report(name, images, {"price of this run": nats[chosen].sum() / (8 * math.log(2)), **others(images)})


def main(run: str, images: np.ndarray) -> None:
    model = bowerbird.load(run, device="cpu")
    before = time.process_time()
    made = edit(action_from("compress", {}), Request(model, {"source": list(images.transpose(0, 2, 3, 1))}))
    seconds = time.process_time() - before
    sizes = {"this run": len(made.content), **others(images)}  # type: ignore[attr-defined]
    report(f"{seconds:.1f} CPU s to compress", images, sizes)
    with tempfile.TemporaryDirectory() as folder:
        path = made.save(Path(folder) / "x.bb")
        for threads in ("1", "2"):
            done = subprocess.run(
                [sys.executable, "-c", OTHER, run, str(path), threads], capture_output=True, text=True, check=True
            )
            digest, used, cpu_s = done.stdout.split()
            same = digest == hashlib.sha256(images.tobytes()).hexdigest()
            print(
                f"decompressed with {used} threads: {'the same' if same else 'DIFFERENT'}, {cpu_s} CPU s with the start"
            )


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    flags = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[1:] if word.startswith("--"))
    if "price" in flags:
        price(words[0], words[1], flags["price"])
    else:
        n, binarize = int(words[2]) if len(words) > 2 else None, "static" if "binarize" in flags else "none"
        main(words[0], pictures(words[1], n, int(flags.get("every", 1)), binarize))
