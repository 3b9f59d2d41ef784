"""Precision, recall, density and coverage against the package prdc of their authors, at equal values.

Both with k = 5 throughout, because the package has one k for all four.  Values are compared with what the package says
of float64 features: of float32 it rounds distances to float32, and a point on the edge of a ball can change sides.  It
is timed with float32, which are features as they come.
"""

import contextlib
import io

import torch
from bench_kid import features
from paired import compare
from prdc import compute_prdc

from bowerbird.metrics.prdc import prdc


def theirs(x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        found: dict[str, float] = compute_prdc(y.numpy(), x.numpy(), 5)
    return found


def main() -> None:
    torch.set_num_threads(1)
    for n, d in ((5000, 128), (5000, 2048)):
        x, y = (features(n, seed, scale)[:, :d].contiguous() for seed, scale in ((0, 1.0), (1, 1.02)))
        for name, value in theirs(x.double(), y.double()).items():
            assert abs(getattr(prdc(samples=x, reference=y, k_manifold=5), name) - value) < 1e-9, name
        compare(
            f"PRDC of {n:,} against {n:,} in {d:,} dimensions",
            lambda x=x, y=y: prdc(samples=x, reference=y, k_manifold=5),
            lambda x=x, y=y: theirs(x, y),
            "prdc",
            pairs=3,
        )


if __name__ == "__main__":
    main()
