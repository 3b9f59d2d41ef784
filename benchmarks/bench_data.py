"""An epoch of a folder of small PNG files after the first pass, against Pillow and a DataLoader."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from paired import compare
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from bowerbird import config
from bowerbird.data import order
from bowerbird.media import open_data

N, BATCH = 4096, 128


class PngFolder(Dataset):
    """What a tutorial writes: a file is opened and decoded whenever it is asked for."""

    def __init__(self, folder: Path):
        self.files = sorted(folder.glob("*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.from_numpy(np.asarray(Image.open(self.files[i]), dtype=np.float32)[None] / 127.5 - 1)


def main() -> None:
    torch.set_num_threads(1)
    digits = open_data(config.Data("digits")).train.images[:N]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, image in enumerate(digits):
            Image.fromarray(image[0].numpy()).save(folder / f"{i:05d}.png")
        train = open_data(config.Data(str(folder))).train
        loader = DataLoader(PngFolder(folder), BATCH, shuffle=True)

        def epoch() -> None:
            for start in range(0, N, BATCH):
                train.batch(order.indices(len(train), 0, start, BATCH))

        compare(f"{N} images of 28×28 in batches of {BATCH}", epoch, lambda: list(loader), "Pillow and a DataLoader")


if __name__ == "__main__":
    main()
