"""Schedules, predictions and samplers against what is known in closed form.

For data N(MU, STD^2) everything is known: the denoiser D(x, t) = MU + k (x - alpha MU) with
k = alpha STD^2 / (alpha^2 STD^2 + sigma^2), and the solution of the probability-flow equation, along which
(x_t - alpha MU) / sqrt(alpha^2 STD^2 + sigma^2) stays constant.
"""

import itertools
import math

import pytest
import torch

from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.samplers import integrate as I
from bowerbird.samplers import schedule as S
from bowerbird.samplers.prediction import denoiser_weights, target_weights

MU, STD = 0.3, 0.6
SCHEDULES = {"linear": S.linear(), "cosine": S.cosine(), "edm": S.EDM(), "flow": S.FlowSchedule()}
ONE = torch.ones((), dtype=torch.float64)


def std_at(schedule, t):
    return torch.sqrt((schedule.alpha(t) * STD) ** 2 + schedule.sigma(t) ** 2)


def gaussian_denoiser(schedule, mix=0.0):
    def denoise(x_t, t):
        t = t * ONE
        alpha, total = schedule.alpha(t), std_at(schedule, t)
        return I.Denoised(MU + alpha * STD**2 / total**2 * (x_t - alpha * MU), mix)

    return denoise


def exact(schedule, x, t, s):
    t, s = t * ONE, s * ONE
    return schedule.alpha(s) * MU + (x - schedule.alpha(t) * MU) * std_at(schedule, s) / std_at(schedule, t)


def fitted_order(schedule, sampler, grid, to_data):
    """Slope of log error against log(1 / steps)."""
    steps, errors = [16, 32, 64, 128], []
    x = schedule.sigma(ONE) * torch.linspace(-2, 2, 5, dtype=torch.float64)
    for n in steps:
        times = schedule.times(n, grid) if to_data else schedule.times(n + 1, grid)[:-1]
        end = I.integrate(gaussian_denoiser(schedule), x, I.plan(sampler, I.path(schedule, times)))
        errors.append((end - exact(schedule, x, times[0], times[-1])).abs().max().log().item())
    design = torch.tensor([[math.log(n), 1.0] for n in steps])
    return -torch.linalg.lstsq(design, torch.tensor(errors)[:, None]).solution[0].item()


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpm++2m", 2)])
def test_order_between_two_noise_levels(name, sampler, order):
    # Without the last step, to sigma = 0: it is of first order in every sampler, and as long as the grid makes it.
    slope = fitted_order(SCHEDULES[name], sampler, "log-snr", to_data=False)
    assert (0.8 if order == 1 else 1.8) < slope < (1.2 if order == 1 else 2.3)


@pytest.mark.parametrize(
    ("name", "sampler", "grid", "order"),
    [
        ("flow", "euler", "uniform", 1),
        ("flow", "heun", "uniform", 2),
        ("edm", "heun", "rho", 2),
        ("edm", "dpm++2m", "rho", 2),
    ],
)
def test_order_down_to_data(name, sampler, grid, order):
    assert fitted_order(SCHEDULES[name], sampler, grid, to_data=True) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_euler_is_ddim_and_ddpm_is_ddim_with_eta_1(name):
    path = I.path(SCHEDULES[name], SCHEDULES[name].times(12))
    for one, other in [(I.euler(path), I.ddim(path)), (I.ddpm(path), I.ddim(path, eta=1.0))]:
        for a, b in zip(one, other, strict=True):
            assert a[:5] == pytest.approx(b[:5], abs=1e-12)


def test_euler_and_heun_on_the_flow_are_the_textbook_rules():
    # dx/dt = u with u = (x - D) / t
    schedule = S.FlowSchedule()
    denoise = gaussian_denoiser(schedule)
    x = torch.linspace(-1, 1, 3, dtype=torch.float64)

    def velocity(x, t):
        return (x - denoise(x, t).x0) / t

    for name in ("euler", "heun"):
        got = I.integrate(denoise, x, I.plan(name, I.path(schedule, torch.tensor([1.0, 0.7, 0.4]).double())))
        expected = x
        for t, s in [(1.0, 0.7), (0.7, 0.4)]:
            u = velocity(expected, t)
            end = expected + (s - t) * u
            expected = end if name == "euler" else expected + (s - t) / 2 * (u + velocity(end, s))
        assert torch.allclose(got, expected, atol=1e-6)


