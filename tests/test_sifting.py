"""Distances that float32 sifts are those of float64: where nearly everything is a close call, too."""

import pytest
import torch
from torch import Tensor

from bowerbird.metrics import sifting
from bowerbird.metrics.prdc import prdc


def clouds(kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(130, 40, generator=generator), 1.1 * torch.randn(111, 40, generator=generator)
    if kind == "far from the origin":
        return x + 1000, y + 1000
    if kind == "on a grid":  # ties everywhere, exact in both precisions
        return (x[:, :3] * 2).round(), (y[:, :3] * 2).round()
    if kind == "copies":
        return torch.cat([x[:60], x[:60] + 1e-4, x[:10]]), x[:111]
    if kind == "one outlier":
        return torch.cat([x, x[:1] + 1e4]), y
    return (x, y) if kind == "apart" else (torch.ones(50, 4), torch.ones(40, 4))


def squares(a: Tensor, b: Tensor) -> Tensor:
    return (a.double()[:, None] - b.double()[None]).square().sum(2)


def others(points: Tensor, k: int) -> Tensor:
    square = squares(points, points).fill_diagonal_(torch.inf)
    return square.sort(1).values[:, :k]


KINDS = ["apart", "far from the origin", "on a grid", "copies", "one outlier", "all the same"]


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sifting, "ROWS", 32)


@pytest.mark.parametrize("kind", KINDS)
def test_nearest_neighbours_are_those_of_float64(kind: str) -> None:
    for points in clouds(kind):
        for k in (1, 5):
            torch.testing.assert_close(sifting.nearest_squares(points, k), others(points, k), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_precision_recall_density_and_coverage_are_those_of_float64(kind: str) -> None:
    x, y = clouds(kind)
    square, of_x, of_y = squares(x, y), others(x, 3)[:, 2], others(y, 5)
    found = prdc(samples=x, reference=y)
    assert found.precision == float((square <= of_y[:, 2]).any(1).double().mean())
    assert found.recall == float((square <= of_x[:, None]).any(0).double().mean())
    assert found.density == pytest.approx(float((square <= of_y[:, 4]).double().sum(1).mean()) / 5, rel=1e-12)
    assert found.coverage == float((square <= of_y[:, 4]).any(0).double().mean())
