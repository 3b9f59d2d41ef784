"""Cheap evaluations while training, the best weights that they keep, and the energy of a run."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bowerbird import config
from bowerbird.config import Data, Run, Train
from bowerbird.draws import Draws
from bowerbird.eightbit import to_float
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.evaluating import InTraining, evaluator
from bowerbird.media import open_data
from bowerbird.models.base import Batch, GenerativeModel, Loss, Options
from bowerbird.models.vae import VAEConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.report.run import best_and_last
from bowerbird.spec import Spec, Tensors
from bowerbird.training import energy
from bowerbird.training.rundir import RunDir, load_model
from bowerbird.training.trainer import resume, train


def small_run(tiny: Path, steps: int = 12, **options: Any) -> Run:
    settings = Train(
        steps=steps, batch_size=8, lr=0.01, ema_decay=0.0, device="cpu", precision="fp32", threads=1, sample_every=0,
        log_every=100, checkpoint_every=4, **options,
    )  # fmt: skip
    model = VAEConfig(net=MLPConfig(hidden=(8,)), n_latent=2)
    return Run(model=model, data=Data(source=str(tiny)), train=settings)


def scripted(scores: list[float]) -> Any:
    """An evaluation that returns the next of these scores."""
    left: Iterator[float] = iter(scores)
    return lambda model: {"kid": next(left), "seen": 1.0}


def test_best_weights_are_kept_beside_the_last(tiny: Path, tmp_path: Path) -> None:
    run = small_run(tiny, evaluate_every=3, evaluate_share=1e9)
    folder = train(
        run, tmp_path / "run", open_data(run.data), quiet=True, evaluate=scripted([0.5, 0.1, float("nan"), 0.3])
    ).folder
    rows = [row for row in RunDir(folder).metrics() if "eval/kid" in row]
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert RunDir(folder).best() == (6, 0.1)
    best, last = (load_model(folder, best=best)[0].state_dict() for best in (True, False))
    assert any(not torch.equal(best[name], last[name]) for name in best)
    plain = train(small_run(tiny), tmp_path / "plain", open_data(small_run(tiny).data), quiet=True).folder
    for name, value in load_file(RunDir(plain).model_file).items():  # evaluating changes nothing of the training
        assert torch.equal(value, last[name])
    with pytest.raises(BowerbirdError, match="evaluate-every"):
        load_model(plain, best=True)


def test_resumed_runs_remember_their_best(tiny: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def failing(model: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 3:
            raise Stop
        return {"kid": 0.2 * len(calls)}

    calls: list[int] = []
    run = small_run(tiny, evaluate_every=3, evaluate_share=1e9)
    with pytest.raises(Stop):
        train(run, tmp_path / "run", open_data(run.data), quiet=True, evaluate=failing)
    resume(tmp_path / "run", open_data(run.data), quiet=True, evaluate=scripted([0.9, 0.9, 0.9]))
    assert RunDir(tmp_path / "run").best() == (3, 0.2)


def test_evaluations_stay_within_their_share_of_the_time(tiny: Path, tmp_path: Path) -> None:
    run = small_run(tiny, evaluate_every=2, evaluate_share=0.0)
    folder = train(
        run, tmp_path / "run", open_data(run.data), quiet=True, evaluate=scripted([0.5, 0.4, 0.3, 0.2, 0.1])
    ).folder
    rows = [row["step"] for row in RunDir(folder).metrics() if "eval/kid" in row]
    assert rows == [2, 12]  # the first finds nothing spent yet, the last is always made


@dataclass(frozen=True)
class Strokes(Options):
    """How a painter draws."""

    steps: int = 50
    """Of the brush."""


class Painter(GenerativeModel):
    """Draws given images, and remembers how many steps it was asked for."""

    Options = Strokes
    spec = Spec("image", Tensors((1, 28, 28)))

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.images, self.scale, self.steps = images, torch.nn.Parameter(torch.ones(())), list[int]()

    @property
    def sampling_network(self) -> torch.nn.Module:
        return self

    def losses(self, batch: Batch) -> Iterator[Loss]:
        yield Loss("model", self.scale)

    def sample(
        self, n: int, given: Any = None, options: Strokes | None = None, generator: Draws | None = None
    ) -> torch.Tensor:
        assert generator is not None and options is not None
        self.steps.append(options.steps)
        return to_float(self.images[generator.choice(n, torch.ones(len(self.images), dtype=torch.float64))])


def test_scores_in_training_tell_real_from_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOWERBIRD_CACHE", str(tmp_path))
    data = open_data(Data(source="digits"))
    settings = Train(steps=1, evaluate_every=1, evaluate_samples=256, evaluate_steps=4)
    scores = evaluator(data, settings)
    assert isinstance(scores, InTraining)
    real, noise = Painter(data.test.images), Painter(torch.randint(0, 256, (300, 1, 28, 28), dtype=torch.uint8))
    good, bad = scores(real), scores(noise)
    assert next(iter(good)) == "kid" and good == scores(real)
    assert abs(good["kid"]) < 5 * good["kid_stderr"] + 0.5 < bad["kid"] / 10
    assert good["fid_infinity"] < 5 < bad["fid_infinity"] and real.steps == [4, 4]
    assert evaluator(data, Train(steps=1)) is None
    with pytest.raises(BowerbirdError, match="validate_every"):
        evaluator(open_data(Data(source="names")), settings)
    with pytest.raises(BowerbirdError, match="at least 16"):
        evaluator(data, Train(steps=1, evaluate_every=1, evaluate_samples=4))


def test_report_says_that_a_run_fell_apart() -> None:
    rows = [{"step": i, "eval/kid": kid, "eval/kid_stderr": 0.01} for i, kid in ((100, 0.5), (200, 0.1), (300, 0.4))]
    best, last = best_and_last(rows)
    assert "step 200" in best["note"] and "fell apart" in last["note"]
    assert (
        "within the error"
        in best_and_last([*rows, {"step": 400, "eval/kid": 0.11, "eval/kid_stderr": 0.01}])[1]["note"]
    )
    assert best_and_last([{"step": 1}]) == []


# ------------------------------------------------------------------------------------------------- energy


def test_energy_from_counters_that_start_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    for package, start in (("intel-rapl:0", 900_000), ("intel-rapl:1", 100_000), ("intel-rapl:0:0", 5)):
        (tmp_path / package).mkdir()
        (tmp_path / package / "energy_uj").write_text(str(start))
        (tmp_path / package / "max_energy_range_uj").write_text("1000000")
    (tmp_path / "intel-rapl:0:0" / "energy_uj").unlink()  # parts of a package are not added to it
    meter = energy.EnergyMeter("cpu")
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("200000")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("600000")
    assert meter.source == energy.MEASURED and meter.joules() == pytest.approx(0.3 + 0.5)


def test_energy_without_counters_is_an_estimate_that_says_so(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "nothing")
    result = train(small_run(tiny), tmp_path / "run", open_data(small_run(tiny).data), quiet=True)
    assert result.energy == energy.ESTIMATED and result.joules > 0
    assert json.dumps(RunDir(result.folder).status()).count("joules") == 1
    assert config.load(str(result.folder / "run.toml")).train.evaluate_every == 0
