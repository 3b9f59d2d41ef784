"""Configuration: TOML in and out without loss, and errors that name what is wrong."""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bowerbird import config, registry, trust
from bowerbird.errors import BowerbirdError


@registry.nets.register("toy-net")
@dataclass(frozen=True)
class ToyNetConfig(config.NetworkConfig):
    widths: tuple[int, ...] = (8, 16)
    act: Literal["relu", "silu"] = "silu"


@registry.families.register("toy-family")
@dataclass(frozen=True)
class ToyConfig(config.ModelConfig):
    net: config.NetworkConfig = field(default_factory=ToyNetConfig)
    scale: float = 1.0
    name: str = ""
    n_latent: int | None = None

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ValueError(f"scale = {self.scale} must not be negative.")


finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(0, exclude_min=True, allow_infinity=False)
decay = st.floats(0, 1, exclude_max=True)
texts = st.text(max_size=12)
toy_models = st.builds(
    ToyConfig,
    net=st.builds(
        ToyNetConfig,
        widths=st.lists(st.integers(-(2**40), 2**40), max_size=4).map(tuple),
        act=st.sampled_from(["relu", "silu"]),
    ),
    scale=st.floats(0, allow_nan=False, allow_infinity=False),
    name=texts,
    n_latent=st.none() | st.integers(0, 2**40),
)
trains = st.builds(
    config.Train,
    steps=st.none() | st.integers(1, 10**9),
    flops=st.none() | positive,
    lr=positive,
    lr_multiplier=st.dictionaries(st.sampled_from(["D", "G", "model"]), st.floats(0, allow_infinity=False)),
    betas=st.tuples(decay, decay),
    channels_last=st.none() | st.booleans(),
    compile=st.booleans(),
    optimizer=st.sampled_from(["adam", "adamw", "muon"]),
)
expectations = st.lists(st.builds(config.Expect, metric=texts, at_most=finite, measured=st.none() | finite), max_size=3)
runs = st.builds(
    config.Run,
    model=toy_models,
    data=st.builds(
        config.Data, source=texts.map("data/{}".format), size=st.none() | st.integers(1, 512), flip=st.booleans()
    ),
    train=trains,
    title=texts,
    expect=expectations.map(tuple),
)


# Hypothesis warns of beartype, which picks at random the items of a container that it checks.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@settings(max_examples=100, deadline=None)
@given(runs)
def test_toml_gives_back_every_run(run: config.Run) -> None:
    assert config.run_from(tomllib.loads(config.dumps(run)), "here") == run


def test_a_run_folder_or_a_file_loads_as_the_run_that_was_written(tmp_path: Path) -> None:
    run = config.Run(model=ToyConfig(scale=0.5, name='a "quoted"\\ name\n'), title="t")
    (tmp_path / "run.toml").write_text(config.dumps(run), encoding="utf-8")
    assert config.load(str(tmp_path)) == config.load(str(tmp_path / "run.toml")) == run


def _run_from(**tables: Any) -> config.Run:
    return config.run_from({"model": {"family": "toy-family"}, **tables}, "my.toml")


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"train": {"batchsize": 3}}, "my.toml: There is no key 'train.batchsize'; did you mean 'train.batch_size'?"),
        ({"model": {"family": "toy-family", "n_latnet": 3}}, "did you mean 'model.n_latent'?"),
        ({"model": {"family": "toy-famly"}}, "There is no family 'toy-famly'; did you mean 'toy-family'?"),
        ({"model": {"family": "toy-family", "net": {"name": "toy-ned"}}}, "did you mean 'toy-net'?"),
        (
            {"model": {"family": "toy-family", "net": {"name": "toy-net", "width": [3]}}},
            "did you mean 'model.net.widths'?",
        ),
        ({"model": {"family": "toy-family", "net": {}}}, "my.toml: [model.net] needs name = one of "),
        ({"model": {}}, "my.toml: [model] needs family = one of "),
        ({"model": {"family": "toy-family", "scale": -1}}, "my.toml: scale = -1.0 must not be negative."),
        ({"train": {"batch_size": "8"}}, "my.toml: train.batch_size = '8' must be of type int."),
        ({"train": {"batch_size": True}}, "my.toml: train.batch_size = True must be of type int."),
        ({"train": {"batch_size": 8.0}}, "my.toml: train.batch_size = 8.0 must be of type int."),
        ({"train": {"lr": True}}, "my.toml: train.lr = True must be of type float."),
        ({"train": {"betas": [0.9]}}, "my.toml: train.betas = [0.9] must have 2 entries."),
        ({"train": {"betas": 0.9}}, "my.toml: train.betas = 0.9 must be a list."),
        ({"train": {"lr_multiplier": {"D": "2"}}}, "my.toml: train.lr_multiplier.D = '2' must be of type float."),
        ({"train": {"optimizer": "adm"}}, "my.toml: train.optimizer: There is no choice 'adm'; did you mean 'adam'?"),
        ({"train": 3}, "my.toml: train = 3 must be a table."),
        ({"expect": [{"at_most": 3.0}]}, "my.toml: the key 'expect[0].metric' is missing."),
    ],
)
def test_what_is_wrong_is_named(tables: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BowerbirdError) as error:
        _run_from(**tables)
    assert sentence in str(error.value)
    assert error.value.exit_status == 2


