"""A comparison gives every recipe the same, counts right, marks the right best, and continues where it stopped."""

import io
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from bowerbird import config
from bowerbird.comparing import compare as comparison
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.measuring.metric import measured
from bowerbird.measuring.request import Measuring
from bowerbird.metrics.measurement import Measurement, Protocol
from bowerbird.models.base import Batch, GenerativeModel, Loss
from bowerbird.nets.conditioning import Given
from bowerbird.report.terminal import print_comparison
from bowerbird.spec import Classes, Spec, Tensors
from bowerbird.training.budget import describe_budget, parse_budget
from bowerbird.training.rundir import RunDir

# ------------------------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("60s", {"seconds": 60.0}),
        ("1.5 h", {"seconds": 5400.0}),
        ("10m", {"seconds": 600.0}),
        ("90min", {"seconds": 5400.0}),
        ("500steps", {"steps": 500}),
        ("1e3 steps", {"steps": 1000}),
        ("20_000examples", {"examples": 20_000}),
        ("1e15flops", {"flops": 1e15}),
        ("2.5E+14FLOPs", {"flops": 2.5e14}),
    ],
)
def test_a_budget_is_one_field_of_the_training(text: str, budget: dict[str, float | int]) -> None:
    parsed = parse_budget(text)
    assert parsed == budget
    assert [type(v) for v in parsed.values()] == [type(v) for v in budget.values()]
    assert config.Train(**parsed)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "60", "s", "-60s", "60 parsecs", "1h30m", "nan s", "60s60s", "1e5"])
def test_what_is_no_budget_is_explained(text: str) -> None:
    with pytest.raises(BowerbirdError, match="not a number with a known unit; write for example 60s"):
        parse_budget(text)


@pytest.mark.parametrize(("text", "reason"), [("0s", "more than zero"), ("1e999s", "finite"), ("2.5steps", "whole")])
def test_impossible_budgets_are_refused(text: str, reason: str) -> None:
    with pytest.raises(BowerbirdError, match=reason):
        parse_budget(text)


def test_budgets_are_said_in_words() -> None:
    texts = ("60s", "90s", "2h", "1steps", "20000examples", "1e15flops")
    said = [describe_budget(parse_budget(text)) for text in texts]
    assert said == ["1 minute", "90 seconds", "2 hours", "1 step", "20,000 examples", "1e+15 FLOPs"]


def test_budgets_need_no_torch() -> None:
    code = "import sys, bowerbird.training.budget; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ------------------------------------------------------------------------------------------------- a fake trainer


class Kill(BaseException):
    """What a power cut looks like to Python."""


