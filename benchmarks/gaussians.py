"""Adversarial losses on a grid of 25 Gaussians at equal CPU time: which of them find all, and stay on them.

    python benchmarks/gaussians.py --seconds 20 --seeds 3

The data are points of a 5×5 grid in [-0.8, 0.8]² with deviation 0.02, as pictures of two pixels; G and D are multilayer
perceptrons.  Of 2,500 samples each: the modes that at least 20 samples lie near (within 4 deviations), the share that
lies near any (of high quality; of points spread evenly over the square 13 % would), and the Wasserstein-1 distance of
1,000 samples to as many points of the data, exact (an assignment).

The literature's grids are 8 to 20 units wide, this one 1.6, because G ends in tanh.  So the critic's first layer starts
``WIDER`` times as large, without which no loss found more than 7 modes in 8 seconds; a penalty of γ ‖∇D‖² counts as
one of γ WIDER² on a grid that is WIDER times as wide.
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
from bowerbird.metrics.averages import mean
from bowerbird.models.base import Batch
from bowerbird.spec import Spec, Tensors

DEVIATION, BATCH, WIDER = 0.02, 256, 8.0
CENTRES = torch.cartesian_prod(*[torch.linspace(-0.8, 0.8, 5)] * 2)
SHARED: dict[str, Any] = {"net": {"name": "mlp", "hidden": [128, 128]}, "n_latent": 2}
PLAYERS: dict[str, dict[str, Any]] = {
    "minimax": {"family": "gan", "loss": "minimax"},
    "non-saturating": {"family": "gan", "loss": "non-saturating"},
    "non-saturating, r1": {"family": "gan", "loss": "non-saturating", "r1_gamma": 0.002},
    "least-squares": {"family": "gan", "loss": "least-squares"},
    "hinge": {"family": "gan", "loss": "hinge"},
    "wasserstein, penalty": {"family": "gan", "loss": "wasserstein", "gradient_penalty": 0.1},
    "relativistic, r1 and r2": {"family": "gan", "loss": "relativistic", "r1_gamma": 0.002, "r2_gamma": 0.002},
    "evolution": {"family": "evolution", "diversity": 0.1},
    "evolution, quality alone": {"family": "evolution", "diversity": 0.0},
}


def points(n: int) -> Tensor:
    return (CENTRES[torch.randint(25, (n,))] + DEVIATION * torch.randn(n, 2)).view(n, 1, 1, 2)


def trained(table: dict[str, Any], seed: int, seconds: float) -> tuple[Any, int]:
    """The model after so many CPU seconds, and its steps."""
    torch.manual_seed(seed)
    model: Any = config.model_from(SHARED | table, "benchmark").build(Spec("image", Tensors((1, 1, 2))))
    with torch.no_grad():
        model.D.trunk[0].weight.mul_(WIDER)
        model.D.trunk[0].bias.mul_(WIDER)
    optimizers = {
        name: torch.optim.Adam(player.parameters(), lr=1e-3, betas=(0.0, 0.99), fused=True)
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


def table(runs: dict[str, list[dict[str, float]]]) -> str:
    """The mean of each loss and its standard error over the seeds."""
    names = list(next(iter(runs.values()))[0])
    rows = [f"| loss | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for loss, found in runs.items():
        cells = ["{:.3g} ± {:.2g}".format(*mean(np.array([one[name] for one in found]))) for name in names]
        rows.append(f"| {loss} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in PLAYERS}
    for seed in range(arguments.seeds):  # outside, so that what else the machine does falls on all alike
        for name, player in PLAYERS.items():
            model, steps = trained(player, seed, arguments.seconds)
            runs[name].append(judged(model) | {"steps": float(steps)})
            print(json.dumps({"loss": name, "seed": seed} | runs[name][-1]), flush=True)
    print(table(runs))


if __name__ == "__main__":
    main()
