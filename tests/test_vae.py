"""The bound, its two terms, the likelihoods, and the importance-weighted estimate against exact answers."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence
from torch.nn import functional as F

from bowerbird.draws import Draws
from bowerbird.eightbit import to_float
from bowerbird.errors import BowerbirdError
from bowerbird.models import vae as family
from bowerbird.models.base import Batch, Encodes, Scores
from bowerbird.models.vae import (
    LIKELIHOODS,
    VAE,
    VAEConfig,
    VAEOptions,
    bits_per_dim,
    kl_to_standard_normal,
    reparameterised,
    with_free_bits,
)
from bowerbird.nets.conditioning import Conditioner, Given
from bowerbird.nets.roles import NetConfig
from bowerbird.spec import Classes, Spec, Tensors

EIGHT_BIT = to_float(torch.arange(256, dtype=torch.uint8)).view(256, 1, 1, 1)


@dataclass(frozen=True)
class TinyConfig(NetConfig):
    """Perceptrons with one hidden layer, each label added to the input of the hidden layer's non-linearity."""

    width: int = 32

    def encoder(self, spec: Spec, n_out: int) -> nn.Module:
        return Tiny(spec.target.dims, self.width, (n_out,), spec)

    def decoder(self, spec: Spec, n_in: int, channels_out: int) -> nn.Module:
        return Tiny(n_in, self.width, (channels_out, *spec.target.shape[1:]), spec)


class Tiny(nn.Module):
    def __init__(self, n_in: int, width: int, shape_out: tuple[int, ...], spec: Spec):
        super().__init__()
        self.shape_out = shape_out
        self.hidden = nn.Linear(n_in, width)
        self.given = Conditioner(spec.given, width)
        self.out = nn.Linear(width, math.prod(shape_out))

    def forward(self, x: Tensor, given: Given | None) -> Tensor:
        h = self.hidden(x.flatten(1))
        if self.given:
            h = h + self.given(given, len(x))
        return self.out(F.leaky_relu(h, 0.2)).unflatten(1, self.shape_out)


GREY = Spec("image", Tensors((1, 2, 2)))
LABELLED = Spec("image", Tensors((1, 2, 2)), {"label": Classes(("dark", "light"), (30, 10))})


def vae(spec: Spec = GREY, **options) -> VAE:
    torch.manual_seed(0)
    return VAEConfig(net=TinyConfig(), **{"n_latent": 3} | options).build(spec)


def only_loss(model: VAE, x: Tensor, given: Given | None = None, step: int = 0):
    torch.manual_seed(1)
    (loss,) = model.losses(Batch(x, given or {}, step=step))
    return loss


def random_images(n: int, spec: Spec = GREY) -> Tensor:
    return to_float(torch.randint(0, 256, (n, *spec.target.shape), dtype=torch.uint8))


# ------------------------------------------------------------------------------------------------------------ KL


def test_kl_is_that_of_torch_and_of_monte_carlo():
    torch.manual_seed(0)
    mu, logvar = torch.randn(4, 3), torch.randn(4, 3)
    q, p = Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)
    kl = kl_to_standard_normal(mu, logvar)
    torch.testing.assert_close(kl, kl_divergence(q, p))
    z = q.sample((200_000,))
    torch.testing.assert_close(kl, (q.log_prob(z) - p.log_prob(z)).mean(0), atol=0.02, rtol=0)


def test_a_reparameterised_draw_has_the_moments_and_the_gradient_of_q():
    torch.manual_seed(0)
    mu, logvar = torch.tensor([[0.7]], requires_grad=True), torch.tensor([[-0.4]], requires_grad=True)
    z = reparameterised(mu, logvar, torch.randn(400_000, 1, 1))
    assert z.mean().item() == pytest.approx(0.7, abs=0.01)
    assert z.var().item() == pytest.approx(math.exp(-0.4), abs=0.01)
    # E z² = mu² + e^logvar, so d/dmu = 2 mu and d/dlogvar = e^logvar
    d_mu, d_logvar = torch.autograd.grad(z.square().mean(), [mu, logvar])
    assert d_mu.item() == pytest.approx(1.4, abs=0.02)
    assert d_logvar.item() == pytest.approx(math.exp(-0.4), abs=0.02)


