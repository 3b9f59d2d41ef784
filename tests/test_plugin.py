"""A family in a user's own file: every command of docs/plugin.md as written there, and the example's identities."""

import json
import math
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from bowerbird import api, cli, config, registry, trust
from bowerbird.draws import Draws
from bowerbird.eightbit import to_uint8
from bowerbird.generating import draw
from bowerbird.media import open_data
from bowerbird.models.base import Batch, Encodes, GenerativeModel, Scores, options_from
from bowerbird.spec import Classes, Spec, Tensors
from bowerbird.training.rundir import RunDir, load_model
from bowerbird.training.trainer import Trainer

DOCS = Path(__file__).parents[1] / "docs"
MODULE, METRIC_MODULE = "bowerbird_plugin_my_family", "bowerbird_plugin_my_metric"
SMALL = "--budget 5steps --model.n-hidden 16 --train.batch-size 8 --train.threads 1 --train.device cpu --quiet".split()


def bowerbird(*words: object) -> int:
    """One command as a new process would run it: the plugin has not been loaded yet."""
    registry.families._classes.pop("nice", None)
    registry.metrics._classes.pop("brightness_gap", None)
    sys.modules.pop(MODULE, None)
    sys.modules.pop(METRIC_MODULE, None)
    return cli.main([str(word) for word in words])


