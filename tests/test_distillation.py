"""Distribution matching distillation: its gradient in closed form, and where it leads."""

import pytest
import torch
from torch import Tensor, nn

from bowerbird.config import model_from
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, counting_evaluations
from bowerbird.models.distillation import Distillation, DistillationConfig
from bowerbird.models.flow import FlowConfig
from bowerbird.nets.conditioning import Given
from bowerbird.nets.mlp import MLPConfig
from bowerbird.samplers.schedule import stratified_uniform
from bowerbird.spec import Classes, Spec, Tensors
from bowerbird.training import starting

SPEC = Spec("image", Tensors((1, 2, 2), bounds=None))
LABELLED = Spec("image", Tensors((1, 4, 4)), {"label": Classes(("a", "b"))})
TEACHER = FlowConfig(net=MLPConfig(hidden=(8,)), guidance=2.0)


class Normal(nn.Module):
    """The velocity of a flow whose data are N(mean, deviation²): u = (x_t - D) / t."""

    def __init__(self, mean: float, deviation: float):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))
        self.log_deviation = nn.Parameter(torch.tensor(deviation).log())

    def forward(self, x_t: Tensor, t: Tensor, given: Given) -> Tensor:
        t, variance = t.view(-1, 1, 1, 1), (2 * self.log_deviation).exp()
        d = self.mean + (1 - t) * variance / ((1 - t) ** 2 * variance + t**2) * (x_t - (1 - t) * self.mean)
        return (x_t - d) / t


class Scaled(nn.Module):
    """A student whose answer to noise is mean + deviation · noise."""

    def __init__(self, mean: float, deviation: float):
        super().__init__()
        self.mean, self.deviation = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(deviation))

    def forward(self, x_t: Tensor, t: Tensor, given: Given) -> Tensor:
        return (x_t - (self.mean + self.deviation * x_t)) / t.view(-1, 1, 1, 1)


def normal(teacher: tuple[float, float], fake: tuple[float, float]) -> Distillation:
    config = DistillationConfig(FlowConfig(net=MLPConfig(hidden=(8,))), from_noise=1.0)
    model = config.build(SPEC)
    model.teacher.net, model.fake.net = Normal(*teacher), Normal(*fake)
    return model


def test_no_gradient_where_both_distributions_agree_and_else_towards_the_teachers() -> None:
    torch.manual_seed(0)
    y = 0.5 + 0.3 * torch.randn(4000, 1, 2, 2)
    assert float(normal((0.5, 0.3), (0.5, 0.3))._gradient(y, {}).abs().max()) < 1e-4
    for mean in (-0.2, 1.2):  # the teacher's; y has to move there, against the gradient
        g = normal((mean, 0.3), (0.5, 0.3))._gradient(y, {})
        assert float(g.mean()) * (0.5 - mean) > 0
    g = normal((0.5, 0.6), (0.5, 0.3))._gradient(y, {})
    assert float((g * (y - 0.5)).mean()) < 0, "too narrow a student spreads"


def test_the_gradient_is_the_difference_of_the_two_means_over_the_teachers_distance() -> None:
    model = normal((0.0, 0.3), (0.5, 0.3))
    y = torch.randn(64, 1, 2, 2)
    torch.manual_seed(3)
    g = model._gradient(y, {})
    torch.manual_seed(3)
    t = 1 - ((0.02 + 0.96 * stratified_uniform(64)) * 1000).long() / 1000
    x_t = (1 - t).view(-1, 1, 1, 1) * y + t.view(-1, 1, 1, 1) * torch.randn_like(y)
    with torch.no_grad():
        real, fake = (x_t - t.view(-1, 1, 1, 1) * m.net(x_t, t, {}) for m in (model.teacher, model.fake))
    expected = (fake - real) / (y - real).abs().mean((1, 2, 3), keepdim=True)
    assert torch.allclose(g, expected, atol=1e-4)


def test_a_student_takes_on_the_teachers_distribution_in_one_step() -> None:
    torch.manual_seed(0)
    model = normal((0.5, 0.3), (-0.5, 0.8))
    model.student.net = Scaled(-0.5, 1.1)
    rates = {"student": 0.01, "fake": 0.04}  # a fake that lags makes the student overshoot
    optimizers = {name: torch.optim.Adam(player.parameters(), rates[name]) for name, player in model.players.items()}
    for _ in range(150):
        for loss in model.losses(Batch(torch.zeros(64, 1, 2, 2))):
            optimizers[loss.player].zero_grad()
            torch.autograd.backward(loss.value, inputs=list(model.players[loss.player].parameters()))
            optimizers[loss.player].step()
    x = model.sample(4000, generator=Draws(0))
    assert (float(x.mean()), float(x.std())) == pytest.approx((0.5, 0.3), abs=0.06)


def test_one_step_is_one_evaluation_whatever_guidance_the_teacher_has() -> None:
    model = DistillationConfig(TEACHER).build(LABELLED)
    for steps in (1, 2, 4):
        with counting_evaluations(model) as rows:
            model.sample(3, options=model.Options(steps=steps))
        assert rows[0] == 3 * steps


def test_the_teachers_guidance_is_in_the_gradient() -> None:
    torch.manual_seed(0)
    plain, guided = (DistillationConfig(FlowConfig(TEACHER.net, guidance=w)).build(LABELLED) for w in (1.0, 2.0))
    for p in plain.parameters():
        p.data.normal_(0, 0.3)
    for value in plain.teacher.buffers():
        value.normal_(0, 0.3)
    guided.load_state_dict(plain.state_dict())
    y, given, found = torch.randn(6, 1, 4, 4), {"label": torch.arange(6) % 2}, []
    for model in (plain, guided):
        torch.manual_seed(1)
        found.append(model._gradient(y, given))
    assert not torch.allclose(*found, atol=1e-3)


def test_one_run_becomes_teacher_student_and_fake() -> None:
    flow, model = TEACHER.build(LABELLED), DistillationConfig(TEACHER).build(LABELLED)
    taken = starting._of_part(flow.state_dict(), model.state_dict())
    assert taken.keys() == model.state_dict().keys()
    assert {name.partition(".")[0] for name in taken} == {"teacher", "student", "fake"}


def test_only_the_student_is_kept_for_use() -> None:
    model = DistillationConfig(TEACHER).build(LABELLED)
    used = model.config.for_use().build(LABELLED)
    used.load_state_dict(model.weights())
    assert sum(value.numel() for value in model.weights().values()) == sum(
        p.numel() for p in model.student.parameters()
    )


@pytest.mark.parametrize("family", ["vae", "meanflow"])
def test_a_teacher_without_a_sampler_to_shorten_is_refused(family: str) -> None:
    config = DistillationConfig(model_from({"family": family, "net": {"name": "mlp"}}, "test"))
    with pytest.raises(BowerbirdError, match="use flow or diffusion"):
        config.build(LABELLED)


def test_a_student_without_a_fake_does_not_train() -> None:
    with pytest.raises(BowerbirdError, match="at least 1"):
        next(DistillationConfig(TEACHER, fake_updates=0).build(LABELLED).losses(Batch(torch.zeros(2, 1, 4, 4))))
