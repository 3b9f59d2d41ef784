"""The space-time U-Net, and the families that it serves on clips: what a network of moving pictures must do."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bowerbird import config
from bowerbird.diagnosis import samples
from bowerbird.diagnosis.rules import find
from bowerbird.diagnosis.signals import Signals
from bowerbird.errors import BowerbirdError
from bowerbird.generating import draw
from bowerbird.measuring.shipped.motion import _kept
from bowerbird.media import open_data
from bowerbird.media.video import films
from bowerbird.metrics import motion
from bowerbird.metrics.digits import as_scanned
from bowerbird.models.base import Batch
from bowerbird.models.diffusion import DiffusionConfig
from bowerbird.models.flow import FlowConfig
from bowerbird.models.meanflow import MeanFlowConfig
from bowerbird.nets.dit import DiTConfig
from bowerbird.nets.spacetime import FrameAttention, SpaceTimeConfig
from bowerbird.nets.unet import UNetConfig
from bowerbird.spec import Classes, Spec, Tensors

NET = SpaceTimeConfig(channels=16, multipliers=(1, 2), blocks=1, patch=2)
GIVEN = {"first": Tensors((3, 9, 12)), "label": Classes(("a", "b"))}
CLIPS = Spec("video", Tensors((3, 5, 9, 12)), GIVEN, films.codec(8.0))


def awake(net: torch.nn.Module) -> torch.nn.Module:
    """With weights where they start at zero."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


def inputs(n: int = 2) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    x = torch.randn(n, 3, 5, 9, 12)
    return x, torch.linspace(0.1, 0.9, n), {"first": x[:, :, 0], "label": torch.arange(n) % 2}


def test_a_clip_of_any_size_comes_out_as_large_and_is_zero_before_training() -> None:
    x, t, given = inputs()
    assert NET.denoiser(CLIPS, 4)(x, t, {"label": given["label"]}).equal(torch.zeros(2, 4, 5, 9, 12))


def test_with_a_draft_it_begins_with_the_first_frame_all_the_time() -> None:
    net = dataclasses.replace(NET, draft="first").denoiser(CLIPS, 6)
    x, t, given = inputs()
    made = net(x, t, given)
    assert torch.equal(made[:, :3], given["first"][:, :, None].expand(-1, -1, 5, -1, -1)) and not made[:, 3:].any()
    with pytest.raises(BowerbirdError, match="needs clips that are made from a picture"):
        dataclasses.replace(NET, draft="first").denoiser(CLIPS.alone(), 3)


def test_every_frame_sees_every_frame_and_no_clip_another() -> None:
    net = awake(NET.denoiser(CLIPS, 3))
    x, t, given = inputs()
    x.requires_grad_()
    for frame in range(5):
        (seen,) = torch.autograd.grad(net(x, t, given)[0, :, frame].square().sum(), x)
        assert (seen[0].abs().amax((0, 2, 3)) > 0).all() and not seen[1].any()


def test_without_attention_in_time_frames_know_nothing_of_one_another() -> None:
    net = awake(NET.denoiser(CLIPS, 3))
    for module in net.modules():
        if isinstance(module, FrameAttention):
            torch.nn.init.zeros_(module.attention.out.weight)
            torch.nn.init.zeros_(module.attention.out.bias)
    x, t, given = inputs()
    x.requires_grad_()
    (seen,) = torch.autograd.grad(net(x, t, given)[0, :, 2].square().sum(), x)
    assert (seen[0].abs().amax((0, 2, 3)) > 0).tolist() == [False, False, True, False, False]


def test_the_order_of_frames_matters_and_the_first_frame_reaches_all() -> None:
    net = awake(NET.denoiser(CLIPS, 3))
    x, t, given = inputs()
    assert not torch.allclose(net(x.flip(2), t, given).flip(2), net(x, t, given), atol=1e-3)
    other = net(x, t, given | {"first": -given["first"]})
    assert ((other - net(x, t, given)).abs().amax((0, 1, 3, 4)) > 1e-4).all()


