"""Folders of pictures: the first opening, a later one, an epoch, and the memory that they take.

    python benchmarks/bench_packing.py              PNG and JPEG files, against Pillow and a DataLoader
    python benchmarks/bench_packing.py --memory     200,000 pictures of 64×64 and 20,000 of 256×256

Everything lies in a temporary folder, the cache too, and is deleted afterwards.  CPU seconds.
"""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from bowerbird import config
from bowerbird.data import order
from bowerbird.media import open_data

BATCH = 128


class Pictures(Dataset):
    """What a tutorial writes: a file is opened and decoded whenever it is asked for."""

    def __init__(self, folder: Path, size: int | None):
        self.files, self.size = sorted(folder.glob("*")), size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> torch.Tensor:
        image: Image.Image = Image.open(self.files[i])
        if self.size is not None:
            image = image.resize((self.size, self.size), Image.Resampling.LANCZOS)
        pixels = np.asarray(image, dtype=np.float32) / 127.5 - 1
        return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)


def write(folder: Path, n: int, side: int, kind: str) -> Path:
    """n files of a few hundred different pictures, smooth enough to compress as photographs and drawings do."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(min(n, 256)):
        small = rng.integers(0, 256, (8, 8) if kind == "png" else (8, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(buffer, kind)
        contents.append(buffer.getvalue())
    for i in range(n):
        (folder / f"{i:06d}.{kind}").write_bytes(contents[i % len(contents)])
    return folder


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def epoch(train: Any) -> None:
    for start in range(0, len(train), BATCH):
        train.batch(order.indices(len(train), 0, start, BATCH))


def times(place: Path) -> None:
    for n, side, kind in ((20_000, 28, "png"), (1_000, 512, "jpeg")):
        folder = write(place / kind, n, side, kind)
        wanted = None if side <= 64 else 64
        source = config.Data(str(folder), size=wanted)
        rows: dict[str, list[float]] = {"first opening": [], "Pillow, DataLoader": [], "opening again": [], "epoch": []}
        for number in range(3):
            os.environ["BOWERBIRD_CACHE"] = str(place / f"cache-{number}")
            rows["first opening"].append(seconds(partial(open_data, source)))
            rows["Pillow, DataLoader"].append(seconds(partial(list, DataLoader(Pictures(folder, wanted), BATCH))))
            rows["opening again"].append(seconds(partial(open_data, source)))
            rows["epoch"].append(seconds(partial(epoch, open_data(source).train)))
        print(f"{n:,} {kind} files of {side}×{side} at {wanted or side} pixels, CPU seconds of three runs")
        for name, values in rows.items():
            print(f"  {name:20}" + "  ".join(f"{value:7.3f}" for value in values))
        for name in ("first opening", "opening again", "epoch"):
            ratio = statistics.median(b / a for a, b in zip(rows[name], rows["Pillow, DataLoader"], strict=True))
            print(f"  {name}: {ratio:.2f} times as fast as an epoch of Pillow and a DataLoader")


def memory(place: Path) -> None:
    for n, side in ((200_000, 64), (20_000, 256)):
        folder = write(place / f"{side}", n, side, "jpeg")
        print(f"{n:,} JPEG files of {side}×{side} ({n * side * side * 3 / 1e9:.2f} GB decoded)", flush=True)
        for what in ("first", "later"):
            environment = os.environ | {"BOWERBIRD_CACHE": str(place / "cache")}
            subprocess.run([sys.executable, __file__, "--open", str(folder), str(side), what], env=environment)


def opened(folder: str, side: int, what: str) -> None:
    """In a process of its own: peak of memory above what importing took."""
    open_data(config.Data("digits"))
    anonymous, peak = resident("RssAnon"), [0, 0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], resident("RssAnon") - anonymous)
            peak[1] = max(peak[1], resident("VmRSS"))

    threading.Thread(target=watch, daemon=True).start()
    start = time.perf_counter()
    cpu = seconds(lambda: data.append(open_data(config.Data(folder, size=side))))
    wall = time.perf_counter() - start
    said = f"  {what} opening: {cpu:6.1f} CPU s, {wall:6.1f} s; at most {peak[0] / 1e6:.0f} MB more of its own memory"
    print(f"{said} ({peak[1] / 1e6:.0f} MB resident in all)", flush=True)
    train = data[0].train
    cpu = seconds(lambda: fifty_batches(train))
    done.set()
    print(f"  a batch of {BATCH}: {cpu / 50 * 1e3:.1f} ms; own memory then {peak[0] / 1e6:.0f} MB at most", flush=True)


def fifty_batches(train: Any) -> None:
    for i in range(50):
        train.batch(order.indices(len(train), 0, i * BATCH, BATCH))


data: list = []


def resident(what: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[what].split()[0]) * 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--open" in sys.argv:
        opened(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        with tempfile.TemporaryDirectory(prefix="bench-packing-") as name:
            (memory if "--memory" in sys.argv else times)(Path(name))
