"""Evolution: each child begins as the parent, is trained by its own mutation, and the fittest becomes the parent."""

import math

import pytest
import torch
from torch import Tensor

from bowerbird.models.base import Batch
from bowerbird.models.evolution import MUTATIONS, Evolution, EvolutionConfig, critic_loss, diversity, quality
from bowerbird.nets.mlp import MLPConfig
from bowerbird.spec import Spec, Tensors

SPEC = Spec("image", Tensors((1, 4, 4)))


@pytest.fixture
def model() -> Evolution:
    torch.manual_seed(0)
    return EvolutionConfig(net=MLPConfig(hidden=(8,)), n_latent=3).build(SPEC)


def weights(model: Evolution) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.G.parameters()])


def test_every_child_begins_as_the_parent_and_the_fittest_is_kept(
    model: Evolution, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, begun, ended = weights(model), [], []
    judged = iter([0.1, 0.9, 0.3])
    monkeypatch.setattr(Evolution, "fitness", lambda *_: next(judged))
    turns = model.losses(Batch(torch.rand(6, 1, 4, 4)))
    assert next(turns).player == "D"
    for i, loss in enumerate(turns):
        assert loss.player == "G"
        begun.append(weights(model))
        for p in model.G.parameters():
            p.data += i + 1.0
        ended.append(weights(model))
    assert len(begun) == 3 and all(torch.equal(one, parent) for one in begun)
    assert torch.equal(weights(model), ended[1]) and model.wins.tolist() == [0, 1, 0]


def test_mutations_are_those_of_the_paper() -> None:
    logits = torch.tensor([-1.5, 0.0, 2.0])
    s = logits.sigmoid()
    expected = {"minimax": (1 - s).log().mean(), "heuristic": -s.log().mean(), "least-squares": (s - 1).square().mean()}
    assert {name: float(loss(logits)) for name, loss in MUTATIONS.items()} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, abs=1e-6
    )
    assert float(quality(logits)) == pytest.approx(float(s.mean()))


def test_fitness_is_quality_and_the_log_of_the_gradient_that_the_critic_would_follow(model: Evolution) -> None:
    real, fake = torch.rand(5, 1, 4, 4), torch.rand(5, 1, 4, 4)
    loss = critic_loss(model.score(real, {}), model.score(fake, {}))
    loss.backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.D.parameters() if p.grad is not None))
    again = critic_loss(model.score(real, {}), model.score(fake, {}))
    assert float(diversity(again, list(model.D.parameters()))) == pytest.approx(-math.log(norm), rel=1e-4)
    wanted = float(model.score(fake, {}).sigmoid().mean()) - 0.1 * math.log(norm)
    assert model.fitness(fake, real, {}) == pytest.approx(wanted, rel=1e-4)


def test_no_mutation_and_one_twice_are_refused() -> None:
    for mutations in ((), ("minimax", "minimax")):
        with pytest.raises(ValueError, match="at least one mutation, and none of them twice"):
            EvolutionConfig(net=MLPConfig(hidden=(8,)), mutations=mutations)