class FakeTrainer:
    """Writes the files of a trained run at once.  ``stop_at`` and ``fail`` name runs that do not get to the end."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.stop_at = ""
        self.fail: tuple[str, ...] = ()
        self.seconds = 60.0
        """On the wall clock, for 60 of computing."""

    def train(
        self, run: config.Run, folder: Path, data: Any, *, quiet: bool, evaluate: Any, preview: Any, observer: Any
    ) -> SimpleNamespace:
        self.calls.append(("train", folder.name))
        rundir = RunDir.create(folder, run, {"processor": "Abacus 3000"})
        return self._end(rundir, run)

    def resume(
        self, folder: Path, data: Any, *, quiet: bool, evaluate: Any, preview: Any, observer: Any
    ) -> SimpleNamespace:
        self.calls.append(("resume", folder.name))
        return self._end(RunDir.open(folder), RunDir.open(folder).config())

    def _end(self, rundir: RunDir, run: config.Run) -> SimpleNamespace:
        if rundir.path.name in self.fail:
            raise RunFailed("The loss of <b>G</b> is not finite.")
        finished = rundir.path.name != self.stop_at
        steps = run.train.steps or 7
        counters = {"step": steps if finished else steps // 2, "examples": 128 * steps, "seconds": self.seconds,
                    "compute_seconds": 60.0, "running_seconds": 60.0, "flops": 2e12,
                    "parameters": 5, "finished": finished}  # fmt: skip
        rundir.append_metrics({"step": counters["step"], "seconds": 60.0, "compute_seconds": 60.0, "G/loss": 1.5})
        rundir.save_state({"w": torch.zeros(1)}, counters, {})
        if not finished:
            raise Kill
        return SimpleNamespace(**counters)


class FakeModel(GenerativeModel):
    spec = Spec("image", Tensors((1, 8, 8)), {"label": Classes(("lower", "upper"))})

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def losses(self, batch: Batch) -> Iterator[Loss]:
        raise NotImplementedError

    def sample(
        self, n: int, given: Given | None = None, options: Any = None, generator: Draws | None = None
    ) -> torch.Tensor:
        assert given is not None and given["label"].tolist() == [0, 1] * 8
        assert generator is not None
        return generator.rand(n, 1, 8, 8)

    @property
    def sampling_network(self) -> torch.nn.Module:
        return self


class Bench:
    """The module under test with its trainer, models and metrics replaced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tiny: Path, out: Path):
        module = comparison
        self.trainer, self.tiny, self.out = FakeTrainer(), tiny, out
        self.measured: list[str] = []
        self.extractors = iter(lambda: "digits", None)
        self.frechet = {"gan-seed0": 3.0, "gan-seed1": 5.0, "vae-seed0": 9.0, "vae-seed1": 10.0}
        self._compare = module.compare
        monkeypatch.setattr(module, "train", self.trainer.train)
        monkeypatch.setattr(module, "resume", self.trainer.resume)
        monkeypatch.setattr(module, "load_model", self._load)
        monkeypatch.setattr(module, "measure_model", self._measure)
        monkeypatch.setattr(module, "write_run_report", lambda folder: folder)  # has tests of its own

    def _load(self, path: Path, device: str) -> tuple[FakeModel, None]:
        self.loaded = path.name
        return FakeModel(), None

    def _measure(self, model: FakeModel, data: Any, request: Measuring) -> list[Measurement]:
        self.measured.append(self.loaded)
        protocol = Protocol(
            n_generated=request.n_samples or 0, extractor=next(self.extractors), fingerprint=data.fingerprint
        )
        return [
            measured("frechet_distance", self.frechet[self.loaded], protocol),
            measured("precision", 0.5 if self.loaded.startswith("gan") else 0.75, protocol, 0.01),
        ]

    def compare(self, recipes: tuple[str, ...] = ("gan", "vae"), **changes: Any) -> dict[str, Any]:
        arguments = {"data": str(self.tiny), "budget": "60s", "seeds": 1, "out": self.out} | changes
        asked = {name: arguments.pop(name) for name in ("n_samples", "metrics", "extractor") if name in arguments}
        measuring = Measuring(**{"n_samples": 20} | asked)
        path = self._compare(list(recipes), quiet=True, measuring=measuring, **arguments)
        assert path == self.out / "report.html" and path.is_file()
        return json.loads((self.out / "report.json").read_text())

    def forget(self) -> None:
        self.trainer.calls, self.measured = [], []


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path) -> Bench:
    return Bench(monkeypatch, tiny, tmp_path / "out")


# ------------------------------------------------------------------------------------------------- comparing


def test_every_recipe_gets_the_same_data_budget_and_threads(bench: Bench) -> None:
    bench.compare(seeds=2)
    order = ["gan-seed0", "vae-seed0", "gan-seed1", "vae-seed1"]
    assert bench.trainer.calls == [("train", name) for name in order]
    runs = [RunDir(bench.out / "runs" / name).config() for name in order]
    for run in runs:
        train = run.train
        assert (train.compute_seconds, train.seconds) == (60.0, None)  # the wall clock says who else is running
        assert (train.steps, train.examples, train.flops) == (None, None, None)
        assert run.data == config.Data(source=str(bench.tiny), flip=run.data.flip)
    assert [run.train.seed for run in runs] == [0, 0, 1, 1]
    assert len({run.train.threads for run in runs}) == 1 and runs[0].train.threads
    for run, recipe in zip(runs, ("gan", "vae"), strict=False):
        own = config.load(recipe)
        assert (run.model, run.train.batch_size, run.train.lr) == (own.model, own.train.batch_size, own.train.lr)


