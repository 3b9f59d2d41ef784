"""The contract of ``models.base``: every registered family on every network and all data that it can be built for.

A family is covered because its name is in the registry, a network likewise; the example of the documentation is
registered here too.  ``SPECS`` are the data: pictures, texts, music and pairs, made from nothing, from classes, from
captions and from pictures.  ``VARIANTS`` adds configurations that take other paths through a family's code.
"""

import dataclasses
import inspect
import os
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from bowerbird import config, registry
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.generating import draw as draw_many
from bowerbird.models.base import (
    Batch,
    Denoises,
    Encodes,
    GenerativeModel,
    HasCodes,
    Infers,
    Options,
    Scores,
    Streams,
    counting_evaluations,
    options_from,
    with_steps,
)
from bowerbird.nets.conditioning import Given
from bowerbird.spec import NO_TOKEN, Classes, Field, Spec, Tensors, Tokens, spec_from_json, spec_to_json

registry.load_plugin(Path(__file__).parents[1] / "docs" / "examples" / "my_family.py")

LABEL = Classes(("a", "b", "c"), (5, 1, 3))
WORDS = Tokens(12, 8, 0, 1, 2, start=(0,))
SOURCE = Tokens(12, 6, 0, 1, 2)
SPECS = {
    "grey": Spec("image", Tensors((1, 8, 8))),
    "odd-labelled": Spec("image", Tensors((3, 9, 12)), {"label": LABEL}),
    "digits-sized": Spec("image", Tensors((1, 28, 28))),
    "described": Spec("image", Tensors((1, 8, 8)), {"shape": LABEL, "colour": Classes(("x", "y")), "caption": SOURCE}),
    "translated": Spec("image", Tensors((1, 8, 8)), {"source": Tensors((1, 8, 8))}),
    "recoloured": Spec("image", Tensors((3, 8, 8)), {"source": Tensors((1, 8, 8)), "label": LABEL}),
    "small": Spec("image", Tensors((1, 4, 4))),
    "small-labelled": Spec("image", Tensors((3, 2, 3)), {"label": LABEL}),
    "small-attributes": Spec("image", Tensors((1, 3, 2)), {"hair": LABEL, "glasses": Classes(("x", "y"))}),
    "clip": Spec("video", Tensors((1, 3, 5, 4)), {"first": Tensors((1, 5, 4)), "label": LABEL}),
    "waveform": Spec("speech", Tensors((1, 96)), {"spectrogram": Tensors((1, 5, 6))}),
    "text": Spec("text", WORDS),
    "music": Spec("music", dataclasses.replace(WORDS, start=(0, 3))),
    "pairs": Spec("text", WORDS, {"source": SOURCE}),
}
FOR_VARIANTS = ("odd-labelled", "small-labelled", "translated", "waveform", "text", "pairs")
MOST_STREAMED = 24
"""Families that make a picture number by number are tested on pictures of at most so many."""
N = 4

NOISY = {
    "animation", "gan", "evolution", "vae", "diffusion", "flow", "distillation", "latent", "rollout", "nice",
    "fewlabels", "local", "lossy",
}  # fmt: skip
"""Families whose losses draw random numbers …"""
WITHOUT_NOISE = {"autoregressive", "seq2seq", "translation", "vocoder", "vqvae"}
"""… and that draw none, unless a variant says otherwise."""

