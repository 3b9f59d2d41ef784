"""Networks: what every role promises, for every net that can play it, and what is particular to each."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from bowerbird.errors import BowerbirdError
from bowerbird.nets.attention import EXPLICIT_AT_MOST, SelfAttention, attention, explicit_attention, n_heads
from bowerbird.nets.conditioning import Conditioning, fourier_features
from bowerbird.nets.convnet import ConvNetConfig
from bowerbird.nets.dit import DiTConfig, positions
from bowerbird.nets.layered import LayeredConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.nets.patches import from_patches, to_patches
from bowerbird.nets.roles import NetConfig
from bowerbird.nets.unet import UNetConfig
from bowerbird.spec import Classes, Spec, Tensors, shape_of_picture

DENOISERS = [
    UNetConfig(channels=8, multipliers=(1, 2, 2), blocks=1, attention=(0, -1), head_channels=4),
    UNetConfig(channels=16, multipliers=(1, 2), blocks=2, patch=2),
    DiTConfig(n_layer=2, n_head=2, n_embd=16),
    DiTConfig(n_layer=2, n_head=2, n_embd=16, modulation="shared", draft="linear"),
    LayeredConfig(channels=8, multipliers=(1, 2), blocks=1, patch=2, layers=3),
    MLPConfig(hidden=(16, 24)),
]
AUTOENCODERS = [
    ConvNetConfig(channels=8, multipliers=(1, 2, 3)),
    ConvNetConfig(channels=8, blocks=2, norm="group", patch=1, n_hidden=12),
    ConvNetConfig(channels=8, norm="batch"),
    MLPConfig(hidden=(16, 24)),
    MLPConfig(hidden=(16, 24), norm="batch"),
]
SIZES = [(28, 28), (32, 32), (27, 13), (36, 48), (1, 1)]
CLASSES = ("a", "b", "c")


def spec_of(channels: int = 1, height: int = 28, width: int = 28, classes: tuple[str, ...] = CLASSES) -> Spec:
    given = {"label": Classes(classes)} if classes else {}
    return Spec("image", Tensors((channels, height, width)), given)


def label(*numbers: int) -> dict[str, Tensor]:
    """What examples of these classes are given."""
    return {"label": torch.tensor(numbers)}


def perturbed(net: nn.Module, scale: float = 0.05) -> nn.Module:
    """The net somewhere away from its initialisation, where zero-initialised layers pass signals."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return net


def name(config: Any) -> str:
    return type(config).__name__ if isinstance(config, NetConfig) else str(config)


# ------------------------------------------------------------------------------------------- what roles promise


@pytest.mark.parametrize("size", SIZES, ids=name)
@pytest.mark.parametrize("config", DENOISERS, ids=name)
def test_denoiser_keeps_the_size_and_starts_at_zero(config: NetConfig, size: tuple[int, int]) -> None:
    net = config.denoiser(spec_of(3, *size), channels_out=6)
    x, t = torch.randn(2, 3, *size), torch.rand(2)
    out = net(x, t, label(0, 2))
    assert out.shape == (2, 6, *size)
    assert not out.any()
    assert perturbed(net)(x, t, None).abs().min() > 0, "after perturbation no output pixel may stay constant"


@pytest.mark.parametrize("size", SIZES, ids=name)
@pytest.mark.parametrize("config", AUTOENCODERS, ids=name)
def test_encoder_and_decoder_shapes(config: NetConfig, size: tuple[int, int]) -> None:
    spec = spec_of(3, *size)
    z = torch.randn(2, 5)
    image = config.decoder(spec, n_in=5, channels_out=6)(z, None)
    assert image.shape == (2, 6, *size)
    code = config.encoder(spec, n_out=7)(torch.randn(2, 3, *size), label(1, 0))
    assert code.shape == (2, 7)


def roles() -> list[Any]:
    cases = [(config, "denoiser") for config in DENOISERS]
    cases += [(config, role) for config in AUTOENCODERS for role in ("critic", "encoder", "decoder")]
    return [pytest.param(config, role, id=f"{name(config)}-{role}-{i}") for i, (config, role) in enumerate(cases)]


