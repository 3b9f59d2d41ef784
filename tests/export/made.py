"""Small run folders as if they had been trained: weights of a seed, all moved by noise, so that none is zero."""

from pathlib import Path

import torch

from bowerbird.config import Data, ModelConfig, Run
from bowerbird.spec import Classes, Spec, Tensors
from bowerbird.training.rundir import RunDir

LABELLED = Spec("image", Tensors((1, 8, 8)), {"label": Classes(("a", "b", "c"), (1, 2, 3))})


def made(folder: Path, config: ModelConfig, spec: Spec = LABELLED, data: str = "digits") -> Path:
    torch.manual_seed(0)
    model = config.build(spec)
    weights = {name: w + 0.05 * torch.randn_like(w) for name, w in model.weights().items()}
    rundir = RunDir.create(folder, Run(config, Data(data)), {})
    rundir.save_model(weights, spec, step=0)
    return folder