SMALL_NETS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [32], "n_embd": 16},
    "convnet": {"channels": 8, "n_hidden": 16},
    "grid": {"channels": 8, "patch": 2},
    "unet": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "head_channels": 8},
    "spacetime": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "head_channels": 8},
    "layered": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "head_channels": 8, "layers": 4},
    "warp": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "head_channels": 8, "reach": 1},
    "dit": {"n_layer": 1, "n_head": 2, "n_embd": 16, "mlp_ratio": 2},
    "transformer": {"n_layer": 1, "n_head": 2, "n_embd": 16},
    "rnn": {"n_layer": 1, "n_embd": 16},
    "resnet": {"channels": 4, "halvings": 1, "blocks": 1},
    "patchgan": {"channels": 4, "depth": 1},
}
SMALL_FIELDS: dict[str, Any] = {"timesteps": 8, "sample_steps": 2, "n_hidden": 16, "n_codes": 12, "n_embd": 4}
SMALL_PARTS: dict[str, dict[str, Any]] = {
    "animation": {
        "prior": {"family": "flow", "sample_steps": 2, "net": {"name": "dit"} | SMALL_NETS["dit"] | {"patch": 1}},
        "channels": 8,
        "depth": 2,
    },
    "lossy": {"n_latent": 36},
    "vocoder": {"channels": 8, "blocks": 1, "windows": [16, 32]},
    "vqvae": {"prior": {"name": "transformer"} | SMALL_NETS["transformer"]},
    "latent": {
        "autoencoder": {"family": "vae", "net": {"name": "grid"} | SMALL_NETS["grid"], "n_latent": 336},
        "prior": {"family": "flow", "sample_steps": 2, "net": {"name": "dit"} | SMALL_NETS["dit"]},
    },
    "distillation": {"teacher": {"family": "flow", "guidance": 2.0, "net": {"name": "dit"} | SMALL_NETS["dit"]}},
    "rollout": {"frame": {"family": "flow", "sample_steps": 2, "net": {"name": "warp"} | SMALL_NETS["warp"]}},
}
"""Of families that have more than one network, or a code of their own size."""
SMALL_SCORES = {"tolerance": 0.1, "n_samples": 3}
"""Settings, and options of ``log_prob``, that cost time, for families that have them."""
SMALL_OPTIONS = {"steps": 3, "temperature": 1.0}
"""Options of ``sample``: few steps, and draws rather than a search."""
MLP = {"name": "mlp"} | SMALL_NETS["mlp"]
PATCHGAN = {"name": "patchgan"} | SMALL_NETS["patchgan"]
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
        {"sampler": "ddpm", "guidance": 2.0},
    ],
    "distillation": [
        {"fake_updates": 2, "label_dropout": 0.5, "teacher": {"family": "diffusion", "net": MLP}},
    ],
    "fewlabels": [{"learning": "m2"}, {"learning": "labels"}],
    "flow": [{"time": "logit-normal", "coupling": "minibatch-ot"}, {"guidance": 2.0}],
    "vqvae": [{"gradient": "rotation"}, {"restart_below": 0.0}],
    "autoregressive": [{"levels": 16}, {"label_dropout": 0.5}, {"lora": {"rank": 2}}],
    "seq2seq": [{"beam": 3, "label_smoothing": 0.0}],
    "translation": [
        {"discriminator": PATCHGAN},
        {"discriminator": PATCHGAN, "loss": "non-saturating", "output": "change"},
        {"discriminator": PATCHGAN, "learning": "cycle", "identity_weight": 5.0, "pool": 6},
    ],
    "vocoder": [{"discriminator": PATCHGAN}],
}


def examples(field: Field, n: int) -> Tensor:
    """n examples of a field; tokens have rows of unequal length, padded at the end."""
    if isinstance(field, Classes):
        return torch.arange(n) % len(field.names)
    if isinstance(field, Tensors):
        return torch.rand(n, *field.shape) * 2 - 1
    rows = torch.randint(3, field.vocab_size, (n, field.context))
    for row, length in zip(rows, range(field.context, 1, -1), strict=False):
        row[length - 1] = field.eos
        row[length:] = field.pad
    return rows


def prompts(field: Tokens, n: int) -> Tensor:
    """Beginnings of unequal length; the last is none."""
    rows = torch.randint(3, field.vocab_size, (n, 3))
    for i, row in enumerate(rows):
        row[max(0, 3 - i) :] = NO_TOKEN
    return rows


@dataclass(frozen=True, eq=False)
class Case:
    """One configuration of a family on data of one shape."""

    table: dict[str, Any]
    spec: Spec

    def config(self) -> config.ModelConfig:
        return config.model_from(self.table, "test")

    def model(self, seed: int = 0, noise: float = 0.05) -> GenerativeModel:
        """The model with noise on its weights: layers that start at zero would hide what lies behind them."""
        torch.default_generator.manual_seed(seed)
        model = self.config().build(self.spec)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(noise * torch.randn_like(p))
        return model

    def batch(self, step: int = 0) -> Batch:
        given = {name: examples(field, N) for name, field in self.spec.given.items()}
        return Batch(examples(self.spec.target, N), given, step=step)

    def given(self, model: GenerativeModel, n: int = N) -> dict[str, Tensor]:
        """Something for everything that the model can be given."""
        torch.default_generator.manual_seed(5)
        fields = model.spec.given.items()
        return {name: prompts(f, n) if name == "prompt" else examples(f, n) for name, f in fields}


