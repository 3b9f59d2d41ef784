"""Makes the pack of spoken digits that ships from the recordings of the Free Spoken Digit Dataset, a zip.

python tools/pack_speech.py free-spoken-digits.zip src/bowerbird/data/builtin/spoken-digits.npz.xz
"""

import io
import sys
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import soundfile

from bowerbird.data import packs
from bowerbird.media.speech.soundset import to_mu_law

TESTING, TRAINING = (0,), range(5, 8)
LONGEST = 6144
"""Samples."""


def main(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        found = {name.rpartition("/")[2]: archive.read(name) for name in archive.namelist() if name.endswith(".wav")}
    speakers = sorted({name.split("_")[1] for name in found})
    rows = [(d, who, i) for i, d, who in product((*TESTING, *TRAINING), range(10), speakers)]
    waves = [
        soundfile.read(io.BytesIO(found[f"{d}_{who}_{i}.wav"]), dtype="float32")[0][:LONGEST] for d, who, i in rows
    ]
    coded = [to_mu_law(wave / np.abs(wave).max()) for wave in waves]
    columns = {
        "coded": np.concatenate(coded),
        "offsets": np.cumsum([0, *map(len, coded)]),
        "rate_hz": np.array(8000),
        "split": np.array(["test" if i in TESTING else "train" for *_, i in rows]),
        "digit": np.array([str(d) for d, *_ in rows]),
        "speaker": np.array([who for _, who, _ in rows]),
        "index": np.array([str(i) for *_, i in rows]),
    }
    packs.write(target, columns)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