def build(config: NetConfig, role: str, spec: Spec) -> tuple[nn.Module, list[Tensor]]:
    """The net, away from its initialisation, and its inputs without the label."""
    torch.manual_seed(0)
    shape = shape_of_picture(spec)
    x = torch.randn(4, *shape)
    if role == "denoiser":
        return perturbed(config.denoiser(spec, shape[0])), [x, torch.rand(4)]
    if role == "decoder":
        return perturbed(config.decoder(spec, 5, shape[0])), [torch.randn(4, 5)]
    return perturbed(config.encoder(spec, 1 if role == "critic" else 3)), [x]


@pytest.mark.parametrize(("config", "role"), roles())
def test_label_none_is_the_extra_class_and_other_labels_differ(config: NetConfig, role: str) -> None:
    net, inputs = build(config, role, spec_of())
    net.eval()  # in training, batch normalisation removes what a whole batch has in common, such as its label
    outputs = [net(*inputs, label(*[number] * 4)) for number in range(len(CLASSES) + 1)]
    for absent in (None, {}):
        torch.testing.assert_close(net(*inputs, absent), outputs[len(CLASSES)], rtol=0, atol=0)
    for i in range(len(outputs)):
        for j in range(i):
            assert (outputs[i] - outputs[j]).abs().max() > 1e-4, f"labels {i} and {j} are not told apart"


@pytest.mark.parametrize(("config", "role"), roles())
def test_data_without_labels_have_no_embedding(config: NetConfig, role: str) -> None:
    if isinstance(config, LayeredConfig):
        with pytest.raises(BowerbirdError, match="none are given; choose the net unet"):
            build(config, role, spec_of(classes=()))
        return
    net, inputs = build(config, role, spec_of(classes=()))
    assert not any("label" in key for key in net.state_dict())
    assert torch.isfinite(net(*inputs, None)).all()


@pytest.mark.parametrize(("config", "role"), roles())
def test_every_parameter_has_a_gradient(config: NetConfig, role: str) -> None:
    net, inputs = build(config, role, spec_of())
    net(*inputs, label(0, 1, 2, 3)).square().sum().backward()
    dead = [key for key, p in net.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-6]
    assert not dead


@pytest.mark.parametrize(("config", "role"), roles())
def test_initialisation_depends_on_the_seed_alone(config: NetConfig, role: str) -> None:
    first, second = build(config, role, spec_of())[0].state_dict(), build(config, role, spec_of())[0].state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(("config", "role"), roles())
def test_channels_last_computes_the_same(config: NetConfig, role: str) -> None:
    net, inputs = build(config, role, spec_of(2, 27, 30))
    expected = net(*inputs, None)
    net = net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(*inputs, None), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", DENOISERS, ids=name)
def test_every_output_pixel_depends_on_t_and_on_all_of_its_surroundings(config: NetConfig) -> None:
    net = perturbed(config.denoiser(spec_of(1, 14, 14), 1))
    x, t = torch.randn(1, 1, 14, 14, requires_grad=True), torch.rand(1, requires_grad=True)
    to_x, to_t = torch.autograd.grad(net(x, t, None)[0, 0, 13, 13], (x, t))
    assert to_x.abs().min() > 0
    assert to_t.abs().min() > 0


@pytest.mark.parametrize("n_out", [1, 3])
@pytest.mark.parametrize("config", [c for c in AUTOENCODERS if c.norm != "batch"], ids=name)
def test_gradient_penalty_agrees_with_finite_differences(config: NetConfig, n_out: int) -> None:
    """R(w) = ‖∂D/∂x‖² moves along its own gradient as a difference quotient in float64 says: double backward."""
    net = perturbed(config.encoder(spec_of(1, 9, 7), n_out)).double()
    x, given = torch.randn(2, 1, 9, 7, dtype=torch.float64), label(0, 2)
    weights = [p for p in net.parameters() if p.dim() > 1]

    def penalty() -> Tensor:
        x_ = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(net(x_, given).sum(), x_, create_graph=True)
        return gradient.square().sum()

    gradients = torch.autograd.grad(penalty(), weights)
    slope = sum((g * g).sum() for g in gradients)
    step = 1e-7 / slope.sqrt()

    def moved(sign: float) -> Tensor:
        with torch.no_grad():
            for w, g in zip(weights, gradients, strict=True):
                w.add_(sign * step * g)
        return penalty().detach()

    up, down = moved(1.0), moved(-2.0)
    torch.testing.assert_close((up - down) / (2 * step), slope, rtol=1e-4, atol=0)


