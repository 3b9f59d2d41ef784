"""The command line: what it passes to the API, what it prints, and how it fails."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import bowerbird
from bowerbird import api, cli, config, registry
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.measuring.metric import measured
from bowerbird.measuring.request import Measuring
from bowerbird.metrics.measurement import Protocol
from bowerbird.models.flow import FlowOptions
from bowerbird.spec import Classes

ROOT = Path(__file__).parents[1]


@registry.nets.register("cli-net")
@dataclass(frozen=True)
class NetOfTest(config.NetworkConfig):
    channels: int = 8
    """How wide."""


@registry.families.register("cli-family")
@dataclass(frozen=True)
class FamilyOfTest(config.ModelConfig):
    net: config.NetworkConfig = field(default_factory=NetOfTest)
    n_latent: int = 4
    """How many numbers describe an example."""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "my.toml"
    path.write_text(
        'title = "Mine"\n[model]\nfamily = "cli-family"\nnet.name = "cli-net"\n[train]\nsteps = 7\nlr = 0.5\n'
    )
    return str(path)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, tuple, dict[str, Any]]]:
    """Every call that reached the API, which does nothing but return what it would."""
    made: list[tuple[str, tuple, dict[str, Any]]] = []

    def stand_in(name: str, result: Any) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            made.append((name, args, options))
            print("noise of the work")
            return result

        return call

    measurement = measured("frechet_distance", 3.5, Protocol(n_generated=10), stderr=0.25)
    (tmp_path / "sheet.png").touch()
    (tmp_path / "report.json").write_text('{"rows": []}')
    for name, result in {
        "train": tmp_path / "run",
        "resume": tmp_path / "run",
        "sample": tmp_path,
        "measure": {"runs/a": [measurement]},
        "compare": tmp_path / "report.html",
    }.items():
        monkeypatch.setattr(api, name, stand_in(name, result))
    return made


# ------------------------------------------------------------------------------------------------ without torch


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("--help", 0),
        ("--version", 0),
        ("recipes", 0),
        ("recipes --json", 0),
        ("recipes flow", 0),
        ("data list", 0),
        ("train --help", 0),
        ("measure --help", 0),
        ("compare --help", 0),
        ("sample --help", 0),
        ("train flwo", 2),
        ("compare flwo --budget 5s", 2),
        ("compare flow --budget 5", 2),
        ("trian flow", 2),
    ],
)
def test_help_lists_and_errors_need_no_torch(words: str, status: int) -> None:
    code = (
        "import sys; from bowerbird.cli import main; status = main(sys.argv[1:]);"
        "print('LOADED', [m for m in ('torch', 'numpy', 'rich', 'PIL') if m in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words.split()], capture_output=True, text=True)
    assert done.returncode == status
    loaded = done.stdout.splitlines()[-1]
    assert loaded.startswith("LOADED")
    assert "torch" not in loaded
    assert "Traceback" not in done.stderr


def test_importing_the_package_is_light_and_its_verbs_are_verbs() -> None:
    code = (
        "import sys, bowerbird; assert not {'torch', 'tyro', 'numpy'} & set(sys.modules); assert bowerbird.recipes();"
        "assert not {'torch', 'tyro'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in ("training.trainer", "comparing.compare", "measuring"):
        importlib.import_module(f"bowerbird.{name}")
    assert bowerbird.train.__module__ == "bowerbird.api.training"
    assert bowerbird.measure.__module__ == "bowerbird.api.judging"
    assert all(hasattr(bowerbird, name) for name in bowerbird.__all__)


# ------------------------------------------------------------------------------------------------ what reaches the API


def test_train_takes_the_recipe_and_every_flag(recipe: str, calls: list, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "--model.n-latent 64 --model.net.channels 32 --data photos --data.size 16 --train.lr 1e-3 --out here --quiet"
    )
    assert cli.main(["train", recipe, *words.split()]) == 0
    (name, (run, out), options) = calls[0]
    assert (name, out, options) == ("train", Path("here"), {"quiet": True})
    assert run == config.Run(
        model=FamilyOfTest(net=NetOfTest(channels=32), n_latent=64),
        data=config.Data(source="photos", size=16),
        train=config.Train(steps=7, lr=1e-3),
        title="Mine",
    )
    assert capsys.readouterr().out.splitlines()[-1].endswith("run")


def test_without_flags_the_run_is_the_recipe(recipe: str, calls: list) -> None:
    assert cli.main(["train", recipe]) == 0
    assert calls[0][1] == (config.load(recipe), None)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ("90s", {"seconds": 90.0}),
        ("2h", {"seconds": 7200.0}),
        ("50steps", {"steps": 50}),
        ("1e12flops", {"flops": 1e12}),
    ],
)
def test_a_budget_replaces_the_recipes(recipe: str, calls: list, budget: str, expected: dict[str, float]) -> None:
    assert cli.main(["train", recipe, "--budget", budget]) == 0
    train = calls[0][1][0].train
    assert {k: getattr(train, k) for k in ("steps", "examples", "seconds", "flops") if getattr(train, k)} == expected


def test_none_switches_an_optional_value_off(recipe: str, calls: list) -> None:
    words = "--train.steps none --train.channels-last True --train.lr-multiplier D 2 G 0.5"
    assert cli.main(["train", recipe, *words.split()]) == 0
    train = calls[0][1][0].train
    assert (train.steps, train.channels_last, train.lr_multiplier) == (None, True, {"D": 2.0, "G": 0.5})


def test_help_of_a_recipe_shows_the_familys_own_fields(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", recipe, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--model.net.channels INT How wide. (default: 8)" in shown
    assert "--train.steps INT" in shown
    assert "--expect" not in shown


PLUGIN = """
from dataclasses import dataclass
from bowerbird import config, registry

