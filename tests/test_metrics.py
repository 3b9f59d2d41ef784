"""Metrics against closed forms, brute force, and the networks that others published."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.table import Table
from safetensors.torch import load_file

from bowerbird import registry
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.context import NEEDS
from bowerbird.measuring.metric import measured
from bowerbird.metrics import digits, inception
from bowerbird.metrics.bits import bits_per_dim
from bowerbird.metrics.cache import CHUNK, FeatureCache
from bowerbird.metrics.features import Digits, Extractor, extractor
from bowerbird.metrics.frechet import Gaussian, Moments, fit_gaussian, frechet_distance, too_few, trace_of_root
from bowerbird.metrics.measurement import Measurement, Protocol, require_comparable, settings
from bowerbird.metrics.neighbours import memorisation, nearest, neighbour_distances
from bowerbird.metrics.prdc import prdc
from bowerbird.report.tabulated import best, table, tables

CPU = torch.device("cpu")


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def gaussian(mean: torch.Tensor, covariance: torch.Tensor, n: int = 1000) -> Gaussian:
    return Gaussian(n, mean.double(), full=covariance.double())


# ------------------------------------------------------------------------------------------------------- Fréchet


def test_frechet_of_diagonal_gaussians() -> None:
    """Commuting covariances: d² = |difference of means|² + Σ (std_a - std_b)²."""
    mean_a, mean_b = randn(6, seed=1).double(), randn(6, seed=2).double()
    std_a, std_b = randn(6, seed=3).double().abs(), randn(6, seed=4).double().abs()
    distance = frechet_distance(gaussian(mean_a, std_a.square().diag()), gaussian(mean_b, std_b.square().diag()))
    assert distance == pytest.approx(
        float((mean_a - mean_b).square().sum() + (std_a - std_b).square().sum()), rel=1e-12
    )


def test_frechet_of_full_gaussians() -> None:
    """Two dimensions, where tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)) for M with the eigenvalues of C_a C_b."""
    a = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    b = torch.tensor([[1.5, -0.9], [-0.9, 3.0]], dtype=torch.float64)
    root = math.sqrt(float((a @ b).trace()) + 2 * math.sqrt(float(torch.det(a) * torch.det(b))))
    zero = torch.zeros(2)
    expected = float(a.trace() + b.trace()) - 2 * root
    assert frechet_distance(gaussian(zero, a), gaussian(zero, b)) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_a_transported_gaussian() -> None:
    """Under a symmetric positive map T, the optimal transport, d² = tr((T - 1) C (T - 1)) in any dimension."""
    half, spread = randn(20, 20, seed=5).double(), randn(20, 20, seed=6).double()
    covariance = spread @ spread.T / 20
    transport = half @ half.T / 20 + 0.1 * torch.eye(20)
    moved = transport @ covariance @ transport
    step = transport - torch.eye(20)
    expected = float((step @ covariance @ step).trace())
    zero = torch.zeros(20)
    assert frechet_distance(gaussian(zero, covariance), gaussian(zero, moved)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [30, 200])
def test_frechet_of_a_set_and_itself_is_zero(n: int) -> None:
    fitted = fit_gaussian(randn(n, 50))
    assert frechet_distance(fitted, fitted) == pytest.approx(0, abs=1e-9)


def test_frechet_is_symmetric() -> None:
    many, few = fit_gaussian(randn(200, 30)), fit_gaussian(2 * randn(20, 30, seed=1) + 1)
    other = fit_gaussian(randn(200, 30, seed=2) @ randn(30, 30, seed=3))
    for a, b in ((many, few), (many, other), (few, other)):
        assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


@pytest.mark.parametrize(("n_a", "n_b"), [(20, 15), (20, 300), (300, 15)])
def test_few_examples_route_equals_covariance_route(n_a: int, n_b: int) -> None:
    """The centred features are a factor of the covariance: same distance as through full matrices."""
    x, y = randn(n_a, 40, seed=1), randn(n_b, 40, seed=2) * 1.5 + 0.3
    direct = frechet_distance(
        *(gaussian(z.double().mean(0), torch.cov(z.double().T), len(z)) for z in (x, y)),
    )
    assert frechet_distance(fit_gaussian(x), fit_gaussian(y)) == pytest.approx(direct, rel=1e-6)
    assert (fit_gaussian(x).rows is not None) == (n_a <= 40)


def test_trace_of_root_against_the_matrix_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a, b = (torch.cov(randn(300, 12, seed=s).double().T) for s in (1, 2))
    b = b + 0.5 * torch.ones(12, 12)
    expected = np.trace(linalg.sqrtm(a.numpy() @ b.numpy())).real
    assert trace_of_root(gaussian(torch.zeros(12), a), gaussian(torch.zeros(12), b)) == pytest.approx(
        expected, rel=1e-10
    )


def test_singular_covariance_needs_no_jitter() -> None:
    """One direction each, orthogonal: the root's trace is 0 and d² = 1 + 4."""
    a, b = torch.diag(torch.tensor([1.0, 0, 0])), torch.diag(torch.tensor([0, 4.0, 0]))
    assert frechet_distance(gaussian(torch.zeros(3), a), gaussian(torch.zeros(3), b)) == pytest.approx(5, abs=1e-9)