@pytest.fixture
def workplace(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with copies of the example, whose recipe names tiny images instead of digits."""
    for name in ("my_family.py", "my_family.toml", "my_metric.py"):
        shutil.copy(DOCS / "examples" / name, tmp_path)
    toml = tmp_path / "my_family.toml"
    toml.write_text(toml.read_text().replace('source = "digits"', f'source = "{tiny}"'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOWERBIRD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(trust.ENVIRONMENT, "1")
    # What ``bowerbird`` forgets comes back for the other tests.
    list(map(registry.families.get, registry.families.names()))  # those that ship are there before the plugin's
    monkeypatch.setattr(registry.families, "_classes", dict(registry.families._classes))
    registry.metrics.names()  # all that ship are there before those of the plugin
    monkeypatch.setattr(registry.metrics, "_classes", dict(registry.metrics._classes))
    for module in (MODULE, METRIC_MODULE):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


def documented() -> list[str]:
    """The bowerbird commands of the page, in order."""
    return re.findall(r"^\$ (bowerbird .*)$", (DOCS / "plugin.md").read_text(), flags=re.MULTILINE)


def small(command: str, tiny: Path) -> list[str]:
    """The same command on tiny images, with a budget of seconds."""
    command = command.replace("--data digits", f"--data {tiny}").replace("--label 7", "--label upper")
    _, verb, *words = shlex.split(command.replace("--budget 60s", "--budget 3steps --n-samples 16"))
    return [verb, *words, *(SMALL if verb == "train" else [])]


@pytest.mark.filterwarnings("ignore:Left out")  # five pictures say nothing of a distribution
def test_the_page_runs_as_written(workplace: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(trust.ENVIRONMENT)  # the page names the file once, which is consent
    commands = documented()
    assert {shlex.split(c)[1] for c in commands} == {"train", "resume", "sample", "measure", "compare"}
    for command in commands:
        assert bowerbird(*small(command, tiny)) == 0, command

    run = RunDir(workplace / "runs" / "nice")
    assert run.status()["step"] == 5 and run.status()["finished"]
    images = sorted((run.samples / "seed-0").glob("0*.png"))
    assert len(images) == 40 and Image.open(images[0]).size == (8, 8)
    (report,) = workplace.glob("runs/compare-my_family-*/report.json")
    rows = {row["recipe"]: row for row in json.loads(report.read_text())["table"]}
    assert rows.keys() == {"my_family", "vae"}
    assert all(
        not row["errors"] and math.isfinite(row["metrics"]["network_evaluations"]["mean"]) for row in rows.values()
    )

    (report,) = workplace.glob("runs/compare-vae-*/report.json")
    (row,) = json.loads(report.read_text())["table"]
    assert row["metrics"]["brightness_gap"]["unit"] == "grey levels" and row["metrics"]["brightness_gap"]["mean"] > 0
    page = report.with_suffix(".html").read_text()
    assert "Difference in brightness" in page and "Between the mean pixel of all samples" in page
    assert "Difference in brightness" in (next(report.parent.glob("runs/*/report.html"))).read_text()


def test_the_page_shows_the_metric_as_it_is() -> None:
    assert (DOCS / "examples" / "my_metric.py").read_text() in (DOCS / "plugin.md").read_text()


def test_a_metric_in_a_file_is_measured_and_named(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bowerbird("train", "my_family.toml", "--out", "run", *SMALL) == 0
    words = ("measure", "run", "--n-samples", 16, "--metrics", "brightness_gap")
    assert bowerbird(*words) == 2
    assert "There is no metric 'brightness_gap'" in capsys.readouterr().err
    assert bowerbird(*words, "network_evaluations", "--plugin", "my_metric.py", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["measurements"]}
    found = rows["brightness_gap"]
    assert list(rows) == ["network_evaluations", "brightness_gap"] and found["unit"] == "grey levels"
    (again,) = api.measure("run", n_samples=16, metrics=["brightness_gap"])["run"]  # the file is loaded by now
    assert again.value == found["value"] and again.protocol.n_generated == 16
    samples = to_uint8(draw(load_model("run")[0], 16).x).double()
    real = open_data(RunDir("run").config().data).test.images.double()
    assert again.value == pytest.approx(abs(float(samples.mean() - real.mean())))
    assert bowerbird("measure", "run", "--metrics", "brightness_gab", "--plugin", "my_metric.py") == 2
    assert "did you mean 'brightness_gap'?" in capsys.readouterr().err


def test_the_familys_own_options_are_flags(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`sample RUN --spread 0.5`: in the help, in force, in what is said of each sample; and refused with a sentence."""
    assert bowerbird("train", "my_family.toml", "--out", "run", *SMALL) == 0

    def pictures(*flags: object) -> list[bytes]:
        out = workplace / "-".join(["out", *map(str, flags)])
        assert bowerbird("sample", "run", "-n", 3, "--out", out, *flags) == 0
        rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
        assert all(row.get("options", {}) == ({"spread": float(flags[1])} if flags else {}) for row in rows)
        return [(out / row["file_name"]).read_bytes() for row in rows]

    usual, half, one = pictures(), pictures("--spread", 0.5), pictures("--spread", 1)
    assert usual == pictures("--spread", 0.6), "what the recipe says"
    assert len({usual[0], half[0], one[0]}) == 3
    capsys.readouterr()
    assert bowerbird("sample", "run", "--spread", -1) == 2
    assert "spread = -1.0 must be above 0." in capsys.readouterr().err
    assert bowerbird("sample", "run", "--steps", 3) == 2
    assert "steps" in capsys.readouterr().err
    metrics = ("--metrics", "network_evaluations", "--json")
    assert bowerbird("measure", "run", "--n-samples", 4, "--spread", 0.5, *metrics) == 0


def test_measurements(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bowerbird("train", "my_family.toml", "--out", "run", *SMALL) == 0
    capsys.readouterr()
    metrics = ("nll", "bits_per_dim", "network_evaluations")
    assert bowerbird("measure", "run", "--n-samples", 16, "--metrics", *metrics, "--json") == 0
    found = {row["name"]: row["value"] for row in json.loads(capsys.readouterr().out)["measurements"]}
    assert found["network_evaluations"] == 1
    assert found["bits_per_dim"] == pytest.approx(found["nll"] / (64 * math.log(2)))
    assert 0 < found["bits_per_dim"] < 12


def test_plugin_flag_and_plugin_key_mean_the_same_file(
    workplace: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is relative to the TOML file's folder, the flag to where one stands; run.toml says where it was."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    text = (workplace / "my_family.toml").read_text()
    (elsewhere / "my_run.toml").write_text(text.replace('plugin = "my_family.py"\n', ""))
    assert bowerbird("train", elsewhere / "my_run.toml", "--plugin", "my_family.py", "--out", "flag", *SMALL) == 0
    monkeypatch.chdir(elsewhere)
    assert bowerbird("train", workplace / "my_family.toml", "--out", workplace / "key", *SMALL) == 0
    runs = [RunDir(workplace / name) for name in ("flag", "key")]
    assert all(config.read_toml(run.run_toml)["plugin"] == str(workplace / "my_family.py") for run in runs)
    states = [run.load_state() for run in runs]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert bowerbird("sample", workplace / "flag", "-n", 1, "--out", "one") == 0


def test_errors_name_what_is_missing(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = workplace / "my_family.toml"
    text = toml.read_text()
    for change, sentence in (
        (('plugin = "my_family.py"\n', ""), "There is no family 'nice'"),
        (("my_family.py", "gone.py"), f"The plugin file {workplace / 'gone.py'}, which my_family.toml names, does not"),
        (("n_hidden", "n_hiden"), "did you mean 'model.n_hidden'?"),
        (('"my_family.py"', "3"), "plugin = 3 must be of type str"),
    ):
        toml.write_text(text.replace(*change))
        assert bowerbird("train", "my_family.toml", "--out", "run", *SMALL) == 2
        assert sentence in capsys.readouterr().err
    assert not (workplace / "run").exists()


def test_resume_is_exact(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """Stands for the end of the process: nothing catches it."""

    flags = (*SMALL, "--train.checkpoint-every", 2)
    assert bowerbird("train", "my_family.toml", "--out", "whole", *flags) == 0
    step = Trainer.train_step

    def dies_in_the_third_step(trainer: Trainer) -> dict[str, torch.Tensor]:
        logs = step(trainer)
        if trainer.step == 3:
            raise Killed
        return logs

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "train_step", dies_in_the_third_step)
        bowerbird("train", "my_family.toml", "--out", "parts", *flags)
    assert RunDir("parts").status()["step"] == 2
    assert bowerbird("resume", "parts", "--quiet") == 0
    whole, parts = RunDir("whole").load_state(), RunDir("parts").load_state()
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_it_learns_what_a_label_means(workplace: Path) -> None:
    """Images of the class ``upper`` are bright above, those of ``lower`` below; a few hundred steps show it."""
    flags = [word for word in SMALL if word not in ("--budget", "5steps")]
    words = ("--budget", "300steps", "--train.lr", 0.01, "--train.schedule", "constant", "--train.sample-every", 0)
    assert bowerbird("train", "my_family.toml", "--out", "run", *flags, *words) == 0
    model, spec = load_model("run")
    for name, sign in (("upper", 1), ("lower", -1)):
        number = spec.given["label"].names.index(name)
        x = model.sample(32, {"label": torch.full((32,), number)}, generator=Draws(0))
        gap = sign * (x[:, :, :4].mean((1, 2, 3)) - x[:, :, 4:].mean((1, 2, 3)))
        assert (gap > 0.5).float().mean() > 0.9


# ---------------------------------------------------------------------------------------- the example's mathematics


@pytest.fixture
def build() -> Callable[[Spec], GenerativeModel]:
    def built(spec: Spec) -> GenerativeModel:
        registry.load_plugin(DOCS / "examples" / "my_family.py")
        torch.manual_seed(0)
        model = registry.families.get("nice")(n_couplings=3, n_hidden=8).build(spec).double()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.3 * torch.randn_like(p))
        return model

    return built


def test_decode_inverts_encode(build: Callable[[Spec], GenerativeModel]) -> None:
    model = build(Spec("image", Tensors((3, 3, 5)), {"label": Classes(("a", "b"))}))
    assert isinstance(model, Encodes) and isinstance(model, Scores)
    x, label = torch.rand(4, 3, 3, 5, dtype=torch.float64) * 2 - 1, torch.tensor([0, 1, 1, 0])
    given = {"label": label}
    assert torch.allclose(model.decode(model.encode(x, given), given), x, atol=1e-9)
    assert not torch.allclose(model.encode(x, given), model.encode(x, {"label": 1 - label}))


def test_density_is_that_of_the_codes_times_the_jacobian_determinant(
    build: Callable[[Spec], GenerativeModel],
) -> None:
    model = build(Spec("image", Tensors((1, 2, 3))))
    x = torch.rand(1, 1, 2, 3, dtype=torch.float64) * 2 - 1
    jacobian = torch.autograd.functional.jacobian(lambda v: model.encode(v.view(1, 1, 2, 3))[0], x.flatten())
    z = model.encode(x)[0]
    log_logistic = -z - 2 * torch.log1p((-z).exp())
    expected = log_logistic.sum() + torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(model.log_density(x), expected[None], atol=1e-5, rtol=0, check_dtype=False)


def test_log_prob_is_the_density_of_bytes(build: Callable[[Spec], GenerativeModel]) -> None:
    model = build(Spec("image", Tensors((1, 2, 3))))
    x = torch.rand(5, 1, 2, 3, dtype=torch.float64) * 2 - 1
    found = model.estimators["nll"].log_prob(Batch(x), generator=torch.Generator().manual_seed(0))
    u = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).double() - 0.5
    expected = model.log_density(x + u * (2 / 255)) + 6 * math.log(2 / 255)
    assert torch.allclose(found, expected.to(found))


def test_samples_at_spread_one_have_logistic_codes(build: Callable[[Spec], GenerativeModel]) -> None:
    """Half the codes lie within ± log 3 at spread 1, within half of that at spread 0.5."""
    model = build(Spec("image", Tensors((1, 2, 3))))
    model.decode = lambda z, given=None: z  # the codes themselves
    for spread in (1.0, 0.5, None):
        z = model.sample(4000, options=options_from(model, {"spread": spread}), generator=Draws(0))
        inside = (z.abs() < (spread or model.config.spread) * math.log(3)).float().mean()
        assert float(inside) == pytest.approx(0.5, abs=0.02)