def shipped(table: registry.Registry) -> list[str]:
    """Names that no other test file has registered for its own use."""
    return [name for name in table.names() if not table.get(name).__module__.startswith("test_")]


def tables(family: str) -> list[dict[str, Any]]:
    """A small configuration of the family on each network."""
    fields = {f.name for f in dataclasses.fields(registry.families.get(family))}
    table = {"family": family} | {name: value for name, value in SMALL_FIELDS.items() if name in fields}
    table |= SMALL_PARTS.get(family, {})
    if "net" not in fields:
        return [table]
    return [table | {"net": {"name": net} | SMALL_NETS.get(net, {})} for net in shipped(registry.nets)]


def can_build(family: Callable[[], config.ModelConfig], spec: Spec, device: str = "meta") -> bool:
    """Whether a family takes these data, found without making weights unless it looks at them."""
    try:
        with torch.device(device):
            model = family().build(spec)
    except BowerbirdError as refusal:
        assert str(refusal).endswith("."), "a sentence that says what to do instead"
        return False
    serial = isinstance(model, Streams) or registry.families.name_of(type(family())) == "local"
    return not (serial and isinstance(spec.target, Tensors) and spec.target.dims > MOST_STREAMED)


WHOLE = os.environ.get("BOWERBIRD_CONTRACT") == "all"
BESIDES = 2 if WHOLE else 1
"""Kinds of data on which networks and variants are tested besides the one network that is tested on all."""
EACH = len(registry.families.names()) if WHOLE else 1
"""Families with which a network is tested besides those that are tested on all data with it."""
ALIKE: set[str] = set() if WHOLE else {"digits-sized", "recoloured", "small"}
"""Kinds that differ little from another: only the whole contract has them."""


def cases() -> Iterator[Any]:
    """One network of each family on all data that suit; others and variants on ``BESIDES`` kinds."""
    times = Counter[str]()
    for family in shipped(registry.families):
        kinds = [name for name in SPECS if name not in ALIKE]
        built = [(table, cache(Case(table, SPECS["grey"]).config)) for table in tables(family)]
        suits = [(table, [name for name in kinds if can_build(one, SPECS[name])]) for table, one in built]
        found = [(table, names) for table, names in suits if names]
        assert found, f"no registered network and no data suit the family {family}"
        most = max(range(len(found)), key=lambda i: len(found[i][1]))
        for i, (table, names) in enumerate(found):
            net = table.get("net", {}).get("name", "own")
            times[net] += i != most
            if i != most and times[net] > EACH:
                continue
            for name in names if i == most else names[:BESIDES]:
                yield pytest.param(Case(table, SPECS[name]), id=f"{family}-{net}-{name}")
        variants = list(VARIANTS.get(family, []))
        if "conditional" in {f.name for f in dataclasses.fields(registry.families.get(family))}:
            variants.append({"conditional": False})
        for change in variants:
            words = "-".join(str(v.get("name", v)) if isinstance(v, dict) else str(v) for v in change.values())
            for name in [name for name in FOR_VARIANTS if name in found[most][1]][:BESIDES]:
                case = Case(found[most][0] | change, SPECS[name])
                if can_build(case.config, case.spec, "cpu"):
                    yield pytest.param(case, id=f"{family}-{words}-{name}")


pytestmark = pytest.mark.parametrize("case", list(cases()))


def options(model: GenerativeModel) -> Any:
    """The model's options, those that cost time small."""
    known = {field.name for field in dataclasses.fields(model.Options)}
    return options_from(model, {name: value for name, value in SMALL_OPTIONS.items() if name in known})


def draw(case: Case, model: GenerativeModel, seed: int = 0, given: Given | None = None, n: int = N) -> Tensor:
    given = case.given(model, n) if given is None else given
    return model.sample(n, given, options(model), Draws(seed))


