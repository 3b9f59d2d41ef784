"""Adversarial losses on a grid of 25 Gaussians at equal CPU time: which of them find all, and stay on them.

    python benchmarks/gaussians.py --seconds 12 --seeds 3

The data are points of a 5×5 grid in [-0.8, 0.8]² with deviation 0.02, as pictures of two pixels; G and D are multilayer
perceptrons.  Of 2,500 samples each: the modes that at least 20 samples lie near (within 4 deviations), the share that
lies near any, and the Wasserstein-1 distance of 1,000 samples to as many points of the data, exact (an assignment).
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from bowerbird import config
from bowerbird.draws import Draws
from bowerbird.models.base import Batch
from bowerbird.spec import Spec, Tensors

DEVIATION, BATCH = 0.02, 256
CENTRES = torch.cartesian_prod(*[torch.linspace(-0.8, 0.8, 5)] * 2)
SHARED: dict[str, Any] = {"net": {"name": "mlp", "hidden": [128, 128]}, "n_latent": 16}
PLAYERS: dict[str, dict[str, Any]] = {
    "minimax": {"family": "gan", "loss": "minimax"},
    "non-saturating": {"family": "gan", "loss": "non-saturating"},
    "least-squares": {"family": "gan", "loss": "least-squares"},
    "hinge": {"family": "gan", "loss": "hinge"},
    "wasserstein, penalty": {"family": "gan", "loss": "wasserstein", "gradient_penalty": 0.1},
    "relativistic, r1 and r2": {"family": "gan", "loss": "relativistic", "r1_gamma": 0.1, "r2_gamma": 0.1},
    "evolution": {"family": "evolution", "diversity": 0.1},
    "evolution, quality alone": {"family": "evolution", "diversity": 0.0},
}


def points(n: int) -> Tensor:
    return (CENTRES[torch.randint(25, (n,))] + DEVIATION * torch.randn(n, 2)).view(n, 1, 1, 2)


def trained(table: dict[str, Any], seed: int, seconds: float) -> tuple[Any, int]:
    """The model after so many CPU seconds, and its steps."""
    torch.manual_seed(seed)
    model = config.model_from(SHARED | table, "benchmark").build(Spec("image", Tensors((1, 1, 2))))
    optimizers = {
        name: torch.optim.Adam(player.parameters(), lr=1e-3, betas=(0.0, 0.99))
        for name, player in model.players.items()
    }
    step, end = 0, time.process_time() + seconds
    while time.process_time() < end:
        for loss in model.losses(Batch(points(BATCH), step=step)):
            optimizers[loss.player].zero_grad()
            torch.autograd.backward(loss.value, inputs=list(model.players[loss.player].parameters()))
            optimizers[loss.player].step()
        step += 1
    return model.eval(), step


def judged(model: Any) -> dict[str, float]:
    x = model.sample(2500, generator=Draws(0)).flatten(1)
    distance, mode = torch.cdist(x, CENTRES).min(1)
    near = distance < 4 * DEVIATION
    counts = torch.bincount(mode[near], minlength=25)
    torch.manual_seed(0)
    costs = torch.cdist(x[:1000], points(1000).flatten(1)).numpy()
    rows, columns = linear_sum_assignment(costs)
    return {
        "modes": float((counts >= 20).sum()),
        "share_near": float(near.float().mean()),
        "wasserstein_1": float(costs[rows, columns].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, table in PLAYERS.items():
        runs = []
        for seed in range(arguments.seeds):
            model, steps = trained(table, seed, arguments.seconds)
            runs.append(judged(model) | {"steps": float(steps)})
        means = {key: [round(float(f([run[key] for run in runs])), 4) for f in (np.mean, np.std)] for key in runs[0]}
        print(json.dumps({"loss": name} | means), flush=True)


if __name__ == "__main__":
    main()
