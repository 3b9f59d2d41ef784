"""The memory of a step is known before it is taken: the estimate against the allocator, and what is refused."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from bowerbird import config, machine
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.models.base import Batch
from bowerbird.spec import Spec, Tensors
from bowerbird.training import preflight as module
from bowerbird.training.preflight import n_bytes, preflight, require_room, trace
from bowerbird.training.rundir import RunDir
from bowerbird.training.trainer import Trainer

FP32 = torch.autocast("cpu", enabled=False)


def run_of(recipe: str, **settings: object) -> config.Run:
    fixed = {"train.threads": 1, "train.device": "cpu", "train.precision": "fp32"}
    return config.with_settings(config.load(recipe), fixed | {f"train.{k}": v for k, v in settings.items()})


def trainer_of(run: config.Run, folder: Path) -> Trainer:
    return Trainer(run, RunDir.create(folder, run, {}), open_data(run.data), quiet=True)


def allocated(trainer: Trainer, steps: int = 2) -> int:
    """Bytes at the peak of some steps, by what torch's allocator says, on top of weights and average."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        for _ in range(steps):
            trainer.train_step()
    live = peak = 0
    events = [one for one in profiled.profiler.kineto_results.events() if one.name() == "[memory]"]
    for event in sorted(events, key=lambda one: one.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak + n_bytes(trainer.model.state_dict().values()) + n_bytes(trainer.model.parameters())


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("gan", {"batch_size": 16}),
        ("gan", {"batch_size": 8, "accumulate": 2}),
        ("flow", {"batch_size": 12, "accumulate": 2}),
        ("flow", {"batch_size": 3, "optimizer": "muon"}),
        ("vae", {"batch_size": 32}),
        ("poet", {"batch_size": 6}),
        ("poet", {"batch_size": 6, "precision": "bf16"}),
    ],
    ids=str,
)
def test_the_estimate_is_within_a_fifth_of_what_is_allocated(recipe, settings, tmp_path):
    trainer = trainer_of(run_of(recipe, **settings), tmp_path / "run")
    assert trainer.cost.memory == pytest.approx(allocated(trainer), rel=0.2)


def test_sequences_are_estimated_by_their_longest_batch(tmp_path):
    sentences = [f"a b {i} " * (40 if i % 25 == 7 else 1) for i in range(400)]
    (tmp_path / "texts.jsonl").write_text("".join(f'{{"text": "{one}"}}\n' for one in sentences))
    run = run_of("poet", batch_size=8)
    run = replace(run, data=replace(run.data, source=str(tmp_path / "texts.jsonl"), label=None))
    trainer = trainer_of(run, tmp_path / "run")
    lengths = trainer.data.train.lengths
    assert lengths is not None
    worst = lengths.topk(8).indices
    trainer.batch = lambda start, count: Batch(**trainer.data.train.batch(worst, "cpu"))  # type: ignore[method-assign]
    assert trainer.cost.memory == pytest.approx(allocated(trainer), rel=0.2)


def test_the_peak_of_a_large_batch_follows_from_a_small_one():
    model = run_of("gan").model.build(Spec("image", Tensors((1, 28, 28))))
    x = torch.zeros(32, 1, 28, 28)
    at = {n: trace(model, Batch(x[:n]), lambda: FP32) for n in (2, 4, 32)}
    predicted = module._peak(at[4], at[2], 4, 32, 1)
    assert predicted == module._peak(at[32], None, 32, 32, 1)


def test_the_longest_examples_do_not_change_what_is_counted():
    """Budgets in FLOPs are of the run's own batches, and stay what they were."""
    model = run_of("vae").model.build(Spec("image", Tensors((1, 28, 28))))
    x = torch.zeros(8, 1, 28, 28)
    plain = preflight(model, lambda n: Batch(x[:n]), 8, 1, lambda: FP32)
    long = preflight(model, lambda n: Batch(x[:n]), 8, 1, lambda: FP32, longest=lambda n: Batch(x[: 2 * n]))
    assert long.flops_per_step == plain.flops_per_step and long.memory > plain.memory


@pytest.mark.parametrize(("share", "fits"), [(1.02, False), (1.2, True)])
def test_a_step_needs_a_margin(share, fits, tmp_path, monkeypatch):
    trainer = trainer_of(run_of("vae", batch_size=64), tmp_path / "run")
    model = trainer.model
    left = trainer.cost.memory - n_bytes(model.state_dict().values()) - n_bytes(model.parameters())
    monkeypatch.setattr(module, "available_memory", lambda device: int(share * left))
    if fits:
        trainer._preflight()
    else:
        with pytest.raises(BowerbirdError, match=r"--train.batch-size \(now 64\)"):
            trainer._preflight()


@pytest.mark.parametrize(("limit", "left"), [("2000000", 1_200_000), ("max", None), ("100", 0)])
def test_a_container_leaves_what_its_limit_leaves(limit, left, tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.stat").write_text("anon 700000\ninactive_file 200000\n")
    monkeypatch.setattr(machine, "CONTAINER", tmp_path)
    free = machine.available_memory(torch.device("cpu"))
    assert free is None or free == left or (left is None and free > 2_000_000)


@pytest.mark.parametrize("recipe", ["gan", "flow", "ddpm"])
def test_pictures_of_5000_pixels_are_refused_before_a_network_is_made(recipe):
    spec = Spec("image", Tensors((3, 5000, 5000)))
    run = run_of(recipe)
    if hasattr(run.model.net, "blocks"):  # one of each kind: a deeper network takes longer to say the same
        run = replace(run, model=replace(run.model, net=replace(run.model.net, blocks=1)))
    with pytest.raises(BowerbirdError, match=r"A step needs about [\d.]+ GB.* --data\.size"):
        require_room(lambda: run.model.build(spec), spec, torch.device("cpu"), 16, 1)


def test_the_guard_of_large_pictures_measures_what_the_probe_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE_EXAMPLE", 1)
    needed: list[int] = []
    monkeypatch.setattr(module, "require", lambda device, n_bytes, *_: needed.append(n_bytes))
    trainer = trainer_of(run_of("flow", batch_size=16), tmp_path / "run")
    assert needed[0] == pytest.approx(trainer.cost.memory, rel=0.1)


def test_data_size_5000_takes_no_memory(tmp_path):
    """In a process of its own, whose peak is measured."""
    code = (
        "import resource, sys, bowerbird\n"
        "start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    bowerbird.train('flow', out=sys.argv[1], data='digits', quiet=True, **{'data.size': 5000})\n"
        "except bowerbird.BowerbirdError as error:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown, sentence = done.stdout.split(" ", 1)
    assert "--data.size" in sentence and int(grown) < 300_000  # kB; one picture in float32 takes 100,000
    assert not (tmp_path / "run").exists()
