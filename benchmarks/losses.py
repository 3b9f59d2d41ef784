"""Every adversarial loss, and generators that compete, on digits at equal CPU time: python benchmarks/losses.py OUT.

    python benchmarks/losses.py losses --budget 40s --seeds 3

Writes a recipe for each into OUT and compares them (``bowerbird.compare``).  All have the networks, the batch size and
the learning rate of the recipe gan; each loss has what its paper, or its recipe, gives it to be stable.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import bowerbird
from bowerbird import config
from bowerbird.data.writing import write_text

CONTENDERS: dict[str, dict[str, Any]] = {
    "minimax": {"loss": "minimax"},
    "non-saturating": {},
    "non-saturating-r1": {"r1_gamma": 1.0, "penalty_every": 8},
    "least-squares": {"loss": "least-squares"},
    "hinge-spectral": {"loss": "hinge", "spectral_norm": True},
    "wasserstein-gp": {"loss": "wasserstein", "gradient_penalty": 10.0, "d_steps": 5},
    "relativistic-r1-r2": {"loss": "relativistic", "r1_gamma": 1.0, "r2_gamma": 1.0, "penalty_every": 4},
    "evolution": {"family": "evolution", "diversity": 0.1},
}
METRICS = ("frechet_distance", "precision", "coverage", "class_accuracy")


def write_recipes(folder: Path, precision: str) -> list[str]:
    """A file for each contender."""
    run = config.load("gan")
    shared = {"net": config.to_table(run)["model"]["net"], "n_latent": 64}
    files = []
    for name, table in CONTENDERS.items():
        model = config.model_from({"family": "gan"} | shared | table, name)
        train = replace(run.train, precision=precision, sample_every=0)
        files.append(str(folder / f"{name}.toml"))
        write_text(Path(files[-1]), config.dumps(replace(run, model=model, train=train, title=name, expect=())))
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--budget", default="40s")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", default="bf16")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    bowerbird.compare(
        write_recipes(arguments.out, arguments.precision), data="digits", budget=arguments.budget,
        seeds=arguments.seeds, out=arguments.out, metrics=METRICS, n_samples=2000,
    )  # fmt: skip


if __name__ == "__main__":
    main()