def test_frames_alone_pass_as_through_the_unet_of_pictures() -> None:
    """With attention in time asleep and one place for all frames, it is a U-Net for each of them."""
    net = awake(NET.denoiser(CLIPS, 3))
    torch.nn.init.zeros_(net.place.weight), torch.nn.init.zeros_(net.place.bias)
    for module in net.modules():
        if isinstance(module, FrameAttention):
            torch.nn.init.zeros_(module.attention.out.weight), torch.nn.init.zeros_(module.attention.out.bias)
    pictures = Spec("image", Tensors((3, 9, 12)), GIVEN)
    plain = UNetConfig(channels=16, multipliers=(1, 2), blocks=1, patch=2, attention=()).denoiser(pictures, 3)
    plain.load_state_dict({name: value for name, value in net.state_dict().items() if name in plain.state_dict()})
    x, t, given = inputs()
    clip = net(x, t, given)
    for frame in range(5):
        assert torch.allclose(clip[:, :, frame], plain(x[:, :, frame], t, given), atol=1e-4)


@pytest.mark.parametrize("family", [FlowConfig(net=NET), DiffusionConfig(net=NET), MeanFlowConfig(net=NET)])
def test_flow_and_diffusion_train_and_sample_clips(family: config.ModelConfig) -> None:
    model = family.build(CLIPS)
    x, _, given = inputs()
    (loss,) = model.losses(Batch(x, {"first": x[:, :, 0], "label": given["label"]}))
    loss.value.backward()
    assert loss.value.isfinite() and any(p.grad is not None and p.grad.any() for p in model.parameters())
    first = {"first": x[:1, :, 0].repeat(3, 1, 1, 1)}
    drawn = draw(model, 3, given=first, options={"steps": 2} if "steps" in str(model.Options) else None, shown=False)
    assert drawn.x.shape == (3, 3, 5, 9, 12) and drawn.x.abs().max() <= 1


def test_nets_of_pictures_and_of_clips_say_what_they_are_for() -> None:
    for net, spec, what in (
        (DiTConfig(), CLIPS, "images"),
        (NET, Spec("image", Tensors((3, 8, 8))), "clips of frames"),
    ):
        with pytest.raises(BowerbirdError, match=f"This network needs {what}"):
            FlowConfig(net=net).build(spec)


# ------------------------------------------------------------------------------------------------------------- motion


