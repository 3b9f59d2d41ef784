"""The contract of ``models.base``, for every registered family on every network that it can use.

A family is covered because its name is in the registry; the example of the documentation is registered here too.
``VARIANTS`` adds configurations that take other paths through a family's code.
"""

import dataclasses
import inspect
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from bowerbird import config, registry
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, Encodes, GenerativeModel, Scores, counting_evaluations
from bowerbird.spec import ImageSpec

registry.load_plugin(Path(__file__).parents[1] / "docs" / "examples" / "my_family.py")

SPECS = {
    "grey": ImageSpec(1, 8, 8),
    "odd-labelled": ImageSpec(3, 9, 12, ("a", "b", "c"), (5, 1, 3)),
    "digits-sized": ImageSpec(1, 28, 28),
}
LABELLED = "odd-labelled"
SMALLER = {"grey": ImageSpec(1, 4, 4), LABELLED: ImageSpec(3, 2, 3, ("a", "b", "c"), (5, 1, 3))}
"""For families that make an image number by number."""
N = 4

NUMBER_BY_NUMBER = {"autoregressive"}
WITHOUT_NOISE = {"autoregressive"}
"""Families whose losses draw nothing, unless a variant says otherwise."""
NO_IMAGES = {"seq2seq"}
"""Families of other data; their own tests cover them."""

SMALL_NETS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [32], "n_embd": 16},
    "convnet": {"channels": 8, "n_hidden": 16},
    "unet": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "head_channels": 8},
    "dit": {"n_layer": 1, "n_head": 2, "n_embd": 16, "mlp_ratio": 2},
    "transformer": {"n_layer": 1, "n_head": 2, "n_embd": 16},
    "rnn": {"n_layer": 1, "n_embd": 16},
}
SMALL_FIELDS = {"timesteps": 8, "sample_steps": 2, "n_hidden": 16}
SMALL_OPTIONS = {"steps": 3, "tolerance": 0.1, "n_samples": 3}
"""Settings and options of ``log_prob`` that cost time, for families that have them."""
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "gan": [
        {"loss": "wasserstein", "gradient_penalty": 10.0, "d_steps": 2},
        {"loss": "wasserstein", "weight_clip": 0.01},
        {"loss": "relativistic", "r1_gamma": 1.0, "r2_gamma": 1.0},
        {"loss": "hinge", "spectral_norm": True, "latent": "uniform"},
    ],
    "vae": [{"likelihood": name} for name in ("bernoulli", "gaussian", "discretised-logistic")],
    "diffusion": [
        {"schedule": "edm", "prediction": "edm"},
        {"prediction": "v", "variance": "learned"},
        {"prediction": "x0", "loss": "cross-entropy"},
    ],
    "flow": [{"time": "logit-normal", "coupling": "minibatch-ot"}],
    "autoregressive": [{"levels": 16}, {"label_dropout": 0.5}, {"lora": {"rank": 2}}],
}


@dataclass(frozen=True)
class Case:
    """One configuration of a family on data of one shape."""

    table: dict[str, Any]
    spec: ImageSpec

    def config(self) -> config.ModelConfig:
        return config.model_from(self.table, "test")

    def model(self, seed: int = 0) -> GenerativeModel:
        """The model with noise on its weights: layers that start at zero would hide what lies behind them."""
        torch.manual_seed(seed)
        model = self.config().build(self.spec)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.05 * torch.randn_like(p))
        return model

    def batch(self, step: int = 0) -> Batch:
        x = torch.rand(N, *self.spec.shape) * 2 - 1
        return Batch(x, torch.arange(N) % self.spec.n_classes if self.spec.n_classes else None, step)

    @property
    def conditional(self) -> bool:
        return bool(self.spec.n_classes) and self.table.get("conditional", True)


def shipped(table: registry.Registry) -> list[str]:
    """Names that no other test file has registered for its own use."""
    return [name for name in table.names() if not table.get(name).__module__.startswith("test_")]


def tables(family: str) -> list[dict[str, Any]]:
    """A small configuration of the family on each network that it can be built with."""
    fields = {f.name for f in dataclasses.fields(registry.families.get(family))}
    table = {"family": family} | {name: value for name, value in SMALL_FIELDS.items() if name in fields}
    if "net" not in fields:
        return [table]
    candidates = [table | {"net": {"name": net} | SMALL_NETS.get(net, {})} for net in shipped(registry.nets)]
    return [candidate for candidate in candidates if can_build(candidate)]