@registry.families.register("plugged")
@dataclass(frozen=True)
class Plugged(config.ModelConfig):
    n_petals: int = 5
    \"\"\"Petals of the flower.\"\"\"
"""


def test_a_plugins_fields_are_flags_and_its_path_is_recorded(
    tmp_path: Path, calls: list, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plugged.py").write_text(PLUGIN)
    Path("plugged.toml").write_text('[model]\nfamily = "plugged"\n')
    assert cli.main("train plugged.toml --plugin plugged.py --help".split()) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--model.n-petals INT Petals of the flower. (default: 5)" in shown
    assert cli.main("train plugged.toml --plugin=plugged.py --model.n-petals 6".split()) == 0
    run = calls[0][1][0]
    assert (run.model.n_petals, run.plugin) == (6, str(tmp_path / "plugged.py"))


def test_sample_passes_on_only_what_was_given(
    calls: list, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main("sample runs/a".split()) == 0
    run = tmp_path / "a"
    run.mkdir()
    (run / "model.safetensors").touch()
    monkeypatch.setattr(api, "options_of", lambda run: FlowOptions)
    monkeypatch.setattr(api, "inputs_of", lambda run: {"label": Classes(("6", "7"))})
    words = "-n 5 --seed 3 --label 7 --steps 20 --guidance 1.5 --out there --json"
    assert cli.main(["sample", str(run), *words.split()]) == 0
    nothing = {"label": None, "prompt": None, "source": None, "given": {}, "out": None, "options": {}, "device": "auto"}
    nothing |= {"labelled": True, "visible_mark": False}
    assert calls[0][1:] == ((Path("runs/a"),), nothing | {"n": None, "seed": 0})
    options = {"steps": 20, "guidance": 1.5}
    given = {"n": 5, "seed": 3, "label": "7", "out": Path("there"), "options": options}
    assert calls[1][1:] == ((run,), nothing | given)
    printed = capsys.readouterr().out.split("sheet.png\n", 1)[1]
    assert json.loads(printed) == {"folder": str(tmp_path), "files": ["sheet.png"], "notes": []}


def test_measure_prints_json_alone_or_a_table(calls: list, capsys: pytest.CaptureFixture[str]) -> None:
    words = "measure runs/a --against digits --metrics frechet_distance coverage --n-samples 10 --json"
    assert cli.main(words.split()) == 0
    (row,) = json.loads(capsys.readouterr().out)["measurements"]
    assert {key: row[key] for key in ("target", "name", "value", "unit", "stderr")} == {
        "target": "runs/a",
        "name": "frechet_distance",
        "value": 3.5,
        "unit": "1",
        "stderr": 0.25,
    }
    assert row["protocol"]["n_generated"] == 10
    ((targets, request), options) = calls[0][1:]
    assert targets == ["runs/a"] and options == {}
    assert request.metrics == ("frechet_distance", "coverage")
    assert (request.against, request.n_samples, dict(request.options)) == ("digits", 10, {})
    assert cli.main(["measure", "runs/a"]) == 0
    assert re.search(r"frechet_distance +3\.50 ± 0\.25", capsys.readouterr().out)


def test_compare_leaves_printing_to_the_comparison_unless_json_is_asked_for(
    calls: list, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main("compare gan vae --data digits --budget 5s --seeds 2 --out demo --json".split()) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": []}
    assert calls[0][1] == (["gan", "vae"],)
    expected = {
        "data": "digits",
        "budget": "5s",
        "seeds": 2,
        "out": Path("demo"),
        "measuring": Measuring(n_samples=2000),
    }
    assert calls[0][2] == expected
    assert cli.main("compare gan vae".split()) == 0
    assert "report.html" not in capsys.readouterr().out  # the comparison itself prints its table and the path


def test_a_list_may_be_given_in_parts(calls: list) -> None:
    assert cli.main("measure runs/a --metrics fid --n-samples 9 --metrics kid".split()) == 0
    request = calls[0][1][1]
    assert (request.metrics, request.n_samples) == (("fid", "kid"), 9)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("recpes", "There is no command 'recpes'; did you mean 'recipes'?"),
        ("data lst", "There is no command 'data lst'; did you mean 'data list'?"),
        ("recipes flwo", "There is no recipe 'flwo'; did you mean 'flow'?"),
        ("recipes --jsn", "There is no flag --jsn; did you mean --json?"),
        ("train", "Name the recipe first"),
        ("train --data x flow", "Name the recipe first"),
        ("train RECIPE --train.batchsize 3", "There is no flag --train.batchsize; did you mean --train.batch-size?"),
        ("train RECIPE --modle.n-latent 3", "There is no flag --modle.n-latent; did you mean --model.n-latent?"),
        ("train RECIPE --model.n-latent=x", "--model.n-latent: 'x' is not a whole number"),
        ("train RECIPE --train.lr x", "--train.lr: 'x' is not a number"),
        (
            "train RECIPE --train.optimizer adm",
            "--train.optimizer cannot be 'adm', only one of 'adam'",
        ),
        ("train RECIPE --train.betas 0.9", "--train.betas needs 2 value(s)"),
        ("train RECIPE again", "Unexpected argument 'again'; see bowerbird train --help."),
        ("train RECIPE src", "Unexpected argument 'src'; for data write --data src."),
        ("train RECIPE --bs 4", "There is no flag --bs; did you mean --train.batch-size?"),
        ("train RECIPE --workers 4", "did you mean --train.threads?"),
        ("train RECIPE --wandb", "did you mean --train.trackers?"),
        ("train RECIPE --amp", "did you mean --train.precision?"),
        ("train RECIPE --fp16", "did you mean --train.precision?"),
        ("train RECIPE --save-every 5", "did you mean --train.checkpoint-every?"),
        ("train RECIPE --resume", "did you mean bowerbird resume RUN?"),
        ("train RECIPE --verbose", "There is no flag --verbose; see bowerbird train --help."),
        ("eval runs/b", "There is no command 'eval'; did you mean 'measure'?"),
        ("train RECIPE --data a --data=b", "--data is given twice; give it once."),
        ("train RECIPE --data=", "data.source is empty"),
        ("train RECIPE --data /", "/ is the root of the file system"),
        ("train RECIPE --train.lr-multiplier D=2", "such as --train.lr-multiplier D 2 G 1"),
        ("export runs/b", "bowerbird: --to is missing"),
        ("data get digits --from photos", "'digits' is built in"),
        ("train RECIPE --plugin nowhere.py", "nowhere.py does not exist"),
        ("train RECIPE --budget 60", "The budget '60' is not a number with a known unit"),
        ("train RECIPE --budget 3epochs", "20000examples (an epoch is every training example once)"),
        ("train .", ". is not a recipe; if it is your data, name a recipe first: bowerbird train flow --data ."),
        ("sample digits --seed -1", "--seed = -1 must be at least 0."),
        ("train nowhere.toml", "There is no file nowhere.toml."),
        ("sample", "RUN is missing"),
        ("sample nowhere", "nowhere"),
        ("resume nowhere", "nowhere"),
        ("measure", "Say what to measure"),
        ("measure nowhere", "nowhere"),
        ("compare --data digits", "Say what to compare"),
        ("data get digit", "did you mean 'digits'?"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(
    words: str, sentence: str, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([recipe if word == "RECIPE" else word for word in words.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert sentence in printed.err
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (BowerbirdError("Do this."), 2, "bowerbird: Do this."),
        (RunFailed("It broke."), 1, "bowerbird: It broke."),
        (OSError(28, "No space left on device", "file"), 1, "bowerbird: No space left on device: file."),
        (KeyboardInterrupt(), 130, "bowerbird: Interrupted."),
        (
            ZeroDivisionError("x"),
            1,
            "bowerbird: Internal error: ZeroDivisionError: x; run again with --debug for the traceback.",
        ),
    ],
)
def test_each_kind_of_error_has_its_status(
    error: BaseException,
    status: int,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(api, "resume", fail)
    assert cli.main(["resume", "a"]) == status
    assert capsys.readouterr().err == sentence + "\n"
    assert cli.main(["resume", "--debug", "a"]) == status
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback")
    assert type(error).__name__ in printed


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "bowerbird", "recipes"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


# ------------------------------------------------------------------------------------------------ for real


def test_a_folder_of_images_is_trained_on_and_sampled(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text('[model]\nfamily = "vae"\nn_latent = 2\n[model.net]\nname = "mlp"\n')
    words = f"train small.toml --data {tiny} --budget 3steps --train.batch-size 8 --train.device cpu --quiet"
    assert cli.main(words.split()) == 0, capsys.readouterr().err
    run = Path(capsys.readouterr().out.splitlines()[-1])
    assert config.load(str(run)).data.source == str(tiny)
    assert cli.main(["sample", str(run), "-n", "3", "--label", "upper", "--out", "there"]) == 0
    assert sorted(path.name for path in Path("there").glob("*.png")) == [
        *(f"{i:05d}.png" for i in range(3)),
        "sheet.png",
    ]
    assert cli.main(["sample", str(run), "--steps", "3"]) == 2
    assert "steps" in capsys.readouterr().err
    assert cli.main(["sample", str(run), "--label", "uper"]) == 2
    assert "did you mean 'upper'?" in capsys.readouterr().err


def test_ctrl_c_while_importing_ends_in_one_sentence():
    program = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'bowerbird.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from bowerbird.__main__ import main\n"
        "sys.exit(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "bowerbird: Interrupted.\n")
