"""The families diffusion and flow on data N(MU, STD^2), where the perfect network can be written down."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.models.base import Batch, Scores, counting_evaluations
from bowerbird.models.diffusion import DiffusionConfig, DiffusionOptions
from bowerbird.models.flow import FlowConfig, FlowOptions, logit_normal, optimal_coupling
from bowerbird.nets.conditioning import dropped, guided
from bowerbird.nets.roles import NetConfig
from bowerbird.samplers import schedule as S
from bowerbird.samplers.bound import discretised_gaussian_log_prob, gaussian_kl
from bowerbird.samplers.density import transport
from bowerbird.samplers.integrate import posterior
from bowerbird.samplers.prediction import target_weights
from bowerbird.samplers.schedule import stratified_uniform
from bowerbird.spec import Classes, Spec, Tensors

MU, STD = 0.1, 0.25
SPEC = Spec("image", Tensors((1, 4, 4)))
LABELLED = Spec("image", Tensors((1, 4, 4)), {"label": Classes(("a", "b", "c"), (1, 2, 1))})


class Perfect(nn.Module):
    """E[y | x_t] for data N(MU, STD^2) and any schedule and prediction, and the right variance when it is asked for."""

    def __init__(self, schedule, prediction, learned):
        super().__init__()
        self.schedule, self.prediction, self.learned = schedule, prediction, learned
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x, t, given=None):
        t = t.double().view(-1, 1, 1, 1)
        if self.prediction == "edm":  # t is log(sigma) / 4 and x is scaled to unit variance
            t = torch.exp(4 * t) / 80
            x = x * torch.sqrt((80 * t) ** 2 + 0.25)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        # Written without a division by sigma, which is 0 at the end.
        total = (alpha * STD) ** 2 + sigma**2
        x_0 = MU + alpha * STD**2 / total * (x - alpha * MU)
        eps = sigma / total * (x - alpha * MU)
        p, q = target_weights(self.prediction, alpha, sigma)
        y = p * x_0 + q * eps
        if self.learned:
            y = torch.cat([y, self.variance(t, (STD * sigma) ** 2 / total).expand_as(y)], 1)
        return y.to(torch.float32)

    def variance(self, t, variance_of_x_0):
        """The logit of where log Var(x_s | x_t) lies between its bounds, for neighbouring steps."""
        t = (t * self.schedule.timesteps).round() / self.schedule.timesteps  # t came as float32
        s = t - 1 / self.schedule.timesteps
        q = posterior(*(f(u) for u in (t, s) for f in (self.schedule.alpha, self.schedule.sigma)))
        first, second = (torch.tensor(i / self.schedule.timesteps, dtype=torch.float64) for i in (1, 2))
        least = posterior(*(f(u) for u in (second, first) for f in (self.schedule.alpha, self.schedule.sigma))).variance
        low = q.variance.clamp(min=least).log()
        variance = torch.log(q.variance + q.d**2 * variance_of_x_0)
        return torch.logit((variance - low) / (q.variance_max.log() - low))


@dataclass(frozen=True)
class PerfectConfig(NetConfig):
    schedule: str = "flow"
    prediction: str = "velocity"
    timesteps: int = 1000

    def denoiser(self, spec, channels_out):
        schedules = {"flow": S.FlowSchedule, "edm": S.EDM}
        make = schedules.get(self.schedule) or (lambda: getattr(S, self.schedule)(self.timesteps))
        return Perfect(make(), self.prediction, learned=channels_out > spec.target.shape[0])


class Tiny(nn.Module):
    """A network small enough to differentiate by eye: a y per channel, plus a number per label."""

    def __init__(self, spec, channels_out):
        super().__init__()
        self.y = nn.Parameter(torch.linspace(-0.5, 0.5, channels_out))
        self.n_classes = len(spec.given["label"].names) if spec.given else 0
        self.label = nn.Embedding(self.n_classes + 1, channels_out)

    def forward(self, x, t, given=None):
        y = self.y + self.label((given or {}).get("label", torch.full((len(x),), self.n_classes)))
        return y[:, :, None, None].expand(-1, -1, *x.shape[2:]) * torch.ones_like(x)


@dataclass(frozen=True)
class TinyConfig(NetConfig):
    def denoiser(self, spec, channels_out):
        return Tiny(spec, channels_out)


def perfect(schedule, prediction, timesteps=1000, **options):
    net = PerfectConfig(schedule, prediction, timesteps)
    if schedule == "flow":
        return FlowConfig(net=net, **options).build(SPEC)
    return DiffusionConfig(net=net, schedule=schedule, prediction=prediction, timesteps=timesteps, **options).build(
        SPEC
    )


PAIRS = [("flow", "velocity"), ("edm", "edm"), *itertools.product(["linear", "cosine"], ["eps", "x0", "v"])]


class BlackOrWhite(nn.Module):
    """The logits of x_0 = 1 given x_t, for pixels that are 1 or -1 with equal probability: 2 alpha x_t / sigma^2."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule
        self.offset, self.scale = nn.Parameter(torch.zeros(())), nn.Parameter(torch.ones(()))

    def forward(self, x_t, t, given=None):
        t = t.view(-1, 1, 1, 1)
        exact = 2 * self.schedule.alpha(t) * x_t / self.schedule.sigma(t) ** 2
        return (self.scale * exact + self.offset).float()