@pytest.mark.parametrize("config", [c for c in AUTOENCODERS if c.norm == "none"], ids=name)
def test_encoders_can_be_spectrally_normalised(config: NetConfig) -> None:
    net = config.encoder(spec_of(), 1)
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            spectral_norm(module)
    assert torch.isfinite(net(torch.randn(3, 1, 28, 28), label(0, 1, 2))).all()


@pytest.mark.parametrize(
    ("config", "role", "arguments"),
    [
        (UNetConfig(), "encoder", (1,)),
        (UNetConfig(), "decoder", (8, 1)),
        (DiTConfig(), "encoder", (1,)),
        (DiTConfig(), "decoder", (8, 1)),
        (ConvNetConfig(), "denoiser", (1,)),
    ],
)
def test_a_role_that_a_net_cannot_play_is_refused(config: NetConfig, role: str, arguments: tuple[int, ...]) -> None:
    with pytest.raises(BowerbirdError, match=r"cannot be .*use "):
        getattr(config, role)(spec_of(), *arguments)


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (UNetConfig, {"attention": (3,)}),
        (UNetConfig, {"multipliers": ()}),
        (DiTConfig, {"n_embd": 100, "n_head": 3}),
        (MLPConfig, {"hidden": ()}),
        (ConvNetConfig, {"patch": 0}),
    ],
)
def test_impossible_hyperparameters_are_refused(cls: type[NetConfig], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|needs|does not exist"):
        cls(**wrong)


# ----------------------------------------------------------------------------------------------------- attention


@pytest.mark.parametrize("tokens", [1, 49, 200])
def test_both_forms_of_attention_are_equal(tokens: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, tokens, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    upstream = torch.randn(2, 3, tokens, 8, dtype=torch.float64)
    results = []
    for form in (explicit_attention, F.scaled_dot_product_attention, attention):
        out = form(q, k, v)
        results.append((out, *torch.autograd.grad(out, (q, k, v), upstream)))
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_attention_by_hand() -> None:
    """Two tokens, d = 4, logits (ln 3, 0) after division by √4: weights 3/4 and 1/4."""
    q = torch.tensor([2 * math.log(3), 0, 0, 0]).view(1, 1, 1, 4)
    k = torch.eye(2, 4).view(1, 1, 2, 4)
    v = torch.tensor([[4.0, 0, 0, 0], [0, 8.0, 0, 0]]).view(1, 1, 2, 4)
    expected = torch.tensor([3.0, 2.0, 0, 0])
    torch.testing.assert_close(explicit_attention(q, k, v).flatten(), expected)


def test_few_tokens_can_be_differentiated_twice() -> None:
    q, k, v = (torch.randn(1, 1, EXPLICIT_AT_MOST, 2, requires_grad=True) for _ in range(3))
    (gradient,) = torch.autograd.grad(attention(q, k, v).square().sum(), q, create_graph=True)
    gradient.square().sum().backward()
    assert v.grad is not None and torch.isfinite(v.grad).all()


def test_self_attention_does_not_know_the_order_of_tokens_but_mixes_heads_separately() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(6, n_head=2)
    x, order = torch.randn(2, 5, 6), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])
    torch_layer = nn.MultiheadAttention(6, 2, batch_first=True)
    torch_layer.load_state_dict(
        {
            "in_proj_weight": layer.qkv.weight,
            "in_proj_bias": layer.qkv.bias,
            "out_proj.weight": layer.out.weight,
            "out_proj.bias": layer.out.bias,
        }
    )
    torch.testing.assert_close(layer(x), torch_layer(x, x, x)[0])


@pytest.mark.parametrize(
    ("channels", "head_channels", "n"), [(128, 64, 2), (32, 64, 1), (96, 64, 1), (96, 40, 2), (7, 2, 1)]
)
def test_number_of_heads_divides_the_channels(channels: int, head_channels: int, n: int) -> None:
    assert n_heads(channels, head_channels) == n