def test_heun_on_edm_is_algorithm_1_in_sigma():
    schedule = S.EDM()
    denoise = gaussian_denoiser(schedule)
    x = torch.tensor([50.0, -20.0], dtype=torch.float64)
    times = schedule.times(5)
    expected = x
    for t, s in itertools.pairwise(times):
        sigma, sigma_s = schedule.sigma(t), schedule.sigma(s)
        d = (expected - denoise(expected, t).x0) / sigma
        end = expected + (sigma_s - sigma) * d
        if sigma_s > 0:
            end = expected + (sigma_s - sigma) / 2 * (d + (end - denoise(end, s).x0) / sigma_s)
        expected = end
    got = I.integrate(denoise, x, I.heun(I.path(schedule, times)))
    assert torch.allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "t", "s"), [("linear", 0.5, 0.499), ("cosine", 0.9, 0.3), ("edm", 0.2, 0.01), ("flow", 0.8, 0.5)]
)
def test_posterior_is_the_product_of_its_two_gaussians(name, t, s):
    schedule = SCHEDULES[name]
    alpha_t, sigma_t, alpha_s, sigma_s = (f(u * ONE).item() for u in (t, s) for f in (schedule.alpha, schedule.sigma))
    x_0, x_t = 0.4, -0.7
    scale = alpha_t / alpha_s
    x_s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    # -log q(x_t | x_s) - log q(x_s | x_0), a parabola in x_s: its lowest point is the mean, its curvature 1 / variance
    energy = (x_t - scale * x_s) ** 2 / (2 * (sigma_t**2 - (scale * sigma_s) ** 2))
    energy = energy + (x_s - alpha_s * x_0) ** 2 / (2 * sigma_s**2)
    (slope,) = torch.autograd.grad(energy, x_s, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, x_s)
    q = I.posterior(alpha_t, sigma_t, alpha_s, sigma_s)
    assert q.variance == pytest.approx(1 / curvature.item(), rel=1e-9)
    assert q.x * x_t + q.d * x_0 == pytest.approx(-slope.item() / curvature.item(), rel=1e-9)


