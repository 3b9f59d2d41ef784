"""The metrics of images against independent code and closed forms: scikit-learn, scipy, transformers, loops."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bowerbird.data import fetch
from bowerbird.errors import BowerbirdError
from bowerbird.measuring import selftest
from bowerbird.metrics import dinov2, efficientnet
from bowerbird.metrics.cache import FeatureCache, FeatureSet
from bowerbird.metrics.features import Extractor, extractor
from bowerbird.metrics.frechet import Gaussian, fit_gaussian, frechet_distance
from bowerbird.metrics.infinity import frechet_infinity
from bowerbird.metrics.kid import _of_each, _of_shared, kid, kid_of_subsets
from bowerbird.metrics.neighbours import copies, gap, wilson
from bowerbird.metrics.pixelwise import psnr, sliced_wasserstein, ssim
from bowerbird.metrics.prdc import prdc
from bowerbird.metrics.scores import diversity, inception_score, mean_distance


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(n: int, channels: int = 1, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=_generator(seed))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------- other people's code


def test_prdc_agrees_with_neighbours_of_scikit_learn() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    x, y = randn(300, 8, seed=1) * 0.9 + 0.1, randn(260, 8, seed=2)
    search = {name: neighbors.NearestNeighbors().fit(of.double().numpy()) for name, of in (("x", x), ("y", y))}

    def radius(name: str, of: torch.Tensor, k: int) -> np.ndarray:
        return search[name].kneighbors(of.double().numpy(), k + 1)[0][:, -1]  # the first is the point itself

    across = np.sqrt(((x.double().numpy()[:, None] - y.double().numpy()[None]) ** 2).sum(-1))
    inside = across <= radius("y", y, 5)
    found = prdc(samples=x, reference=y)
    assert found.precision == (across <= radius("y", y, 3)).any(1).mean()
    assert found.recall == (across <= radius("x", x, 3)[:, None]).any(0).mean()
    assert found.density == pytest.approx(inside.sum() / (5 * len(x)), rel=1e-12)
    assert found.coverage == inside.any(0).mean()


def test_frechet_agrees_with_scipys_matrix_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    x, y = randn(400, 24, seed=1) @ randn(24, 24, seed=3), randn(350, 24, seed=2) + 0.4
    (mean_x, cov_x), (mean_y, cov_y) = ((z.double().mean(0).numpy(), np.cov(z.double().numpy().T)) for z in (x, y))
    root = linalg.sqrtm(cov_x @ cov_y).real
    expected = ((mean_x - mean_y) ** 2).sum() + np.trace(cov_x + cov_y - 2 * root)
    assert frechet_distance(fit_gaussian(x), fit_gaussian(y)) == pytest.approx(expected, rel=1e-9)


def test_kid_agrees_with_kernels_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    monkeypatch.setattr("bowerbird.metrics.kid.ROWS", 30)  # several blocks, the last one ragged
    x, y = randn(70, 12, seed=1) + 0.5, randn(83, 12, seed=2)
    xx, yy, xy = (pairwise.polynomial_kernel(a.double(), b.double()) for a, b in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    expected = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1)) - 2 * xy.mean()
    assert kid(samples=x.double(), reference=y.double()).value == pytest.approx(expected, rel=1e-10)
    assert kid(samples=x, reference=y).value == pytest.approx(expected, rel=1e-6)


def test_wilson_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for successes, n in ((0, 40), (3, 40), (40, 40)):
        expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
        assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-5)


def test_sliced_wasserstein_is_the_cost_of_the_best_assignment() -> None:
    """Along one direction the cheapest matching of two sets costs what sorting says."""
    optimize = pytest.importorskip("scipy.optimize")
    x, y = pictures(9, seed=1), pictures(9, seed=2)
    theta = torch.randn(256, 1, generator=_generator(3))
    a, b = ((z.flatten(1).float() @ (theta / theta.norm()))[:, 0].numpy() for z in (x, y))
    cost = (a[:, None] - b[None]) ** 2
    rows, columns = optimize.linear_sum_assignment(cost)
    found, _ = sliced_wasserstein(samples=x, reference=y, n_projections=1, seed=3)
    assert found == pytest.approx(math.sqrt(cost[rows, columns].mean()), rel=1e-4)


# ------------------------------------------------------------------------------------------------- statistics


def test_kid_is_unbiased_and_knows_its_error() -> None:
    """Two sets of one distribution: 0 on average, and spread as the standard error says."""
    found = [kid(samples=randn(60, 4, seed=s), reference=randn(60, 4, seed=1000 + s)) for s in range(150)]
    values, errors = np.array(found).T
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(len(values))
    moved = [kid(samples=randn(60, 4, seed=s) + 1, reference=randn(60, 4, seed=1000 + s)) for s in range(150)]
    values, errors = np.array(moved).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.2)


def test_kid_of_subsets_is_the_same_from_shared_and_from_own_kernel_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bowerbird.metrics.kid.ROWS", 30)
    x, y = randn(70, 12, seed=1) + 0.5, randn(83, 12, seed=2)
    order = torch.Generator().manual_seed(0)
    of_x, of_y = ([torch.randperm(len(z), generator=order)[:25] for _ in range(6)] for z in (x, y))
    each, shared = (of(x, y, of_x, of_y) for of in (_of_each, _of_shared))
    exact = [kid(samples=x[a].double(), reference=y[b].double()).value for a, b in zip(of_x, of_y, strict=True)]
    assert each.tolist() == pytest.approx(exact, rel=1e-5) and shared.tolist() == pytest.approx(exact, rel=1e-5)


def test_kid_of_subsets_has_the_mean_of_all_and_a_wider_spread() -> None:
    x, y = randn(400, 4, seed=1) + 0.5, randn(400, 4, seed=2)
    over = kid_of_subsets(samples=x, reference=y, n_subsets=60, subset_size=100)
    whole = kid(samples=x, reference=y)
    assert over.value == pytest.approx(whole.value, abs=4 * over.spread / math.sqrt(60) + 2 * whole.spread)
    assert over.spread > whole.spread


def test_extrapolated_frechet_interval_holds_the_truth() -> None:
    """Gaussians with a known distance: the estimate has no bias where the plain one has, 95 % means about 95 %."""
    d, n, runs = 8, 256, 120
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(d, d, generator=generator).double() / d**0.5
    covariance = mix @ mix.T + 0.3 * torch.eye(d)
    reference = Gaussian(1 << 30, torch.zeros(d).double(), full=torch.eye(d).double())
    truth = frechet_distance(Gaussian(1 << 30, torch.full((d,), 0.2).double(), full=covariance), reference)
    factor = torch.linalg.cholesky(covariance)
    draws = [torch.randn(n, d, generator=generator).double() @ factor.T + 0.2 for _ in range(runs)]
    found = [frechet_infinity(samples=x.float(), reference=reference) for x in draws]
    values, plain = np.array([f.value for f in found]), np.array([f.at_n for f in found])
    assert abs(values.mean() - truth) < 3 * values.std() / math.sqrt(runs)
    assert plain.mean() - truth > 3 * plain.std() / math.sqrt(runs)
    assert 0.87 <= np.mean([f.low <= truth <= f.high for f in found]) <= 0.995


def test_inception_score_of_known_predictions() -> None:
    """Half of the samples surely one class, half surely another: two classes; an undecided classifier: one."""
    assert inception_score(torch.eye(3)[[0, 1] * 10].log())[0] == pytest.approx(2)
    p = torch.tensor([[0.8, 0.2], [0.2, 0.8]]).repeat(50, 1)
    expected = math.exp(0.8 * math.log(1.6) + 0.2 * math.log(0.4))
    score, error = inception_score(p.log())
    assert score == pytest.approx(expected, rel=1e-6) and error == pytest.approx(0, abs=1e-6)
    with pytest.raises(BowerbirdError, match="no classifier"):
        FakeExtractor("ab", torch.device("cpu")).log_probabilities(randn(3, 4))


def test_mean_distance_of_a_gaussian() -> None:
    """E‖x - x'‖ in two dimensions is √π for unit variance."""
    mean, error = mean_distance(randn(4000, 2))
    assert mean == pytest.approx(math.sqrt(math.pi), abs=4 * error) and error < 0.05
    collapsed = torch.zeros(50, 2) + 1
    assert diversity(samples=collapsed, reference=randn(50, 2))[0] == 0


