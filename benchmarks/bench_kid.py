"""The kernel distance as papers print it, 100 subsets of 1,000, against the loop that torch-fidelity documents.

torch-fidelity takes each pair of subsets for itself: three polynomial kernels in NumPy in the float32 of features, and
the unbiased estimate from their row sums.  It cannot be installed beside this package (it brings torchvision), so its
loop is written out below; both sides get the same subsets, and their values must agree.
"""

import numpy as np
import torch
from paired import compare

from bowerbird.metrics.kid import kid_of_subsets

SUBSETS, SIZE, D = 100, 1000, 2048


def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.matmul(x, y.T) / x.shape[1] + 1) ** 3


def mmd(x: np.ndarray, y: np.ndarray) -> float:
    within = [(k.sum(1) - np.diagonal(k)).sum() / (len(k) * (len(k) - 1)) for k in (polynomial(x, x), polynomial(y, y))]
    return float(sum(within) - 2 * polynomial(x, y).sum() / (len(x) * len(y)))


def loop(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(SUBSETS):
        a, b = (of[torch.randperm(len(of), generator=generator)[:SIZE]].numpy() for of in (x, y))
        values.append(mmd(a, b))
    return float(np.mean(values)), float(np.std(values, ddof=1))


def features(n: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """Like pooled features of Inception: not negative, a fifth of them 0, mean about 0.4."""
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(seed)) * 0.45 * scale + 0.38
    return x.clamp(min=0)


def main() -> None:
    torch.set_num_threads(1)
    for n in (2000, 5000, 10_000, 20_000):
        x, y = features(n, 0), features(n, 1, 1.02)
        ours, theirs = kid_of_subsets(samples=x, reference=y), loop(x, y)
        exact = kid_of_subsets(samples=x.double(), reference=y.double()) if n < 5000 else ours
        print(f"{ours.value:.9f} ± {ours.spread:.9f}, {theirs[0]:.9f} ± {theirs[1]:.9f}, in float64 {exact.value:.9f}")
        assert abs(ours.value - theirs[0]) < 0.01 * theirs[1]
        compare(
            f"KID of {SUBSETS} subsets of {SIZE:,} out of {n:,}",
            lambda x=x, y=y: kid_of_subsets(samples=x, reference=y),
            lambda x=x, y=y: loop(x, y),
            "torch-fidelity's loop",
            pairs=2,
        )


if __name__ == "__main__":
    main()
