"""The adversarial losses, their regularisers, and the order in which D and G move."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch
from bowerbird.models.gan import (
    GAN,
    LOSSES,
    PAIRED,
    GANConfig,
    critic_gradient,
    interpolate,
    normalise_spectra,
    one_centred_penalty,
    zero_centred_penalty,
)
from bowerbird.nets import augment
from bowerbird.nets.conditioning import Conditioner, Given
from bowerbird.nets.roles import NetConfig
from bowerbird.spec import Classes, Spec, Tensors

REAL = torch.tensor([2.0, -1.0])
FAKE = torch.tensor([0.5, -3.0])


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


TWO_PIXELS = Spec("image", Tensors((1, 1, 2)))
LABELLED = Spec("image", Tensors((1, 1, 2)), {"label": Classes(("left", "right"), (30, 10))})


def gan(spec: Spec = TWO_PIXELS, **options) -> GAN:
    torch.manual_seed(0)
    return GANConfig(net=TinyConfig(), **{"n_latent": 4} | options).build(spec)


def step(model: GAN, batch: Batch, optimizers: dict[str, torch.optim.Optimizer]) -> list[str]:
    """One step as the trainer does it; returns the order of the players."""
    order = []
    for loss in model.losses(batch):
        optimizer = optimizers[loss.player]
        optimizer.zero_grad()
        torch.autograd.backward(loss.value, inputs=list(model.players[loss.player].parameters()))
        optimizer.step()
        order.append(loss.player)
    return order


def sgd(model: GAN, lr: float) -> dict[str, torch.optim.Optimizer]:
    return {name: torch.optim.SGD(player.parameters(), lr) for name, player in model.players.items()}


# ------------------------------------------------------------------------------------------------------- losses


def softplus(v: float) -> float:
    return math.log1p(math.exp(v))


@pytest.mark.parametrize(
    ("name", "d_loss", "g_loss"),
    [
        (
            "minimax",
            (softplus(-2) + softplus(1)) / 2 + (softplus(0.5) + softplus(-3)) / 2,
            -(softplus(0.5) + softplus(-3)) / 2,
        ),
        (
            "non-saturating",
            (softplus(-2) + softplus(1)) / 2 + (softplus(0.5) + softplus(-3)) / 2,
            (softplus(-0.5) + softplus(3)) / 2,
        ),
        ("least-squares", (1 + 4) / 4 + (0.25 + 9) / 4, (0.25 + 16) / 4),
        ("wasserstein", -1.25 - 0.5, 1.25),
        ("hinge", (0 + 2) / 2 + (1.5 + 0) / 2, 1.25),
        ("relativistic", (softplus(-1.5) + softplus(-2)) / 2, (softplus(1.5) + softplus(2)) / 2),
    ],
)
def test_losses_equal_numbers_worked_by_hand(name, d_loss, g_loss):
    d, g = LOSSES[name](REAL, FAKE)
    assert d.item() == pytest.approx(d_loss, rel=1e-6)
    assert g.item() == pytest.approx(g_loss, rel=1e-6)


def test_logistic_losses_are_cross_entropies_of_the_probability_of_being_real():
    d, g = LOSSES["minimax"](REAL, FAKE)
    ones, zeros = torch.ones(2), torch.zeros(2)
    expected = F.binary_cross_entropy(REAL.sigmoid(), ones) + F.binary_cross_entropy(FAKE.sigmoid(), zeros)
    torch.testing.assert_close(d, expected)
    torch.testing.assert_close(g, (1 - FAKE.sigmoid()).log().mean())
    torch.testing.assert_close(LOSSES["non-saturating"](REAL, FAKE)[0], d)
    torch.testing.assert_close(
        LOSSES["non-saturating"](REAL, FAKE)[1], F.binary_cross_entropy(FAKE.sigmoid(), torch.ones(2))
    )


def test_minimax_at_the_best_critic_is_twice_log_two_minus_twice_the_jensen_shannon_divergence():
    """On four outcomes, each image repeated in proportion to its probability."""
    data, generated = torch.tensor([4, 2, 2, 0]), torch.tensor([1, 1, 2, 4])
    logits = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def d_loss() -> Tensor:
        index = torch.arange(4)
        return LOSSES["minimax"](logits[index.repeat_interleave(data)], logits[index.repeat_interleave(generated)])[0]

    def closure() -> Tensor:
        optimizer.zero_grad()
        (value := d_loss()).backward()
        return value

    optimizer.step(closure)
    p, q = data / 8, generated / 8
    mixture = (p + q) / 2
    jsd = (torch.xlogy(p, p / mixture) + torch.xlogy(q, q / mixture)).sum() / 2
    torch.testing.assert_close(d_loss(), 2 * math.log(2) - 2 * jsd, atol=1e-4, rtol=0)
    torch.testing.assert_close(logits[1:3].sigmoid(), (p / (p + q))[1:3], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_each_players_gradient_points_the_right_way(name):
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    d, g = LOSSES[name](real, fake)
    d_real, d_fake = torch.autograd.grad(d, [real, fake], retain_graph=True)
    (g_fake,) = torch.autograd.grad(g, fake)
    assert d_real[1] < 0 < d_fake[0], "D raises a low score of a real image and lowers a high score of a fake"
    assert (g_fake < 0).all(), "G raises the scores of its images"


def test_only_minimax_starves_the_generator_where_the_critic_wins():
    def slope(name: str) -> float:
        fake = torch.tensor([-10.0], requires_grad=True)
        return torch.autograd.grad(LOSSES[name](-fake.detach(), fake)[1], fake)[0].abs().item()

    assert slope("minimax") < 1e-4
    assert all(slope(name) > 0.99 for name in LOSSES if name != "minimax")


@pytest.mark.parametrize("name", LOSSES)
def test_paired_names_exactly_the_losses_whose_generator_reads_real_logits(name):
    _, g = LOSSES[name](torch.full_like(FAKE, torch.nan), FAKE)
    assert g.isnan().item() == (name in PAIRED)


# -------------------------------------------------------------------------------------------------- regularisers


def linear_critic(w: Tensor, x: Tensor) -> Tensor:
    return x.flatten(1) @ w


def test_penalties_of_a_linear_critic_have_their_closed_forms():
    w = torch.tensor([1.0, -2.0, 2.0, 4.0], requires_grad=True)  # ‖w‖ = 5
    x = torch.randn(7, 1, 2, 2, requires_grad=True)
    gradient = critic_gradient(linear_critic(w, x), x)
    torch.testing.assert_close(zero_centred_penalty(gradient, 3.0), torch.tensor(3 / 2 * 25.0))
    penalty = one_centred_penalty(gradient, 10.0)
    torch.testing.assert_close(penalty, torch.tensor(10 * 16.0))
    # d/dw 10 (‖w‖ - 1)² = 20 (‖w‖ - 1) w/‖w‖: the penalty reaches the critic's weights
    torch.testing.assert_close(torch.autograd.grad(penalty, w)[0], 20 * 4 * w.detach() / 5)


def test_r1_of_a_quadratic_critic_has_its_closed_form():
    a = torch.tensor(0.7, requires_grad=True)
    x = torch.randn(5, 3, 2, 2, requires_grad=True)
    penalty = zero_centred_penalty(critic_gradient(a / 2 * x.square().flatten(1).sum(1), x), 2.0)
    mean_square = x.detach().square().flatten(1).sum(1).mean()
    torch.testing.assert_close(penalty, a.detach() ** 2 * mean_square)
    torch.testing.assert_close(torch.autograd.grad(penalty, a)[0], 2 * a.detach() * mean_square)


def test_the_gradient_penalty_has_a_finite_gradient_where_the_critic_is_flat():
    w = torch.zeros(4, requires_grad=True)
    x = torch.randn(3, 1, 2, 2, requires_grad=True)
    penalty = one_centred_penalty(critic_gradient(linear_critic(w, x), x), 1.0)
    assert torch.autograd.grad(penalty, w)[0].isfinite().all()


def test_interpolates_lie_on_the_segment_with_one_position_per_image():
    real, fake = torch.ones(2000, 1, 2, 2), torch.zeros(2000, 1, 2, 2)
    x = interpolate(real, fake)
    assert (x == x[:, :, :1, :1]).all()
    position = x[:, 0, 0, 0]
    assert 0 <= position.min() < 0.01 and 0.99 < position.max() <= 1
    assert position.mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("which", ["r1_gamma", "r2_gamma", "gradient_penalty"])
def test_the_models_penalty_is_that_of_its_critic(which):
    """A critic that is linear in x makes all three penalties independent of where they are taken."""
    model = gan(loss="wasserstein", **{which: 3.0})
    model.D = Linear(torch.tensor([3.0, 4.0]))
    x = torch.randn(6, 1, 1, 2)
    loss = next(model.losses(Batch(x)))
    expected = 3.0 * 16 if which == "gradient_penalty" else 3.0 / 2 * 25
    name = which.removesuffix("_gamma")
    assert loss.logs[name].item() == pytest.approx(expected, rel=1e-5)
    plain = loss.logs["fake_logits"] - loss.logs["real_logits"]
    assert (loss.value - plain).item() == pytest.approx(expected, rel=1e-5)


class Linear(nn.Module):
    def __init__(self, w: Tensor):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor, given: Given | None) -> Tensor:
        return (x.flatten(1) @ self.w).unsqueeze(1)


def test_r1_is_taken_at_real_images_and_r2_at_generated_ones():
    class Quadratic(Linear):  # ‖∇D‖² = ‖x‖²
        def forward(self, x: Tensor, given: Given | None) -> Tensor:
            return self.w * x.square().flatten(1).sum(1, keepdim=True) / 2

    model = gan(r1_gamma=2.0, r2_gamma=2.0)
    model.D = Quadratic(torch.ones(1))
    x = torch.full((4, 1, 1, 2), 5.0)  # outside the range of tanh
    logs = next(model.losses(Batch(x))).logs
    assert logs["r1"].item() == pytest.approx(50)
    assert 0 < logs["r2"].item() < 2


def test_lazy_penalties_appear_at_every_kth_step_k_times():
    model = gan(loss="wasserstein", r1_gamma=2.0, penalty_every=4)
    model.D = Linear(torch.tensor([3.0, 4.0]))
    x = torch.randn(3, 1, 1, 2)
    for number in range(9):
        loss = next(model.losses(Batch(x, step=number)))
        penalty = (loss.value - (loss.logs["fake_logits"] - loss.logs["real_logits"])).item()
        assert penalty == pytest.approx(4 * 25 if number % 4 == 0 else 0, abs=1e-4)


def test_spectral_norm_bounds_every_matrix_and_revives_branches_that_start_at_zero():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 16), nn.Linear(16, 16))
    net.append(nn.Embedding(5, 7))
    with torch.no_grad():
        net[2].weight *= 30
    nn.init.zeros_(net[3].weight)
    normalise_spectra(net)
    layers = [net[0], net[2], net[3], net[4]]
    with torch.no_grad():
        for _ in range(300):
            _ = [layer.weight for layer in layers]  # each read is a power iteration
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
        assert largest.item() == pytest.approx(1, abs=5e-3)


def test_a_spectrally_normalised_perceptron_critic_is_lipschitz():
    model = gan(spectral_norm=True)
    with torch.no_grad():
        for parameter in model.D.parameters():
            parameter *= 20
        for _ in range(50):
            model.score(torch.zeros(1, 1, 1, 2), {})
        x, y = torch.randn(2, 500, 1, 1, 2)
        slope = (model.score(x, {}) - model.score(y, {})).abs() / (x - y).flatten(1).norm(dim=1)
    assert slope.max() <= 1.001


# ------------------------------------------------------------------------------------------------------ the game


@pytest.mark.parametrize("d_steps", [1, 3])
def test_the_critic_moves_d_steps_times_and_then_the_generator(d_steps):
    model = gan(d_steps=d_steps)
    assert step(model, Batch(torch.randn(4, 1, 1, 2)), sgd(model, 0.1)) == ["D"] * d_steps + ["G"]


def test_the_generator_is_judged_by_the_updated_critic():
    model = gan(loss="wasserstein", r1_gamma=1e-9)
    model.D = Linear(torch.tensor([1.0, 1.0]))
    losses = model.losses(Batch(torch.randn(4, 1, 1, 2)))
    next(losses)
    with torch.no_grad():
        model.D.w.zero_()
    assert next(losses).value == 0


def test_each_critic_step_sees_other_latents_and_the_real_images():
    model = gan(d_steps=2)
    first, second, _ = model.losses(Batch(torch.randn(4, 1, 1, 2)))
    assert first.logs["real_logits"] == second.logs["real_logits"]
    assert first.logs["fake_logits"] != second.logs["fake_logits"]


def test_the_critics_loss_leaves_the_generator_alone():
    model = gan(r1_gamma=1.0, r2_gamma=1.0, gradient_penalty=1.0)
    loss = next(model.losses(Batch(torch.randn(4, 1, 1, 2))))
    gradients = torch.autograd.grad(loss.value, list(model.G.parameters()), allow_unused=True)
    assert all(g is None for g in gradients)
    assert not any(log.requires_grad for log in loss.logs.values())


@pytest.mark.parametrize("name", LOSSES)
def test_a_critic_step_separates_and_a_generator_step_raises_fake_scores(name):
    options = {"r1_gamma": 1e-6} if name == "wasserstein" else {}
    model = gan(loss=name, **options)
    x, z = torch.randn(256, 1, 1, 2) * 0.1 + 0.8, model.draw_latents(256)

    def gap() -> float:
        with torch.no_grad():
            return (model.score(x, {}).mean() - model.score(model.G(z, {}), {}).mean()).item()

    def move(player: str) -> None:
        loss = next(loss for loss in model.losses(Batch(x)) if loss.player == player)
        parameters = list(model.players[player].parameters())
        with torch.no_grad():
            for p, g in zip(parameters, torch.autograd.grad(loss.value, parameters), strict=True):
                p -= 0.02 * g

    before = gap()
    for _ in range(5):
        move("D")
    separated = gap()
    assert separated > before
    for _ in range(5):
        move("G")
    assert gap() < separated  # the critic and its real scores stood still


def test_weights_are_clipped_after_each_critic_step_and_only_the_critics():
    model = gan(loss="wasserstein", weight_clip=0.01, d_steps=2)
    optimizers = sgd(model, 0.5)
    for loss in model.losses(Batch(torch.randn(8, 1, 1, 2))):
        if loss.player == "G":
            assert max(p.abs().max() for p in model.D.parameters()) <= 0.01
            continue
        optimizers["D"].zero_grad()
        torch.autograd.backward(loss.value, inputs=list(model.D.parameters()))
        optimizers["D"].step()
    assert max(p.abs().max() for p in model.G.parameters()) > 0.01


def test_accuracy_is_the_share_of_pairs_in_the_right_order():
    class Shifted(Linear):  # the sign of a score says nothing
        def forward(self, x: Tensor, given: Given | None) -> Tensor:
            return super().forward(x, given) + 10

    model = gan(loss="wasserstein", r1_gamma=1.0)
    model.D = Shifted(torch.tensor([1.0, 0.0]))
    x = torch.zeros(8, 1, 1, 2)
    x[:6, ..., 0], x[6:, ..., 0] = 3.0, -3.0  # beyond what tanh can reach
    assert next(model.losses(Batch(x))).logs["accuracy"] == 0.75


# --------------------------------------------------------------------------------------------- latents and labels


def test_latents_have_the_distribution_that_was_asked_for():
    uniform, gaussian = (gan(latent=name, n_latent=50).draw_latents(2000) for name in ("uniform", "gaussian"))
    assert uniform.abs().max() <= 1 and uniform.std().item() == pytest.approx(1 / math.sqrt(3), abs=0.01)
    assert gaussian.abs().max() > 3 and gaussian.std().item() == pytest.approx(1, abs=0.01)


def test_samples_follow_the_generator_state_and_stay_in_range():
    model = gan(LABELLED).eval()
    first, second = (model.sample(9, generator=Draws(3)) for _ in range(2))
    assert first.shape == (9, 1, 1, 2) and first.abs().max() <= 1
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first, model.sample(9, generator=Draws(4)))
    torch.testing.assert_close(model.sample(4, generator=Draws(3)), first[:4])


def test_labels_reach_both_players_unless_the_model_is_unconditional():
    x, z = torch.randn(5, 1, 1, 2), torch.randn(5, 4)
    left, right = ({"label": torch.full((5,), number)} for number in (0, 1))
    model = gan(LABELLED)
    assert (model.score(x, left) != model.score(x, right)).all()
    assert (model.G(z, left) != model.G(z, right)).any()
    assert not torch.equal(
        model.sample(5, left, generator=Draws(0)),
        model.sample(5, right, generator=Draws(0)),
    )
    blind = gan(LABELLED, conditional=False)
    assert not any(isinstance(module, nn.Embedding) for module in blind.modules())
    assert [loss.player for loss in blind.losses(Batch(x, left))] == ["D", "G"]
    with pytest.raises(BowerbirdError, match="without labels"):
        blind.sample(5, left)


@pytest.mark.parametrize(
    "options",
    [
        {"n_latent": 0},
        {"d_steps": 0},
        {"penalty_every": 0},
        {"r1_gamma": -1.0},
        {"weight_clip": 0.01},
        {"weight_clip": 0.01, "loss": "wasserstein", "spectral_norm": True},
        {"loss": "wasserstein"},
    ],
)
def test_senseless_settings_are_refused_in_one_sentence(options):
    with pytest.raises(ValueError, match=r"\.$"):
        GANConfig(net=TinyConfig(), **options)


# ---------------------------------------------------------------------------------------------------- augmentation


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_augmentations_are_differentiable_random_and_keep_the_shape(name):
    x = torch.rand(6, 3, 16, 16, dtype=torch.float64, requires_grad=True)

    def fixed(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return augment.augmented(x, (name,))

    assert fixed(x).shape == x.shape
    small = x[:1, :, :4, :4].detach().requires_grad_()
    assert torch.autograd.gradcheck(fixed, small)
    assert not torch.equal(augment.augmented(x, (name,)), augment.augmented(x, (name,)))


def test_translation_moves_by_whole_pixels_in_all_directions_and_fills_with_grey():
    torch.manual_seed(0)
    x = torch.zeros(2000, 1, 16, 16)
    x[:, :, 8, 8] = 1
    y = augment.translate(x)
    torch.testing.assert_close(y.flatten(1).sum(1), torch.ones(2000))
    rows, columns = y.flatten(1).argmax(1) // 16, y.flatten(1).argmax(1) % 16
    for position in (rows, columns):
        assert position.unique().tolist() == [6, 7, 8, 9, 10]
    assert torch.corrcoef(torch.stack([rows, columns]).float())[0, 1].abs() < 0.1
    edge = augment.translate(torch.ones(500, 1, 16, 16))
    assert edge.unique().tolist() == [0, 1] and edge.flatten(1).mean(1).min() == (14 / 16) ** 2


def test_cutout_blanks_at_most_a_quarter_of_the_image():
    torch.manual_seed(0)
    kept = augment.cutout(torch.ones(2000, 1, 16, 16)).flatten(1).mean(1)
    assert kept.min().item() == pytest.approx(0.75)
    assert 0.9 < kept.max() <= 1 - 1 / 16 + 1e-6  # a centre in the corner still blanks a quarter of the square


def test_colour_changes_keep_grey_images_grey_and_are_neutral_on_average():
    torch.manual_seed(0)
    grey = torch.rand(1, 1, 8, 8).expand(4000, 3, 8, 8)
    y = augment.colour(grey)
    torch.testing.assert_close(y[:, 0], y[:, 1])
    torch.testing.assert_close(y.mean(0), grey[0], atol=0.02, rtol=0)
    assert (y.mean((1, 2, 3)) - grey[0].mean()).abs().max() <= 0.5 + 1e-6
    coloured = torch.rand(1, 3, 8, 8).expand(4000, 3, 8, 8)
    torch.testing.assert_close(augment.colour(coloured).mean(0), coloured[0], atol=0.04, rtol=0)


def test_without_names_nothing_is_changed():
    x = torch.rand(2, 1, 4, 4)
    assert augment.augmented(x, ()) is x


@pytest.mark.parametrize("players_turn", ["D", "G"])
def test_the_critic_sees_real_and_generated_images_augmented_in_both_turns(players_turn):
    seen = []

    class Spy(Linear):
        def forward(self, x: Tensor, given: Given | None) -> Tensor:
            seen.append(x.detach())
            return super().forward(x, given)

    model = gan(Spec("image", Tensors((1, 8, 8))), augment=("cutout",), loss="relativistic")
    model.D = Spy(torch.ones(64))
    for loss in model.losses(Batch(torch.ones(16, 1, 8, 8))):
        if loss.player == players_turn:
            break
        seen.clear()
    assert len(seen) == 2
    assert all((x == 0).flatten(1).any(1).all() for x in seen)


# ------------------------------------------------------------------------------------------------------ end to end


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("minimax", {}),
        ("non-saturating", {}),
        ("least-squares", {}),
        ("wasserstein", {"gradient_penalty": 1.0, "d_steps": 3}),
        ("hinge", {"spectral_norm": True}),
        ("relativistic", {"r1_gamma": 0.1, "r2_gamma": 0.1}),
    ],
)
def test_every_loss_moves_the_generator_onto_two_labelled_clusters(name, options):
    """Two pixels, label "left" at (0.6, -0.6) and "right" at (-0.6, 0.6), each with spread 0.1."""
    model = gan(LABELLED, loss=name, **options)
    optimizers = {k: torch.optim.Adam(p.parameters(), 5e-3, betas=(0.5, 0.9)) for k, p in model.players.items()}
    centres = torch.tensor([[0.6, -0.6], [-0.6, 0.6]])
    for number in range(150):
        label = torch.multinomial(torch.tensor([30.0, 10.0]), 64, replacement=True)
        x = (centres[label] + 0.1 * torch.randn(64, 2)).view(64, 1, 1, 2)
        step(model, Batch(x, {"label": label}, step=number), optimizers)
    model.eval()
    for number in (0, 1):
        x = model.sample(500, {"label": torch.full((500,), number)}, generator=Draws(0)).flatten(1)
        assert (x.mean(0) - centres[number]).norm() < 0.5  # the clusters are 1.7 apart