def test_free_bits_charge_a_floor_per_dimension_of_the_batch_mean_and_stop_its_gradient():
    kl = torch.tensor([[0.0, 3.0, 0.2], [0.6, 1.0, 0.4]], requires_grad=True)  # means 0.3, 2.0, 0.3
    torch.testing.assert_close(with_free_bits(kl, 0.0), torch.tensor(2.6))
    charged = with_free_bits(kl, 0.5)
    torch.testing.assert_close(charged, torch.tensor(0.5 + 2.0 + 0.5))
    (gradient,) = torch.autograd.grad(charged, kl)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.5, 0.0]]))


# ---------------------------------------------------------------------------------------------------- likelihoods


@pytest.mark.parametrize("name", ["gaussian", "discretised-logistic"])
@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.1, 0.999, 4.0])
@pytest.mark.parametrize("log_scale", [-6.0, -2.0, 0.0, 2.0])
def test_discretised_likelihoods_are_distributions_over_256_values(name, mean, log_scale):
    output = torch.full_like(EIGHT_BIT, mean)
    log_prob = LIKELIHOODS[name].log_prob(EIGHT_BIT, output, torch.tensor(log_scale))
    assert log_prob.isfinite().all()
    assert log_prob.double().exp().sum().item() == pytest.approx(1, abs=2e-5)


@pytest.mark.parametrize("name", ["gaussian", "discretised-logistic"])
def test_drawing_pixels_agrees_with_their_probabilities(name):
    mean, log_scale = torch.tensor(-0.7), torch.tensor(-1.5)
    log_prob = LIKELIHOODS[name].log_prob(EIGHT_BIT, mean.expand_as(EIGHT_BIT), log_scale)
    x = LIKELIHOODS[name].draw(mean.expand(200, 1, 1, 1000), log_scale, Draws(0))
    values = ((x.flatten() + 1) * 127.5).round().long()
    frequency = torch.bincount(values, minlength=256).double() / len(values)
    expected = log_prob.flatten().double().exp()
    assert expected[0] > 0.04, "black collects a tail"
    assert (frequency - expected).abs().sum() < 0.04  # total variation expected of 200,000 draws: about 0.02


def test_logistic_bins_are_differences_of_sigmoids():
    mean, log_scale = torch.tensor(0.2).double(), torch.tensor(-2.0).double()
    x = EIGHT_BIT.double()
    scale = log_scale.exp()
    difference = ((x + 1 / 255 - mean) / scale).sigmoid() - ((x - 1 / 255 - mean) / scale).sigmoid()
    log_prob = LIKELIHOODS["discretised-logistic"].log_prob(x, mean.expand_as(x), log_scale)
    torch.testing.assert_close(log_prob[1:-1].exp(), difference[1:-1], rtol=1e-5, atol=1e-12)


def test_gaussian_bins_approach_density_times_width_where_the_scale_is_wide():
    x = EIGHT_BIT[20:-20].double()
    log_scale = torch.tensor(-1.0).double()
    exact, midpoint = (
        f(x, torch.full_like(x, 0.1), log_scale)
        for f in (LIKELIHOODS["gaussian"].log_prob, LIKELIHOODS["gaussian"].objective)
    )
    density = Normal(0.1, math.exp(-1)).log_prob(x) + math.log(2 / 255)
    torch.testing.assert_close(midpoint, density)
    torch.testing.assert_close(exact, density, atol=2e-4, rtol=0)


def test_bernoulli_is_that_of_torch_and_its_mean_and_draws_are_in_the_range_of_images():
    torch.manual_seed(0)
    logits = torch.randn(50_000, 1, 1, 1) * 0 + 0.4
    x = torch.randint(0, 2, logits.shape) * 2.0 - 1
    likelihood = LIKELIHOODS["bernoulli"]
    torch.testing.assert_close(
        likelihood.log_prob(x, logits, None), Bernoulli(logits=logits).log_prob((x + 1) / 2), atol=1e-5, rtol=1e-5
    )
    drawn = likelihood.draw(logits.view(50, 1, 1, 1000), None, Draws(0))
    assert set(drawn.unique().tolist()) == {-1, 1}
    torch.testing.assert_close(drawn.mean(), likelihood.mean(logits)[0, 0, 0, 0], atol=0.02, rtol=0)