def sliding(n: int = 4, step: int = 1) -> Tensor:
    """Noise that moves to the right by whole pixels, in a frame larger than blocks."""
    wide = torch.randint(0, 256, (n, 1, 24, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return torch.stack([wide[..., 16 - step * k : 40 - step * k] for k in range(5)], 2)


def test_motion_within_reach_explains_all_but_the_edge_and_flicker_nothing() -> None:
    moved, flicker = sliding(), torch.randint(0, 256, (4, 1, 5, 24, 24), dtype=torch.uint8)
    assert torch.allclose(motion.change(moved), torch.full((4,), 2 / 3), atol=0.1)  # two uniform numbers on [-1, 1]
    assert (motion.residual(moved) < 0.4 * motion.change(moved)).all()
    assert (motion.residual(flicker) > 0.6 * motion.change(flicker)).all()
    inside = motion.residual(sliding(step=2)[..., 8:16])  # a block whose neighbours are cut off has less to move
    assert inside.shape == (4,)


def test_what_stands_still_has_no_change_and_no_residual() -> None:
    still = motion.repeated(sliding()[:, :, 0], 5)
    assert still.shape == (4, 1, 5, 24, 24) and not motion.change(still).any() and not motion.residual(still).any()


def test_the_nearest_clip_is_found_by_its_first_frame() -> None:
    known = sliding(6)
    assert motion.nearest(known[[3, 1], :, 0], known).tolist() == [3, 1]


def probed(clips: Tensor, real: Tensor) -> dict[str, float]:
    """What the watch sees of samples, from bytes."""
    x, reference = (part.float() / 127.5 - 1 for part in (clips, real))
    rows = samples.small(reference)
    spread = samples.spread(rows, None)
    spacing = torch.cdist(rows, rows).fill_diagonal_(torch.inf).min(1).values.median()
    moving = (float(of(reference)) for of in (samples.change, samples.unexplained))
    real_ones = samples.Reference(rows, spacing, spread, 0.0, None, 0.0, *moving)
    return samples.statistics(x, None, real_ones)


@pytest.mark.parametrize(
    ("made", "named"), [("still", ["frozen-motion"]), ("slow", []), ("alike", []), ("noise", ["flicker"])]
)
def test_clips_that_stand_still_or_flicker_are_named_and_others_are_not(made: str, named: list[str]) -> None:
    real = sliding(64)
    other = torch.randint(0, 256, (16, 1, 24, 24), dtype=torch.uint8)
    still = motion.repeated(other, 5).clone()
    slow = sliding(80)[64:, :, [0, 0, 1, 1, 2]]
    noise = torch.randint(0, 256, (16, 1, 5, 24, 24), dtype=torch.uint8)
    clips = {"still": still, "slow": slow, "alike": sliding(80)[64:], "noise": noise}[made]
    seen = Signals(config.load("bouncing-digits"))
    seen.probes = [{"step": 100 * k, "used": k / 10, "samples": probed(clips, real)} for k in range(1, 11)]
    assert [one.cause for one in find(seen) if one.cause in ("frozen-motion", "flicker")] == named


@pytest.mark.parametrize(
    ("recipe", "said", "not_said"),
    [
        ("bouncing-digits", "--model.frame.time-mean", 'family = "rollout"'),
        ("emoji-motion", "--temperature", 'family = "animation"'),
        ("flow", 'family = "rollout"', "time-mean"),
    ],
)
def test_what_steadies_a_flickering_clip_follows_from_how_it_is_made(recipe: str, said: str, not_said: str) -> None:
    seen = Signals(config.load(recipe))
    noise = torch.randint(0, 256, (16, 1, 5, 24, 24), dtype=torch.uint8)
    seen.probes = [{"step": 100 * k, "used": k / 10, "samples": probed(noise, sliding(64))} for k in range(1, 11)]
    (found,) = [one for one in find(seen) if one.cause == "flicker"]
    assert any(said in one for one in found.advice) and not any(not_said in one for one in found.advice)


def test_a_digit_is_kept_as_long_as_it_looks_like_itself() -> None:
    clips = open_data(config.Data("bouncing-digits")).test.clips[:40]
    kept = _kept(clips)
    assert 12 < len(kept) < 40 and kept[:, 0].all() and kept[:, 1:].mean() > 0.8  # about half of the clips show one
    torn = clips.clone()
    torn[:, :, 8:] *= torch.rand(torn[:, :, 8:].shape) < 0.2
    assert _kept(torn)[:, :8].equal(kept[:, :8]) and _kept(torn)[:, 8:].mean() < 0.5
    assert not _kept(torch.zeros(2, 1, 3, 32, 32, dtype=torch.uint8)).numel()


def test_what_is_bright_lies_as_mnist_has_it() -> None:
    image = torch.zeros(1, 1, 40, 60, dtype=torch.uint8)
    image[0, 0, 3:13, 50:55] = 255
    x, sides = as_scanned(image)
    rows, columns = (x[0, 0] > 0.5).any(1).nonzero().flatten(), (x[0, 0] > 0.5).any(0).nonzero().flatten()
    assert sides.tolist() == [10] and (len(rows), len(columns)) == (20, 10)
    assert abs(float(rows.float().mean()) - 13.5) <= 0.5 and abs(float(columns.float().mean()) - 13.5) <= 0.5


def test_a_run_of_clips_measures_itself_beside_both_baselines(tmp_path: Path) -> None:
    from bowerbird import api

    run = config.with_settings(
        config.load("bouncing-digits"),
        {"train.steps": 2, "train.batch_size": 4, "model.frame.net.channels": 16, "model.frame.sample_steps": 1,
         "data.size": 16,
         "data.video.frames": 4, "train.device": "cpu", "train.precision": "fp32", "train.threads": 1},
    )  # fmt: skip
    api.train(run, tmp_path / "run", quiet=True)
    found = api.measure(tmp_path / "run", n_samples=6, n_reference=12, extractor="digits")
    measured = {m.name: m for m in found[str(tmp_path / "run")]}
    for name in ("frechet_frames", "frechet_motion", "motion_ratio", "warping_ratio"):
        assert {name, f"{name}.first_repeated", f"{name}.nearest_training"} <= measured.keys()
    assert measured["motion_ratio.first_repeated"].value == 0 < measured["motion_ratio.nearest_training"].value
    assert measured["frechet_motion.first_repeated"].value > measured["frechet_motion.nearest_training"].value
