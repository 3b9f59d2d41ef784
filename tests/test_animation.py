"""Pictures that move by codes: what moves is taken from the first frame, and each code moves its own frame."""

import pytest
import torch
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.models.animation import Animation, AnimationConfig
from bowerbird.models.base import Batch
from bowerbird.models.flow import FlowConfig
from bowerbird.nets.dit import DiTConfig
from bowerbird.nets.moving import warped
from bowerbird.spec import Classes, Spec, Tensors

PRIOR = FlowConfig(DiTConfig(n_layer=1, n_head=2, n_embd=16, patch=1), prediction="x0", sample_steps=2)
SMALL = AnimationConfig(PRIOR, channels=8, depth=2, per_clip=3, draws=2)


def clips_of(height: int, width: int, frames: int = 4) -> Spec:
    first = Tensors((3, height, width))
    return Spec("video", Tensors((3, frames, height, width)), {"first": first, "label": Classes(("a", "b"))})


def built(config: AnimationConfig = SMALL, spec: Spec | None = None, noise: float = 0.0) -> Animation:
    torch.default_generator.manual_seed(0)
    model = config.build(spec or clips_of(16, 16))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(noise * torch.randn_like(p))
    return model.eval()


def given(spec: Spec, n: int) -> dict[str, Tensor]:
    return {"first": torch.rand(n, *spec.given["first"].shape) * 2 - 1, "label": torch.arange(n) % 2}


def test_a_displacement_says_where_a_pixel_comes_from() -> None:
    y = torch.rand(2, 3, 5, 7)
    u = torch.zeros(2, 2, 5, 7)
    assert torch.allclose(warped(y, u), y, atol=1e-5)
    u[:, 0], u[:, 1] = 2.0, -1.0  # from two to the right, in the row above
    seen = warped(y, u)
    assert torch.allclose(seen[:, :, 1:, :5], y[:, :, :4, 2:], atol=1e-5)
    assert torch.allclose(seen[:, :, 0, :5], y[:, :, 0, 2:], atol=1e-5)  # beyond the edge it is as at the edge
    u[:, 0], u[:, 1] = 0.5, 0.0
    assert torch.allclose(warped(y, u)[..., :6], (y[..., :6] + y[..., 1:]) / 2, atol=1e-5)


@pytest.mark.parametrize("side", [(16, 16), (9, 13), (5, 4)])
def test_before_training_a_picture_stands_still_whatever_its_size(side: tuple[int, int]) -> None:
    spec = clips_of(*side)
    model, asked = built(spec=spec), given(clips_of(*side), 3)
    x = model.sample(3, asked, generator=Draws(0))
    assert torch.allclose(x, asked["first"][:, :, None].expand(-1, -1, 4, -1, -1), atol=1e-4)


def test_the_first_frame_is_kept_and_every_code_moves_its_own_frame() -> None:
    model, asked = built(noise=0.1), given(clips_of(16, 16), 2)
    z = torch.randn(2, 6, 2, 2)
    x = model.moved(asked["first"], z)
    assert x[:, :, 0].equal(asked["first"]) and (x.diff(dim=2).abs().amax((1, 3, 4)) > 0.01).all()
    other = z.clone()
    other[1, 2:4] += 1.0  # of the second clip, the code of frame 2
    changed = (model.moved(asked["first"], other) - x).abs().amax((1, 3, 4)) > 1e-4
    assert changed.tolist() == [[False] * 4, [False, False, True, False]]


def test_codes_are_those_of_the_frames_in_their_order() -> None:
    model = built(noise=0.1)
    x = torch.rand(2, 3, 4, 16, 16) * 2 - 1
    z = model.codes(x).unflatten(1, (3, 2))
    for k in (1, 2, 3):
        mu, _ = model.posterior(x[:, :, k], x[:, :, 0])
        assert torch.allclose(z[:, k - 1], mu, atol=1e-4)


def test_it_learns_to_move_what_moves() -> None:
    """Squares that go to the right: a few steps of the autoencoder explain most of what standing still does not."""
    torch.manual_seed(0)
    x = torch.full((12, 3, 4, 16, 16), 1.0)
    for clip, (row, column) in zip(x, torch.randint(1, 7, (12, 2)).tolist(), strict=True):
        colour = -torch.rand(3, 1, 1)
        for k in range(4):
            clip[:, k, row : row + 6, column + k : column + k + 6] = colour
    model = built().train()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    logs: dict[str, Tensor] = {}
    for _ in range(70):
        for loss in model.losses(Batch(x, {"first": x[:, :, 0], "label": torch.zeros(12, dtype=torch.int64)})):
            optimizer.zero_grad()
            loss.value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            logs |= loss.logs
    assert logs["moved_mse"] < 0.3 * logs["still_mse"]


def test_what_cannot_move_is_refused() -> None:
    with pytest.raises(BowerbirdError, match="--data.given first"):
        SMALL.build(Spec("video", Tensors((3, 4, 8, 8))))
    with pytest.raises(BowerbirdError, match="at least 2 frames"):
        SMALL.build(clips_of(8, 8, frames=1))
    with pytest.raises(BowerbirdError, match="needs a first picture"):
        built().sample(2, {"label": torch.zeros(2, dtype=torch.int64)})
