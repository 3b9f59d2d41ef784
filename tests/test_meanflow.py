"""Mean velocities: the identity that trains them holds where they are known, and their jumps are exact."""

import pytest
import torch
from torch import Tensor, nn

from bowerbird.draws import Draws
from bowerbird.models.base import Batch
from bowerbird.models.flow import FlowConfig
from bowerbird.models.meanflow import MeanFlow, MeanFlowConfig
from bowerbird.nets.conditioning import Given
from bowerbird.nets.dit import DiTConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.nets.roles import NetConfig
from bowerbird.nets.unet import UNetConfig
from bowerbird.spec import Classes, Spec, Tensors

SPEC = Spec("image", Tensors((1, 8, 8), bounds=None), {"label": Classes(("a", "b"))})
SCALE = 0.5


def spread(t: Tensor) -> Tensor:
    """Standard deviation of x_t where the data are N(0, SCALE² I)."""
    return ((1 - t).square() * SCALE**2 + t.square()).sqrt()


class Known(nn.Module):
    """The mean velocity for Gaussian data: their flow is x_r = x_t spread(r) / spread(t)."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x_t: Tensor, t: Tensor, given: Given) -> Tensor:
        interval = given["interval"].clamp(min=1e-3)
        return self.one * x_t * ((1 - spread(t - interval) / spread(t)) / interval).view(-1, 1, 1, 1)


@pytest.fixture
def known() -> MeanFlow:
    model = MeanFlowConfig(net=MLPConfig(hidden=(8,)), conditional=False).build(SPEC)
    model.net = Known()
    return model


def test_the_truth_aims_at_itself_over_intervals_of_any_length(known: MeanFlow) -> None:
    x_t, t = torch.randn(6, 1, 8, 8), torch.tensor([0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
    interval = t * torch.tensor([0.1, 0.5, 1.0, 0.2, 0.9, 1.0])
    u = known.mean_velocity(x_t, t, {}, interval)
    assert torch.allclose(known._far_aim(x_t, t, {}, interval), u, atol=1e-5)
    wrong = 1.5 * known.net.one.data
    known.net.one.data.copy_(wrong)
    assert not torch.allclose(known._far_aim(x_t, t, {}, interval), 1.5 * u, atol=4e-2)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_any_number_of_jumps_ends_where_the_flow_ends(known: MeanFlow, steps: int) -> None:
    noise = Draws(3).randn(5, 1, 8, 8)
    x = known.sample(5, options=known.Options(steps=steps), generator=Draws(3))
    assert torch.allclose(x, SCALE * noise, atol=1e-4)


def test_known_velocities_have_the_least_loss(known: MeanFlow) -> None:
    """The gradient at the truth is zero on average, and not when the network is half as large again."""
    slopes = []
    for factor in (1.0, 1.5):
        torch.manual_seed(0)
        known.one = known.net.one
        known.net.one.data.fill_(factor)
        known.net.one.grad = None
        x = SCALE * torch.randn(4000, 1, 8, 8)
        known.config = MeanFlowConfig(net=known.config.net, empty_intervals=0.5)
        next(known.losses(Batch(x))).value.backward()
        slopes.append(float(known.net.one.grad))
    assert abs(slopes[0]) < 0.02 < 0.2 < slopes[1]


@pytest.mark.parametrize(
    "net", [UNetConfig(channels=16), DiTConfig(n_layer=2), MLPConfig((16,))], ids=["unet", "dit", "mlp"]
)
def test_every_net_is_told_the_interval(net: NetConfig) -> None:
    torch.manual_seed(0)
    model = MeanFlowConfig(net=net, guidance=1.5).build(SPEC)
    for p in model.parameters():
        p.data += 0.05 * torch.randn_like(p)
    batch = Batch(torch.randn(32, 1, 8, 8), {"label": torch.arange(32) % 2})
    loss = next(model.losses(batch))
    loss.value.backward()
    assert set(loss.logs) == {"mse", "mse_interval"}
    (weight,) = (p for name, p in model.named_parameters() if name.endswith("embed.interval.weight"))
    assert weight.grad is not None and weight.grad.abs().max() > 0
    x, t = torch.randn(2, 1, 8, 8), torch.full((2,), 0.7)
    assert not torch.equal(model.mean_velocity(x, t, {}, t), model.mean_velocity(x, t, {}, 0 * t))


def test_a_trained_flow_is_a_start_that_changes_nothing_at_first() -> None:
    flow = FlowConfig(net=MLPConfig(hidden=(8,))).build(SPEC)
    for p in flow.parameters():
        p.data.normal_(0, 0.1)
    model = MeanFlowConfig(net=MLPConfig(hidden=(8,))).build(SPEC)
    assert model.load_state_dict(flow.state_dict(), strict=False).unexpected_keys == []
    x, t = torch.randn(4, 1, 8, 8), torch.rand(4)
    assert torch.allclose(model.mean_velocity(x, t, {}, t), flow.net(x, t), atol=1e-6)


def test_both_times_are_independent_and_neither_follows_the_order_of_the_batch() -> None:
    """r and t of 20,000 pairs: a mean interval of 1/3 where there is one, and no trend over the rows."""
    model = MeanFlowConfig(net=MLPConfig(hidden=(8,)), empty_intervals=0.5, to_data=0.0).build(SPEC)
    torch.manual_seed(0)
    times = [model._draw_times(100) for _ in range(200)]
    t, interval = torch.cat([a for a, _ in times]), torch.cat([b for _, b in times])
    long = interval > 0
    assert float(long.float().mean()) == pytest.approx(0.5, abs=0.01)
    assert float(interval[long].mean()) == pytest.approx(1 / 3, abs=0.01)
    assert float((interval[long] > 0.8).float().mean()) == pytest.approx(0.04, abs=0.01)
    first = torch.arange(100).repeat(200) < 50
    assert abs(float(long[first].float().mean() - long[~first].float().mean())) < 0.03
    assert bool((interval <= t).all())


def test_a_share_of_the_intervals_reaches_the_data() -> None:
    model = MeanFlowConfig(net=MLPConfig(hidden=(8,)), empty_intervals=0.5, to_data=0.25).build(SPEC)
    torch.manual_seed(0)
    t, interval = model._draw_times(20_000)
    long = interval > 0
    assert float((interval[long] == t[long]).float().mean()) == pytest.approx(0.25, abs=0.015)