def test_copies_are_told_from_neighbours() -> None:
    training, fresh = randn(500, 16, seed=1), randn(200, 16, seed=2)
    made = torch.cat([fresh, training[:50] + 0.02 * randn(50, 16, seed=3)])
    found = copies(samples=made, training=training)
    assert found[200:].all() and not found[:200].any()
    ratio, nearest = gap(samples=made[200:], training=training)
    assert nearest.tolist() == list(range(50)) and float(ratio.max()) < 0.1
    twice = torch.cat([training, training])
    assert copies(samples=training[:5], training=twice).all()  # exact copies of duplicates are still copies


# ------------------------------------------------------------------------------------------------- pixels


def test_ssim_against_windows_one_at_a_time() -> None:
    x, y = pictures(2, 3, 13, seed=1), pictures(2, 3, 13, seed=2)
    y = ((x.float() + y.float()) / 2).byte()
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    for image in range(2):
        values = []
        for channel in range(3):
            a, b = (z[image, channel].double().numpy() for z in (x, y))
            for i in range(3):
                for j in range(3):
                    u, v = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
                    mu, nu = (window * u).sum(), (window * v).sum()
                    var_u, var_v = (window * (u - mu) ** 2).sum(), (window * (v - nu) ** 2).sum()
                    both = (window * (u - mu) * (v - nu)).sum()
                    values.append((2 * mu * nu + c1) * (2 * both + c2) / ((mu**2 + nu**2 + c1) * (var_u + var_v + c2)))
        assert float(ssim(x, y)[image]) == pytest.approx(np.mean(values), rel=1e-9)
    with pytest.raises(BowerbirdError, match="11x11"):
        ssim(pictures(1, 1, 8), pictures(1, 1, 8))