# ------------------------------------------------------------------------------------------------ building blocks


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 2)], ids=name)
@pytest.mark.parametrize("patch", [1, 2, 3])
def test_patches_are_undone_and_padded_by_repetition(size: tuple[int, int], patch: int) -> None:
    x = torch.randn(2, 3, *size)
    grid = to_patches(x, patch)
    rows, columns = math.ceil(size[0] / patch), math.ceil(size[1] / patch)
    assert grid.shape == (2, 3 * patch**2, rows, columns)
    assert torch.equal(from_patches(grid, patch, *size), x)
    corner = grid[:, :, -1, -1].unflatten(1, (3, patch, patch))[:, :, -1, -1]
    assert torch.equal(corner, x[:, :, -1, -1])


def test_fourier_features_tell_the_steps_of_a_schedule_apart() -> None:
    """|f(t) − f(s)|² = 2 Σ (1 − cos ω_k (t − s)) depends on t − s alone, and is largest for the fastest ω = 100."""
    t = torch.tensor([0.0, 0.001, 0.5, 0.501])
    f = fourier_features(t)
    distance = (f[1] - f[0]).square().sum()
    torch.testing.assert_close((f[3] - f[2]).square().sum(), distance, rtol=1e-2, atol=0)
    omega = 100 ** (torch.arange(32) / 31)
    torch.testing.assert_close(distance, 2 * (1 - (omega * 0.001).cos()).sum(), rtol=1e-2, atol=0)


def test_conditioning_of_one_example_does_not_depend_on_the_others() -> None:
    layer = Conditioning({"label": Classes(CLASSES)}, 8)
    t, numbers = torch.rand(4), (0, 1, 2, 3)
    together = layer(t, label(*numbers))
    for i in range(4):
        torch.testing.assert_close(layer(t[i : i + 1], label(numbers[i])), together[i : i + 1])


def test_dit_positions_are_all_different_and_separable() -> None:
    table = positions(5, 7, 16, torch.device("cpu")).view(5, 7, 16)
    assert torch.cdist(table.view(35, 16), table.view(35, 16)).add(torch.eye(35)).min() > 0.1
    row, column = table[..., :8], table[..., 8:]
    assert torch.equal(row, row[:, :1].expand_as(row)) and torch.equal(column, column[:1].expand_as(column))
    torch.testing.assert_close(row[3, 0, 0], torch.tensor(3.0).sin())
    torch.testing.assert_close(column[0, 6, 4], torch.tensor(6.0).cos())


def test_dit_blocks_start_as_the_identity_and_still_learn() -> None:
    net = DiTConfig(n_layer=1, n_head=2, n_embd=16).denoiser(spec_of(), 1)
    h = torch.randn(2, 9, 16)
    assert torch.equal(net.blocks[0](h, torch.randn(2, 16)), h)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x, t = torch.randn(4, 1, 28, 28), torch.rand(4)
    for _ in range(3):
        optimizer.zero_grad()
        (net(x, t, None) - x).square().mean().backward()
        optimizer.step()
    # The output layer moves first, then the gates, then what they gate: nothing is frozen by two zeros in a row.
    gradients = {key: p.grad for key, p in net.named_parameters()}
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())


def test_a_draft_follows_from_what_is_given_alone_and_is_added() -> None:
    net = DiTConfig(n_layer=1, n_head=2, n_embd=16, draft="linear").denoiser(spec_of(1, 8, 8), 1)
    nn.init.normal_(net.draft.layer.weight)
    x, t = torch.randn(2, 1, 8, 8), torch.rand(2)
    first = net(x, t, label(0, 1))
    assert torch.equal(first, net(torch.randn(2, 1, 8, 8), t.flip(0), label(0, 1)))  # the blocks still add nothing
    assert (first[0] - first[1]).abs().max() > 0.1
    assert DiTConfig(draft="linear").denoiser(spec_of(classes=()), 1).draft is None


def test_a_draft_of_layers_draws_shapes_in_colours_that_training_never_showed_together() -> None:
    torch.manual_seed(0)
    spec = Spec("image", Tensors((1, 4, 4)), {"shape": Classes(("left", "top")), "tone": Classes(("grey", "white"))})
    shapes = torch.full((2, 1, 4, 4), -1.0)
    shapes[0, :, :, :2], shapes[1, :, :2] = 1, 1
    tones = torch.tensor([0.0, 1.0])

    def picture(shape: Tensor, tone: Tensor) -> Tensor:
        return torch.where(shapes[shape] > 0, tones[tone].view(-1, 1, 1, 1), -1.0)

    draft = LayeredConfig(channels=8, layers=2).denoiser(spec, 1).draft
    seen = {"shape": torch.tensor([0, 0, 1]), "tone": torch.tensor([0, 1, 0])}
    optimizer = torch.optim.Adam(draft.parameters(), 0.02)
    for _ in range(200):
        optimizer.zero_grad()
        (draft(seen, 3) - picture(**seen)).square().mean().backward()
        optimizer.step()
    unseen = {"shape": torch.tensor([1]), "tone": torch.tensor([1])}
    assert (draft(unseen, 1) - picture(**unseen)).abs().mean() < 0.25  # the other shape or the other tone: 0.5 or more