def can_build(table: dict[str, Any]) -> bool:
    try:
        Case(table, SPECS["grey"]).model()
    except BowerbirdError as refusal:
        assert "use" in str(refusal)  # an advice which network to take instead
        return False
    return True


def cases() -> list[Any]:
    """Each network on each shape; each variant on one network and the shape with labels."""
    found = []
    for family in shipped(registry.families):
        if family in NO_IMAGES:
            continue
        plain = tables(family)
        assert plain, f"no registered network suits the family {family}"
        specs = SMALLER if family in NUMBER_BY_NUMBER else SPECS
        for table in plain:
            net = table.get("net", {}).get("name", "own")
            found += [pytest.param(Case(table, s), id=f"{family}-{net}-{name}") for name, s in specs.items()]
        variants = list(VARIANTS.get(family, []))
        if "conditional" in {f.name for f in dataclasses.fields(registry.families.get(family))}:
            variants.append({"conditional": False})
        for change in variants:
            words = "-".join(str(value) for value in change.values())
            found.append(pytest.param(Case(plain[-1] | change, specs[LABELLED]), id=f"{family}-{words}"))
    return found


pytestmark = pytest.mark.parametrize("case", cases())


def draw(model: GenerativeModel, seed: int = 0, **options: Any) -> Tensor:
    return model.sample(N, generator=torch.Generator().manual_seed(seed), **options)


def snapshot(model: GenerativeModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def changed(model: GenerativeModel, before: dict[str, Tensor]) -> set[str]:
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


# ------------------------------------------------------------------------------------------------------ training


def test_every_parameter_belongs_to_one_player(case: Case) -> None:
    model = case.model()
    owned = [id(p) for player in model.players.values() for p in player.parameters()]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(p) for p in model.parameters()}


def test_losses_are_finite_scalars_whose_gradients_reach_every_parameter(case: Case) -> None:
    model = case.model()
    seen = set()
    for loss in model.losses(case.batch()):
        assert loss.value.shape == () and loss.value.dtype == torch.float32
        assert torch.isfinite(loss.value)
        assert all(log.shape == () and torch.isfinite(log) and not log.requires_grad for log in loss.logs.values())
        torch.autograd.backward(loss.value, inputs=list(model.players[loss.player].parameters()))
        seen.add(loss.player)
    assert seen == model.players.keys()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
        # A bias may have no effect (E D(G(z)) - E D(x) cancels the critic's last one); a weight must have one.
        assert p.ndim < 2 or p.grad.any(), f"no loss depends on {name}"


def test_a_loss_moves_its_player_alone(case: Case) -> None:
    """As the trainer does it: nothing but the player whose loss was asked for changes until the next loss."""
    model = case.model()
    names = {id(p): name for name, p in model.named_parameters()}
    before, stepped = snapshot(model), set()
    for loss in model.losses(case.batch()):
        assert changed(model, before) <= stepped  # work after a yield (clipping) is on the player that was stepped
        before = snapshot(model)
        player = list(model.players[loss.player].parameters())
        torch.autograd.backward(loss.value, inputs=player)
        with torch.no_grad():
            for p in player:
                p -= 1e-3 * p.grad
                p.grad = None
        stepped = {names[id(p)] for p in player}
        assert changed(model, before)
    assert changed(model, before) <= stepped


def test_losses_follow_from_the_global_seed(case: Case) -> None:
    """Exact resume rests on this: a step's randomness comes from torch's generator, which the trainer seeds."""
    model, values = case.model(), []
    batch = case.batch()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for seed in (1, 1, 2):
        model.load_state_dict(state)  # weight clipping and spectral norms change the model
        torch.manual_seed(seed)
        values.append([loss.value.item() for loss in model.losses(batch)])
    assert values[0] == values[1]
    noisy = case.table["family"] not in WITHOUT_NOISE or "label_dropout" in case.table
    assert (values[0] != values[2]) is noisy