def test_psnr_and_its_error() -> None:
    x = pictures(30)
    assert psnr(x, x) == (math.inf, None)
    noisy = (x.float() + 5 * randn(*x.shape, seed=1)).round().clamp(0, 255).byte()
    decibels, error = psnr(x, noisy)
    squared = (x.double() - noisy.double()).square().mean()
    assert decibels == pytest.approx(10 * math.log10(255**2 / float(squared))) and error and 0 < error < 0.5


def test_sliced_wasserstein_grows_with_brightness_and_needs_one_shape() -> None:
    x = pictures(40).clamp(max=180)
    distances = [sliced_wasserstein(samples=x + step, reference=x)[0] for step in (0, 20, 60)]
    assert distances[0] == 0 and distances[2] == pytest.approx(3 * distances[1], rel=1e-3)
    with pytest.raises(BowerbirdError, match="one shape"):
        sliced_wasserstein(samples=x, reference=x[:20])


# ------------------------------------------------------------------------------------------------- extractors


class FakeExtractor(Extractor):
    """Four means of pixels; counts the images that it is shown at most at a time."""

    name, dimension, resizer, batch_size = "fake", 4, "none", 64
    most = 0

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        self.most = max(self.most, len(images))
        return images.float().flatten(1).unflatten(1, (4, -1)).mean(2)


def test_streamed_gaussian_holds_one_chunk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bowerbird.metrics.cache.CHUNK", 30)
    network, images = FakeExtractor("ab", torch.device("cpu")), pictures(100, seed=4)
    streamed = FeatureSet.of(network, images, tmp_path / "kept")
    gaussian = streamed.gaussian()
    assert network.most == 30 and streamed._all is None
    whole = fit_gaussian(FeatureSet.of(network, images).all())
    torch.testing.assert_close(gaussian.covariance, whole.covariance, rtol=1e-9, atol=0)
    network.most = 0
    assert FeatureSet.of(network, images, tmp_path / "kept").gaussian().n == 100 and network.most == 0