@cache
def usual(case: Case) -> Tensor:
    """What the model draws for what it is usually given, from the usual seed: drawn once, since seven tests ask."""
    return draw(case, case.model().eval())


def row(x: Tensor, i: int, spec: Spec) -> Tensor:
    """Example number i; of tokens without the padding at the end."""
    if not isinstance(spec.target, Tokens):
        return x[i]
    n_padded = (x[i] != spec.target.pad).flip(0).long().argmax()
    return x[i, : len(x[i]) - n_padded]


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
        torch.default_generator.manual_seed(seed)
        values.append([loss.value.item() for loss in model.losses(batch)])
    assert values[0] == values[1]
    family, hides = case.table["family"], bool(case.table.get("label_dropout") and model.spec.given.keys() - {"prompt"})
    if family in NOISY | WITHOUT_NOISE:
        assert (values[0] != values[2]) is (family in NOISY or hides)


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


def check_examples(x: Tensor, n: int, spec: Spec) -> None:
    """n examples in the range of ``Batch.x``."""
    assert not x.requires_grad and not x.is_inference() and len(x) == n
    if isinstance(spec.target, Tensors):
        assert x.shape[1:] == spec.target.shape and x.dtype == torch.float32
        assert torch.isfinite(x).all() and x.min() >= -1 and x.max() <= 1
        return
    assert x.dtype == torch.int64 and x.ndim == 2
    assert x.min() >= 0 and x.max() < spec.target.vocab_size
    for tokens in x.tolist():
        end = tokens.index(spec.target.eos) if spec.target.eos in tokens else len(tokens) - 1
        assert set(tokens[end + 1 :]) <= {spec.target.pad}


def test_samples(case: Case) -> None:
    model, x = case.model().eval(), usual(case)
    check_examples(x, N, case.spec)
    assert any(not torch.equal(x[0], other) for other in x[1:])
    torch.default_generator.manual_seed(0)
    for given in (case.given(model, 1), needed(model, 1)):
        check_examples(model.sample(1, given), 1, case.spec)


def needed(model: GenerativeModel, n: int) -> dict[str, Tensor]:
    """What a model cannot be without: pictures, and what a sequence is translated from."""
    fields = {k: f for k, f in model.spec.given.items() if not isinstance(f, Classes) and k != "prompt"}
    return {name: examples(field, n) for name, field in fields.items()}


def test_samples_follow_from_their_draws_alone(case: Case) -> None:
    model, first = case.model().eval(), usual(case)
    given = case.given(model)
    torch.default_generator.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(draw(case, model, given=given), first)
    assert torch.equal(torch.get_rng_state(), state)
    if not needed(model, 1):  # a translation may be the same for every seed
        other = draw(case, model, seed=1, given=given)
        assert other.shape != first.shape or not torch.equal(other, first)


def test_a_sample_does_not_depend_on_how_many_are_drawn(case: Case) -> None:
    """Nor on which are drawn beside it: neither the number, nor the first, nor the batch size."""
    model = case.model().eval()
    given, o = case.given(model, 7), options(model)
    together = draw_many(model, 7, seed=3, given=given, options=o, shown=False)
    split = draw_many(model, 7, seed=3, given=given, options=o, batch_size=3, shown=False)
    later = {name: value[5:] for name, value in given.items()}
    last = draw_many(model, 2, seed=3, first=5, given=later, options=o, shown=False)
    assert together.given.keys() == model.spec.given.keys()
    for i in range(7):
        torch.testing.assert_close(row(split.x, i, case.spec), row(together.x, i, case.spec), rtol=1e-3, atol=1e-4)
    for i in range(2):
        torch.testing.assert_close(row(last.x, i, case.spec), row(together.x, 5 + i, case.spec), rtol=1e-3, atol=1e-4)
    classes = [name for name, field in model.spec.given.items() if isinstance(field, Classes)]
    wanted = needed(model, 3)
    drawn = [draw_many(model, 3, given=wanted, options=o, batch_size=b, shown=False).given for b in (2, 3)]
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in classes)
    assert drawn[0].keys() == {*classes, *wanted}