def black_or_white():
    model = DiffusionConfig(net=TinyConfig(), prediction="x0", loss="cross-entropy").build(SPEC)
    model.net = BlackOrWhite(model.schedule)
    return model


def test_cross_entropy_is_least_at_the_posterior_probability():
    torch.manual_seed(0)
    model = black_or_white()
    x = torch.randint(0, 2, (20_000, 1, 4, 4)) * 2.0 - 1
    (loss,) = model.losses(Batch(x))
    offset, scale = torch.autograd.grad(loss.value, (model.net.offset, model.net.scale))
    with torch.no_grad():
        model.net.offset += 1
    (worse,) = model.losses(Batch(x))
    assert offset.abs() < 2e-3 and scale.abs() < 2e-3
    assert worse.value > loss.value + 0.01
    with torch.no_grad():  # grey pixels, too: E[-pi log p - (1 - pi) log(1 - p)] at logits 1 is log(1 + e) - pi
        model.net.scale.zero_()
    (grey,) = model.losses(Batch(torch.full((8, 1, 4, 4), 0.5)))
    assert grey.value.item() == pytest.approx(math.log(1 + math.e) - 0.75, rel=1e-5)


def test_samples_of_the_cross_entropys_logits_are_black_and_white():
    model = black_or_white()
    x = model.sample(500, options=DiffusionOptions(steps=100), generator=Draws(0))
    assert (x.abs() > 0.99).float().mean() > 0.99
    assert (x > 0).float().mean() == pytest.approx(0.5, abs=0.03)


def test_cross_entropy_needs_logits_of_x_0():
    with pytest.raises(ValueError, match='needs prediction = "x0"'):
        DiffusionConfig(loss="cross-entropy")
    with pytest.raises(ValueError, match="fixed variance"):
        DiffusionConfig(loss="cross-entropy", prediction="x0", variance="learned")


@pytest.mark.parametrize(("schedule", "prediction"), PAIRS)
def test_loss_of_the_perfect_network_is_the_conditional_variance(schedule, prediction):
    torch.manual_seed(0)
    model = perfect(schedule, prediction)
    (loss,) = model.losses(Batch(MU + STD * torch.randn(20_000, 1, 4, 4)))
    times = model._draw_times(20_000)
    alpha, sigma = model.schedule.alpha(times), model.schedule.sigma(times)
    p, q = target_weights(prediction, alpha, sigma)
    # Given x_t, eps = (x_t - alpha x_0) / sigma, so y = (p - q alpha / sigma) x_0 + known.
    posterior_variance = (STD * sigma) ** 2 / ((STD * alpha) ** 2 + sigma**2)
    expected = ((p - q * alpha / sigma) ** 2 * posterior_variance).mean().item()
    assert loss.player == "model"
    assert loss.value.item() == pytest.approx(expected, rel=0.02)


