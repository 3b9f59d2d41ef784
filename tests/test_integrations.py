"""Trainings by Lightning, by the Trainer of transformers, and by a plain loop: healthy ones give no finding, broken
ones are named, and watching changes nothing."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import bowerbird
from bowerbird.diagnosis.finding import Finding
from bowerbird.errors import BowerbirdError
from bowerbird.integrations import LoopWatch, Probes
from bowerbird.integrations.loop import in_words_of_any_loop
from bowerbird.measuring.plain import measure_texts
from later import later

lightning = later("lightning_modules")


def causes(folder: Path) -> list[str]:
    return [finding.cause for finding in bowerbird.diagnose(folder)]


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes reports, which take longer than the trainings, only for tests that ask for them."""
    torch.manual_seed(0)
    if "report" not in request.fixturenames:
        monkeypatch.setattr("bowerbird.integrations.loop.write_run_report", lambda folder: None)


@pytest.fixture
def report() -> str:
    """The name of the report, which is then written."""
    return "report.html"


# ------------------------------------------------------------------------------------------------ Lightning


def test_a_healthy_gan_gives_no_finding_and_the_report_of_a_run(tmp_path: Path, capsys, report: str) -> None:
    probes = Probes(sample=lambda gan, n: gan.generator(torch.randn(n, 16)))
    lightning.fit(lightning.GAN(), lightning.LightningWatch(tmp_path / "gan", probes))
    assert causes(tmp_path / "gan") == [] and "found" not in capsys.readouterr().err
    last = rows(tmp_path / "gan")[-1]
    assert last["step"] == lightning.STEPS and last["examples"] == lightning.STEPS * lightning.BATCH
    assert 0.3 < last["discriminator/accuracy"] < 0.98 and last["generator/loss"] > 0
    *_, before, seen = rows(tmp_path / "gan", "signals.jsonl")
    assert 0.1 < seen["samples"]["diversity"] < 3 and before["layers"].keys() == {"generator", "discriminator"}
    page = (tmp_path / "gan" / report).read_text()
    assert "GAN (Lightning)" in page and page.count("data:image/png") >= 2 and "discriminator" in page


def test_a_collapsed_generator_is_named(tmp_path: Path, capsys) -> None:
    lightning.fit(lightning.GAN("collapsed"), lightning.LightningWatch(tmp_path / "gan"))
    assert "mode-collapse" in causes(tmp_path / "gan")
    said = capsys.readouterr().err
    assert "The samples are (nearly) all the same" in said and f"bowerbird diagnose {tmp_path / 'gan'}" in said


def test_a_saturated_critic_is_named_and_advised_in_words_of_any_loop(tmp_path: Path) -> None:
    lightning.fit(lightning.GAN("saturated"), lightning.LightningWatch(tmp_path / "gan"))
    (root, *_others) = bowerbird.diagnose(tmp_path / "gan")
    assert root.cause == "critic-wins"
    assert "penalise its gradient: r1_gamma 1 penalty_every 8" in root.advice


def test_a_learning_rate_too_high_is_named_before_the_nan_that_it_leads_to(tmp_path: Path) -> None:
    lightning.fit(lightning.VAE(lr=30.0), lightning.LightningWatch(tmp_path / "vae"), steps=64)
    found = {finding.cause: finding for finding in bowerbird.diagnose(tmp_path / "vae")}
    assert next(iter(found)) == "learning-rate-too-high"
    assert "lr 3 (now 30)" in found["learning-rate-too-high"].advice[0]


def test_a_nan_is_named_with_its_parameter(tmp_path: Path) -> None:
    vae = lightning.VAE()
    vae.decoder.register_forward_hook(lambda module, inputs, output: output * (math.nan if vae.global_step == 9 else 1))
    lightning.fit(vae, lightning.LightningWatch(tmp_path / "vae"), steps=16)
    (found,) = bowerbird.diagnose(tmp_path / "vae")
    assert found.cause == "non-finite" and found.evidence[0].last_step == 9
    assert "the gradient of model's parameter 'encoder.1.0.weight' is not finite (NaN" in found.evidence[0].text


def test_posterior_collapse_is_named_and_a_healthy_vae_is_not(tmp_path: Path) -> None:
    x = lightning.pictures(64)
    probes = Probes(posterior=lambda vae: vae.posterior(x), every=20)
    lightning.fit(lightning.VAE(), lightning.LightningWatch(tmp_path / "healthy", probes), validate=True)
    assert causes(tmp_path / "healthy") == []
    last = rows(tmp_path / "healthy")[-1]
    assert last["model/active_units"] >= 3 and last["model/kl"] > 3
    assert [row["step"] for row in rows(tmp_path / "healthy") if "model/val_loss" in row] == [64, 128, 192]
    lightning.fit(lightning.VAE(beta=3000.0), lightning.LightningWatch(tmp_path / "collapsed", probes))
    assert causes(tmp_path / "collapsed")[0] == "posterior-collapse"


def test_watching_changes_nothing(tmp_path: Path) -> None:
    alone, watched = lightning.GAN(), lightning.GAN()
    watched.load_state_dict(alone.state_dict())
    torch.manual_seed(1)
    lightning.fit(alone, steps=48)
    torch.manual_seed(1)
    probes = Probes(sample=lambda gan, n: gan.generator(torch.randn(n, 16)), every=5)
    lightning.fit(watched, lightning.LightningWatch(tmp_path / "gan", probes, log_every=2), steps=48)
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), watched.parameters(), strict=True))
    assert watched.training and not watched.generator._forward_hooks