@pytest.mark.parametrize("training", [True, False])
def test_sampling_leaves_the_model_as_it_was(case: Case, training: bool) -> None:
    model = case.model()
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draw(case, model)
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_samples_follow_from_what_is_given(case: Case) -> None:
    """Each thing that is given makes a difference; what the model does not use does not stand in its spec."""
    model = case.model(noise=0.05 if isinstance(case.spec.target, Tensors) else 0.3).eval()
    assert model.spec.given.keys() <= case.spec.given.keys() | {"prompt"}
    given = case.given(model, n := 10 * N)  # many: pixels that are all black or white could agree by chance
    x = draw(case, model, given=given, n=n) if model.spec.given else None
    for name, field in model.spec.given.items():
        other = (given[name] + 1) % len(field.names) if isinstance(field, Classes) else given[name].roll(1, 0)
        y = draw(case, model, given=given | {name: other}, n=n)
        assert x is not None and not (y.shape == x.shape and torch.equal(y, x)), f"{name} makes no difference"


def test_what_the_model_does_not_take_is_refused(case: Case) -> None:
    model = case.model().eval()
    given = case.given(model)
    with pytest.raises(BowerbirdError, match="weather"):
        model.sample(N, given | {"weather": torch.zeros(N, dtype=torch.long)})
    for name in set(case.spec.given) - set(model.spec.given):
        with pytest.raises(BowerbirdError, match=name):
            model.sample(N, given | {name: examples(case.spec.given[name], N)})
    for name, value in given.items():
        with pytest.raises(BowerbirdError):
            model.sample(N, given | {name: value[:1]})
    for name, field in model.spec.given.items():
        if isinstance(field, Tensors):
            with pytest.raises(BowerbirdError, match="needs"):
                model.sample(N, {other: value for other, value in given.items() if other != name})
    assert case.table.get("conditional", True) or not model.spec.given.keys() - {"prompt"}


source_of = cache(inspect.getsource)


def test_options_are_a_table_with_defaults(case: Case) -> None:
    model = case.model().eval()
    assert dataclasses.is_dataclass(model.Options) and issubclass(model.Options, Options)
    fields = dataclasses.fields(model.Options)
    assert all(f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING for f in fields)
    written = (cls for cls in model.Options.__mro__ if issubclass(cls, Options) and inspect.get_annotations(cls))
    source = "".join(map(source_of, written))
    for field in fields:
        assert f"{field.name}: " in source.split('"""\n', 1)[1], "a field of the class, with a sentence under it"
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.Options().anything = 1
    parameters = list(inspect.signature(model.sample).parameters.values())
    assert [p.name for p in parameters] == ["n", "given", "options", "generator"]
    assert all(p.default is None for p in parameters[1:])
    assert options_from(model, {}) == options_from(model, None) == model.Options()
    given = case.given(model, 1)
    x, same = (model.sample(1, given, options, Draws(0)) for options in (None, model.Options()))
    assert torch.equal(x, same)
    with pytest.raises(BowerbirdError, match="weather"):
        options_from(model, {"weather": 1})
    assert isinstance(with_steps(model, 3), model.Options)


def test_the_cost_of_sampling_is_counted(case: Case) -> None:
    model = case.model().eval()
    with counting_evaluations(model) as rows:
        draw(case, model)
    assert rows[0] >= N and rows[0] % N == 0
    counted = rows[0]
    model.sample(1, case.given(model, 1), options(model), Draws(0))
    assert rows[0] == counted  # no longer counting


# ------------------------------------------------------------------------------------------------------ protocols


def test_encodes(case: Case) -> None:
    model = case.model().eval()
    if not isinstance(model, Encodes):
        return
    x, given = case.batch()[:2]
    with torch.no_grad():
        z = model.encode(x, given)
        y = model.decode(z, given)
    assert z.ndim == 2 and len(z) == N and torch.isfinite(z).all()
    assert y.shape == x.shape and y.min() >= -1 and y.max() <= 1
    with torch.no_grad():
        assert torch.equal(model.encode(x, given), z)
        if isinstance(model, Infers):
            mean, logvar = model.posterior(x, given)
            assert mean.shape == logvar.shape == z.shape and torch.isfinite(logvar).all()


