"""What networks are given: several classes, texts and pictures at once, what is missing, what is hidden, guidance."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch
from bowerbird.models.flow import FlowConfig, FlowOptions
from bowerbird.nets.conditioning import Conditioner, Given, dropped, guided, nothing, picture_channels, requested
from bowerbird.nets.convnet import ConvNetConfig
from bowerbird.nets.dit import DiTConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.nets.roles import NetConfig
from bowerbird.nets.unet import UNetConfig
from bowerbird.spec import Classes, Field, Spec, Tensors, Tokens
from later import later

stats = later("scipy.stats")

FIELDS: dict[str, Field] = {
    "hair": Classes(("a", "b", "c"), (5, 1, 3)),
    "glasses": Classes(("x", "y")),
    "caption": Tokens(12, 6, 0, 1, 2),
    "title": Tokens(9, 4, 0, 1, 2),
    "sketch": Tensors((1, 8, 8)),
    "photo": Tensors((3, 8, 8)),
}
SPEC = Spec("image", Tensors((2, 8, 8)), FIELDS)
CPU = torch.device("cpu")
DENOISERS = {
    "unet": UNetConfig(channels=8, multipliers=(1, 2), blocks=1, head_channels=8),
    "dit": DiTConfig(n_layer=1, n_head=2, n_embd=16),
    "mlp": MLPConfig(hidden=(32,), n_embd=16),
}
ENCODERS = {"convnet": ConvNetConfig(channels=8, n_hidden=16), "mlp": MLPConfig(hidden=(32,))}


def examples(n: int, seed: int = 0) -> dict[str, Tensor]:
    """Something for every field."""
    g = torch.Generator().manual_seed(seed)
    return {
        "hair": torch.randint(3, (n,), generator=g),
        "glasses": torch.randint(2, (n,), generator=g),
        "caption": torch.randint(3, 12, (n, 5), generator=g),
        "title": torch.randint(3, 9, (n, 4), generator=g),
        "sketch": torch.rand(n, 1, 8, 8, generator=g) * 2 - 1,
        "photo": torch.rand(n, 3, 8, 8, generator=g) * 2 - 1,
    }


def denoiser(config: NetConfig) -> Any:
    """Away from its initialisation, where zero-initialised layers pass signals."""
    torch.manual_seed(0)
    net = config.denoiser(SPEC, 2)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.eval()


@pytest.fixture
def conditioner() -> Conditioner:
    torch.manual_seed(0)
    return Conditioner(FIELDS, 16)


def is_nothing(name: str, value: Tensor) -> Tensor:
    """Whether each row says nothing."""
    field = FIELDS[name]
    if isinstance(field, Classes):
        return value == len(field.names)
    return (value == (field.pad if isinstance(field, Tokens) else 0)).flatten(1).all(1)


# ------------------------------------------------------------------------------------------------------- missing


def test_nothing_of_each_kind() -> None:
    assert nothing(FIELDS["hair"], 2, CPU).tolist() == [3, 3]
    assert nothing(FIELDS["caption"], 2, CPU).tolist() == [[2], [2]]
    assert torch.equal(nothing(FIELDS["photo"], 2, CPU), torch.zeros(2, 3, 8, 8))


def test_what_is_missing_counts_as_nothing(conditioner: Conditioner) -> None:
    """Whichever are missing: one, several, or all."""
    given, none = examples(3), {name: nothing(field, 3, CPU) for name, field in FIELDS.items()}
    x = torch.randn(3, 2, 8, 8)
    for n_missing in (1, 2, len(FIELDS)):
        for missing in itertools.combinations(FIELDS, n_missing):
            kept = {name: value for name, value in given.items() if name not in missing}
            said = given | {name: none[name] for name in missing}
            torch.testing.assert_close(conditioner(kept, 3), conditioner(said, 3))
            assert torch.equal(conditioner.over(x, kept), conditioner.over(x, said))
    torch.testing.assert_close(conditioner(None, 3), conditioner({}, 3))
    assert torch.equal(conditioner.over(x, None)[:, 2:], torch.zeros(3, 4, 8, 8))


def test_padding_of_a_text_says_nothing_however_much_there_is(conditioner: Conditioner) -> None:
    given = examples(3)
    for length in (1, 4, 6):
        padding = torch.full((3, length), 2)
        torch.testing.assert_close(conditioner(given | {"caption": padding}, 3), conditioner(
            {name: value for name, value in given.items() if name != "caption"}, 3))  # fmt: skip
    longer = torch.nn.functional.pad(given["caption"], (0, 1), value=2)
    torch.testing.assert_close(conditioner(given | {"caption": longer}, 3), conditioner(given, 3))


def test_each_field_is_told_and_examples_are_told_apart(conditioner: Conditioner) -> None:
    """Fields add up: what one contributes does not depend on the others, nor one example on those beside it."""
    given, other = examples(4), examples(4, seed=1)
    together = conditioner(given, 4)
    for name in ("hair", "glasses", "caption", "title"):
        changed = given | {name: torch.where(given[name] == other[name], (given[name] + 1) % 2, other[name])}
        assert ((conditioner(changed, 4) - together).abs().amax(1) > 1e-4).all(), name
        alone = conditioner({name: changed[name]}, 4) - conditioner({name: given[name]}, 4)
        torch.testing.assert_close(conditioner(changed, 4) - together, alone, atol=1e-5, rtol=1e-4)
    for i in range(4):
        one = {name: value[i : i + 1] for name, value in given.items()}
        torch.testing.assert_close(conditioner(one, 1)[0], together[i])


def test_the_order_of_words_matters(conditioner: Conditioner) -> None:
    one, other = torch.tensor([[3, 4, 5]]), torch.tensor([[5, 4, 3]])
    assert (conditioner({"caption": one}, 1) - conditioner({"caption": other}, 1)).abs().max() > 1e-4


def test_pictures_lie_over_the_input_in_the_order_of_the_fields(conditioner: Conditioner) -> None:
    given, x = examples(3), torch.randn(3, 2, 8, 8)
    assert picture_channels(FIELDS) == 4
    assert torch.equal(conditioner.over(x, given), torch.cat([x, given["sketch"], given["photo"]], dim=1))
    assert "sketch" not in conditioner.embed and "photo" not in conditioner.embed
    assert not Conditioner({"photo": FIELDS["photo"]}, 4) and not Conditioner({}, 4) and Conditioner(FIELDS, 4)


@pytest.mark.parametrize("name", DENOISERS)
def test_denoisers_read_every_field_and_do_without_any(name: str) -> None:
    net, given, other = denoiser(DENOISERS[name]), examples(2), examples(2, seed=3)
    x, t = torch.randn(2, 2, 8, 8), torch.rand(2)
    y = net(x, t, given)
    assert y.shape == (2, 2, 8, 8)
    for key in FIELDS:
        changed = torch.where(given[key] == other[key], (given[key] + 1) % 2, other[key])
        assert not torch.equal(net(x, t, given | {key: changed}), y), f"{key} makes no difference"
        without = {k: value for k, value in given.items() if k != key}
        hidden = given | {key: nothing(FIELDS[key], 2, CPU)}
        torch.testing.assert_close(net(x, t, without), net(x, t, hidden))
    torch.testing.assert_close(net(x, t, None), net(x, t, {k: nothing(f, 2, CPU) for k, f in FIELDS.items()}))


@pytest.mark.parametrize("n_out", [1, 3])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_read_every_field(name: str, n_out: int) -> None:
    torch.manual_seed(0)
    net, given, other = ENCODERS[name].encoder(SPEC, n_out).eval(), examples(2), examples(2, seed=3)
    x = torch.randn(2, 2, 8, 8)
    for key in FIELDS:
        changed = torch.where(given[key] == other[key], (given[key] + 1) % 2, other[key])
        assert not torch.equal(net(x, given | {key: changed}), net(x, given)), f"{key} makes no difference"
    torch.testing.assert_close(net(x, None), net(x, {k: nothing(f, 2, CPU) for k, f in FIELDS.items()}))


@pytest.mark.parametrize("config", [MLPConfig(hidden=(32,)), ConvNetConfig(channels=8)])
def test_decoders_read_classes_and_texts_but_no_pictures(config: NetConfig) -> None:
    with pytest.raises(BowerbirdError, match="cannot be given a picture"):
        config.decoder(SPEC, 5, 2)
    words = {name: field for name, field in FIELDS.items() if not isinstance(field, Tensors)}
    net, given, z = config.decoder(Spec("image", SPEC.target, words), 5, 2).eval(), examples(2), torch.randn(2, 5)
    for key in words:
        assert not torch.equal(net(z, given), net(z, given | {key: nothing(FIELDS[key], 2, CPU)})), key


# --------------------------------------------------------------------------------------------------------- hidden


def test_dropped_hides_everything_of_an_example_together() -> None:
    torch.manual_seed(0)
    n = 4000
    given = examples(n)
    left = dropped(given, FIELDS, 0.2)
    assert left.keys() == FIELDS.keys()
    hidden = torch.stack([is_nothing(name, value) for name, value in left.items()])
    assert (hidden == hidden[0]).all(), "of an example all fields are hidden, or none"
    assert float(hidden[0].float().mean()) == pytest.approx(0.2, abs=0.03)
    for name, value in left.items():
        assert value.shape == given[name].shape and torch.equal(value[~hidden[0]], given[name][~hidden[0]])


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_dropped_never_and_always(probability: float, share: float) -> None:
    left = dropped(examples(50), FIELDS, probability)
    assert all(float(is_nothing(name, value).float().mean()) == share for name, value in left.items())


def test_dropped_leaves_out_what_is_missing_or_unknown() -> None:
    given = {"caption": examples(3)["caption"], "document": torch.zeros(3, 5)}
    assert dropped(given, FIELDS, 0.5).keys() == {"caption"}
    assert dropped({}, FIELDS, 0.5) == {} and dropped(given, {}, 0.5) == {}


# ------------------------------------------------------------------------------------------------------- guidance


@pytest.mark.parametrize("name", DENOISERS)
def test_guidance_goes_from_nothing_at_all_past_everything_given(name: str) -> None:
    net, given = denoiser(DENOISERS[name]), examples(3)
    x, t = torch.randn(3, 2, 8, 8), torch.rand(3)

    def output(guidance: float, channels: int = 2, given: Given = given) -> Tensor:
        return guided(net, given, guidance, fields=FIELDS, dropout=0.1, channels=channels)(x, t)

    with_all, without = net(x, t, given), net(x, t, None)
    assert (with_all - without).abs().max() > 1e-3
    close: Any = {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(output(1.0), with_all)
    torch.testing.assert_close(output(0.0), without, **close)
    torch.testing.assert_close(output(3.0), without + 3 * (with_all - without), **close)
    torch.testing.assert_close(output(3.0, channels=1)[:, 1:], with_all[:, 1:], **close)
    some = {name: given[name] for name in ("hair", "caption", "photo")}
    torch.testing.assert_close(output(2.0, given=some), 2 * net(x, t, some) - without, **close)


def test_guidance_needs_something_given_and_something_hidden() -> None:
    net = denoiser(DENOISERS["mlp"])
    with pytest.raises(BowerbirdError, match="needs a model trained with labels"):
        guided(net, {}, 2.0, fields={}, dropout=0.1, channels=2)
    with pytest.raises(BowerbirdError, match="label_dropout above 0"):
        guided(net, examples(2), 2.0, fields=FIELDS, dropout=0.0, channels=2)
    with pytest.raises(BowerbirdError, match="too far from 1"):
        guided(net, examples(2), 1e308, fields=FIELDS, dropout=0.1, channels=2)


# ------------------------------------------------------------------------------------------------------ requested


def test_classes_are_drawn_as_often_as_in_the_data_and_the_rest_is_asked_for() -> None:
    n = 2000
    pictures = {name: examples(n)[name] for name in ("sketch", "photo")}
    asked = requested(n, pictures, FIELDS, Draws(1), CPU)
    assert asked.keys() == {"hair", "glasses", "sketch", "photo"}, "a text that nobody gives is not given"
    for name, weights in (("hair", (5, 1, 3)), ("glasses", (1, 1))):
        counts = torch.bincount(asked[name], minlength=len(weights)).double()
        assert stats.chisquare(counts, torch.tensor(weights).double() / sum(weights) * n).pvalue > 0.01
    together = torch.bincount(asked["hair"] * 2 + asked["glasses"], minlength=6).double()
    expected = torch.tensor([5, 5, 1, 1, 3, 3]).double() / 18 * n
    assert stats.chisquare(together, expected).pvalue > 0.01, "attributes are drawn independently"
    few = requested(5, {name: value[:5] for name, value in pictures.items()}, FIELDS, Draws(1), CPU)
    assert all(torch.equal(few[name], asked[name][:5]) for name in few)
    kept = requested(5, {**{k: v[:5] for k, v in pictures.items()}, "hair": torch.full((5,), 2)}, FIELDS, Draws(0), CPU)
    assert kept["hair"].tolist() == [2] * 5


def test_what_cannot_be_drawn_or_is_not_known_is_one_sentence() -> None:
    given = examples(2)
    with pytest.raises(BowerbirdError, match="needs a photo picture"):
        requested(2, {"sketch": given["sketch"]}, FIELDS, Draws(0), CPU)
    with pytest.raises(BowerbirdError, match="did you mean 'hair'"):
        requested(2, given | {"hiar": given["hair"]}, FIELDS, Draws(0), CPU)
    with pytest.raises(BowerbirdError, match="'title' is given for 1 samples, but 2 are asked for"):
        requested(2, given | {"title": given["title"][:1]}, FIELDS, Draws(0), CPU)
    with pytest.raises(BowerbirdError, match="without labels"):
        requested(2, {"hair": given["hair"]}, {}, Draws(0), CPU)


# ----------------------------------------------------------------------------------------------------- end to end


def test_a_flow_learns_from_everything_that_it_is_given() -> None:
    """A pixel's brightness is the sum of what hair, caption and sketch say; hidden, it has the mean of the data."""
    fields: dict[str, Field] = {
        "hair": Classes(("dark", "light")), "caption": Tokens(5, 2, 0, 1, 2), "sketch": Tensors((1, 1, 1)),
    }  # fmt: skip
    spec = Spec("image", Tensors((1, 1, 1)), fields)
    torch.manual_seed(0)
    model = FlowConfig(net=MLPConfig(hidden=(64, 64), n_embd=32), label_dropout=0.15).build(spec)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def data(n: int) -> Batch:
        hair, word, sketch = (
            torch.randint(2, (n,)),
            torch.randint(3, 5, (n, 1)),
            torch.randint(2, (n, 1, 1, 1)) * 2.0 - 1,
        )
        x = 0.25 * (hair * 2.0 - 1) + 0.25 * (word[:, 0] * 2.0 - 7) + 0.25 * sketch.flatten()
        return Batch(
            x.view(n, 1, 1, 1) + 0.02 * torch.randn(n, 1, 1, 1), {"hair": hair, "caption": word, "sketch": sketch}
        )

    for _ in range(300):
        (loss,) = model.losses(data(128))
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
    model.eval()
    for hair, word, sketch in itertools.product((0, 1), (3, 4), (-1.0, 1.0)):
        given = {
            "hair": torch.full((60,), hair), "caption": torch.full((60, 1), word),
            "sketch": torch.full((60, 1, 1, 1), sketch),
        }  # fmt: skip
        expected = 0.25 * (2 * hair - 1) + 0.25 * (2 * word - 7) + 0.25 * sketch
        x = model.sample(60, given, FlowOptions(steps=10), Draws(0))
        assert float(x.mean()) == pytest.approx(expected, abs=0.12)
