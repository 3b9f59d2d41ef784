"""Every number of a recipe has a range, and a number outside it is refused by its name when the recipe is read."""

import dataclasses
import math
import typing

import pytest

from bowerbird import config, ranges, registry
from bowerbird.cli import main
from bowerbird.errors import BowerbirdError
from bowerbird.ranges import Range
from bowerbird.samplers.decoding import Sampling
from bowerbird.training.resolving import check


def nested(cls):
    """The dataclass and those in its fields."""
    yield cls
    for hint in typing.get_type_hints(cls).values():
        if dataclasses.is_dataclass(hint) and hint is not cls:
            yield from nested(hint)


def configurations():
    """All that ship; other tests register toys."""
    registered = [one.get(name) for one in (registry.families, registry.nets) for name in one.names()]
    shipped = [cls for cls in registered if cls.__module__.startswith("bowerbird.")]
    found = [config.Data, config.Train, config.Expect, *shipped]
    return list(dict.fromkeys(one for cls in found for one in nested(cls)))


UNBOUNDED = {
    ("UNetConfig", "attention"): "levels count from either end",
    ("SpaceTimeConfig", "attention"): "levels count from either end",
    ("WarpConfig", "attention"): "levels count from either end",
    ("LayeredConfig", "attention"): "levels count from either end",
    ("Expect", "at_most"): "a metric can have any value",
    ("Expect", "at_least"): "a metric can have any value",
    ("Expect", "measured"): "a metric can have any value",
}


def has_range(hint):
    if typing.get_origin(hint) is typing.Annotated:
        return any(isinstance(note, Range) for note in typing.get_args(hint)[1:])
    if hint in (int, float):
        return False
    return all(has_range(part) for part in typing.get_args(hint))


@pytest.mark.parametrize("cls", configurations(), ids=lambda cls: cls.__name__)
def test_every_number_has_a_range(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    own = [field.name for field in dataclasses.fields(cls) if (cls.__name__, field.name) not in UNBOUNDED]
    assert [name for name in own if not has_range(hints[name])] == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train.lr": -1.0}, r"train\.lr = -1 must be above 0"),
        ({"train.lr": math.nan}, r"train\.lr = nan must be a finite number"),
        ({"train.lr": math.inf}, r"train\.lr = inf must be a finite number"),
        ({"train.betas": [0.9, 2.0]}, r"train\.betas\[1\] = 2 must lie in \[0, 1\)"),
        ({"train.ema_decay": 2.0}, r"train\.ema_decay = 2 must lie in \[0, 1\)"),
        ({"train.threads": 0}, r"train\.threads = 0 must be at least 1"),
        ({"train.steps": -5}, r"train\.steps = -5 must be at least 1"),
        ({"train.lr_multiplier": {"D": -1.0}}, r"train\.lr_multiplier\.D = -1 must be at least 0"),
        ({"train.accumulate": 3}, "must be a multiple of accumulate = 3"),
        ({"train.seed": 2**70}, r"train\.seed = 1180591620717411303424 must lie within ±9223372036854775807"),
        ({"train.steps": 10**5000}, r"train\.steps = a number of more than 30 digits must lie within"),
        ({"train.lr": 10**400}, r"train\.lr = inf must be a finite number"),
        ({"data.size": 0}, r"data\.size = 0 must be at least 1"),
        ({"data.text.vocab_size": 0}, r"data\.text\.vocab_size = 0"),
        ({"model.time_std": 0.0}, r"model\.time_std = 0 must be above 0"),
        ({"model.net.multipliers": [1, 0]}, r"unet\.multipliers\[1\] = 0 must be at least 1"),
        ({"model.net.dropout": 1.0}, r"unet\.dropout = 1 must lie in \[0, 1\)"),
    ],
)
def test_a_number_outside_its_range_is_refused_by_name(settings, said):
    with pytest.raises(BowerbirdError, match=said):
        config.with_settings(config.load("flow"), settings)


def test_the_command_line_says_it_in_one_sentence(capsys):
    assert main(["train", "vae", "--train.lr", "nan"]) == 2
    assert capsys.readouterr().err == "bowerbird: train.lr = nan must be a finite number; see bowerbird train --help.\n"


def test_far_more_threads_than_cores_are_refused():
    with pytest.raises(BowerbirdError, match=r"train\.threads = 100000 is far more than the \d+ core\(s\)"):
        check(config.Train(steps=1, threads=100_000))


@pytest.mark.parametrize("name", ["temperature", "top_k", "min_p"])
def test_options_of_sampling_have_ranges(name):
    with pytest.raises(ValueError, match=f"{name} = -1 must"):
        Sampling(**{name: -1})


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (Range(0, 1), (0, 0.5, 1), (-0.1, 1.1, math.nan)),
        (Range(0, 1, open_low=True, open_high=True), (0.5,), (0, 1)),
        (Range(2), (2, 10**9), (1, math.inf)),
        (ranges.FINITE, (-1e300, 0), (math.nan, -math.inf)),
    ],
)
def test_the_ends_of_a_range(allowed, inside, outside):
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in outside)