def test_the_table_holds_means_and_standard_errors_over_seeds(bench: Bench) -> None:
    gan, vae = bench.compare(seeds=2)["table"]
    assert gan["metrics"]["frechet_distance"]["values"] == [3.0, 5.0]
    assert gan["metrics"]["frechet_distance"]["mean"] == 4.0
    assert gan["metrics"]["frechet_distance"]["stderr"] == pytest.approx(math.sqrt(2.0) / math.sqrt(2))
    assert vae["metrics"]["frechet_distance"]["stderr"] == pytest.approx(0.5)
    assert gan["metrics"]["precision"]["stderr"] == 0.0
    assert gan["cost"]["seconds"]["mean"] == 60.0 and gan["cost"]["parameters"]["mean"] == 5


def test_the_report_marks_the_best_shows_the_cost_and_needs_nothing_else(bench: Bench) -> None:
    bench.compare(seeds=2)
    page = (bench.out / "report.html").read_text()
    assert page.count('class="best"') == 2
    assert '<span class="best">4.0 ± 1.0</span>' in page and '<span class="best">0.7500</span>' in page
    for text in (
        "1 minute of compute time with each of 2 seeds",
        "2 TFLOP",
        "896",
        "Real examples",
        "each column is one class",
    ):
        assert text in page, text
    assert page.count('<img class="sheet"') == 3
    assert "http:" not in page and "https:" not in page
    assert all(part.startswith("data:image/png;base64,") for part in page.split('src="')[1:])


def test_a_run_that_was_starved_is_named_in_the_report_and_on_the_console(bench: Bench, capsys) -> None:
    bench.compare(("gan",))
    assert "starved" not in capsys.readouterr().err + (bench.out / "report.html").read_text()
    bench.trainer.seconds = 360.0
    bench.compare(("gan", "vae"))
    sentence = "This run was starved: it ran for 60 s of its 360 s (17%) and waited for the rest"
    assert f"vae, seed 0: {sentence}" in (bench.out / "report.html").read_text()
    assert "gan, seed 0: This run" not in (bench.out / "report.html").read_text()
    print_comparison(bench.out, Console(width=200))
    said = capsys.readouterr().out
    assert sentence in said and "Compute time" in said and "Trained for 1 minute of compute time each" in said


def test_a_finished_comparison_is_not_done_again(bench: Bench) -> None:
    first = bench.compare()
    bench.forget()
    again = bench.compare()
    assert (bench.trainer.calls, bench.measured) == ([], [])
    assert (again["runs"], again["table"]) == (first["runs"], first["table"])


@pytest.mark.parametrize("damage", ["[" * 100_000, "Infinity", '{"runs": [7]}', "\0", "[]"])
def test_a_damaged_table_is_made_again_from_the_runs(bench: Bench, damage: str) -> None:
    whole = bench.compare()
    bench.forget()
    (bench.out / "report.json").write_text(damage)
    (bench.out / "runs" / "gan-seed0" / "measurements.json").write_text(damage)
    again = bench.compare()
    assert bench.trainer.calls == [], "the runs are whole"
    assert [run["measurements"] for run in again["runs"]] == [run["measurements"] for run in whole["runs"]]


def test_an_interrupted_comparison_continues_where_it_stopped(bench: Bench) -> None:
    bench.trainer.stop_at = "gan-seed1"
    with pytest.raises(Kill):
        bench.compare(seeds=2)
    assert "2 of 4 runs are trained and measured so far" in (bench.out / "report.html").read_text()
    bench.forget()
    bench.trainer.stop_at = ""
    report = bench.compare(seeds=2)
    assert bench.trainer.calls == [("resume", "gan-seed1"), ("train", "vae-seed1")]
    assert bench.measured == ["gan-seed1", "vae-seed1"]
    assert [run["status"]["finished"] for run in report["runs"]] == [True] * 4
    assert "so far" not in (bench.out / "report.html").read_text()


def test_seeds_and_recipes_can_be_added_later(bench: Bench) -> None:
    bench.compare(("gan",))
    bench.forget()
    bench.compare(("gan", "vae"), seeds=2)
    assert bench.trainer.calls == [("train", name) for name in ("vae-seed0", "gan-seed1", "vae-seed1")]