def test_scores(case: Case) -> None:
    """Pictures are 8-bit and tokens whole, so their likelihoods are probabilities, at most 1."""
    model = case.model().eval()
    if not isinstance(model, Scores):
        return
    assert "nll" in model.estimators
    batch = case.batch()
    if isinstance(case.spec.target, Tensors):  # black and white, which a Bernoulli likelihood can score too
        batch = batch._replace(x=torch.where(batch.x < 0, -1.0, 1.0))
    for description, log_prob in model.estimators.values():
        known = inspect.signature(log_prob).parameters
        small = {name: value for name, value in SMALL_SCORES.items() if name in known}
        scores = [log_prob(batch, generator=torch.Generator().manual_seed(0), **small) for _ in range(2)]
        assert scores[0].shape == (N,) and description
        assert torch.isfinite(scores[0]).all() and (scores[0] < 0).all()
        assert torch.equal(scores[0], scores[1])


def test_denoises(case: Case) -> None:
    """Examples that are each at a time of their own are denoised as if they were alone."""
    model = case.model().eval()
    if not isinstance(model, Denoises):
        return
    given = case.given(model)
    way = model.denoising(given, with_steps(model, 2 * N))
    times = way.points.t[:N]
    target = case.spec.target if not isinstance(model, HasCodes) else Tensors(model.code_shape, None)
    x_t = examples(target, N)
    with torch.no_grad():
        together = way.denoise(x_t, torch.tensor(times, dtype=torch.float64)).x0
        for i, t in enumerate(times):
            alone = way.denoise(x_t, t).x0
            torch.testing.assert_close(together[i], alone[i], rtol=1e-4, atol=1e-5)


def test_streams(case: Case) -> None:
    """Tokens come one by one, and together they are the sample."""
    model = case.model().eval()
    if not isinstance(model, Streams):
        return
    given = case.given(model)
    tokens = list(model.stream(N, given, options(model), Draws(0)))
    assert tokens and all(token.shape == (N,) and token.dtype == torch.int64 for token in tokens)
    assert not tokens[0].is_inference()
    if not isinstance(case.spec.target, Tokens):
        assert len(tokens) == case.spec.target.dims
        return
    streamed, whole = torch.stack(tokens, 1), usual(case)
    for i, prompt in enumerate(given["prompt"]):
        begin = prompt[prompt != NO_TOKEN].tolist() or list(case.spec.target.start)
        row_i = whole[i].tolist()
        assert row_i[: len(begin)] == begin
        assert row_i[len(begin) :][: streamed.shape[1]] == streamed[i].tolist()[: len(row_i) - len(begin)]


# ------------------------------------------------------------------------------------------------------ files


def test_safetensors_hold_the_whole_model(case: Case, tmp_path: Path) -> None:
    """No pickle: all state is tensors, and another model of the same configuration goes on from them exactly."""
    model = case.model(seed=0).eval()
    list(model.losses(case.batch()))
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    other = case.model(seed=1).eval()
    loaded = safetensors.torch.load_file(file)
    assert any(not torch.equal(value, loaded[name]) for name, value in other.state_dict().items())
    other.load_state_dict(loaded)
    assert torch.equal(draw(case, other), draw(case, model))
    assert all(torch.equal(value, loaded[name]) for name, value in other.state_dict().items())
    values, batch = [], case.batch()
    for one in (model, other):
        torch.default_generator.manual_seed(2)
        values.append([loss.value.item() for loss in one.losses(batch)])
    assert values[0] == values[1]


def test_what_is_kept_for_use_samples_alike(case: Case) -> None:
    model = case.model().eval()
    used = case.config().for_use().build(spec_from_json(spec_to_json(case.spec))).eval()
    used.load_state_dict(model.weights())
    assert used.spec == model.spec
    x, y = usual(case), draw(case, used)
    if model.adapters():  # merged: the same up to rounding
        torch.testing.assert_close(y, x, rtol=1e-3, atol=1e-3)
    else:
        assert torch.equal(y, x)


def test_the_configuration_survives_toml(case: Case) -> None:
    run = config.Run(model=case.config())
    assert config.run_from(tomllib.loads(config.dumps(run)), "test") == run
