"""Squared Euclidean distances: float32 sifts, and whatever it cannot tell apart is computed anew in float64.

With centred rows x, y of d numbers the product form ‖x‖² + ‖y‖² - 2 x·y in float32 is wrong by at most

    slack = (d + 32) u (max ‖x‖² + max ‖y‖²),    u = 2⁻²⁴

(Higham 2002, *Accuracy and Stability of Numerical Algorithms*, eq. 3.5, for the product; the 32 covers centring, norms
and sums).  So float32 values decide a comparison unless they lie within twice the slack of one another.  Few pairs do:
near a nearest neighbour there is little else.  For those Σ (x - y)² is taken in float64, and all answers are those of
float64.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bowerbird.metrics.arithmetic import full_precision

ROWS = 512
"""Rows of a block of distances."""
SPARE = 3
"""Neighbours beyond the k-th that are looked at, because float32 may have them in another order."""
AT_ONCE = 1 << 18
"""Numbers that are subtracted from one another at a time."""
MANY = 1 << 32
"""Numbers from which on float64 products of all pairs are taken instead: where whole sets coincide."""


class Pairs(NamedTuple):
    """Pairs of rows and their squared distances."""

    query: Int[Tensor, " pairs"]
    point: Int[Tensor, " pairs"]
    square: Float[Tensor, " pairs"]


class Cloud:
    """Points, and the same in float32 around a centre, with their squared norms."""

    def __init__(self, points: Float[Tensor, "n d"], centre: Float[Tensor, " d"]):
        self.points = points
        self.x = (points - centre).float()
        self.norm = self.x.square().sum(1)

    def __len__(self) -> int:
        return len(self.points)


def slack(a: Cloud, b: Cloud) -> float:
    """How far a rough squared distance between their points may lie from the true one."""
    return (a.x.shape[1] + 32) * 2.0**-24 * float(a.norm.max() + b.norm.max())


def _rough(a: Cloud, rows: slice, b: Cloud, columns: slice) -> Float[Tensor, "rows columns"]:
    """Squared distances within the slack."""
    product = torch.addmm(b.norm[None, columns], a.x[rows], b.x[columns].T, alpha=-2)
    return product.add_(a.norm[rows, None])


def _exact(
    a: Float[Tensor, "n d"], i: Int[Tensor, " pairs"], b: Float[Tensor, "m d"], j: Int[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """Σ (a_i - b_j)² in float64."""
    at_once = max(1, AT_ONCE // a.shape[1])
    parts = zip(i.split(at_once), j.split(at_once), strict=True)
    apart = (a[p].double().sub_(b[q]) for p, q in parts)
    found = [torch.linalg.vecdot(difference, difference) for difference in apart]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def _products(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """All squared distances in float64 products."""
    a, b = a.double(), b.double()
    square = torch.addmm(b.square().sum(1)[None], a, b.T, alpha=-2)
    return square.add_(a.square().sum(1, keepdim=True)).clamp_(min=0)


# ------------------------------------------------------------------------------------------------------- neighbours


def nearest_squares(points: Float[Tensor, "p d"], k: int) -> Float[Tensor, "p {k}"]:
    """Squared distances of each point to its k nearest *other* points, ascending, float64, 1 ≤ k < p."""
    return Near(Cloud(points, points.mean(0)), k).exact(torch.arange(len(points)))


class Near:
    """The nearest *other* points of each of p points: roughly at once, exactly of the rows that one asks for."""

    def __init__(self, cloud: Cloud, k: int):
        n, m = len(cloud), min(k + SPARE, len(cloud) - 1)
        self.points, self.k = cloud.points, k
        self.square, self.place = torch.full((n, m), torch.inf), torch.zeros((n, m), dtype=torch.int64)
        self.slack = slack(cloud, cloud)
        with full_precision():
            for start in range(0, n, ROWS):
                self._see(_rough(cloud, slice(start, start + ROWS), cloud, slice(start, None)), start)

    def _see(self, block: Float[Tensor, "rows columns"], start: int) -> None:
        """Takes note of the distances between the rows from ``start`` on and all points from there on."""
        n = len(block)
        rows = torch.arange(n)
        block[rows, rows] = torch.inf  # a point is not its own neighbour
        _nearer(self.square, self.place, slice(start, start + n), block, start)
        _nearer(self.square, self.place, slice(start + n, None), block[:, n:].T.contiguous(), start)

    @property
    def rough(self) -> Float[Tensor, "p k"]:
        """Squared distances of the k nearest, ascending, each wrong by at most the slack."""
        return self.square[:, : self.k].double()

    def exact(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows k"]:
        """The same of some points in float64."""
        square, place = self.square[rows], self.place[rows]
        possible = square <= square[:, self.k - 1 : self.k] + 2 * self.slack
        i, at = possible.nonzero(as_tuple=True)
        exact = torch.full(square.shape, torch.inf, dtype=torch.float64)
        exact[i, at] = _exact(self.points, rows[i], self.points, place[i, at])
        nearest = exact.sort(1).values[:, : self.k]
        if square.shape[1] < len(self.points) - 1:
            doubtful = possible[:, -1]  # there may be more than were kept
            nearest[doubtful] = _nearest_of_all(self.points, rows[doubtful], self.k)
        return nearest


def _nearest_of_all(points: Float[Tensor, "p d"], rows: Int[Tensor, " rows"], k: int) -> Float[Tensor, "rows k"]:
    """Of some rows; float64 products with all points say which to compare."""
    found = [torch.zeros(0, k, dtype=torch.float64)]
    for part in rows.split(ROWS) if len(rows) else ():
        whole = _products(points[part], points)
        whole[torch.arange(len(part)), part] = torch.inf
        place = whole.topk(min(k + SPARE, len(points) - 1), dim=1, largest=False).indices
        exact = _exact(points, part.repeat_interleave(place.shape[1]), points, place.flatten())
        found.append(exact.view(place.shape).sort(1).values[:, :k])
    return torch.cat(found)


def _nearer(square: Tensor, place: Tensor, rows: slice, block: Float[Tensor, "rows columns"], start: int) -> None:
    """Keeps the nearest of what is known and of a block whose first column is the point ``start``."""
    found = block.topk(min(square.shape[1], block.shape[1]), dim=1, largest=False)
    values = torch.cat([square[rows], found.values], 1)
    places = torch.cat([place[rows], found.indices + start], 1)
    best = values.topk(square.shape[1], dim=1, largest=False)
    square[rows], place[rows] = best.values, places.gather(1, best.indices)


# ------------------------------------------------------------------------------------------------------------ balls


def pairs_within(
    queries: Cloud, points: Cloud, of_queries: Float[Tensor, " q"], of_points: Float[Tensor, " p"]
) -> Pairs:
    """All pairs that may lie within a squared radius of the query or of the point, with rough distances."""
    spare = 2 * slack(queries, points) + slack(queries, queries) + slack(points, points)
    row, column = of_queries.float() + spare, of_points.float() + spare
    parts = []
    with full_precision():
        for start in range(0, len(queries), ROWS):
            rows = slice(start, start + ROWS)
            block = _rough(queries, rows, points, slice(None))
            i, j = ((block <= row[rows, None]) | (block <= column)).nonzero(as_tuple=True)
            parts.append(Pairs(i + start, j, block[i, j].double()))
    return Pairs(*(torch.cat(column) for column in zip(*parts, strict=True)))


def exact_squares(queries: Float[Tensor, "q d"], points: Float[Tensor, "p d"], pairs: Pairs) -> Float[Tensor, " pairs"]:
    """The squared distances of these pairs in float64."""
    if len(pairs.query) * queries.shape[1] <= MANY:
        return _exact(queries, pairs.query, points, pairs.point)
    found = torch.zeros(len(pairs.query), dtype=torch.float64)
    for start in range(0, len(queries), ROWS):
        here = (pairs.query >= start) & (pairs.query < start + ROWS)
        found[here] = _products(queries[start : start + ROWS], points)[pairs.query[here] - start, pairs.point[here]]
    return found