def test_ddpm_posterior_is_equation_7_on_neighbouring_steps():
    chain = S.linear()
    i = 400
    beta_t = chain.beta[i].item()
    alpha_bar, alpha_bar_previous = chain.log_alpha_bar[i + 1].exp().item(), chain.log_alpha_bar[i].exp().item()
    q = I.posterior(alpha_bar**0.5, (1 - alpha_bar) ** 0.5, alpha_bar_previous**0.5, (1 - alpha_bar_previous) ** 0.5)
    assert q.variance_max == pytest.approx(beta_t, rel=1e-9)
    assert q.variance == pytest.approx((1 - alpha_bar_previous) / (1 - alpha_bar) * beta_t, rel=1e-9)
    assert q.d == pytest.approx(alpha_bar_previous**0.5 * beta_t / (1 - alpha_bar), rel=1e-9)
    assert q.x == pytest.approx((1 - beta_t) ** 0.5 * (1 - alpha_bar_previous) / (1 - alpha_bar), rel=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddpm_reproduces_mean_and_variance(name):
    schedule = SCHEDULES[name]
    generator = Draws(0)
    x = schedule.sigma(ONE) * generator.randn(200, 100).double()
    rows = I.ddpm(I.path(schedule, schedule.times(250)))
    small, large = (I.integrate(gaussian_denoiser(schedule, mix), x, rows, generator=generator) for mix in (0.0, 1.0))
    assert small.mean().item() == pytest.approx(MU, abs=0.02)
    # The lower variance gives too little, by a part that falls with 1 / steps; the upper gives too much.
    assert small.std().item() == pytest.approx(STD, rel=0.03)
    assert small.std() < STD < large.std()


def test_noise_lies_geometrically_between_its_bounds():
    row = I.Step(t=1.0, x=0.0, d=0.0, noise=0.1, noise_max=0.4)
    mix = torch.tensor([[0.0], [0.5], [1.0]])
    x = I.integrate(lambda x, t: I.Denoised(x, mix), torch.zeros(3, 20_000), [row], generator=Draws(0))
    assert x.view(3, -1).std(1).tolist() == pytest.approx([0.1, 0.2, 0.4], rel=0.03)


def test_clip_bounds_the_denoiser():
    rows = I.ddim(I.path(S.FlowSchedule(), S.FlowSchedule().times(3)))
    x = torch.tensor([3.0, -3.0])
    for clip in ((-1.0, 1.0), (-1.0, 0.5)):
        end = I.integrate(lambda x, t: I.Denoised(5 * x), x, rows, clip=clip)
        assert end.tolist() == pytest.approx([clip[1], clip[0]])


@pytest.mark.parametrize("name", SCHEDULES)
def test_consistency_keeps_the_distribution_that_answers_are_drawn_from(name):
    """Answers that are examples, whatever x_t is, make every x_s a noisy example, and the last one an example."""
    schedule, draws = SCHEDULES[name], Draws(1)
    path = I.path(schedule, schedule.times(4))
    seen = {}

    def denoise(x_t, t):
        seen[t] = (x_t.mean().item(), x_t.std().item())
        return I.Denoised(MU + STD * draws.randn(*x_t.shape).double())

    noise = schedule.sigma(ONE) * Draws(0).randn(200, 100).double()
    x = I.integrate(denoise, noise, I.plan("consistency", path), generator=Draws(0))
    assert (x.mean().item(), x.std().item()) == pytest.approx((MU, STD), rel=0.03)
    for t, alpha, sigma in list(zip(*path, strict=True))[1:-1]:
        mean, std = seen[t]
        assert mean == pytest.approx(alpha * MU, abs=0.03 * math.hypot(alpha * STD, sigma))
        assert std == pytest.approx(math.hypot(alpha * STD, sigma), rel=0.03)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "euler", "heun", "dpm++2m", "consistency"])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("grid", ["uniform", "rho", "log-snr"])
def test_every_combination_is_finite_from_one_step_on(name, sampler, grid):
    schedule = SCHEDULES[name]
    for steps in (1, 2, 3):
        path = I.path(schedule, schedule.times(steps, grid))
        rows = I.plan(sampler, path)
        assert len(rows) == (2 * steps - 1 if sampler == "heun" else steps)
        assert all(math.isfinite(number) for row in rows for number in row)
        # The last step goes to the denoiser's answer itself.
        assert (rows[-1].x, rows[-1].d, rows[-1].noise) == pytest.approx((0, 1, 0), abs=1e-12)