def test_the_learned_scale_is_optimal_at_the_root_mean_square_error():
    """The closed form of Rybkin et al. 2021: sigma² = MSE."""
    torch.manual_seed(0)
    error = torch.randn(500, 1, 2, 2) * 0.3
    log_scale = error.square().mean().sqrt().log().requires_grad_()
    value = LIKELIHOODS["gaussian"].objective(error, torch.zeros_like(error), log_scale).mean()
    assert torch.autograd.grad(value, log_scale)[0].abs() < 1e-5


def test_extreme_outputs_have_finite_likelihoods_and_training_gradients():
    for name, likelihood in LIKELIHOODS.items():
        output = torch.tensor([-300.0, 0.0, 300.0]).view(3, 1, 1, 1).requires_grad_()
        log_scale = torch.tensor(-5.0, requires_grad=True)
        for x in (-1.0, 1.0):
            value = likelihood.objective(torch.full((3, 1, 1, 1), x), output, log_scale).sum()
            (gradient,) = torch.autograd.grad(value, output)
            assert value.isfinite() and gradient.isfinite().all(), name


def test_bits_per_dimension_of_the_uniform_distribution_over_256_values_is_eight():
    dims = 12
    assert bits_per_dim(torch.tensor(-dims * math.log(256)), dims).item() == pytest.approx(8)


# ------------------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_loss_is_the_negative_bound_of_the_same_draw(name):
    model = vae(likelihood=name)
    x = random_images(5)
    loss = only_loss(model, x)
    torch.manual_seed(1)
    mu, logvar = model.posterior(x)
    q = Normal(mu, (logvar / 2).exp())
    output = model.decoder(mu + q.stddev * torch.randn(5, 3), {})
    nll = -model.likelihood.objective(x, output, model.log_scale).sum((1, 2, 3)).mean()
    kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(loss.value, nll + kl)
    torch.testing.assert_close(loss.logs["nll"], nll.detach())
    torch.testing.assert_close(loss.logs["kl"], kl.detach())
    assert not any(log.requires_grad for log in loss.logs.values())
    gradients = torch.autograd.grad(loss.value, list(model.parameters()))
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients)


def test_beta_weighs_the_kl_and_warm_up_lets_it_rise_from_zero():
    x = random_images(5)
    model = vae(beta=4.0, kl_warmup_steps=10)
    assert [model.kl_weight(step) for step in (0, 5, 10, 99)] == [0, 2, 4, 4]
    for step, weight in ((0, 0.0), (5, 2.0), (10, 4.0)):
        loss = only_loss(model, x, step=step)
        torch.testing.assert_close(loss.value.detach(), loss.logs["nll"] + weight * loss.logs["kl"])
    assert vae().kl_weight(0) == 1


def test_a_dimension_below_the_free_bits_pays_for_them():
    x = random_images(5)
    plain, free = only_loss(vae(), x), only_loss(vae(free_bits=100.0), x)
    torch.testing.assert_close(free.value.detach(), plain.logs["nll"] + 3 * 100.0)
    torch.testing.assert_close(free.logs["kl"], plain.logs["kl"], msg="the log keeps the true KL")


def test_active_units_and_scale_are_logged():
    model = vae(likelihood="discretised-logistic")
    with torch.no_grad():
        model.encoder.out.weight.zero_()
        model.encoder.out.bias.copy_(torch.tensor([1.0, 0.0, -1.0, 0.0, 0.0, 0.0]))  # mu, then logvar
        model.log_scale.fill_(math.log(0.25))
    logs = only_loss(model, random_images(5)).logs
    assert logs["active_units"] == 2
    assert logs["kl"].item() == pytest.approx(1.0)
    assert logs["scale"].item() == pytest.approx(0.25)
    bits = (logs["nll"] + logs["kl"]) / (GREY.target.dims * math.log(2))
    torch.testing.assert_close(logs["bits_per_dim"], bits)


# ------------------------------------------------------------------------------------- the importance-weighted bound


class Linear(nn.Module):
    """(x, given) → W x + b, as an image or a vector."""

    def __init__(self, weight: Tensor, bias: Tensor, shape_out: tuple[int, ...]):
        super().__init__()
        self.weight, self.bias, self.shape_out = nn.Parameter(weight), nn.Parameter(bias), shape_out

    def forward(self, x: Tensor, given: Given | None) -> Tensor:
        return F.linear(x.flatten(1), self.weight, self.bias).unflatten(1, self.shape_out)