def test_min_snr_weights_the_error_of_x_0():
    torch.manual_seed(0)
    model = perfect("cosine", "eps", weighting="min-snr")
    (loss,) = model.losses(Batch(MU + STD * torch.randn(20_000, 1, 4, 4)))
    times = model._draw_times(20_000)
    alpha, sigma = model.schedule.alpha(times), model.schedule.sigma(times)
    posterior_variance = (STD * sigma) ** 2 / ((STD * alpha) ** 2 + sigma**2)
    expected = ((alpha / sigma).square().clamp(max=5) * posterior_variance).mean().item()
    assert loss.value.item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("schedule", "prediction"), PAIRS)
@pytest.mark.parametrize("sampler", ["ddpm", "heun", "dpm++2m"])
def test_perfect_network_samples_the_data(schedule, prediction, sampler):
    model = perfect(schedule, prediction)
    x = model.sample(500, options=model.Options(steps=60, sampler=sampler), generator=Draws(0))
    assert x.shape == (500, 1, 4, 4)
    assert x.mean().item() == pytest.approx(MU, abs=0.015)
    # The fixed lower variance of ddpm falls short by a part that falls with 1 / steps.
    assert x.std().item() == pytest.approx(STD, rel=0.12 if sampler == "ddpm" else 0.03)


@pytest.mark.parametrize(
    ("sampler", "evaluations"), [("ddpm", 7), ("ddim", 7), ("euler", 7), ("heun", 13), ("dpm++2m", 7)]
)
def test_evaluations_are_counted_and_doubled_by_guidance(sampler, evaluations):
    for config in (FlowConfig(net=TinyConfig()), DiffusionConfig(net=TinyConfig())):
        model = config.build(LABELLED)
        for guidance, factor in [(1.0, 1), (2.0, 2)]:
            with counting_evaluations(model) as rows:
                model.sample(3, options=model.Options(steps=7, sampler=sampler, guidance=guidance))
            assert rows[0] == 3 * factor * evaluations


def test_default_flow_costs_49_evaluations():
    model = FlowConfig(net=TinyConfig()).build(LABELLED)
    with counting_evaluations(model) as rows:
        model.sample(2)
    assert rows[0] / 2 == 49


def test_the_temperature_scales_the_spread_of_gaussian_data_and_keeps_their_mean():
    """The flow to N(MU, STD^2) is x = MU + STD eps, and eps begins with the temperature as its deviation."""
    model = perfect("flow", "velocity", temperature=0.5)
    x = model.sample(200, options=FlowOptions(steps=20, clip=False), generator=Draws(0))
    assert abs(x.mean() - MU) < 0.01 and abs(x.std() / STD - 0.5) < 0.02
    hot = model.sample(200, options=FlowOptions(steps=20, clip=False, temperature=1.0), generator=Draws(0))
    torch.testing.assert_close(hot - MU, 2 * (x - MU), atol=2e-3, rtol=0)
    assert model.procedure()["first_sigma"] == 0.5


