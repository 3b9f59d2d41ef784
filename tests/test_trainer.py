"""The trainer with toy families whose right answers are known."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bowerbird import config, machine, registry
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.media.image.imageset import ImageData, ImageSet
from bowerbird.models.base import Batch, GenerativeModel, Loss
from bowerbird.models.gan import GANConfig
from bowerbird.models.vae import VAEConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.spec import Spec, Tensors
from bowerbird.training.optimizers import MovingAverage, PlayerOptimizer, learning_rate, orthogonal
from bowerbird.training.preflight import preflight
from bowerbird.training.rundir import RunDir, load_model
from bowerbird.training.trainer import VALIDATION_EXAMPLES, Trainer, resume, train

SPEC = Spec("image", Tensors((1, 2, 2)))


@registry.families.register("toy-game")
@dataclass(frozen=True)
class GameConfig(config.ModelConfig):
    """Two players whose order of steps can be read off their parameters."""

    d_steps: int = 2
    poison: str = ""

    def build(self, spec: Spec) -> "Game":
        return Game(self, spec)


class Player(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(1))


class Game(GenerativeModel):
    def __init__(self, config: GameConfig, spec: Spec):
        super().__init__()
        self.config, self.spec = config, spec
        self.D, self.G = Player(), Player()
        self.register_buffer("count", torch.zeros(()))
        self.seen: list[Tensor] = []

    @property
    def players(self) -> dict[str, nn.Module]:
        return {"D": self.D, "G": self.G}

    @property
    def sampling_network(self) -> nn.Module:
        return self.G

    def losses(self, batch: Batch) -> Iterator[Loss]:
        self.count += 1
        for _ in range(self.config.d_steps):
            self.seen.append(self.D.inner.weight.detach().clone())
            yield Loss("D", (self.D(batch.x) - self.G(batch.x)).square().mean(), {"count": self.count.clone()})
        self.seen.append(self.D.inner.weight.detach().clone())
        value = self.D(batch.x).mean() + self.G(batch.x).square().mean()
        if self.config.poison == "module" and batch.step == 3:
            with torch.no_grad():
                self.G.inner.bias.data = self.G.inner.bias.data.clone()  # weights stay finite; the output does not
            value = self.G(batch.x * torch.inf).mean()
        if self.config.poison == "gradient" and batch.step == 3:
            value = value + (self.G.inner.bias * 0).sqrt().sum()
        yield Loss("G", value)

    def sample(self, n: int, given=None, options=None, generator=None) -> Tensor:
        return torch.zeros(n, *self.spec.target.shape)


@pytest.fixture
def data() -> ImageData:
    images = torch.randint(0, 256, (64, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    part = ImageSet(images)
    return ImageData(
        name="toy", spec=SPEC, train=part, val=part, test=part, preprocessing={}, skipped=0, fingerprint="toy"
    )


def toy_run(**changes) -> config.Run:
    values = dict(
        steps=6, batch_size=8, lr=0.1, threads=1, device="cpu", sample_every=0, checkpoint_every=2, log_every=1
    )
    model = GameConfig(**{k: changes.pop(k) for k in list(changes) if k in ("d_steps", "poison")})
    return config.Run(model, train=config.Train(**(values | changes)))


def trainer_for(run: config.Run, data: ImageData, folder: Path) -> Trainer:
    return Trainer(run, RunDir.create(folder, run, {}), data, quiet=True)


def test_each_loss_sees_the_players_already_stepped(data, tmp_path):
    trainer = trainer_for(toy_run(d_steps=3), data, tmp_path / "run")
    trainer.model.seen.clear()
    before = trainer.model.G.inner.weight.detach().clone()
    trainer.train_step()
    weights = trainer.model.seen
    assert len(weights) == 4
    assert all(not torch.equal(a, b) for a, b in pairwise(weights))
    assert torch.equal(weights[-1], trainer.model.D.inner.weight)  # G's loss moved no parameter of D
    assert not torch.equal(before, trainer.model.G.inner.weight)
    assert all(p.grad is None for p in trainer.model.parameters())


def test_accumulated_micro_batches_equal_one_batch(data, tmp_path):
    whole = trainer_for(toy_run(accumulate=1), data, tmp_path / "whole")
    parts = trainer_for(toy_run(accumulate=4), data, tmp_path / "parts")
    for _ in range(3):
        logs, other = whole.train_step(), parts.train_step()
    for a, b in zip(whole.model.D.parameters(), parts.model.D.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logs["D/loss"], other["D/loss"], atol=1e-5, rtol=1e-5)


def test_a_loss_that_is_not_finite_is_seen_before_any_weight_moves(data, tmp_path, monkeypatch):
    """Also when it is that of the last micro-batch, and its gradients are finite."""
    trainer = trainer_for(toy_run(accumulate=4), data, tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    losses, calls = trainer.model.losses, iter(range(100))

    def poisoned(batch: Batch) -> Iterator[Loss]:
        offset = torch.inf if next(calls) == 3 else 0.0
        return (loss._replace(value=loss.value + offset) for loss in losses(batch))

    monkeypatch.setattr(trainer.model, "losses", poisoned)
    with pytest.raises(RunFailed, match="step 0: D's loss is not finite"):
        trainer.train_step()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())


def test_logged_scalars_are_those_of_each_loss(data, tmp_path):
    trainer = trainer_for(toy_run(), data, tmp_path / "run")
    logs = {"D/loss": torch.tensor(0.1), "half": torch.tensor(0.5, dtype=torch.bfloat16), "lr": torch.tensor(2e-4)}
    assert trainer._fetched(logs) == {name: value.float().item() for name, value in logs.items()}


def test_preflight_leaves_the_model_as_it_was(data, tmp_path):
    trainer = trainer_for(toy_run(), data, tmp_path / "run")
    assert trainer.model.count == 0
    # D(x) three times and G(x) three times in each pass; 2 FLOPs per weight and example, backward counted by torch
    assert trainer.cost.flops_per_step > 0
    assert trainer.cost.parameters == 10


def test_a_frozen_parameter_of_a_player_stays_as_it_is(data, tmp_path):
    class Frozen(GameConfig):
        def build(self, spec: Spec) -> Game:
            game = Game(self, spec)
            game.D.inner.bias.requires_grad_(False)
            return game

    registry.families.register("frozen-game")(Frozen)
    train(config.Run(Frozen(), train=config.Train(steps=2)), tmp_path / "run", data, quiet=True)
    trained, _ = load_model(tmp_path / "run")
    torch.manual_seed(0)
    untrained = Frozen().build(data.spec)
    assert torch.equal(trained.D.inner.bias, untrained.D.inner.bias)
    assert not torch.equal(trained.D.inner.weight, untrained.D.inner.weight)


def test_preflight_refuses_what_cannot_fit(data, tmp_path, monkeypatch):
    monkeypatch.setattr("bowerbird.training.preflight.available_memory", lambda device: 100)
    with pytest.raises(BowerbirdError, match=r"--train.batch-size"):
        trainer_for(toy_run(), data, tmp_path / "run")


def test_preflight_scales_operations_with_the_batch(data, tmp_path):
    model = GameConfig().build(SPEC)
    x = data.train.batch(torch.arange(32))["x"]

    def cost(size: int, accumulate: int) -> float:
        return preflight(
            model, lambda n: Batch(x[:n]), size, accumulate, lambda: torch.autocast("cpu", enabled=False)
        ).flops_per_step

    assert cost(32, 1) == 2 * cost(16, 1) == cost(16, 2)


@pytest.mark.parametrize(
    "budget, steps",
    [({"steps": 6}, 6), ({"examples": 40}, 5), ({"steps": 4, "examples": 80}, 4), ({"seconds": 1e-9}, 1)],
)
def test_the_first_budget_reached_ends_the_run(budget, steps, data, tmp_path):
    result = train(toy_run(**({"steps": None} | budget)), tmp_path / "run", data, quiet=True)
    assert (result.step, result.finished) == (steps, True)
    assert RunDir(tmp_path / "run").status()["examples"] == 8 * steps


def test_a_run_without_end_is_refused(data, tmp_path):
    with pytest.raises(BowerbirdError, match="No budget is set"):
        train(toy_run(steps=None), tmp_path / "run", data, quiet=True)
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_never_overwritten(data, tmp_path):
    train(toy_run(), tmp_path / "run", data, quiet=True)
    with pytest.raises(BowerbirdError, match="already holds a run"):
        train(toy_run(), tmp_path / "run", data, quiet=True)


def test_the_finished_run_loads_with_averaged_weights(data, tmp_path):
    train(toy_run(ema_decay=0.5), tmp_path / "run", data, quiet=True)
    model, spec = load_model(tmp_path / "run")
    state = RunDir(tmp_path / "run").load_state()
    assert spec == SPEC and not model.training
    assert torch.equal(model.D.inner.weight, state["average/D.inner.weight"])
    assert not torch.equal(model.D.inner.weight, state["model/D.inner.weight"])


@pytest.mark.parametrize("poison, names", [("module", "'G.inner' .Linear."), ("gradient", "'inner.bias'")])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_origin(poison, names, data, tmp_path):
    with pytest.raises(RunFailed, match=rf"step 3: .*{names}.*checkpoint of step 2 is kept"):
        train(toy_run(poison=poison), tmp_path / "run", data, quiet=True)
    state = RunDir(tmp_path / "run").load_state()
    assert all(torch.isfinite(value).all() for value in state.values())
    assert RunDir(tmp_path / "run").status()["step"] == 2


def test_a_full_disk_is_one_sentence_and_loses_nothing(data, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    save = RunDir.save_state

    def full_at_step_four(self, tensors, counters, record):
        if counters["step"] == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, tensors, counters, record)

    monkeypatch.setattr(RunDir, "save_state", full_at_step_four)
    with pytest.raises(RunFailed, match="disk is full.*bowerbird resume"):
        train(toy_run(), folder, data, quiet=True)
    assert RunDir(folder).status()["step"] == 2
    monkeypatch.setattr(RunDir, "save_state", save)
    assert resume(folder, data, quiet=True).finished


def test_a_device_that_is_not_there_is_one_sentence():
    with pytest.raises(BowerbirdError, match="cuda:99.*not on this machine"):
        machine.resolve_device("cuda:99")
    with pytest.raises(BowerbirdError, match="'abacus' is not a device"):
        machine.resolve_device("abacus")


def test_learning_rates_of_unknown_players_are_refused(data, tmp_path):
    with pytest.raises(BowerbirdError, match="names the player 'E', but the players are D, G"):
        trainer_for(toy_run(lr_multiplier={"E": 2.0}), data, tmp_path / "run")


def test_learning_rate():
    train_config = config.Train(warmup_steps=10, schedule="cosine")
    assert learning_rate(train_config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(train_config, 9, 0.0) == pytest.approx(1.0)
    assert learning_rate(train_config, 99, 0.5) == pytest.approx(0.5)
    assert learning_rate(train_config, 99, 1.0) == pytest.approx(0.0)
    assert learning_rate(replace(train_config, schedule="constant"), 99, 1.0) == 1.0


def test_moving_average_is_the_closed_form():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = MovingAverage(model, 0.9)
    nn.init.ones_(model.weight)
    for step in range(1000, 1005):  # past the warm-up
        average.update(step)
    assert average.average["weight"].item() == pytest.approx(1 - 0.9**5, rel=1e-5)
    with average.applied():
        assert model.weight.item() == pytest.approx(1 - 0.9**5, rel=1e-5)
        assert not model.training
    assert model.weight.item() == 1.0 and model.training


def test_a_young_moving_average_forgets_its_start_faster():
    """The decay of step k is (1+k)/(10+k) as long as that is smaller: after n steps (2·3·…)/(11·12·…) is left."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = MovingAverage(model, 0.999)
    nn.init.ones_(model.weight)
    for step in range(1, 4):
        average.update(step)
    left = 2 / 11 * 3 / 12 * 4 / 13
    assert average.average["weight"].item() == pytest.approx(1 - left, rel=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
def test_optimizers_descend_and_restore_their_state(name):
    torch.manual_seed(1)
    goal = [torch.randn_like(p) for p in nn.Sequential(nn.Linear(8, 8), nn.Conv2d(1, 2, 3)).parameters()]

    def quadratic():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(8, 8), nn.Conv2d(1, 2, 3)).to(memory_format=torch.channels_last)
        return module, PlayerOptimizer("p", module, config.Train(optimizer=name, lr=0.05))

    def steps(module, optimizer, n):
        values = []
        for _ in range(n):
            value = sum((p - p_goal).square().sum() for p, p_goal in zip(module.parameters(), goal, strict=True))
            value.backward()
            optimizer.step(1.0, optimizer.gradient_norm())
            optimizer.zero_grad()
            values.append(value.item())
        return values

    module, optimizer = quadratic()
    values = steps(module, optimizer, 60)
    assert values[-1] < 0.7 * values[0]

    first, second = quadratic(), quadratic()
    steps(*first, 6)
    steps(*second, 3)
    third = quadratic()
    third[0].load_state_dict(second[0].state_dict())
    third[1].load_state({k: v.contiguous() for k, v in second[1].state().items()})
    steps(*third, 3)
    for a, b in zip(first[0].parameters(), third[0].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_muon_steps_are_nearly_orthogonal(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert values.min() > 0.6 and values.max() < 1.3
    # the singular vectors stay: what is left of u v^T is diagonal and positive
    assert torch.einsum("ij,ij->", orthogonal(matrix), u @ v) / min(shape) > 0.7


def test_gradients_are_clipped_to_the_norm():
    module = nn.Linear(4, 1, bias=False)
    nn.init.zeros_(module.weight)
    optimizer = PlayerOptimizer("p", module, config.Train(lr=1.0, clip_norm=0.5))
    module.weight.grad = torch.full_like(module.weight, 3.0)
    norm = optimizer.gradient_norm()
    optimizer.step(0.0, norm)
    assert norm.item() == pytest.approx(6.0)  # what is reported is the norm before clipping
    assert module.weight.grad.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_compile_is_refused_where_a_loss_holds_a_gradient(data, tmp_path):
    model = GANConfig(net=MLPConfig(hidden=(4,)), r1_gamma=1.0)
    with pytest.raises(BowerbirdError, match="gradient penalties"):
        train(config.Run(model, train=config.Train(steps=1, compile=True)), tmp_path / "run", data)


def test_validation_losses_are_those_of_the_averaged_weights(data, tmp_path):
    run = config.Run(
        VAEConfig(net=MLPConfig(hidden=(4,)), n_latent=2),
        train=config.Train(steps=4, batch_size=8, validate_every=2, log_every=2, ema_decay=0.5, precision="fp32"),
    )
    train(run, tmp_path / "run", data, quiet=True)
    rows = RunDir(tmp_path / "run").metrics()
    model, _ = load_model(tmp_path / "run")
    torch.manual_seed(0)
    examples = torch.linspace(0, len(data.val) - 1, min(len(data.val), VALIDATION_EXAMPLES)).long()
    parts = [(len(at), next(model.losses(Batch(**data.val.batch(at), step=4))).value) for at in examples.split(8)]
    expected = sum(n * float(value) for n, value in parts) / len(examples)
    assert [row["step"] for row in rows if "model/val_loss" in row] == [2, 4]
    assert rows[-1]["model/val_loss"] == pytest.approx(expected, rel=1e-5)


def test_validation_needs_one_player(data, tmp_path):
    run = config.Run(GameConfig(), train=config.Train(steps=1, validate_every=1))
    with pytest.raises(BowerbirdError, match="2 players"):
        train(run, tmp_path / "run", data)


def test_files_are_readable_as_the_user_wants(data, tmp_path):
    mask = os.umask(0o027)
    try:
        train(config.Run(GameConfig(), train=config.Train(steps=1)), tmp_path / "run", data, quiet=True)
    finally:
        os.umask(mask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").glob("*.*") if path.is_file()}
    assert modes["model.safetensors"] == modes["run.toml"] == 0o640
