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
from bowerbird.nets.warp import WarpConfig, moved
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


def test_what_moves_is_found_within_reach_of_each_patch() -> None:
    x = torch.rand(2, 3, 5, 7)
    logits = torch.zeros(2, 25, 3, 4)
    logits[:, 2 * 5 + 4] = 50.0  # of five rows of five places: the same height, two to the right
    seen = moved(x, logits.softmax(1), 2, 2)
    assert torch.allclose(seen[..., :5], x[..., 2:], atol=1e-6)
    assert torch.allclose(seen[..., 5:], x[..., -1:].expand(-1, -1, -1, 2), atol=1e-6)


def test_before_training_the_warp_shows_the_frame_before() -> None:
    given = {PAST: Tensors((6, 5, 7)), FIRST: Tensors((3, 5, 7))}
    spec = Spec("video", Tensors((3, 5, 7)), given)
    net = WarpConfig(channels=16, multipliers=(1,), blocks=1, patch=2, attention=(), reach=1).denoiser(spec, 3)
    before = torch.rand(2, 6, 5, 7)
    made_of = net(torch.randn(2, 3, 5, 7), torch.rand(2), {PAST: before, FIRST: torch.rand(2, 3, 5, 7)})
    assert (made_of - before[:, 3:]).abs().max() < 0.03
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