@pytest.mark.parametrize("config", [FlowConfig(net=TinyConfig()), DiffusionConfig(net=TinyConfig(), sampler="ddpm")])
def test_same_seed_same_samples(config):
    model = config.build(LABELLED)
    one, same, other = (model.sample(4, options=model.Options(steps=5), generator=Draws(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(model.sample(16, options=model.Options(steps=5), generator=Draws(1))[:4], one)


def test_sampling_leaves_the_training_mode_and_runs_in_evaluation_mode():
    model = FlowConfig(net=TinyConfig()).build(LABELLED)
    modes = []
    model.net.register_forward_hook(lambda module, inputs, output: modes.append(module.training))
    model.train()
    model.sample(2, options=FlowOptions(steps=2))
    assert model.net.training
    assert not any(modes)


# ---------------------------------------------------------------------------------------------------- labels


def test_guidance_extrapolates_the_prediction_but_not_the_variance():
    net = Tiny(LABELLED, 2)
    given, x, t = {"label": torch.tensor([0, 2])}, torch.zeros(2, 1, 4, 4), torch.zeros(2)

    def output(guidance):
        return guided(net, given, guidance, fields=LABELLED.given, dropout=0.1, channels=1)(x, t)

    with_label, without = net(x, t, given), net(x, t, None)
    assert torch.equal(output(1.0), with_label)
    assert torch.allclose(output(0.0)[:, :1], without[:, :1])
    assert torch.allclose(output(3.0)[:, :1], (without + 3 * (with_label - without))[:, :1])
    assert torch.equal(output(3.0)[:, 1:], with_label[:, 1:])


def test_labels_are_used_dropped_or_refused():
    assert FlowConfig(net=TinyConfig()).build(LABELLED).net.n_classes == 3
    assert FlowConfig(net=TinyConfig(), conditional=False).build(LABELLED).net.n_classes == 0
    label = torch.ones(20_000, dtype=torch.int64)
    left = dropped({"label": label, "unknown": label}, LABELLED.given, 0.1)
    assert left.keys() == {"label"} and set(left["label"].tolist()) == {1, 3}
    assert (left["label"] == 3).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert dropped({}, LABELLED.given, 0.1) == {}
    with pytest.raises(BowerbirdError, match="trained without labels"):
        FlowConfig(net=TinyConfig()).build(SPEC).sample(1, {"label": torch.tensor([0])})
    with pytest.raises(BowerbirdError, match="needs a model trained with labels"):
        DiffusionConfig(net=TinyConfig()).build(SPEC).sample(1, options=DiffusionOptions(guidance=2.0))
    with pytest.raises(BowerbirdError, match="label_dropout above 0"):
        FlowConfig(net=TinyConfig(), label_dropout=0.0).build(LABELLED).sample(1, options=FlowOptions(guidance=2.0))


def test_samples_follow_their_labels():
    model = FlowConfig(net=TinyConfig()).build(LABELLED)
    with torch.no_grad():
        model.net.y.zero_()
        model.net.label.weight.copy_(torch.tensor([[0.5], [0.0], [-0.5], [0.0]]))
    x = model.sample(300, {"label": torch.arange(3).repeat(100)}, FlowOptions(steps=5, clip=False))
    # A constant velocity u carries noise to eps - u.
    low, middle, high = x.view(100, 3, -1).mean((0, 2))
    assert low < middle < high


# ---------------------------------------------------------------------------------------------------- training times


def test_stratified_times_have_one_draw_in_each_interval():
    u = stratified_uniform(50)
    assert torch.equal((u * 50).long(), torch.arange(50))


def test_logit_normal_has_the_mean_and_deviation_asked_for():
    t = logit_normal(stratified_uniform(10_000), -0.5, 1.3)
    logit = torch.log(t / (1 - t))
    assert (logit.mean().item(), logit.std().item()) == pytest.approx((-0.5, 1.3), abs=0.01)


def test_edm_draws_log_sigma_from_its_normal():
    model = perfect("edm", "edm")
    log_sigma = model.schedule.sigma(model._draw_times(10_000)).log()
    assert (log_sigma.mean().item(), log_sigma.std().item()) == pytest.approx((-1.2, 1.2), abs=0.01)


def test_discrete_chain_is_trained_on_all_its_steps_and_no_other():
    model = perfect("linear", "eps", timesteps=50)
    steps = model._draw_times(50) * 50
    assert steps.tolist() == pytest.approx(list(range(1, 51)))


# ---------------------------------------------------------------------------------------------------- coupling


def test_coupling_is_the_best_of_all_permutations_and_keeps_classes_apart():
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 5, 1, 2, 2, generator=generator)
    label = torch.tensor([0, 1, 0, 1, 1])

    def cost(order, keep_classes):
        if keep_classes and not torch.equal(label[list(order)], label):
            return math.inf
        return (x - eps[list(order)]).square().sum().item()

    for labels in (None, label):
        matched = optimal_coupling(x, eps, labels)
        best = min(cost(order, labels is not None) for order in itertools.permutations(range(5)))
        assert (x - matched).square().sum().item() == pytest.approx(best, rel=1e-5)


# ---------------------------------------------------------------------------------------------------- the bound


def test_gaussian_kl_is_torchs():
    from torch.distributions import Normal, kl_divergence

    q, p = Normal(0.3, 0.7), Normal(-0.4, 1.9)
    logvar_q, logvar_p = (2 * torch.log(d.stddev) for d in (q, p))
    assert gaussian_kl(q.mean - p.mean, logvar_q, logvar_p).item() == pytest.approx(
        kl_divergence(q, p).item(), rel=1e-5
    )


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (0.97, 0.05), (-1.0, 0.002), (0.4, 3.0)])
def test_decoder_is_a_distribution_over_256_values_with_finite_gradients(mean, std):
    x = torch.arange(256) / 127.5 - 1
    logvar = torch.tensor(2 * math.log(std), requires_grad=True)
    log_prob = discretised_gaussian_log_prob(x, torch.tensor(mean), logvar)
    assert log_prob.double().exp().sum().item() == pytest.approx(1, abs=1e-4)
    log_prob.sum().backward()
    assert logvar.grad is not None
    assert logvar.grad.isfinite()