def test_dinov2_agrees_with_transformers(tmp_path: Path) -> None:
    """The same random weights in Hugging Face's network, with as many positions as patches: none is interpolated."""
    transformers = pytest.importorskip("transformers", "5.0")
    config = transformers.Dinov2Config(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=224, patch_size=14, layerscale_value=0.5
    )
    torch.manual_seed(0)
    theirs = transformers.Dinov2Model(config).eval()
    torch.save(published_names(theirs.state_dict(), depth=2), tmp_path / "vit.pth")
    network = dinov2.PatchTransformer.load(tmp_path / "vit.pth")
    images = pictures(3, 3, 224)
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (dinov2.IMAGENET_MEAN, dinov2.IMAGENET_STD))
    with torch.no_grad():
        expected = theirs((images.float() / 255 - mean) / std).last_hidden_state[:, 0]
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


def published_names(weights: dict[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """Hugging Face's names as the published file has them."""
    renamed = {
        "embeddings.cls_token": "cls_token",
        "embeddings.mask_token": "mask_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
        "layernorm.weight": "norm.weight",
        "layernorm.bias": "norm.bias",
    }
    out = {new: weights[old] for old, new in renamed.items()}
    for i in range(depth):
        here = f"encoder.layer.{i}."
        for part in ("weight", "bias"):
            qkv = [weights[f"{here}attention.{which}_proj.{part}"] for which in "qkv"]
            out[f"blocks.{i}.attn.qkv.{part}"] = torch.cat(qkv)
            out[f"blocks.{i}.attn.proj.{part}"] = weights[f"{here}attention.o_proj.{part}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                out[f"blocks.{i}.{name}.{part}"] = weights[f"{here}{name}.{part}"]
        for which in ("1", "2"):
            out[f"blocks.{i}.ls{which}.gamma"] = weights[f"{here}layer_scale{which}.lambda1"]
    return out


def test_dinov2_small_has_the_published_shapes_and_interpolates_positions(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network = dinov2.PatchTransformer(384, 12, 1370)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["blocks.11.attn.qkv.weight"] == (1152, 384) and shapes["patch_embed.proj.weight"] == (384, 3, 14, 14)
    weights = {name: 0.05 * randn(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    save_file(weights, tmp_path / "vits14.safetensors")
    found = extractor("dinov2", weights=tmp_path / "vits14.safetensors").features(pictures(2, 1, 20))
    assert found.shape == (2, 384) and found.isfinite().all() and not torch.equal(found[0], found[1])


def test_weights_that_do_not_fit_are_refused_in_one_sentence(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save({"x": Path("not a tensor")}, tmp_path / "object.pth")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(BowerbirdError, match="no cls_token"):
        extractor("dinov2", weights=tmp_path / "other.pth")
    with pytest.raises(BowerbirdError, match="_conv_stem"):
        extractor("efficientnet-lite0", weights=tmp_path / "other.pth")
    for name in ("object.pth", "torn.safetensors"):
        with pytest.raises(BowerbirdError, match="cannot be read as weights"):
            extractor("dinov2", weights=tmp_path / name)
    with pytest.raises(BowerbirdError, match="dinov2:FILE"):
        extractor("dinov2")
    with pytest.raises(BowerbirdError, match="fp32 only"):
        extractor("digits", precision="bf16")


def test_efficientnet_folds_its_normalisation(tmp_path: Path) -> None:
    """Random weights with the published names: folded against convolution, then batch normalisation."""
    stored = _random_efficientnet()
    torch.save(stored, tmp_path / "lite0.pth")
    network = efficientnet.EfficientNetLite0.load(tmp_path / "lite0.pth")
    images = pictures(2, 3, 224)
    expected = _plain_efficientnet(stored, (images.float() - 127) / 128)
    with torch.no_grad():
        found = network(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def _blocks() -> list[tuple[int, int, int, int, int]]:
    """Channels in, out, kernel, stride, expansion of the 16 blocks."""
    rows, n_in = [], 32
    for n_blocks, n_out, kernel, stride, expansion in efficientnet.STAGES:
        for i in range(n_blocks):
            rows.append((n_in, n_out, kernel, 1 if i else stride, expansion))
            n_in = n_out
    return rows


def _random_efficientnet() -> dict[str, torch.Tensor]:
    generator, stored = _generator(0), {}

    def add(convolution: str, normalisation: str, *shape: int) -> None:
        fan_in = shape[1] * shape[2] * shape[3]
        stored[f"{convolution}.weight"] = torch.randn(*shape, generator=generator) * (2 / fan_in) ** 0.5
        for part, centre in (("weight", 1.0), ("bias", 0.3), ("running_mean", 0.0), ("running_var", 1.0)):
            stored[f"{normalisation}.{part}"] = centre + 0.1 * torch.rand(shape[0], generator=generator)

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    for i, (n_in, n_out, kernel, _, expansion) in enumerate(_blocks()):
        wide, here = n_in * expansion, f"_blocks.{i}."
        if expansion > 1:
            add(f"{here}_expand_conv", f"{here}_bn0", wide, n_in, 1, 1)
        add(f"{here}_depthwise_conv", f"{here}_bn1", wide, 1, kernel, kernel)
        add(f"{here}_project_conv", f"{here}_bn2", n_out, wide, 1, 1)
    add("_conv_head", "_bn1", 1280, 320, 1, 1)
    return stored | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


def _plain_efficientnet(stored: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    def layer(x: torch.Tensor, convolution: str, normalisation: str, stride: int = 1, act: bool = True) -> torch.Tensor:
        weight = stored[f"{convolution}.weight"]
        side, kernel = x.shape[-1], weight.shape[-1]
        pad = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)  # TensorFlow's "same"
        x = F.pad(x, (pad // 2, pad - pad // 2) * 2)
        groups = x.shape[1] if weight.shape[1] == 1 else 1
        parts = [stored[f"{normalisation}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        x = F.batch_norm(F.conv2d(x, weight, None, stride, groups=groups), *parts, eps=0.001)
        return F.relu6(x) if act else x

    x = layer(x, "_conv_stem", "_bn0", 2)
    for i, (n_in, n_out, _, stride, expansion) in enumerate(_blocks()):
        here, y = f"_blocks.{i}.", x
        if expansion > 1:
            y = layer(y, f"{here}_expand_conv", f"{here}_bn0")
        y = layer(y, f"{here}_depthwise_conv", f"{here}_bn1", stride)
        y = layer(y, f"{here}_project_conv", f"{here}_bn2", act=False)
        x = x + y if stride == 1 and n_in == n_out else y
    return layer(x, "_conv_head", "_bn1").mean((2, 3))


def test_inception_in_bf16_is_near_and_says_so() -> None:
    from bowerbird.data.fetch import locate

    path = locate("inception-2015")
    if path is None:
        pytest.skip("the weights are not here: bowerbird data get inception-2015")
    images = pictures(2, 3, 32)
    full, half = (extractor("inception-2015", weights=path, precision=p) for p in ("fp32", "bf16"))
    a, b = full.features(images), half.features(images)
    assert (full.dtype, half.dtype) == ("float32", "bfloat16") and full.key(images) != half.key(images)
    assert 0 < float((a - b).norm() / a.norm()) < 0.05


def test_constants_of_the_field() -> None:
    """FID, KID, precision, recall, density and coverage of CIFAR-10, from features that are there already."""
    if selftest.locate("cifar10") is None or selftest.locate("inception-2015") is None:
        pytest.skip("needs: bowerbird data get cifar10, bowerbird data get inception-2015")
    inception, kept = (
        extractor("inception-2015", weights=selftest.locate("inception-2015")),
        FeatureCache(fetch.cache_folder()),
    )
    if not all((kept.path(inception, images) / "00004.npy").is_file() for images in selftest.cifar_halves()):
        pytest.skip("the features of 10,000 photographs take minutes: bowerbird measure --self-test keeps them")
    checks, missing = selftest.self_test()
    assert not missing and [check for check in checks if not check.passed] == []
    assert {"FID", "KID"} <= {check.name.split()[0] for check in checks}
