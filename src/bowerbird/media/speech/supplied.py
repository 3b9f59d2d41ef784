"""Sounds that a user supplies for a model to start from: files, a folder or a zip, as spectrograms."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.data import files
from bowerbird.data.kinds import is_zip
from bowerbird.data.names import naturally, suffix, visible
from bowerbird.errors import BowerbirdError
from bowerbird.media.speech.recordings import Reading
from bowerbird.media.speech.soundset import SUFFIXES, levelled
from bowerbird.media.speech.spectrogram import Mel


def supplied(sources: list[Any], mel: Mel) -> tuple[Float[Tensor, "n 1 mel frames"], list[str]]:
    """Spectrograms, and the names of the files without suffix (none for arrays).

    Each source is an array (samples,) at the spectrogram's rate, a file, a folder or a zip.  A warning says what lost
    its end; BowerbirdError for what cannot be read.
    """
    found: dict[str, np.ndarray] = {}
    for i, one in enumerate(sources):
        found |= {f"array {i}": one} if isinstance(one, np.ndarray) else _read(Path(one).expanduser(), mel.rate_hz)
    if longer := [name for name, waveform in found.items() if len(waveform) > mel.samples]:
        warnings.warn(f"{len(longer)} of {len(found)} sounds lose what comes after {mel.seconds:.2f} s.", stacklevel=4)
    waveforms = torch.from_numpy(np.stack([levelled(waveform, mel) for waveform in found.values()]))
    names = [] if any(isinstance(one, np.ndarray) for one in sources) else [str(Path(n).with_suffix("")) for n in found]
    return mel.encoded(waveforms)[:, None], names


def _read(path: Path, rate_hz: int) -> dict[str, np.ndarray]:
    if not path.exists():
        raise BowerbirdError(f"The source {path} does not exist; give a sound or a folder of sounds.")
    single = path.is_file() and not is_zip(path)
    reading = Reading(files.Folder(path.parent) if single else files.open_files(path))
    names = [path.name] if single else [n for n in visible(reading.source.names()) if suffix(n) in SUFFIXES]
    if not names:
        raise BowerbirdError(f"{path} holds no sounds ({', '.join(SUFFIXES)}).")
    headers = reading.headers(naturally(names))
    found = {name: reading.waveform(name, about, rate_hz) for name, about in headers.items()}
    if reading.heard.unused:
        raise BowerbirdError(f"Not all sounds of {path} can be read: {reading.heard.unused}.")
    return {name: waveform for name, waveform in found.items() if waveform is not None}