def eight_bit_gaussian(n):
    x = MU + STD * torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x = ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    nll = -discretised_gaussian_log_prob(x, torch.tensor(MU), torch.tensor(2 * math.log(STD)))
    return x, nll.mean().item() / math.log(2)


def test_bound_of_the_perfect_denoiser_approaches_the_likelihood():
    x, bits = eight_bit_gaussian(200)
    gaps = []
    for timesteps in (40, 200):
        model = perfect("edm", "edm", timesteps)
        bound = model.bound(x, generator=torch.Generator().manual_seed(1))
        assert bound.steps.shape == (200, timesteps - 1)
        assert (bound.prior >= 0).all()
        assert (bound.steps >= 0).all()
        gaps.append(bound.total.mean().item() - bits)
    assert 0 < gaps[1] < gaps[0] / 3


@pytest.mark.parametrize(("schedule", "prediction"), [("linear", "eps"), ("cosine", "v"), ("cosine", "x0")])
def test_bound_is_the_likelihood_when_mean_and_variance_are_perfect(schedule, prediction):
    # The reverse steps of Gaussian data are Gaussian, so then nothing is lost, however few the steps.
    x, bits = eight_bit_gaussian(2000)
    model = perfect(schedule, prediction, 25, variance="learned")
    bound = model.bound(x, generator=torch.Generator().manual_seed(1))
    assert bound.total.mean().item() == pytest.approx(bits, abs=0.01)


def test_sampling_uses_the_learned_variance():
    model = perfect("cosine", "v", 25, variance="learned")
    x = model.sample(2000, options=DiffusionOptions(sampler="ddpm", steps=25, grid="uniform"), generator=Draws(0))
    # Each step then has the right spread, save the last, which takes the mean and loses Var(x_0 | x_{t_1}).
    alpha, sigma = (f(model.chain[1]).item() for f in (model.schedule.alpha, model.schedule.sigma))
    lost = (STD * sigma) ** 2 / ((STD * alpha) ** 2 + sigma**2)
    assert x.std().item() == pytest.approx(math.sqrt(STD**2 - lost), rel=0.01)