# ---------------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_monotone_and_start_at_data(name):
    schedule = SCHEDULES[name]
    t = torch.linspace(0, 1, 501, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    assert alpha.dtype == sigma.dtype == torch.float64
    assert (alpha[0], sigma[0]) == (1, 0)
    assert (alpha.diff() <= 0).all()
    assert (sigma.diff() > 0).all()
    assert torch.allclose(schedule.time(sigma[1:-1] / alpha[1:-1]), t[1:-1], atol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("grid", ["uniform", "rho", "log-snr"])
def test_times_fall_from_1_to_0(name, grid):
    times = SCHEDULES[name].times(10, grid)
    assert len(times) == 11
    assert (times[0], times[-1]) == (1, 0)
    assert (times.diff() < 0).all()


def test_linear_schedule_is_the_product_of_its_betas():
    chain = S.linear()
    alpha_bar, product = [], 1.0
    for i in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
        alpha_bar.append(product)
    t = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
    assert (chain.alpha(t) ** 2).tolist() == pytest.approx(alpha_bar, rel=1e-9)
    assert chain.alpha(ONE).item() == pytest.approx(0.00635, abs=1e-5)  # not 0: DDPM's last step still shows the data


def test_cosine_schedule_is_equation_17_and_ends_in_noise():
    chain = S.cosine()
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert torch.allclose(chain.alpha(t) ** 2, f, rtol=1e-9)
    assert chain.alpha(ONE) < 1e-4
    assert chain.beta.max() == 0.999


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_variance_preserving_between_the_steps_too(name):
    t = torch.linspace(0, 1, 777, dtype=torch.float64)
    chain = SCHEDULES[name]
    assert torch.allclose(chain.alpha(t) ** 2 + chain.sigma(t) ** 2, torch.ones_like(t), atol=1e-12)


def test_edm_grid_is_equation_5():
    sigmas = S.EDM().sigma(S.EDM().times(18))
    i = torch.arange(18, dtype=torch.float64)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert torch.allclose(sigmas[:-1], expected, rtol=1e-9)


def test_wrong_names_and_numbers_say_what_to_do():
    with pytest.raises(BowerbirdError, match="did you mean 'heun'"):
        I.plan("huen", I.path(S.FlowSchedule(), S.FlowSchedule().times(2)))
    with pytest.raises(BowerbirdError, match="at least 1"):
        S.FlowSchedule().times(0)
    with pytest.raises(BowerbirdError, match="did you mean 'uniform'"):
        S.FlowSchedule().times(3, "unifrom")
    with pytest.raises(BowerbirdError, match="at least 21"):
        S.linear(20)


# ---------------------------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "velocity", "edm"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_target_to_denoiser_and_back(prediction, name):
    t = torch.tensor([0.05, 0.3, 0.7, 0.95], dtype=torch.float64)
    alpha, sigma = SCHEDULES[name].alpha(t), SCHEDULES[name].sigma(t)
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    p, q = target_weights(prediction, alpha, sigma)
    a, b = denoiser_weights(prediction, alpha, sigma)
    assert torch.allclose(a * (alpha * x_0 + sigma * eps) + b * (p * x_0 + q * eps), x_0, atol=1e-9)


def test_v_and_velocity_are_the_derivatives_that_they_are_named_after():
    x_0, eps = torch.tensor([0.4, -0.9], dtype=torch.float64)
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (u,) = torch.autograd.grad(S.FlowSchedule().alpha(t) * x_0 + S.FlowSchedule().sigma(t) * eps, t)
    p, q = target_weights("velocity", *(torch.tensor([v]) for v in (0.7, 0.3)))
    assert u.item() == pytest.approx((p * x_0 + q * eps).item())
    # v is d/dphi of cos(phi) x_0 + sin(phi) eps
    phi = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    (v,) = torch.autograd.grad(torch.cos(phi) * x_0 + torch.sin(phi) * eps, phi)
    p, q = target_weights("v", torch.cos(phi), torch.sin(phi))
    assert v.item() == pytest.approx((p * x_0 + q * eps).item())


def test_edm_weights_are_those_of_table_1_and_its_target_has_unit_variance():
    sigma = torch.tensor([0.002, 0.5, 3.0, 80.0], dtype=torch.float64)
    sigma_data = 0.5
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / torch.sqrt(sigma**2 + sigma_data**2)
    a, b = denoiser_weights("edm", torch.ones_like(sigma), sigma, sigma_data)
    assert torch.allclose(a, c_skip)
    assert torch.allclose(b, c_out)
    p, q = target_weights("edm", torch.ones_like(sigma), sigma, sigma_data)
    assert torch.allclose((p * sigma_data) ** 2 + q**2, torch.ones_like(sigma))


@pytest.mark.parametrize("grid", ["uniform", "log-snr", "rho"])
@pytest.mark.parametrize("make", [S.FlowSchedule, S.EDM, S.cosine])
def test_ratio_min_is_where_the_last_step_begins(make, grid):
    schedule = make()
    times = schedule.times(7, grid, ratio_min=0.3)
    assert len(times) == 8 and times[0] == 1 and times[-1] == 0 and (times.diff() < 0).all()
    assert float(schedule.sigma(times[-2]) / schedule.alpha(times[-2])) == pytest.approx(0.3, rel=1e-3)


def test_ratio_min_must_leave_something_to_sample():
    with pytest.raises(BowerbirdError, match="ratio_min = 1000"):
        S.cosine().times(4, "uniform", ratio_min=1000.0)
