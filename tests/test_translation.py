"""Translation of pictures: the losses of pix2pix and CycleGAN, the pool, who sees and who moves what, both nets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird import api
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, Loss
from bowerbird.models.translation import (
    ImagePool,
    Translation,
    TranslationConfig,
    TranslationOptions,
    cross_entropy,
    l1,
    least_squares,
)
from bowerbird.nets.patchgan import PatchGANConfig
from bowerbird.nets.resnet import ResNetConfig
from bowerbird.nets.unet import UNetConfig
from bowerbird.spec import Spec, Tensors

SHAPE = (3, 16, 16)
NET = UNetConfig(channels=16, multipliers=(1,), blocks=1, attention=())
PATCHES = PatchGANConfig(channels=8, depth=1)
PAIRED = TranslationConfig(net=NET)
PIX2PIX = TranslationConfig(net=NET, discriminator=PATCHES)
CYCLE = TranslationConfig(net=NET, discriminator=PATCHES, learning="cycle", pool=4)


def spec_of(target: tuple[int, int, int] = SHAPE, source: tuple[int, int, int] = SHAPE) -> Spec:
    return Spec("image", Tensors(target), {"source": Tensors(source)})


def built(config: TranslationConfig, spec: Spec | None = None) -> Translation:
    """A model whose translators have left their start, where the network's answer is 0 everywhere."""
    torch.manual_seed(0)
    model = config.build(spec or spec_of())
    for name, parameter in model.named_parameters():
        if name.endswith("net.last.weight"):
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(1)
    return Batch(2 * torch.rand(4, *SHAPE) - 1, {"source": 2 * torch.rand(4, *SHAPE) - 1})


def stepped(model: Translation, batch: Batch, lr: float = 0.05) -> dict[str, tuple[Loss, dict[str, Tensor]]]:
    """Every loss and its player's gradients by name, each player stepped as the trainer steps it."""
    seen = {}
    for loss in model.losses(batch):
        named = dict(model.players[loss.player].named_parameters())
        gradients = torch.autograd.grad(loss.value, list(named.values()), retain_graph=True, allow_unused=True)
        seen[loss.player] = (loss, {k: g for k, g in zip(named, gradients, strict=True) if g is not None})
        with torch.no_grad():
            for name, gradient in seen[loss.player][1].items():
                named[name] -= lr * gradient
    return seen


# ---------------------------------------------------------------------------------------------------- closed forms


def test_least_squares_measures_the_distance_from_the_answer() -> None:
    logits = torch.tensor([[1.0, -1.0], [0.0, 3.0]])
    assert least_squares(logits, 1.0) == pytest.approx((0 + 4 + 1 + 4) / 4)
    assert least_squares(logits, 0.0) == pytest.approx((1 + 1 + 0 + 9) / 4)


@pytest.mark.parametrize("real", [0.0, 1.0])
def test_cross_entropy_is_that_of_the_logistic_probability(real: float) -> None:
    logits = torch.linspace(-5, 5, 11)
    expected = F.binary_cross_entropy(torch.sigmoid(logits.double()), torch.full((11,), real, dtype=torch.float64))
    assert cross_entropy(logits, real) == pytest.approx(float(expected), rel=1e-5)