def test_log_prob_is_the_bound_in_nats_and_a_subset_estimates_it():
    x, _ = eight_bit_gaussian(50)
    model = perfect("cosine", "eps", 20)
    assert isinstance(model, Scores)
    log_prob = model.log_prob(Batch(x), generator=torch.Generator().manual_seed(0))
    bound = model.bound(x, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(log_prob, -bound.total * 16 * math.log(2))
    generator = torch.Generator().manual_seed(1)
    few = torch.stack([model.log_prob(Batch(x), generator=generator, n_terms=7).mean() for _ in range(25)])
    standard_error = few.std().item() / 5
    assert standard_error < 0.04 * abs(log_prob.mean().item())
    assert few.mean().item() == pytest.approx(log_prob.mean().item(), abs=4 * standard_error)


def test_learned_variance_lies_between_its_bounds_and_the_bound_leaves_the_mean_alone():
    gradients = {}
    for weight in (0.0, 1.0):
        config = DiffusionConfig(net=TinyConfig(), variance="learned", vlb_weight=weight, timesteps=50)
        torch.manual_seed(0)
        model = config.build(SPEC)
        (loss,) = model.losses(Batch(torch.rand(64, 1, 4, 4) * 2 - 1))
        loss.value.backward()
        gradients[weight] = model.net.y.grad
    assert gradients[0.0][0] == gradients[1.0][0] != 0
    assert gradients[0.0][1] == 0
    assert gradients[1.0][1] != 0
    _, mix = model._split(torch.linspace(-9, 9, 20).view(1, 2, 10, 1))
    assert (0 < mix).all()
    assert (mix < 1).all()


# ---------------------------------------------------------------------------------------------------- densities


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("divergence", ["hutchinson", "exact"])
def test_probability_flow_density_of_a_gaussian(pair, divergence):
    """The data's own density, up to the noise that the schedule's last step leaves in them."""
    model = perfect(*pair)
    x = MU + STD * torch.randn(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    left = 0.0 if pair[0] == "flow" else model.schedule.ratio_min
    exact = torch.distributions.Normal(MU, math.hypot(STD, left)).log_prob(x).flatten(1).sum(1)
    # The Jacobian is a multiple of the identity here, so one sign vector gives its trace without error.
    log_density = model.log_density(x, divergence=divergence)
    assert torch.allclose(log_density, exact, atol=0.02)


def test_transport_keeps_its_tolerance_and_says_when_it_cannot():
    """A rotation with growth: known in closed form, and every factor of 10 in tolerance gains about one in error."""
    turn = torch.tensor([[0.3, 2.0], [-2.0, 0.3]])
    x = torch.tensor([[1.0, 0.5], [0.2, -1.0]])
    errors = []
    for tolerance in (1e-2, 1e-4, 1e-6):
        end, integral = transport(lambda x, s: x.double() @ turn.T.double(), x.double(), 0.0, 2.0, tolerance=tolerance)
        errors.append(float((end - x.double() @ torch.linalg.matrix_exp(2 * turn.double()).T).abs().max()))
        assert integral.tolist() == pytest.approx([1.2, 1.2])  # trace 0.6 over 2
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-5
    with pytest.raises(RunFailed, match="could not be followed"):
        transport(lambda x, s: x / 0, x, 0.0, 1.0)


def test_diffusion_flow_log_prob_is_that_of_8_bit_images():
    x, bits = eight_bit_gaussian(200)
    log_prob = perfect("edm", "edm").estimators["flow"].log_prob(Batch(x), generator=torch.Generator().manual_seed(0))
    assert -log_prob.mean().item() / (16 * math.log(2)) == pytest.approx(bits, abs=0.02)


def test_flow_log_prob_is_that_of_8_bit_images():
    x, bits = eight_bit_gaussian(200)
    log_prob = perfect("flow", "velocity").log_prob(Batch(x), generator=torch.Generator().manual_seed(0))
    assert -log_prob.mean().item() / (16 * math.log(2)) == pytest.approx(bits, abs=0.02)


# ---------------------------------------------------------------------------------------------------- settings


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="go together"):
        DiffusionConfig(net=TinyConfig(), schedule="edm")
    with pytest.raises(ValueError, match="fixed variance"):
        DiffusionConfig(net=TinyConfig(), schedule="edm", prediction="edm", variance="learned")
    with pytest.raises(ValueError, match="at least 2"):
        DiffusionConfig(net=TinyConfig(), timesteps=1)
