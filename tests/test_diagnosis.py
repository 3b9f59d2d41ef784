"""Diagnosis: watching changes nothing, rules see what they should, and broken runs are named (``broken_runs``)."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import bowerbird
from bowerbird import cli, config
from bowerbird.diagnosis import Watch, diagnose_run, find
from bowerbird.diagnosis.finding import Finding
from bowerbird.diagnosis.rule import RULES, ranked
from bowerbird.diagnosis.samples import spread
from bowerbird.diagnosis.signals import FILE, Signals, read_lines
from bowerbird.diagnosis.sweep import find_learning_rate, steepest, text_plot
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.media.image.imageset import ImageSet
from bowerbird.models.rollout import RolloutConfig
from bowerbird.samplers.bound import discretised_gaussian_log_prob
from bowerbird.training.rundir import RunDir
from bowerbird.training.trainer import Trainer, resume, train
from broken_runs import library

ALL = os.environ.get("BOWERBIRD_BROKEN_RUNS") == "all"
"""Every broken and every healthy run: ``make diagnosis``."""


@pytest.fixture(scope="module")
def digits():
    return open_data(config.Data("digits", size=14))


def small(name: str, steps: int = 24) -> config.Run:
    run = library.shortened(name)
    return replace(run, train=replace(run.train, steps=steps, batch_size=8, log_every=4, checkpoint_every=8))


# ------------------------------------------------------------------------------------------------ watching


def timeless(rows: list[dict]) -> list[dict]:
    """Rows without what times the machine."""
    timed = {"seconds", "compute_seconds", "examples_per_second", "memory_gb", "data_share"}
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


@pytest.mark.parametrize("recipe", ["gan", "vae", "diffusion"])
def test_a_watched_run_is_bit_for_bit_the_same(recipe: str, digits, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Trainer, "_preview", lambda self: None)
    monkeypatch.setattr("bowerbird.diagnosis.watch.YOUNG", 16)  # samples are drawn from then on
    run = small(recipe)
    train(run, tmp_path / "alone", digits, quiet=True)
    train(run, tmp_path / "watched", digits, quiet=True, observer=Watch())
    alone, watched = (RunDir(tmp_path / name).load_state() for name in ("alone", "watched"))
    assert [name for name in alone if not torch.equal(alone[name], watched[name])] == []
    assert timeless(RunDir(tmp_path / "alone").metrics()) == timeless(RunDir(tmp_path / "watched").metrics())
    assert {"layers", "samples"} <= read_lines(tmp_path / "watched" / FILE)[-1].keys()


def test_batch_statistics_and_dropout_are_left_alone(digits, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Trainer, "_preview", lambda self: None)
    run = small("vae")
    run = replace(run, model=replace(run.model, net=replace(run.model.net, norm="batch")))
    train(run, tmp_path / "alone", digits, quiet=True)
    train(run, tmp_path / "watched", digits, quiet=True, observer=Watch())
    alone, watched = (RunDir(tmp_path / name).load_state() for name in ("alone", "watched"))
    assert any("running_mean" in name for name in alone)
    assert [name for name in alone if not torch.equal(alone[name], watched[name])] == []
    assert "batch_norm" in read_lines(tmp_path / "watched" / FILE)[-1]


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def test_the_signals_of_a_resumed_run_are_those_of_a_whole_one(digits, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Trainer, "_preview", lambda self: None)
    monkeypatch.setattr("bowerbird.diagnosis.watch.YOUNG", 12)
    run, step = small("vae"), Trainer.train_step
    train(run, tmp_path / "whole", digits, quiet=True, observer=Watch())

    def dies(self):
        if self.step == 14:
            raise Killed
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", dies)
    with pytest.raises(Killed):
        train(run, tmp_path / "parts", digits, quiet=True, observer=Watch())
    monkeypatch.setattr(Trainer, "train_step", step)
    resume(tmp_path / "parts", digits, quiet=True, observer=Watch())
    whole, parts = (timeless(read_lines(tmp_path / name / FILE)) for name in ("whole", "parts"))
    assert whole == parts


@pytest.mark.reports
def test_a_failing_run_names_the_origin_everywhere(digits, tmp_path: Path, monkeypatch, capsys) -> None:
    batch = ImageSet.batch

    def poisoned(self, indices, device="cpu"):
        fields = batch(self, indices, device)
        fields["x"][indices < 4000, :, 0, 0] = math.nan
        return fields

    monkeypatch.setattr(ImageSet, "batch", poisoned)
    run = small("vae")
    monkeypatch.setattr("bowerbird.api.training.open_data", lambda data: digits)
    with pytest.raises(bowerbird.RunFailed, match="the batch itself holds values that are not finite"):
        bowerbird.train(run, tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("found  A value became NaN or infinite") == 1
    found = json.loads((tmp_path / "run" / "diagnosis.json").read_text())["findings"]
    assert found[0]["cause"] == "non-finite" and "batch" in found[0]["evidence"][0]["text"]
    assert "A value became NaN or infinite" in (tmp_path / "run" / "report.html").read_text()
    assert cli.main(["diagnose", str(tmp_path / "run"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["cause"] == "non-finite"


def test_a_run_without_extra_signals_can_be_diagnosed(digits, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(Trainer, "_preview", lambda self: None)
    train(small("vae"), tmp_path / "run", digits, quiet=True)
    assert not (tmp_path / "run" / FILE).exists()
    assert diagnose_run(tmp_path / "run") == bowerbird.diagnose(tmp_path / "run") == []
    assert cli.main(["diagnose", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == "Nothing was found.\n"
    with pytest.raises(BowerbirdError, match="not a run folder"):
        bowerbird.diagnose(tmp_path)


# ------------------------------------------------------------------------------------------------ rules


def signals(recipe: str = "vae", **columns: list[float]) -> Signals:
    """A run that logged these columns at steps 10, 20, … and was watched at none."""
    n = max(len(values) for values in columns.values())
    rows = [{"step": 10 * (i + 1)} | {name: values[i] for name, values in columns.items()} for i in range(n)]
    return Signals(config.load(recipe), rows=rows)


def causes(seen: Signals) -> list[str]:
    return [finding.cause for finding in find(seen)]


def test_overfitting_needs_a_validation_loss_that_rises_while_training_goes_on() -> None:
    train_loss = list(np.linspace(4, 1, 30))
    falling, rising = list(np.linspace(4, 1.5, 30)), [*np.linspace(4, 2, 10), *np.linspace(2, 3, 20)]
    assert causes(signals("shakespeare", **{"model/loss": train_loss, "model/val_loss": falling})) == []
    assert causes(signals("shakespeare", **{"model/loss": train_loss, "model/val_loss": rising})) == ["overfitting"]


def test_a_schedule_must_end_in_noise() -> None:
    seen = signals(**{"model/loss": [1.0] * 5})
    seen.facts = {"noise": {"alpha": 0.006, "sigma": 1.0, "signal_to_noise": 0.004}}
    assert causes(seen) == []
    seen.facts = {"noise": {"alpha": 0.37, "sigma": 0.93, "signal_to_noise": 0.2}}
    assert causes(seen) == ["noise-schedule"]


@pytest.mark.parametrize(("gradient", "named"), [(0.57, []), (1.6e5, ["exploding-gradients"])])
def test_a_loss_in_large_units_is_no_explosion_unless_the_gradient_is_large_as_well(
    gradient: float, named: list[str]
) -> None:
    """Measured: the recipe emoji-lossy began at 203 with a gradient of 0.57, twelve layers of gain 1.8 at 65,000."""
    seen = signals(**{"model/loss": [39.0, 17.8, 11.5, 7.5, 5.9, 2.7, 1.7]})
    seen.facts = {"first_loss": 203.0}
    layers = {f"layer{i}": {"gradient": gradient, "idle": 0.0, "unfed": 0.0, "update": 0.001} for i in range(3)}
    seen.probes = [{"step": step, "used": 0.01, "layers": {"model": layers}} for step in (1, 2, 3)]
    assert causes(seen) == named


def test_roots_come_before_what_they_explain() -> None:
    def finding(cause: str, confidence: float) -> Finding:
        return Finding(cause, "", confidence, (), (), "")

    found = ranked([finding("mode-collapse", 0.95), finding("overfitting", 0.5), finding("data-range", 0.7)])
    assert [(f.cause, f.because) for f in found] == [
        ("data-range", ""), ("overfitting", ""), ("mode-collapse", "data-range"),
    ]  # fmt: skip
    assert all(explained in RULES for rule in RULES.values() for explained in rule.explains)


def test_rules_survive_signals_of_any_kind() -> None:
    """A rule that raised would end the training that it watches."""
    for recipe in config.recipe_names():
        assert causes(Signals(config.load(recipe))) == []
        odd = signals(recipe, **{"model/loss": [math.nan] * 4, "D/loss": [0.0] * 4, "G/loss": [math.inf] * 4,
                                 "D/accuracy": [1.0] * 4, "G/grad_norm": [0.0] * 4, "D/real_logits": [0.0] * 4,
                                 "D/fake_logits": [0.0] * 4, "model/kl": [0.0] * 4, "model/nll": [0.0] * 4,
                                 "model/val_loss": [1.0] * 4, "model/nll_per_token": [0.0] * 4})  # fmt: skip
        odd.probes = [{"step": i, "used": 1.0, "layers": {"D": {}, "model": {"a": {"gradient": math.nan}}},
                       "samples": {"finite": 0.0}, "losses": {"held": 0.0}} for i in range(20)]  # fmt: skip
        find(odd)


def test_a_findings_lines_and_json_say_the_same(tmp_path: Path) -> None:
    seen = signals(**{"model/loss": [1.0] * 5})
    seen.facts = {"noise": {"alpha": 0.37, "sigma": 0.93, "signal_to_noise": 0.2}}
    (finding,) = find(seen)
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) == finding
    text = "\n".join(finding.lines())
    assert finding.title in text and finding.advice[0] in text and finding.reference in text


def test_spread_is_the_mean_squared_distance_within_a_class() -> None:
    x, label = torch.randn(6, 5), torch.tensor([0, 0, 0, 1, 1, 1])
    pairs = [((x[i] - x[j]) ** 2).sum() for i in range(6) for j in range(6) if i != j and label[i] == label[j]]
    torch.testing.assert_close(spread(x, label), torch.stack(pairs).mean())


# ------------------------------------------------------------------------------------------------ the learning rate


def test_find_lr_suggests_a_rate_that_trains(digits, tmp_path: Path, monkeypatch, capsys) -> None:
    run = library.shortened("vae")
    sweep = find_learning_rate(run, data=digits, steps=60)
    assert 1e-5 < sweep.suggestion < 3e-2
    assert len(text_plot(sweep).splitlines()) == 13
    with pytest.raises(BowerbirdError, match="D and G play against each other"):
        find_learning_rate(library.shortened("gan"), data=digits, steps=5)


def test_the_steepest_descent_before_the_minimum_is_chosen() -> None:
    rates = [10.0**e for e in np.linspace(-6, 0, 61)]
    losses = [2 - 1 / (1 + math.exp(-4 * (math.log10(r) + 3))) + (5 if r > 0.1 else 0) for r in rates]
    assert 5e-4 < steepest(rates, losses) < 2e-3


# ------------------------------------------------------------------------------------------------ what it led to


def test_the_decoders_gradient_is_finite_far_from_the_data() -> None:
    """Found by diagnosis: the recipe ddpm ended in NaN when step 1 was drawn and the denoiser was far off."""
    x = torch.full((2001,), -1.0)
    logvar = torch.full_like(x, -9.2).requires_grad_()
    log_prob = discretised_gaussian_log_prob(x, torch.linspace(-1, 1, 2001), logvar)
    (gradient,) = torch.autograd.grad(log_prob.sum(), logvar)
    assert torch.isfinite(gradient).all()


# ------------------------------------------------------------------------------------------------ broken runs


@pytest.mark.parametrize("name", library.SAMPLE)
def test_what_is_broken_is_named_first(name: str) -> None:
    outcome = library.outcome(name, healthy=False)
    assert outcome.right, f"diagnosis said {outcome.causes or 'nothing'}"


def test_a_healthy_run_raises_nothing() -> None:
    outcome = library.outcome("vae", healthy=True)
    assert outcome.causes == outcome.live == []


@pytest.mark.skipif(not ALL, reason="half a minute of training: make diagnosis")
def test_clips_whose_frames_stay_together_do_not_flicker(tmp_path: Path) -> None:
    run = config.load(str(library.HERE / "flicker.frames-mixed.toml"), allow_plugin=True)
    run = replace(run, plugin=None, model=RolloutConfig(**vars(run.model)))
    bowerbird.train(run, tmp_path / "run", quiet=True)
    assert diagnose_run(tmp_path / "run") == []


@pytest.mark.skipif(not ALL, reason="minutes of training: make diagnosis")
def test_the_confusion_table() -> None:
    outcomes = [library.outcome(name, healthy=False) for name in library.broken_names()]
    outcomes += [library.outcome(name, healthy=True) for name in config.recipe_names()]
    print("\n" + library.table(outcomes))
    broken, healthy = ([o for o in outcomes if bool(o.expected) == kind] for kind in (True, False))
    assert len(broken) >= 24
    assert sum(o.right for o in broken) >= 0.9 * len(broken)
    assert [(o.name, o.causes, o.live) for o in healthy if o.causes or o.live] == []
