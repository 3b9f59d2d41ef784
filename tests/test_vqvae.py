"""VQ-VAE: what stands in for the gradient of the nearest code, what a codebook does, and what the prior learns."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch
from bowerbird.models.vqvae import VQVAE, Codebook, VQVAEConfig, VQVAEOptions, perplexity, rotated, straight_through
from bowerbird.nets.convnet import ConvNetConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.spec import Classes, Spec, Tensors, Tokens

SPEC = Spec("image", Tensors((1, 8, 8)), {"label": Classes(("a", "b"))})
PRIOR = TransformerConfig(n_layer=1, n_head=2, n_embd=16)
CONFIG = VQVAEConfig(net=ConvNetConfig(channels=8), prior=PRIOR, n_codes=12, n_embd=4)


@pytest.fixture
def model() -> VQVAE:
    torch.manual_seed(0)
    return CONFIG.build(SPEC)


def pair(m: int = 6) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(m, 4, requires_grad=True), torch.randn(m, 4)


def test_both_estimators_are_the_code_itself() -> None:
    z_e, z_q = pair()
    for estimator in (straight_through, rotated):
        torch.testing.assert_close(estimator(z_e, z_q), z_q)


def test_straight_through_passes_the_gradient_on_and_rotation_keeps_its_angle() -> None:
    z_e, z_q = pair()
    wanted = torch.randn(6, 4)
    (straight,) = torch.autograd.grad(straight_through(z_e, z_q), z_e, wanted)
    assert torch.equal(straight, wanted)
    (turned,) = torch.autograd.grad(rotated(z_e, z_q), z_e, wanted)
    angle = torch.cosine_similarity
    torch.testing.assert_close(angle(turned, z_e, dim=1), angle(wanted, z_q, dim=1))
    torch.testing.assert_close(turned.norm(dim=1), wanted.norm(dim=1) * z_q.norm(dim=1) / z_e.norm(dim=1))


def test_the_nearest_code_is_the_nearest() -> None:
    torch.manual_seed(0)
    book, z = Codebook(12, 4, 0.9, 0.1), torch.randn(50, 4)
    assert torch.equal(book.nearest(z), torch.cdist(z, book.vectors).argmin(1))


def test_codes_become_the_means_of_what_chose_them() -> None:
    """Two clusters and two codes: as k-means has it."""
    torch.manual_seed(0)
    centres = torch.tensor([[5.0, 0.0], [-5.0, 1.0]])
    book = Codebook(2, 2, 0.8, 0.0)
    book.vectors.copy_(centres + 1)
    book.counts.fill_(1.0)
    for _ in range(60):
        z = centres.repeat(200, 1) + 0.1 * torch.randn(400, 2)
        book.follow(z, book.nearest(z))
    assert (book.vectors - centres).abs().max() < 0.05
    assert book.counts.tolist() == pytest.approx([200, 200], rel=1e-3)


def test_unused_codes_begin_anew_at_what_there_is_and_do_not_where_they_may_not() -> None:
    torch.manual_seed(0)
    far = torch.full((8, 2), 100.0)
    for restart_below, used in ((0.1, 8), (0.0, 1)):
        book = Codebook(8, 2, 0.5, restart_below)
        book.vectors.copy_(far)
        book.vectors[0] = 0.0
        book.counts.fill_(50.0)
        for _ in range(30):
            z = torch.randn(400, 2)
            book.follow(z, book.nearest(z))
        assert len(book.nearest(torch.randn(2000, 2)).unique()) == used
        assert bool(book.restarts) == (restart_below > 0)


def test_health_is_of_the_running_shares() -> None:
    assert float(perplexity(torch.full((7,), 1 / 7))) == pytest.approx(7)
    assert float(perplexity(torch.tensor([0.5, 0.5, 0.0]))) == pytest.approx(2)
    book = Codebook(4, 2, 0.5, 0.0)
    book.counts.copy_(torch.tensor([10.0, 10.0, 0.0, 0.0]))
    health = book.health(torch.zeros(1, dtype=torch.long))
    assert float(health["usage"]) == 0.5 and float(health["perplexity"]) == pytest.approx(2)


def test_the_prior_is_told_the_class_and_all_codes_before(model: VQVAE) -> None:
    """Each code is predicted once, from what lies before it: its loss does not see those behind it."""
    codes = torch.randint(12, (3, 4))
    given = {"label": torch.tensor([0, 1, 0])}
    first = model.rows.first_tokens(3, given, codes.device)
    logits, _ = model.read(torch.cat([first, codes], 1))
    by_hand = -logits[:, :-1].log_softmax(-1).gather(2, codes[..., None]).mean()
    assert model.nll(codes, given).item() == pytest.approx(by_hand.item(), rel=1e-5)
    other = codes.clone()
    other[:, -1] = (other[:, -1] + 1) % 12
    changed, _ = model.read(torch.cat([first, other], 1))
    torch.testing.assert_close(changed[:, :-1], logits[:, :-1])


def test_a_prior_that_knows_one_grid_draws_it(model: VQVAE) -> None:
    """After training on one row of codes, a greedy sample is its picture; encode and decode meet there too."""
    codes = torch.tensor([[3, 1, 4, 1]])
    optimizer = torch.optim.Adam(model.prior.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.nll(codes, {"label": torch.zeros(1, dtype=torch.long)})
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    x = model.sample(2, {"label": torch.zeros(2, dtype=torch.long)}, VQVAEOptions(temperature=0.0), Draws(0))
    torch.testing.assert_close(x, model.picture_of(codes.flatten()).expand(2, -1, -1, -1))
    torch.testing.assert_close(model.decode(model.codebook.vectors[codes].view(1, -1)), x[:1])


def test_the_codebook_follows_in_training_alone(model: VQVAE) -> None:
    batch = Batch(torch.rand(4, 1, 8, 8) * 2 - 1, {"label": torch.tensor([0, 1, 0, 1])})
    before = model.codebook.vectors.clone()
    list(model.eval().losses(batch))
    assert torch.equal(model.codebook.vectors, before)
    list(model.train().losses(batch))
    assert not torch.equal(model.codebook.vectors, before)


def test_what_it_cannot_be_made_of_is_refused() -> None:
    with pytest.raises(BowerbirdError, match="mlp cannot be an encoder into a grid; use convnet"):
        replace(CONFIG, net=MLPConfig(hidden=(8,))).build(SPEC)
    with pytest.raises(BowerbirdError, match="can be given classes, but no caption"):
        CONFIG.build(replace(SPEC, given={"caption": Tokens(9, 4, 0, 1, 2)}))