def factor_analysis(q_scale: float) -> tuple[VAE, MultivariateNormal]:
    """x = W z + b + sigma eps, whose log p(x) is known; q has the exact mean and ``q_scale`` times the exact spread."""
    model = vae(n_latent=2, likelihood="gaussian")
    sigma = 0.15
    w = torch.tensor([[0.2, 0.0], [0.0, 0.15], [0.1, 0.1], [-0.1, 0.05]])
    b = torch.tensor([0.1, -0.1, 0.0, 0.2])
    precision = torch.eye(2) + w.T @ w / sigma**2
    to_mean = torch.linalg.solve(precision, w.T / sigma**2)
    logvar = (q_scale**2 / precision.diagonal()).log()
    model.decoder = Linear(w, b, (1, 2, 2))
    model.encoder = Linear(torch.cat([to_mean, torch.zeros(2, 4)]), torch.cat([-to_mean @ b, logvar]), (4,))
    with torch.no_grad():
        model.log_scale.fill_(math.log(sigma))
    return model, MultivariateNormal(b, w @ w.T + sigma**2 * torch.eye(4))


def test_the_importance_weighted_bound_rises_with_k_to_the_exact_likelihood(monkeypatch):
    monkeypatch.setattr(VAE, "ROWS", 40_000)  # tiny images: fewer, larger pieces
    model, marginal = factor_analysis(q_scale=1.3)
    torch.manual_seed(0)
    x = marginal.sample((400,)).clamp(-0.98, 0.98)
    exact = marginal.log_prob(x) + 4 * math.log(2 / 255)  # probability of the bins, by the midpoint rule
    x = x.view(-1, 1, 2, 2)
    gaps = []
    for k in (1, 4, 16, 2000):
        bound = model.log_prob(Batch(x), generator=torch.Generator().manual_seed(0), n_samples=k)
        assert bound.shape == (400,)
        gaps.append((exact - bound).mean().item())
    assert gaps[0] > gaps[1] > gaps[2] > abs(gaps[3])
    assert gaps[0] > 0.1 > 0.005 > abs(gaps[3])


def test_one_sample_is_the_bound_that_training_descends():
    model, _ = factor_analysis(q_scale=1.0)
    x = random_images(3).clamp(-0.5, 0.5).repeat(4000, 1, 1, 1)
    bound = model.log_prob(Batch(x), generator=torch.Generator().manual_seed(0), n_samples=1).mean()
    torch.testing.assert_close(-only_loss(model, x).value.detach(), bound, rtol=2e-3, atol=0)


def test_the_bound_does_not_depend_on_how_it_is_cut_into_pieces(monkeypatch):
    model, _ = factor_analysis(q_scale=1.0)
    x = random_images(10).clamp(-0.3, 0.3)
    whole = model.log_prob(Batch(x), n_samples=3000, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(VAE, "ROWS", 4)
    assert model.log_prob(Batch(x), n_samples=7).shape == (10,)
    monkeypatch.setattr(VAE, "ROWS", 300)
    pieces = model.log_prob(Batch(x), n_samples=3000, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(whole, pieces, atol=0.15, rtol=0)


def test_bernoulli_likelihoods_sum_to_one_over_all_images_and_refuse_grey():
    model = vae(likelihood="bernoulli", n_latent=1)
    images = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4).view(16, 1, 2, 2)
    log_prob = model.log_prob(Batch(images), n_samples=2000, generator=torch.Generator().manual_seed(0))
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=0.02)
    with pytest.raises(BowerbirdError, match="black-and-white"):
        model.log_prob(Batch(images * 0.5))
    assert only_loss(model, images * 0.5).value.isfinite()


# ---------------------------------------------------------------------------------------------- samples and labels


def test_the_protocols_are_kept():
    model = vae()
    assert isinstance(model, Encodes) and isinstance(model, Scores)
    x = random_images(6)
    z = model.encode(x)
    assert z.shape == (6, 3) and model.decode(z).shape == x.shape
    torch.testing.assert_close(z, model.posterior(x)[0])
    assert model.estimators["nll"].description == "importance-weighted bound, 500 samples"


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_are_decoded_latents_and_follow_the_generator_state(name):
    model = vae(likelihood=name).eval()

    def draw(seed: int, **options) -> Tensor:
        return model.sample(5, options=VAEOptions(**options), generator=Draws(seed))

    torch.testing.assert_close(draw(0), draw(0), rtol=0, atol=0)
    assert not torch.equal(draw(0), draw(1))
    torch.testing.assert_close(draw(0), model.decode(Draws(0).randn(5, 3)))
    noisy = draw(0, noise="sample")
    assert noisy.shape == (5, 1, 2, 2) and noisy.abs().max() <= 1 and not torch.equal(noisy, draw(0))
    assert set(noisy.unique().tolist()) <= {-1, 1} or name != "bernoulli"