def test_streaming_moments_equal_batch_moments_far_from_zero() -> None:
    """Naive sums of squares would lose everything at a mean of 1e6."""
    x = randn(1000, 7).double() * torch.arange(1, 8) + 1e6
    moments = Moments(7)
    for part in (x[:1], x[1:4], x[4:4], x[4:700], x[700:]):
        moments.update(part)
    streamed = moments.gaussian()
    torch.testing.assert_close(streamed.mean, x.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(streamed.covariance, torch.cov(x.T), rtol=1e-8, atol=1e-8)
    assert streamed.n == 1000


def test_warning_for_few_images() -> None:
    assert "full rank" in (too_few(500, 2048) or "")
    assert "biased" in (too_few(200, 128) or "")
    assert too_few(2048, 2048) is None and too_few(2000, 128) is None
    with pytest.raises(BowerbirdError, match="at least 2"):
        fit_gaussian(randn(1, 4))
    with pytest.raises(BowerbirdError, match="dimensions"):
        frechet_distance(fit_gaussian(randn(9, 3)), fit_gaussian(randn(9, 4)))


# ------------------------------------------------------------------------------------------------- neighbours, PRDC


def brute_force(samples: torch.Tensor, reference: torch.Tensor, k: int) -> tuple[float, float, float, float]:
    """The papers' definitions, one pair at a time."""
    x, y = samples.double().tolist(), reference.double().tolist()
    radius_x = [sorted(math.dist(p, q) for j, q in enumerate(x) if i != j)[k - 1] for i, p in enumerate(x)]
    radius_y = [sorted(math.dist(p, q) for j, q in enumerate(y) if i != j)[k - 1] for i, p in enumerate(y)]
    inside_y = [[math.dist(p, q) <= r for q, r in zip(y, radius_y, strict=True)] for p in x]
    inside_x = [[math.dist(p, q) <= r for p, r in zip(x, radius_x, strict=True)] for q in y]
    precision = sum(any(row) for row in inside_y) / len(x)
    recall = sum(any(row) for row in inside_x) / len(y)
    density = sum(map(sum, inside_y)) / (k * len(x))
    coverage = sum(any(row[j] for row in inside_y) for j in range(len(y))) / len(y)
    return precision, recall, density, coverage


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc_against_brute_force(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bowerbird.metrics.neighbours.BLOCK", 200)  # several blocks, the last one ragged
    samples, reference = randn(53, 4, seed=1) + 1, randn(41, 4, seed=2)
    found = prdc(samples=samples, reference=reference, k_manifold=k, k_density=k)
    assert found[:4] == pytest.approx(brute_force(samples, reference, k), abs=1e-12)
    assert 0 < found.precision < 1 and 0 < found.recall < 1  # the comparison is not between trivial values


def test_prdc_by_hand() -> None:
    """On a line: reference 0, 1, 2, 10 with radii 1, 1, 1, 8; samples 0.5, 1, 30 with radii 0.5, 0.5, 29."""
    reference = torch.tensor([[0.0], [1], [2], [10]])
    samples = torch.tensor([[0.5], [1.0], [30]])
    found = prdc(samples=samples, reference=reference, k_manifold=1, k_density=1)
    assert found.precision == pytest.approx(2 / 3)  # 30 lies in no ball
    assert found.recall == pytest.approx(1)  # 0 and 1 in balls of 0.5, everything above 1 in that of 30
    assert found.density == pytest.approx((2 + 3 + 0) / 3)  # balls around 0, 1; around 0, 1, 2; none
    assert found.coverage == pytest.approx(3 / 4)  # the ball around 10 reaches down to 2 only


def test_swapping_sets_swaps_precision_and_recall() -> None:
    """Samples from half of the support: all of them look real, half of the variety is missing."""
    reference = torch.cat([randn(200, 3, seed=1), randn(200, 3, seed=2) + 50])
    samples = 0.5 * randn(400, 3, seed=3)
    found = prdc(samples=samples, reference=reference)
    swapped = prdc(samples=reference, reference=samples)
    assert found.precision > 0.95 and found.recall < 0.45 and found.coverage < 0.55
    assert (found.precision, found.recall) == (swapped.recall, swapped.precision)


def test_prdc_of_equal_distributions() -> None:
    """Expected density 1 and coverage 1 - 2^-k; a set against itself is fully covered."""
    found = prdc(samples=randn(1500, 5, seed=1), reference=randn(1500, 5, seed=2))
    assert found.density == pytest.approx(1, abs=5 * found.density_stderr + 0.02)
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.015)
    same = randn(100, 5)
    itself = prdc(samples=same, reference=same)
    assert itself.precision == itself.recall == itself.coverage == 1


def test_neighbour_distances_are_exact_far_from_the_origin() -> None:
    """float32 products would see distances of 0 or 64 between these points."""
    points = torch.tensor([[10000.0, 0], [10001, 0], [10003, 0]])
    assert neighbour_distances(points, 2).tolist() == [[1, 9], [1, 4], [4, 9]]
    distance, row = nearest(queries=torch.tensor([[10002.5, 0.0]]), points=points)
    assert distance.tolist() == [0.5] and row.tolist() == [2]
    with pytest.raises(BowerbirdError, match="more than 3 images"):
        neighbour_distances(points, 3)


def test_memorisation_tells_copies_from_fresh_draws() -> None:
    training, held_out, fresh = randn(1200, 6, seed=1), randn(300, 6, seed=2), randn(400, 6, seed=3)
    clean = memorisation(samples=fresh, training=training, held_out=held_out)
    assert clean.ratio == pytest.approx(1, abs=4 * clean.ratio_stderr)
    assert clean.chance == 0.8 and clean.closer == pytest.approx(0.8, abs=4 * clean.closer_stderr)
    copies = memorisation(samples=training[:400] + 0.01 * fresh, training=training, held_out=held_out)
    assert copies.ratio < 0.05 and copies.closer > 0.99
    swapped = memorisation(samples=held_out, training=training, held_out=held_out)
    assert swapped.ratio > 10 and swapped.closer == 0


# ------------------------------------------------------------------------------------------------- measurements


def test_measurements_of_one_protocol_compare() -> None:
    protocol = Protocol(n_generated=100, reference="digits")
    a = measured("frechet_distance", 3.0, protocol, stderr=0.3)
    b = measured("frechet_distance", 5.0, protocol, stderr=0.4)
    assert a < b and b > a and not b < a
    difference = b - a
    assert (difference.value, difference.stderr) == (2, pytest.approx(0.5))


def test_measurements_of_two_protocols_are_refused_naming_what_differs() -> None:
    a = measured("recall", 0.3, Protocol(n_generated=100, split="test", parameters=settings({"k": 3})))
    b = measured("recall", 0.5, Protocol(n_generated=200, split="test", parameters=settings({"k": 5})))
    for compare in (lambda: a < b, lambda: a > b, lambda: a - b):
        with pytest.raises(BowerbirdError) as caught:
            compare()
        assert "n_generated (100 and 200)" in str(caught.value) and "parameters" in str(caught.value)
        assert "split" not in str(caught.value)
    assert a.protocol.hash != b.protocol.hash
    with pytest.raises(BowerbirdError, match="one protocol"):
        best([a, b])
    with pytest.raises(BowerbirdError, match="different quantities"):
        require_comparable(a, measured("precision", 0.3, a.protocol))


def test_measurement_json_round_trip() -> None:
    protocol = Protocol(
        n_generated=7, parameters=settings({"k": 3, "chance": 0.5}), preprocessing=settings({"size": 28})
    )
    measurement = measured("recall", 0.25, protocol, stderr=0.1)
    written = measurement.to_json()
    assert set(written) == {"name", "value", "unit", "stderr", "protocol"}
    assert Measurement.from_json(written) == measurement
    assert Protocol.from_json(written["protocol"]).hash == protocol.hash
    assert measured("recall", math.nan, protocol).to_json()["value"] is None
    with pytest.raises(BowerbirdError, match="n_generated"):
        Protocol.from_json({"n_generate": 3})
    with pytest.raises(BowerbirdError, match="precision"):
        measured("precison", 1.0, protocol)


def _style(shown: Table, column: int) -> object:
    """How the first cell of a column is printed."""
    (cell, *_) = shown.columns[column].cells
    return cell.style  # type: ignore[union-attr]


def test_different_protocols_are_refused_a_common_table() -> None:
    one, other = Protocol(n_generated=1), Protocol(n_generated=2, parameters=settings({"k": 3}))
    rows = {
        "a": [measured("frechet_distance", 3.0, one), measured("recall", 0.3, one)],
        "b": [measured("frechet_distance", 5.0, one), measured("recall", 0.5, other)],
        "c": [measured("recall", 0.4, one)],
    }
    with pytest.raises(BowerbirdError, match="recall were measured differently.*n_generated .1 and 2.*parameters.k"):
        table(rows)
    common, why, first, second = tables(rows)
    assert isinstance(common, Table) and isinstance(first, Table) and isinstance(second, Table)
    titles, *cells = ([str(cell) for cell in column.cells] for column in common.columns)
    assert len(titles) == 1 and cells == [["3"], ["5"], ["-"]] and _style(common, 1) == "bold"
    assert "recall: measured differently, so there is no common table" in str(why)
    assert "n_generated (1 and 2), parameters.k ('none' and 3) differ" in str(why)
    assert [[str(column.header) for column in part.columns[1:]] for part in (first, second)] == [["a", "c"], ["b"]]
    assert _style(first, 2) == "bold"
    assert len(tables({run: row for run, row in rows.items() if run != "b"})) == 1


def test_every_metric_is_described_and_needs_what_contexts_offer() -> None:
    for name in registry.metrics.names():
        metric = registry.metrics.get(name)
        assert metric.name == name and metric.unit and metric.title and metric.reading
        assert metric.better in ("lower", "higher", "") and metric.needs and set(metric.needs) <= NEEDS.keys()


def test_bits_per_dim() -> None:
    """A uniform guess over 256 values costs 8 bits for each of them."""
    assert bits_per_dim(784 * math.log(256), 784) == pytest.approx(8)


# ------------------------------------------------------------------------------------------------- extractors


def test_digits_weights_are_those_of_the_recipe() -> None:
    import tomllib

    recipe = tomllib.loads(digits.WEIGHTS.with_suffix(".toml").read_text(encoding="utf-8"))
    assert Digits(CPU).sha256 == recipe["sha256"]
    assert recipe["measured"]["test_accuracy"] >= 0.992
    assert digits.WEIGHTS.stat().st_size <= 600_000
    assert all(weight.dtype == torch.float16 for weight in load_file(digits.WEIGHTS).values())


def test_to_digits_greys_and_resizes() -> None:
    grey = noise(2, 1, 28, 28)
    torch.testing.assert_close(digits.to_digits(grey), grey.float() / 255)
    torch.testing.assert_close(digits.to_digits(grey.expand(-1, 3, -1, -1)), grey.float() / 255)
    red = torch.zeros(1, 3, 28, 28, dtype=torch.uint8)
    red[:, 0] = 255
    torch.testing.assert_close(digits.to_digits(red), torch.full((1, 1, 28, 28), 0.299))
    flat = torch.full((1, 1, 61, 40), 51, dtype=torch.uint8)
    torch.testing.assert_close(digits.to_digits(flat), torch.full((1, 1, 28, 28), 0.2))
    with pytest.raises(BowerbirdError, match="4 channels"):
        digits.to_digits(torch.zeros(1, 4, 28, 28, dtype=torch.uint8))


def test_features_do_not_depend_on_the_batch() -> None:
    images = noise(11, 1, 28, 28)
    network = extractor("digits")
    seen = []
    whole = network.features(images, progress=seen.append)
    torch.testing.assert_close(network.features(images, batch_size=4), whole, rtol=1e-4, atol=1e-4)
    assert sum(seen) == 11 and whole.dtype == torch.float32


def test_extractor_names() -> None:
    with pytest.raises(BowerbirdError, match="bowerbird data get inception-2015"):
        extractor("inception-2015")
    with pytest.raises(BowerbirdError, match="did you mean 'digits'"):
        extractor("digit")


class Counting(Extractor):
    """Means and maxima of pixels; counts the images that it is shown."""

    name, dimension, resizer, batch_size = "counting", 2, "none", 64
    seen = 0

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return torch.stack([images.float().mean((1, 2, 3)), images.float().amax((1, 2, 3))], 1)


def test_cache_computes_once_and_repairs_itself(tmp_path: Path) -> None:
    images = torch.randint(
        256, (2 * CHUNK + 100, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    network, cache = Counting("ab", CPU), FeatureCache(tmp_path)
    computed = cache.of(network, images).all()
    torch.testing.assert_close(computed, network.features(images))
    network.seen = 0
    assert torch.equal(cache.of(network, images).all(), computed)
    fitted = cache.of(network, images).gaussian()
    assert network.seen == 0
    torch.testing.assert_close(fitted.covariance, torch.cov(computed.double().T), rtol=1e-10, atol=0)
    again = cache.of(network, images).gaussian()
    assert torch.equal(again.covariance, fitted.covariance) and again.n == len(images)
    folder = cache.path(network, images)
    assert sorted(path.name for path in folder.iterdir()) == [
        "00000.npy",
        "00001.npy",
        "00002.npy",
        "gaussian.safetensors",
    ]
    (folder / "00001.npy").write_bytes(b"torn")
    assert torch.equal(cache.of(network, images).all(), computed) and network.seen == CHUNK
    assert cache.path(network, images.flip(0)) != folder and cache.path(Counting("cd", CPU), images) != folder


def test_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    images = torch.zeros(5, 1, 2, 2, dtype=torch.uint8)
    assert FeatureCache(tmp_path / "file").of(Counting("ab", CPU), images).all().shape == (5, 2)


# ------------------------------------------------------------------------------------------------- Inception 2015


def test_tf1_bilinear_against_a_loop() -> None:
    """Output pixel i reads position i·in/size: corners share the top-left pixel, the last rows repeat the edge."""
    x = randn(1, 1, 4, 7)
    out = inception.tf1_bilinear(x, 10)
    image = x[0, 0].tolist()
    for i in range(10):
        for j in range(10):
            v, u = i * 4 / 10, j * 7 / 10
            top, left = int(v), int(u)
            bottom, right, dv, du = min(top + 1, 3), min(left + 1, 6), v - top, u - left
            expected = (1 - dv) * ((1 - du) * image[top][left] + du * image[top][right])
            expected += dv * ((1 - du) * image[bottom][left] + du * image[bottom][right])
            assert out[0, 0, i, j].item() == pytest.approx(expected, abs=1e-5)


def inception_weights() -> Path:
    from bowerbird.data.fetch import locate

    path = locate("inception-2015")
    if path is None:
        pytest.skip("the weights are not here: bowerbird data get inception-2015")
    return path


def test_inception_features_equal_the_published_network() -> None:
    path = inception_weights()
    images = noise(3, 3, 40, 32)
    images[2] = images[2].float().mul(0.2).byte()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit.load
        published = torch.jit.load(str(path), map_location="cpu").eval()
        expected = published((inception.tf1_bilinear(images.float(), 299) - 128) / 128)
    found = extractor("inception-2015", weights=path).features(images)
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
