"""Fréchet distance of 2,048-dimensional features, against the textbook's matrix square root in SciPy."""

import scipy.linalg
import torch
from paired import compare

from bowerbird.metrics.frechet import fit_gaussian, frechet_distance


def by_square_root(x: torch.Tensor, y: torch.Tensor) -> float:
    x, y = x.double(), y.double()
    product = torch.cov(x.T) @ torch.cov(y.T)
    root = scipy.linalg.sqrtm(product.numpy()).real
    gap = x.mean(0) - y.mean(0)
    return float(gap @ gap + torch.cov(x.T).trace() + torch.cov(y.T).trace() - 2 * root.trace())


def main() -> None:
    torch.set_num_threads(1)
    x, y = torch.randn(4000, 2048), 1.1 * torch.randn(4000, 2048) + 0.1
    ours = float(frechet_distance(fit_gaussian(x), fit_gaussian(y)))
    assert abs(ours - by_square_root(x, y)) < 1e-3 * ours
    compare(
        "Fréchet distance, 2048-d, 4,000 against 4,000",
        lambda: frechet_distance(fit_gaussian(x), fit_gaussian(y)),
        lambda: by_square_root(x, y),
        "scipy.linalg.sqrtm",
        pairs=2,
    )


if __name__ == "__main__":
    main()