def test_shared_modulation_starts_as_the_identity_with_fewer_weights() -> None:
    shared, own = (
        DiTConfig(n_layer=4, n_embd=16, modulation=kind).denoiser(spec_of(), 1) for kind in ("shared", "own")
    )
    h = torch.randn(2, 9, 16)
    assert torch.equal(shared.blocks[0](h, torch.zeros(2, 96)), h)
    assert count(own) - count(shared) == 4 * 96 * 17 - (96 * 17 + 4 * 96)


# ------------------------------------------------------------------------------------------------ textbook facts


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_textbook_gan_has_the_textbook_sizes() -> None:
    spec = spec_of(classes=())
    widths = [100, 256, 512, 1024, 784]
    generator = MLPConfig().decoder(spec, n_in=100, channels_out=1)
    assert count(generator) == sum((a + 1) * b for a, b in pairwise(widths)) == 1_486_352
    critic = MLPConfig().encoder(spec, n_out=1)
    widths = [784, 1024, 512, 256, 1]
    assert count(critic) == sum((a + 1) * b for a, b in pairwise(widths))


def test_conditional_critic_is_a_projection() -> None:
    """logit(x, y) − logit(x, y') is linear in the embeddings' difference: ⟨e_y − e_y', φ(x)⟩ / √n_hidden."""
    critic = MLPConfig(hidden=(16, 24)).encoder(spec_of(), n_out=1)
    x = torch.randn(3, 1, 28, 28)
    logits = [critic(x, label(*[number] * 3)) for number in (0, 1)]
    phi = F.leaky_relu(critic.head.hidden(critic.trunk(x.flatten(1))), 0.2)
    e = critic.head.given.embed["label"].table.weight
    torch.testing.assert_close((logits[0] - logits[1])[:, 0], phi @ (e[0] - e[1]) / 4)


@pytest.mark.parametrize("norm", ["none", "group", "batch"])
def test_residual_branches_keep_the_variance(norm: str) -> None:
    """At initialisation neither depth nor norm lets activations explode or vanish."""
    torch.manual_seed(0)
    net = ConvNetConfig(channels=32, multipliers=(1, 2), blocks=6, norm=norm).decoder(spec_of(3, 32, 32), 64, 3)
    assert 0.2 < net(torch.randn(16, 64), label(*[0] * 16)).std() < 5


def test_dropout_acts_in_training_only() -> None:
    net = perturbed(UNetConfig(channels=8, multipliers=(1,), blocks=1, dropout=0.5).denoiser(spec_of(), 1))
    x, t = torch.randn(2, 1, 28, 28), torch.rand(2)
    assert not torch.equal(net(x, t), net(x, t))
    net.eval()
    assert torch.equal(net(x, t), net(x, t))


@pytest.mark.parametrize(("side", "levels"), [(28, 2), (32, 2), (33, 3), (64, 3), (128, 4)])
def test_a_unet_grows_levels_until_its_coarsest_is_small_enough(side, levels):
    config = UNetConfig(channels=4, multipliers=(1, 2), patch=2, attention=(), coarsest_side=8)
    assert config.for_side(side).multipliers == (1, *[2] * (levels - 1))
    net = config.denoiser(spec_of(1, side, side - 1, ()), 1)
    assert net(torch.zeros(1, 1, side, side - 1), torch.zeros(1), None).shape == (1, 1, side, side - 1)


def test_levels_stay_as_they_are_unless_a_side_is_asked_for():
    assert UNetConfig(multipliers=(1, 2)).for_side(512).multipliers == (1, 2)
    with pytest.raises(ValueError, match="coarsest_side"):
        UNetConfig(coarsest_side=0)