def test_whole_numbers_are_good_floats() -> None:
    run = _run_from(train={"lr": 1}, model={"family": "toy-family", "scale": 2})
    assert run.train.lr == 1.0
    assert isinstance(run.train.lr, float)
    assert isinstance(run.model, ToyConfig)
    assert run.model.scale == 2.0


def test_broken_toml_is_an_error_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[model\n")
    with pytest.raises(BowerbirdError, match=r"broken\.toml is not valid TOML"):
        config.load(str(path))


@pytest.mark.parametrize("name", config.recipe_names())
def test_every_shipped_recipe_has_a_title_and_survives_its_own_toml(name: str) -> None:
    run = config.load(name)
    assert run.title
    assert config.run_from(tomllib.loads(config.dumps(run)), name) == run
    assert {"name": name, "family": registry.families.name_of(type(run.model))}.items() <= _row(name).items()


def _row(name: str) -> dict[str, str]:
    (row,) = [row for row in config.recipes() if row["name"] == name]
    return row


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(BowerbirdError, match="There is no recipe 'flwo'; did you mean 'flow'"):
        config.load("flwo")


PLUGIN = """
from dataclasses import dataclass
from bowerbird import config, registry, trust

@registry.families.register("{name}")
@dataclass(frozen=True)
class Config(config.ModelConfig):
    width: int = 3
    \"\"\"How wide.\"\"\"
"""


def test_a_plugin_named_in_the_file_is_loaded_first(tmp_path: Path) -> None:
    plugin = tmp_path / "a_family.py"
    plugin.write_text(PLUGIN.format(name="from-plugin"))
    table = {"plugin": str(plugin), "model": {"family": "from-plugin", "width": 5}}
    with trust.allowing():
        run = config.run_from(table, "my.toml")
    assert dataclasses.asdict(run.model) == {"width": 5}
    assert config.run_from(tomllib.loads(config.dumps(run)), "again") == run


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import nonexistent_module", "could not be loaded: ModuleNotFoundError: No module named 'nonexistent_module'"),
        ("1 / 0", "could not be loaded: ZeroDivisionError"),
        ("def", "could not be loaded: SyntaxError"),
        (None, "does not exist"),
    ],
)
def test_a_plugin_that_fails_says_why(tmp_path: Path, text: str | None, sentence: str) -> None:
    path = tmp_path / "broken_plugin.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BowerbirdError, match=sentence):
        registry.load_plugin(path)


def test_an_unregistered_class_cannot_be_written() -> None:
    @dataclass(frozen=True)
    class Nameless(config.ModelConfig):
        pass

    with pytest.raises(BowerbirdError, match="Nameless is not a registered family"):
        config.dumps(config.Run(model=Nameless()))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("train.learning_rate", "train.lr"), ("train.epochs", "train.examples"), ("data.resolution", "data.size")],
)
def test_settings_of_other_tools_are_understood(wrong, right):
    with pytest.raises(BowerbirdError, match=f"There is no key '{wrong}'; did you mean '{right}'"):
        config.with_settings(config.load("flow"), {wrong: 1})


def test_a_byte_order_mark_is_no_error(tmp_path):
    (tmp_path / "run.toml").write_text("\ufeff" + config.recipe("gan"), encoding="utf-8")
    assert config.load(str(tmp_path / "run.toml")).model == config.load("gan").model


@pytest.mark.parametrize("text", ["x = " + "[" * 5000 + "]" * 5000, "x = " + "9" * 5000])
def test_every_failure_of_reading_toml_is_one_sentence(text, tmp_path):
    (tmp_path / "deep.toml").write_text(text)
    with pytest.raises(BowerbirdError, match="deep.toml is n"):
        config.read_toml(tmp_path / "deep.toml")