def test_another_protocol_is_measured_again_without_training(bench: Bench) -> None:
    bench.compare()
    bench.forget()
    for change in ({"n_samples": 30}, {"metrics": ("network_evaluations", "seconds_per_image")}):
        bench.forget()
        bench.compare(**change)
        assert bench.trainer.calls == [] and len(bench.measured) == 2


@pytest.mark.parametrize(
    ("change", "key"), [({"budget": "90s"}, "train.compute_seconds"), ({"budget": "9steps"}, "train")]
)
def test_runs_that_were_made_differently_are_not_mixed_in(bench: Bench, change: dict[str, str], key: str) -> None:
    bench.compare()
    bench.forget()
    with pytest.raises(BowerbirdError, match=f"gan-seed0 was made with another {key}.*; choose another --out"):
        bench.compare(**change)
    assert bench.trainer.calls == []


def test_a_run_that_fails_is_shown_and_the_others_go_on(bench: Bench) -> None:
    bench.trainer.fail = ("gan-seed1",)
    gan, _vae = bench.compare(seeds=2)["table"]
    assert gan["metrics"]["frechet_distance"]["values"] == [3.0]
    assert gan["errors"] == ["Seed 1: The loss of <b>G</b> is not finite."]
    page = (bench.out / "report.html").read_text()
    assert "gan: Seed 1: The loss of &lt;b&gt;G&lt;/b&gt; is not finite." in page


def test_a_comparison_in_which_all_fail_fails(bench: Bench) -> None:
    bench.trainer.fail = ("gan-seed0",)
    with pytest.raises(RunFailed, match=r"Every run of the comparison failed.*not finite"):
        bench.compare(("gan",))


def test_different_protocols_are_refused(bench: Bench) -> None:
    bench.extractors = iter(["digits", "inception-2015"])
    with pytest.raises(BowerbirdError, match="extractor"):
        bench.compare()


def test_wrong_arguments_are_explained_before_anything_is_trained(bench: Bench) -> None:
    for recipes, message in (
        (("gan", "flwo"), "There is no recipe 'flwo'; did you mean 'flow'"),
        (("gan", "gan"), "named twice"),
        ((), "at least one recipe"),
    ):
        with pytest.raises(BowerbirdError, match=message):
            bench.compare(recipes)
    for change, message in (
        ({"budget": "soon"}, "not a number with a known unit"),
        ({"metrics": ("FID",)}, "There is no metric 'FID'; did you mean 'fid'"),
        ({"metrics": ("bleu",)}, "bleu does not apply to this model and tiny0; it needs"),
        ({"metrics": ("nll",)}, "nll does not apply to this model and tiny0; it needs"),
        ({"extractor": "nosuch"}, "There is no extractor 'nosuch'"),
        ({"data": "nowhere"}, "nowhere"),
    ):
        with pytest.raises(BowerbirdError, match=message):
            bench.compare(**change)
    assert bench.trainer.calls == [] and not bench.out.exists()


def test_a_folder_that_holds_something_else_is_left_alone(bench: Bench) -> None:
    bench.out.mkdir()
    (bench.out / "photo.png").touch()
    with pytest.raises(BowerbirdError, match=r"holds no comparison \(but photo.png\)"):
        bench.compare()
    assert [path.name for path in bench.out.iterdir()] == ["photo.png"]


def test_a_failed_start_leaves_no_folder(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_run: Any, folder: Path, *_args: Any, **_options: Any) -> None:
        folder.parent.mkdir(parents=True)
        raise BowerbirdError("A vae makes no texts.")

    monkeypatch.setattr(comparison, "train", refuse)
    with pytest.raises(BowerbirdError, match="no texts"):
        bench.compare()
    assert not bench.out.exists()


def test_the_terminal_shows_the_table_and_the_path(bench: Bench) -> None:
    bench.compare(seeds=2)
    shown = io.StringIO()
    print_comparison(bench.out, Console(width=100, file=shown))
    text = shown.getvalue()
    assert "│ * 4.0 ± 1.0 │  9.5 ± 0.5 │" in text and "│      0.5000 │   * 0.7500 │" in text
    assert text.rstrip().endswith(str(bench.out / "report.html"))