def test_labels_reach_encoder_decoder_and_bound_unless_the_model_is_unconditional():
    x, z = random_images(5), torch.randn(5, 3)
    dark, light = ({"label": torch.full((5,), number)} for number in (0, 1))
    model = vae(LABELLED)
    assert (model.encode(x, dark) != model.encode(x, light)).any()
    assert (model.decode(z, dark) != model.decode(z, light)).any()

    def log_prob(given: Given) -> Tensor:
        return model.log_prob(Batch(x, given), generator=torch.Generator().manual_seed(0), n_samples=9)

    first, second = log_prob(dark), log_prob(light)
    assert (first != second).all()
    both = torch.tensor([0, 1, 0, 1, 1])
    torch.testing.assert_close(log_prob({"label": both}), torch.where(both == 0, first, second))
    blind = vae(LABELLED, conditional=False)
    torch.testing.assert_close(blind.encode(x, dark), blind.encode(x, light))
    assert only_loss(blind, x, dark).player == "model"
    with pytest.raises(BowerbirdError, match="without labels"):
        blind.sample(5, dark)


@pytest.mark.parametrize("options", [{"n_latent": 0}, {"beta": -1.0}, {"free_bits": -0.1}, {"kl_warmup_steps": -1}])
def test_senseless_settings_are_refused_in_one_sentence(options):
    with pytest.raises(ValueError, match=r"\.$"):
        VAEConfig(net=TinyConfig(), **options)


# ------------------------------------------------------------------------------------------------------ end to end


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_training_raises_the_bound_above_independent_pixels_and_samples_like_the_data(name):
    """8×8 images that are white in one half, left or right, with a little noise: one bit that all pixels share."""
    spec = Spec("image", Tensors((1, 8, 8)))
    model = vae(spec, likelihood=name, n_latent=2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    torch.manual_seed(0)

    def images(n: int) -> Tensor:
        left = torch.where(torch.arange(8) < 4, 1.0, -1.0)
        x = (torch.randint(0, 2, (n, 1, 1, 1)) * 2 - 1) * left.view(1, 1, 1, 8).expand(n, 1, 8, 8)
        if name == "bernoulli":
            return x * torch.where(torch.rand(n, 1, 8, 8) < 0.05, -1, 1)
        return to_float(((0.6 * x + 0.1 * torch.randn(n, 1, 8, 8) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))

    for number in range(300):
        (loss,) = model.losses(Batch(images(64), step=number))
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
    model.eval()
    x = images(200)
    # entropy of the noise plus one bit; with independent pixels the side would cost up to a bit in every pixel
    side, noise = math.log(2), 64 * (Normal(0.0, 0.1).entropy() - math.log(2 / 255))
    if name == "bernoulli":
        noise = 64 * Bernoulli(torch.tensor(0.05)).entropy()
    nll = -model.log_prob(Batch(x), generator=torch.Generator().manual_seed(0), n_samples=50).mean()
    assert noise + side - 3 < nll < noise + side + 10
    drawn = model.sample(400, generator=Draws(0)).mean(2).squeeze(1)
    halves = torch.stack([drawn[:, :4].mean(1), drawn[:, 4:].mean(1)], 1)
    assert (halves[:, 0] * halves[:, 1] < 0).float().mean() > 0.9, "one half is light, the other dark"
    assert 0.25 < (halves[:, 0] > 0).float().mean() < 0.75, "both kinds appear"
    if name == "gaussian":
        assert model.log_scale.exp().item() == pytest.approx(0.1, abs=0.03)


def test_module_constants_match_the_grid_of_eight_bit_images():
    neighbours = to_float(torch.tensor([0, 1, 254, 255], dtype=torch.uint8))
    assert (neighbours[1] - neighbours[0]).item() == pytest.approx(2 * family.BIN, rel=1e-5)
    assert neighbours.abs().tolist()[1] < family.INNER < neighbours.abs().tolist()[0]