# ------------------------------------------------------------------------------------------------ plain loops


def regression(lr: float, folder: Path, **told) -> LoopWatch:
    net, x = lightning.perceptron(4, 32, 1), torch.randn(64, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr)
    watch = LoopWatch(folder, net, [optimizer], steps=60, log_every=5, **told)
    for _ in range(60):
        loss = (net(x) - x.prod(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        watch.backward(loss)
        loss.backward()
        optimizer.step()
        watch.step_done()
    return watch


def test_a_plain_loop_is_watched_and_measured(tmp_path: Path, report: str) -> None:
    texts = ["the cat sat on the mat"] * 4

    def measure(_net):
        return measure_texts(texts, texts, texts, metrics=["distinct_1"])

    regression(0.05, tmp_path / "loop", probes=Probes(measure=measure)).close()
    assert [row["step"] for row in rows(tmp_path / "loop")][:6] == [1, 2, 3, 5, 10, 15]
    assert "barely-trained" in causes(tmp_path / "loop")
    (one,) = json.loads((tmp_path / "loop" / "measurements.json").read_text())["measurements"]
    assert one["name"] == "distinct_1" and "Distinct" in (tmp_path / "loop" / report).read_text()


def test_the_folder_must_be_new_and_the_optimisers_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BowerbirdError, match="is not empty; choose a new folder"):
        regression(0.1, tmp_path)
    with pytest.raises(BowerbirdError, match="no optimiser to watch yet"):
        LoopWatch(tmp_path / "new", nn.Linear(1, 1), [])
    assert not (tmp_path / "new").exists()


def test_advice_keeps_no_flag_of_our_command_line() -> None:
    finding = Finding("x", "X", 0.9, (), ("lower it: --train.lr 0.1 (now 1), or look for it: --find-lr",), "")
    finding = replace(finding, advice=(*finding.advice, "normalise: --model.net.norm group, --train.clip-norm 1"))
    assert in_words_of_any_loop(finding).advice == ("lower it: lr 0.1 (now 1)", "normalise: norm group, clip_norm 1")


# ------------------------------------------------------------------------------------------------ transformers


def language_model(vocabulary: int = 16):
    transformers = pytest.importorskip("transformers")
    shape = transformers.GPT2Config(
        vocab_size=vocabulary, n_positions=16, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(shape)


def sequences(n: int = 64) -> list[dict[str, Tensor]]:
    """Each counts upwards from where it begins, modulo 16."""
    return [{"input_ids": (ids := (torch.arange(16) + i) % 16), "labels": ids} for i in range(n)]


def train_with_trainer(folder: Path, lr: float, steps: int = 220) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="the Trainer of transformers needs accelerate")
    from bowerbird.integrations.huggingface import TrainerWatch

    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "theirs"), max_steps=steps, learning_rate=lr, per_device_train_batch_size=8,
        logging_steps=20, eval_strategy="steps", eval_steps=40, save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True, warmup_steps=10, max_grad_norm=0.0,
    )  # fmt: skip
    transformers.Trainer(
        language_model(), arguments, train_dataset=sequences(), eval_dataset=sequences(8),
        callbacks=[TrainerWatch(folder / "ours")],
    ).train()  # fmt: skip


def test_a_healthy_language_model_of_the_trainer_gives_no_finding(tmp_path: Path, report: str) -> None:
    train_with_trainer(tmp_path, 3e-3)
    assert causes(tmp_path / "ours") == []
    logged = {row["step"]: row for row in rows(tmp_path / "ours")}
    assert logged[200]["model/loss"] < 0.5 < logged[20]["model/loss"] and "model/val_loss" in logged[200]
    assert "GPT2LMHeadModel (transformers)" in (tmp_path / "ours" / report).read_text()


def test_a_learning_rate_too_high_is_named_under_the_trainer(tmp_path: Path) -> None:
    train_with_trainer(tmp_path, 30.0, steps=60)
    assert causes(tmp_path / "ours")[0] == "learning-rate-too-high"


def test_the_callback_hears_what_the_trainer_says(tmp_path: Path) -> None:
    """The events in the Trainer's order, without accelerate, which the Trainer needs."""
    transformers = pytest.importorskip("transformers")
    from transformers.trainer_callback import CallbackHandler

    from bowerbird.integrations.huggingface import TrainerWatch

    model = language_model()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    handler = CallbackHandler([TrainerWatch(tmp_path / "ours")], model, None, optimizer, None)
    arguments = transformers.TrainingArguments.__new__(transformers.TrainingArguments)
    arguments.__dict__ |= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "_n_gpu": 0}
    state, control = transformers.TrainerState(max_steps=40), transformers.TrainerControl()
    ids = torch.stack([one["input_ids"] for one in sequences(8)])
    state.is_world_process_zero = True
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("world_size", 1), ("train_batch_size", 8)):
            patch.setattr(type(arguments), name, value)
        handler.on_train_begin(arguments, state, control)
        for step in range(1, 41):
            handler.on_step_begin(arguments, state, control)
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            handler.on_step_end(arguments, state, control)
            if step % 20 == 0:
                handler.on_log(arguments, state, control, {"loss": loss.item(), "learning_rate": 3e-3})
        handler.on_train_end(arguments, state, control)
    logged = {row["step"]: row for row in rows(tmp_path / "ours")}
    assert logged[40]["model/loss"] == pytest.approx(loss.item()) and logged[40]["examples"] == 320
    assert "data_share" in rows(tmp_path / "ours", "signals.jsonl")[-1]
