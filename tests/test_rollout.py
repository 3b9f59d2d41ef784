"""Clips frame by frame: what a frame is made from, how clips go on, and that nothing of the future is seen."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from bowerbird import api, config
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.models import rollout
from bowerbird.models.base import Batch, GenerativeModel, Loss
from bowerbird.models.rollout import FIRST, PAST, PLACE, Rollout, RolloutConfig
from bowerbird.nets.warp import MISFIT, WarpConfig, added_up, likelihood, shifted
from bowerbird.registry import families
from bowerbird.spec import Classes, Spec, Tensors

FRAME = Tensors((2, 3, 4))
CLIPS = Spec("video", Tensors((2, 6, 3, 4)), {"first": FRAME, "label": Classes(("a", "b"))})


@families.register("inertia")
@dataclass(frozen=True)
class InertiaConfig(config.ModelConfig):
    """Every frame differs from the one before it as that one did; what it was given is kept."""

    def build(self, spec: Spec) -> "Inertia":
        return Inertia(spec)


class Inertia(GenerativeModel):
    def __init__(self, spec: Spec):
        super().__init__()
        self.spec, self.weight = spec, nn.Parameter(torch.zeros(()))
        self.seen: list[Batch] = []

    def losses(self, batch: Batch) -> Iterator[Loss]:
        self.seen.append(batch)
        yield Loss("model", self.weight.square())

    def sample(self, n: int, given: Any = None, options: Any = None, generator: Draws | None = None) -> Tensor:
        before = given[PAST].unflatten(1, (-1, self.spec.target.shape[0]))
        return 2 * before[:, -1] - before[:, -2]

    @property
    def sampling_network(self) -> nn.Module:
        return self


def made(spec: Spec = CLIPS, **settings: Any) -> tuple[Rollout, Inertia]:
    model = RolloutConfig(frame=InertiaConfig(), **settings).build(spec)
    assert isinstance(model.frame, Inertia)
    return model, model.frame


def practised(model: Rollout, frame: Inertia, x: Tensor, **given: Tensor) -> Batch:
    torch.default_generator.manual_seed(0)
    list(model.losses(Batch(x, given)))
    return frame.seen[-1]


def test_a_frame_is_learned_from_those_before_it_and_zeros_where_there_are_none() -> None:
    model, frame = made(past=3, past_noise=0.0, per_clip=40)
    x = torch.rand(4, 2, 6, 3, 4) * 2 - 1
    seen = practised(model, frame, x, first=x[:, :, 0], label=torch.arange(4) % 2)
    numbers = (seen.given[PLACE] * 5).round().long().tolist()
    assert len(numbers) == 160 and set(numbers) == {1, 2, 3, 4, 5} and numbers.count(1) > numbers.count(5)
    for row, k in enumerate(numbers):
        clip = x[row // 40]
        assert seen.x[row].equal(clip[:, k])
        assert seen.given[FIRST][row].equal(clip[:, 0]) and seen.given["label"][row] == row // 40 % 2
        for back, found in enumerate(seen.given[PAST][row].unflatten(0, (3, 2)).flip(0), 1):
            assert found.equal(clip[:, k - back] if k >= back else torch.zeros(2, 3, 4))


def test_without_a_first_frame_that_one_is_made_from_nothing() -> None:
    model, frame = made(CLIPS.alone(), per_clip=40)
    seen = practised(model, frame, torch.rand(2, 2, 6, 3, 4))
    begun = seen.given[PLACE] == 0
    assert begun.any() and not seen.given[PAST][begun].any() and not seen.given[FIRST][begun].any()
    assert seen.given[FIRST][~begun].flatten(1).any(1).all()


def test_what_a_frame_is_made_from_is_noisy_and_what_is_to_come_is_not() -> None:
    model, frame = made(past=1, past_noise=0.5, per_clip=8)
    x = torch.rand(4, 2, 6, 3, 4)
    seen = practised(model, frame, x, first=x[:, :, 0], label=torch.arange(4) % 2)
    k = (seen.given[PLACE] * 5).round().long()
    clip = torch.arange(4).repeat_interleave(8)
    assert seen.x.equal(x[clip, :, k]) and seen.given[FIRST].equal(x[clip, :, 0])
    assert 0.02 < (seen.given[PAST] - x[clip, :, k - 1]).std() < 0.5


def test_clips_go_on_from_their_own_frames_for_as_long_as_one_likes() -> None:
    model, _ = made(past=2)
    first = torch.full((1, *FRAME.shape), 0.5)
    given = {"first": first, "label": torch.tensor([0])}
    assert model.sample(1, given).shape == (1, 2, 6, 3, 4)
    x = model.sample(1, given, model.Options(frames=30))
    assert torch.allclose(x.diff(dim=2), first[:, :, None].expand(-1, -1, 29, -1, -1))  # from the zeros before it
    with pytest.raises(ValueError, match="frames"):
        model.Options(frames=5000)


def test_the_first_frame_stays_and_a_name_that_is_taken_is_refused() -> None:
    model, _ = made()
    first = torch.rand(2, *FRAME.shape)
    x = model.sample(2, {"first": first, "label": torch.tensor([0, 1])})
    assert x[:, :, 0].equal(first)
    with pytest.raises(BowerbirdError, match="'place'.* another name"):
        made(Spec("video", CLIPS.target, {"place": Classes(("a", "b"))}))
    with pytest.raises(BowerbirdError, match="needs clips of frames"):
        made(Spec("image", FRAME))


def test_shifts_run_row_by_row_and_repeat_the_edge() -> None:
    x = torch.rand(2, 3, 5, 7)
    seen = shifted(x, 2)[:, :, 2 * 5 + 4]  # of five rows of five places: the same height, two to the right
    assert seen[..., :5].equal(x[..., 2:]) and seen[..., 5:].equal(x[..., -1:].expand(-1, -1, -1, 2))


def test_likelihoods_of_shifts_differ_as_those_of_normal_distributions_do() -> None:
    t, around = torch.tensor([0.0, 0.3, 0.9]), torch.rand(3, 2, 9, 4, 5)
    x_t = torch.randn(3, 2, 4, 5)
    found = likelihood(x_t, around, t)
    deviation = (t**2 + ((1 - t) * MISFIT) ** 2).sqrt().view(-1, 1, 1, 1, 1)
    normal = torch.distributions.Normal((1 - t.view(-1, 1, 1, 1, 1)) * around, deviation)
    expected = normal.log_prob(x_t[:, :, None]).sum(1)
    assert torch.allclose(found.diff(dim=1), expected.diff(dim=1), atol=1e-4)
    assert torch.allclose(found.mean(1), torch.zeros(3, 4, 5), atol=1e-5)


def test_likelihoods_are_added_up_around_every_patch() -> None:
    x = torch.rand(2, 3, 5, 8)
    found = added_up(x, 2, 3)
    assert found.shape == (2, 3, 3, 4)
    assert torch.allclose(found[:, :, 1, 1], x[:, :, :, :6].sum((2, 3)))  # rows 0 to 5, of which there are 5
    assert torch.allclose(found[:, :, 0, 3], x[:, :, :4, 4:].sum((2, 3)))


def warping(before: torch.Tensor, x_t: torch.Tensor, t: float) -> torch.Tensor:
    """What an untrained network answers."""
    c, height, width = x_t.shape[1:]
    frame, earlier = Tensors((c, height, width)), Tensors(tuple(before.shape[1:]))
    spec = Spec("video", frame, {PAST: earlier, FIRST: frame})
    net = WarpConfig(channels=16, multipliers=(1,), blocks=1, patch=2, attention=(), reach=2).denoiser(spec, c)
    given = {PAST: before, FIRST: torch.zeros_like(x_t)}
    with torch.no_grad():
        return net(x_t, torch.full((len(x_t),), t), given)


def test_before_training_what_moved_goes_on_and_what_is_seen_is_followed() -> None:
    """The second frame shows the first a pixel to the right; x_t tells nothing, or another motion."""
    wide = torch.rand(1, 3, 16, 24).round() * 2 - 1
    frames = [wide[..., left : left + 16] for left in (4, 3, 2, 5)]
    before = torch.cat(frames[:2], 1)
    inside = (..., slice(3, -3), slice(3, -3))
    blind = warping(before, torch.randn(1, 3, 16, 16), 1.0)
    goes_on, turns = ((blind - one)[inside].abs().mean() for one in frames[2:])
    assert goes_on < 0.4 < turns
    t = 0.3
    seen = warping(before, (1 - t) * frames[3] + t * torch.randn(1, 3, 16, 16), t)
    assert (seen - frames[3])[inside].abs().mean() < 0.05
    alone = warping(frames[0], frames[1], 0.0)  # a single frame before: nothing has moved yet
    assert (alone - frames[1])[inside].abs().mean() < 0.05


def test_the_warp_needs_frames_before() -> None:
    with pytest.raises(BowerbirdError, match="moves the frame before"):
        WarpConfig().denoiser(Spec("image", Tensors((3, 8, 8))), 3)


def test_a_caption_becomes_a_clip(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for i in range(12):
        colour = ("red", "blue")[i % 2]
        frames = [Image.new("RGB", (8, 8), "white") for _ in range(3)]
        for k, one in enumerate(frames):
            ImageDraw.Draw(one).rectangle((k + i // 2 % 3, 2, k + 3, 5), fill=colour)
        frames[0].save(clips / f"{i}.gif", save_all=True, append_images=frames[1:], duration=125, loop=0)
        (clips / f"{i}.txt").write_text(f"a {colour} box moves {i}")
    net = {"name": "unet", "channels": 8, "multipliers": [1], "blocks": 1}
    frame = {"family": "flow", "prediction": "x0", "sample_steps": 2, "net": net}
    data = {"source": str(clips), "modality": "video", "given": ["caption"], "video": {"frames": 3}}
    table = {
        "model": {"family": "rollout", "per_clip": 2, "frame": frame},
        "data": data | {"text": {"tokenizer": "word"}},
        "train": {"steps": 2, "batch_size": 4, "device": "cpu", "precision": "fp32", "threads": 1},
    }
    api.train(config.run_from(table, "test"), tmp_path / "run", quiet=True)
    found = api.generate(tmp_path / "run", 2, given={"prompt": "a red box moves 2"}, options={"frames": 5})
    assert found.x.shape == (2, 3, 5, 8, 8) and found.rows[0]["caption"] == "a red box moves 2"
    assert rollout.PAST not in found.rows[0]