def test_losses_under_bf16_autocast(case: Case) -> None:
    model = case.model()
    losses = model.losses(case.batch())
    while True:
        with torch.autocast("cpu", torch.bfloat16):
            loss = next(losses, None)
        if loss is None:
            break
        assert loss.value.dtype == torch.float32 and torch.isfinite(loss.value)
        torch.autograd.backward(loss.value, inputs=list(model.players[loss.player].parameters()))


# ------------------------------------------------------------------------------------------------------ sampling


def test_samples(case: Case) -> None:
    model = case.model().eval()
    x = draw(model)
    assert x.shape == (N, *case.spec.shape) and x.dtype == torch.float32 and not x.requires_grad
    assert torch.isfinite(x).all() and x.min() >= -1 and x.max() <= 1
    assert not torch.equal(x[0], x[1])
    assert model.sample(1).shape == (1, *case.spec.shape)


def test_samples_follow_from_the_generator_alone(case: Case) -> None:
    model = case.model().eval()
    first = draw(model)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(draw(model), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(draw(model, seed=1), first)


@pytest.mark.parametrize("training", [True, False])
def test_sampling_leaves_the_model_as_it_was(case: Case, training: bool) -> None:
    model = case.model()
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draw(model)
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_labels(case: Case) -> None:
    model = case.model().eval()
    labels = [torch.full((N,), number) for number in range(2)]
    if not case.conditional:
        with pytest.raises(BowerbirdError, match="label"):
            draw(model, cond=labels[0])
        return
    x, y = (draw(model, cond=label) for label in labels)
    assert x.shape == (N, *case.spec.shape)
    assert not torch.equal(x, y)
    assert torch.equal(draw(model, cond=labels[0]), x)


def test_options_have_names_and_defaults(case: Case) -> None:
    parameters = list(inspect.signature(case.model().sample).parameters.values())
    assert [p.name for p in parameters[:3]] == ["n", "cond", "generator"]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters[1:])


def test_the_cost_of_sampling_is_counted(case: Case) -> None:
    model = case.model().eval()
    with counting_evaluations(model) as rows:
        draw(model)
    assert rows[0] >= N and rows[0] % N == 0
    counted = rows[0]
    draw(model)
    assert rows[0] == counted  # no longer counting


# ------------------------------------------------------------------------------------------------------ protocols


def test_encodes(case: Case) -> None:
    model = case.model().eval()
    if not isinstance(model, Encodes):
        return
    x, label = case.batch()[:2]
    with torch.no_grad():
        z = model.encode(x, label)
        y = model.decode(z, label)
    assert z.ndim == 2 and len(z) == N and torch.isfinite(z).all()
    assert y.shape == x.shape and y.min() >= -1 and y.max() <= 1
    with torch.no_grad():
        assert torch.equal(model.encode(x, label), z)


def test_scores(case: Case) -> None:
    """Images are 8-bit, so their likelihoods are probabilities, at most 1."""
    model = case.model().eval()
    if not isinstance(model, Scores):
        return
    x, label = case.batch()[:2]
    x = torch.where(x < 0, -1.0, 1.0)  # black and white, which a Bernoulli likelihood can score too
    known = inspect.signature(model.log_prob).parameters
    options = {name: value for name, value in SMALL_OPTIONS.items() if name in known}
    scores = [model.log_prob(x, label, generator=torch.Generator().manual_seed(0), **options) for _ in range(2)]
    assert scores[0].shape == (N,)
    assert torch.isfinite(scores[0]).all() and (scores[0] < 0).all()
    assert torch.equal(scores[0], scores[1])


# ------------------------------------------------------------------------------------------------------ files


def test_safetensors_hold_the_whole_model(case: Case, tmp_path: Path) -> None:
    """No pickle: all state is tensors, and another model of the same configuration samples alike from them."""
    model = case.model(seed=0).eval()
    list(model.losses(case.batch()))
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    other = case.model(seed=1).eval()
    assert not torch.equal(draw(other), draw(model))
    other.load_state_dict(safetensors.torch.load_file(file))
    assert torch.equal(draw(other), draw(model))


def test_the_configuration_survives_toml(case: Case) -> None:
    run = config.Run(model=case.config())
    assert config.run_from(tomllib.loads(config.dumps(run)), "test") == run