def test_the_generator_still_has_a_gradient_where_the_discriminator_wins() -> None:
    logits = torch.tensor([-20.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(cross_entropy(logits, 1.0), logits)
    assert gradient == pytest.approx(-1, abs=1e-4)


# ---------------------------------------------------------------------------------------------------- pairs


def test_without_a_discriminator_the_loss_is_l1(batch: Batch) -> None:
    model = built(PAIRED)
    (loss,) = model.losses(batch)
    assert set(model.players) == {"G"}
    assert torch.equal(loss.value, (model.G(batch.given["source"]) - batch.x).abs().mean())


def test_pix2pix_steps_d_first_and_g_meets_the_stepped_d(batch: Batch) -> None:
    model, source = built(PIX2PIX), batch.given["source"]
    before = built(PIX2PIX)
    seen = stepped(model, batch)
    assert list(seen) == ["D", "G"]
    fake = before.G(source)
    real_logits, fake_logits = (before.D(torch.cat([source, y], 1)) for y in (batch.x, fake))
    d = ((real_logits - 1).square().mean() + fake_logits.square().mean()) / 2
    assert seen["D"][0].value.item() == pytest.approx(d.item(), rel=1e-5)
    g = (model.D(torch.cat([source, fake], 1)) - 1).square().mean() + 100 * (fake - batch.x).abs().mean()
    assert seen["G"][0].value.item() == pytest.approx(g.item(), rel=1e-5)
    assert not torch.equal(model.D.first.weight, before.D.first.weight)


def test_the_discriminator_judges_the_picture_beside_its_source(batch: Batch) -> None:
    model, other = built(PIX2PIX), {"source": batch.given["source"].flip(0)}
    assert model.D.first.in_channels == 6
    model.G = nn.Identity()  # so that only D reads the source
    moved = next(model.losses(batch._replace(given=other))).logs["real_logits"]
    assert not torch.isclose(next(model.losses(batch)).logs["real_logits"], moved)


def test_the_discriminators_loss_does_not_reach_the_generators(batch: Batch) -> None:
    for config in (PIX2PIX, CYCLE):
        model = built(config)
        for loss in model.losses(batch):
            if loss.player.startswith("D"):
                translators = [p for name, p in model.named_parameters() if name[:2] in ("G.", "F.")]
                gradients = torch.autograd.grad(loss.value, translators, retain_graph=True, allow_unused=True)
                assert all(gradient is None for gradient in gradients)


def test_a_better_translation_has_a_smaller_loss_and_its_gradient_points_there(batch: Batch) -> None:
    model = built(PIX2PIX)
    before = l1(model.G(batch.given["source"]), batch.x)
    for _ in range(5):
        stepped(model, batch, lr=2e-4)
    assert l1(model.G(batch.given["source"]), batch.x) < before


# ---------------------------------------------------------------------------------------------------- cycles


def test_where_both_ways_are_the_identity_nothing_is_lost_but_to_the_discriminators(batch: Batch) -> None:
    model = replace(CYCLE, output="change", identity_weight=5.0).build(spec_of())  # networks start at 0: no change
    losses = {loss.player: loss for loss in model.losses(batch)}
    assert list(losses) == ["G", "F", "D_target", "D_source"]
    for player, D, picture in (("G", model.D_target, batch.given["source"]), ("F", model.D_source, batch.x)):
        logs = losses[player].logs
        assert logs["cycle"] == 0
        assert logs["identity"] == 0
        assert torch.isclose(losses[player].value, (D(picture) - 1).square().mean())


def test_g_moves_by_the_papers_objective_with_the_other_way_held_fixed(batch: Batch) -> None:
    config = replace(CYCLE, cycle_weight=3.0, identity_weight=2.0)
    model, x, s = built(config), batch.x, batch.given["source"]
    loss = next(model.losses(batch))
    back = model.F(x).detach()
    expected = (model.D_target(model.G(s)) - 1).square().mean() + 2 * l1(model.G(x), x)
    expected = expected + 3 * (l1(model.F(model.G(s)), s) + l1(model.G(back), x))
    assert torch.isclose(loss.value, expected)
    own = list(model.G.parameters())
    for ours, theirs in zip(torch.autograd.grad(loss.value, own), torch.autograd.grad(expected, own), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_f_meets_the_stepped_g(batch: Batch) -> None:
    model, x, s = built(CYCLE), batch.x, batch.given["source"]
    before = built(CYCLE)
    losses = model.losses(batch)
    gradients = torch.autograd.grad(next(losses).value, list(model.G.parameters()), allow_unused=True)
    with torch.no_grad():
        for p, gradient in zip(model.G.parameters(), gradients, strict=True):
            p -= 0.05 * (torch.zeros(()) if gradient is None else gradient)
    loss = next(losses)
    assert loss.player == "F"
    cycle = l1(model.G(model.F(x)), x) + l1(model.F(before.G(s)), s)
    assert torch.isclose(loss.logs["cycle"], cycle)
    assert not torch.isclose(cycle, l1(before.G(model.F(x)), x) + l1(model.F(before.G(s)), s))
    torch.autograd.grad(loss.value, list(model.F.parameters()), allow_unused=True)  # its graph outlived G's step


def test_each_discriminator_of_a_cycle_sees_its_own_side(batch: Batch) -> None:
    model = built(CYCLE)
    seen = stepped(model, batch, lr=0.0)
    for player, real in (("D_target", batch.x), ("D_source", batch.given["source"])):
        assert torch.isclose(seen[player][0].logs["real_logits"], model.players[player](real).mean())


# ---------------------------------------------------------------------------------------------------- the pool


def numbered(start: int, stop: int) -> Tensor:
    return torch.arange(start, stop).float().view(-1, 1, 1, 1)


def test_a_pool_passes_pictures_on_until_it_is_full() -> None:
    pool = ImagePool(6, (1, 1, 1))
    assert torch.equal(pool.exchange(numbered(0, 6)), numbered(0, 6))
    assert torch.equal(pool.kept, numbered(0, 6))


def test_a_full_pool_gives_half_of_the_pictures_back_later_and_none_twice() -> None:
    torch.manual_seed(0)
    pool, n = ImagePool(50, (1, 1, 1)), 4000
    answers = torch.cat([pool.exchange(numbered(i, i + 8)) for i in range(0, n, 8)]).flatten()
    old = answers[50:] != torch.arange(50, n)
    assert old.float().mean() == pytest.approx(0.5, abs=0.03)
    assert (answers <= torch.arange(n)).all()
    counts = torch.bincount(torch.cat([answers, pool.kept.flatten()]).long(), minlength=n)
    assert (counts[50:] == 1).all()  # nothing is lost, nothing is shown twice …
    assert (counts[:50] == 2).all()  # … but what the pool passed on while it filled
    waited = (torch.arange(50, n) - answers[50:])[old]
    assert waited.mean() == pytest.approx(100, rel=0.15)  # of 50 places each picture takes one with probability ½


def test_a_restored_pool_goes_on_as_the_one_that_was_saved() -> None:
    pool, other = ImagePool(4, (1, 1, 1)), ImagePool(4, (1, 1, 1))
    pool.exchange(numbered(0, 3))
    other.load_state_dict({name: value.clone() for name, value in pool.state_dict().items()})
    answers = []
    for p in (pool, other):
        torch.manual_seed(5)
        answers.append(p.exchange(numbered(3, 40)))
    assert torch.equal(*answers)
    assert torch.equal(pool.kept, other.kept)


def test_a_pool_of_size_0_keeps_nothing() -> None:
    fresh = numbered(0, 3).requires_grad_()
    answer = ImagePool(0, (1, 1, 1)).exchange(fresh)
    assert torch.equal(answer, fresh)
    assert not answer.requires_grad
    assert not ImagePool(0, (1, 1, 1)).state_dict()


def test_the_discriminators_loss_is_of_what_the_pool_answers(batch: Batch) -> None:
    model = built(replace(CYCLE, pool=1))
    stepped(model, batch, lr=0.0)
    model.past_targets.exchange = lambda fresh: fresh.new_full(fresh.shape, 0.5)  # type: ignore[method-assign]
    seen = stepped(model, batch, lr=0.0)
    expected = model.D_target(torch.full_like(batch.x, 0.5)).mean()
    assert torch.isclose(seen["D_target"][0].logs["fake_logits"], expected)


def test_what_a_run_keeps_for_use_fits_the_model_for_use() -> None:
    model = built(CYCLE)
    used = CYCLE.for_use().build(spec_of())
    used.load_state_dict(model.weights())
    source = torch.rand(2, *SHAPE)
    assert torch.equal(used.sample(2, {"source": source}), model.sample(2, {"source": source}))
    assert {"past_targets.kept", "past_sources.filled"} <= model.state_dict().keys()  # what resuming needs


# ---------------------------------------------------------------------------------------------------- use


def test_both_directions() -> None:
    model, source = built(replace(CYCLE, output="change")), 2 * torch.rand(3, *SHAPE) - 1
    forward = model.sample(3, {"source": source})
    backward = model.sample(3, {"source": source}, TranslationOptions(direction="backward"))
    model.eval()
    assert torch.equal(forward, model.G(source).clamp(-1, 1))
    assert torch.equal(backward, model.F(source).clamp(-1, 1))
    assert not torch.equal(forward, backward)
    assert forward.abs().max() <= 1


def test_a_row_is_translated_alike_alone_and_among_others() -> None:
    for net in (NET, ResNetConfig(channels=8, blocks=1)):
        model, source = built(TranslationConfig(net=net)), torch.rand(3, *SHAPE)
        torch.testing.assert_close(
            model.sample(1, {"source": source[1:2]}), model.sample(3, {"source": source})[1:2], atol=1e-5, rtol=0
        )


def test_sampling_says_what_it_needs() -> None:
    model = built(PAIRED)
    with pytest.raises(BowerbirdError, match="needs 2 of 3x16x16 numbers, and none were given"):
        model.sample(2)
    with pytest.raises(BowerbirdError, match=r"has the shape \(1, 3, 16, 16\)"):
        model.sample(2, {"source": torch.zeros(1, *SHAPE)})
    with pytest.raises(BowerbirdError, match="translates forward only"):
        model.sample(1, {"source": torch.zeros(1, *SHAPE)}, TranslationOptions(direction="backward"))


def test_grey_becomes_colour_and_the_way_back_grey() -> None:
    spec = spec_of(source=(1, 16, 16))
    model = built(CYCLE, spec)
    grey, colour = torch.rand(2, 1, 16, 16), torch.rand(2, *SHAPE)
    assert model.sample(2, {"source": grey}).shape == colour.shape
    assert model.sample(2, {"source": colour}, TranslationOptions(direction="backward")).shape == grey.shape
    assert built(PIX2PIX, spec).D.first.in_channels == 4
    for name, value in (("output", "change"), ("identity_weight", 1.0)):
        with pytest.raises(BowerbirdError, match="Sources have 1 channels and targets 3"):
            replace(CYCLE, **{name: value}).build(spec)


def test_data_without_a_source_or_of_two_sizes_are_refused() -> None:
    with pytest.raises(BowerbirdError, match="needs a source picture for every example"):
        PAIRED.build(Spec("image", Tensors(SHAPE), {}))
    with pytest.raises(BowerbirdError, match="of one size"):
        PAIRED.build(spec_of(source=(3, 8, 8)))


def test_a_cycle_without_a_discriminator_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a discriminator"):
        TranslationConfig(learning="cycle")


# ---------------------------------------------------------------------------------------------------- the nets


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_logit_of_patchgan_sees_a_square_of_the_stated_side(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "instance_norm", lambda h: h)  # which mixes all places
    side = 9 * 2**depth - 2
    D = PatchGANConfig(channels=4, depth=depth).encoder(Spec("image", Tensors((1, 160, 160)), {}), 1)
    x = torch.rand(1, 1, 160, 160, requires_grad=True)
    logits = D(x)
    assert logits.shape == (1, 1, 160 // 2**depth - 2, 160 // 2**depth - 2)
    (gradient,) = torch.autograd.grad(logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2], x)
    rows, columns = (gradient[0, 0] != 0).nonzero(as_tuple=True)
    assert rows.max() - rows.min() + 1 == side
    assert columns.max() - columns.min() + 1 == side


def test_patchgan_refuses_pictures_without_room() -> None:
    with pytest.raises(BowerbirdError, match="at least 24 pixels a side, and these have 16"):
        PatchGANConfig(depth=3).encoder(Spec("image", Tensors(SHAPE), {}), 1)


@pytest.mark.parametrize("size", [(16, 16), (13, 18), (9, 9)])
def test_resnet_returns_pictures_of_any_size(size: tuple[int, int]) -> None:
    net = ResNetConfig(channels=4, blocks=1).denoiser(Spec("image", Tensors((3, *size)), {}), 2)
    assert net(torch.rand(2, 3, *size), torch.zeros(2), {}).shape == (2, 2, *size)


def test_resnet_reads_the_time_so_that_it_can_denoise_as_well() -> None:
    net = ResNetConfig(channels=4, blocks=1).denoiser(Spec("image", Tensors(SHAPE), {}), 3)
    x = torch.rand(1, *SHAPE)
    assert not torch.allclose(net(x, torch.zeros(1), {}), net(x, torch.ones(1), {}))


def test_a_resnets_features_do_not_depend_on_the_contrast_of_the_picture() -> None:
    net = ResNetConfig(channels=4, blocks=2).denoiser(Spec("image", Tensors(SHAPE), {}), 3)
    x, t = torch.randn(1, *SHAPE), torch.zeros(1)
    torch.testing.assert_close(net(x, t, {}), net(20 * x, t, {}), atol=1e-3, rtol=1e-3)


PILES = """
[model]
family = "translation"
learning = "cycle"
output = "change"
[model.net]
name = "unet"
channels = 8
multipliers = [1]
blocks = 1
attention = []
[model.discriminator]
name = "convnet"
channels = 8
multipliers = [1]
n_hidden = 16
[train]
steps = 36
batch_size = 8
lr = 2e-3
log_every = 1
sample_every = 0
device = "cpu"
threads = 1
"""


@pytest.mark.parametrize("broken", [False, True])
def test_discriminators_that_are_held_back_are_named(tmp_path: Path, broken: bool) -> None:
    rng = np.random.default_rng(0)
    for folder, bright in (
        ("trainA", slice(0, 4)),
        ("trainB", slice(4, 8)),
        ("testA", slice(0, 4)),
        ("testB", slice(4, 8)),
    ):
        (tmp_path / "piles" / folder).mkdir(parents=True)
        for i in range(40 if folder.startswith("train") else 10):
            pixels = rng.integers(0, 64, (8, 8), dtype=np.uint8)
            pixels[bright] += 160
            Image.fromarray(pixels).save(tmp_path / "piles" / folder / f"{folder}{i}.png")
    (tmp_path / "cycle.toml").write_text(PILES)
    settings = {"train.lr_multiplier": {"D_target": 1e-4, "D_source": 1e-4}} if broken else {}
    run = api.train(tmp_path / "cycle.toml", tmp_path / "run", data=str(tmp_path / "piles"), quiet=True, **settings)
    causes = [finding.cause for finding in api.diagnose(run)]
    assert ("critic-loses" in causes) == broken, causes
    if broken:
        assert causes[0] == "critic-loses"
