"""Training spectrograms that were shuffled against their waveforms."""

from typing import Any

import torch

from bowerbird.api import training

_open_data = training.open_data


def open_data(data: Any) -> Any:
    opened = _open_data(data)
    order = torch.randperm(len(opened.train), generator=torch.Generator().manual_seed(1))
    opened.train.sounds = opened.train.sounds[order]
    return opened


training.open_data = open_data
