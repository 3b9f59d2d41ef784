"""Latent models: another family over the codes of an autoencoder that was trained before."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import bowerbird
from bowerbird import api, config
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch
from bowerbird.models.latent import Latent
from bowerbird.nets.grid import GridConfig
from bowerbird.spec import Classes, Spec, Tensors

VAE = {"family": "vae", "net": {"name": "grid", "channels": 8, "patch": 2}, "n_latent": 32}
FLOW = {"family": "flow", "net": {"name": "dit", "n_layer": 1, "n_head": 2, "n_embd": 16, "patch": 1}}
SPEC = Spec("image", Tensors((3, 16, 16)), {"label": Classes(("a", "b"))})


def latent(spec: Spec = SPEC, autoencoder: dict[str, Any] = VAE, prior: dict[str, Any] = FLOW) -> Latent:
    torch.manual_seed(0)
    return config.model_from({"family": "latent", "autoencoder": autoencoder, "prior": prior}, "test").build(spec)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(12):
        Image.fromarray(np.full((16, 16, 3), 20 * i, np.uint8)).save(folder / f"{i}.png")
    return folder


def trained(model: dict[str, Any], pictures: Path, folder: Path, start: Path | None = None) -> Path:
    run = config.run_from({"model": model, "data": {"source": str(pictures)}}, "test")
    small = {"train.steps": 2, "train.batch_size": 4, "train.threads": 1, "train.precision": "fp32"}
    return bowerbird.train(config.with_settings(run, small), folder, start=start, quiet=True)


def test_the_autoencoder_of_another_run_is_taken_and_stays_as_it_is(pictures: Path, tmp_path: Path) -> None:
    first = trained(VAE, pictures, tmp_path / "vae")
    table = {"family": "latent", "autoencoder": VAE, "prior": FLOW}
    model = api.load(trained(table, pictures, tmp_path / "latent", start=first))
    autoencoder = api.load(first)
    assert isinstance(model, Latent)
    for name, weight in autoencoder.state_dict().items():
        assert torch.equal(model.state_dict()[f"autoencoder.{name}"], weight), name
    again = api.load(trained(table, pictures, tmp_path / "again", start=tmp_path / "latent"))
    assert torch.equal(again.state_dict()["autoencoder.encoder.first.weight"], autoencoder.encoder.first.weight)


def test_without_a_trained_autoencoder_there_is_nothing_to_learn(pictures: Path, tmp_path: Path) -> None:
    table = {"family": "latent", "autoencoder": VAE, "prior": FLOW}
    with pytest.raises(
        BowerbirdError, match=r"The autoencoder of this model is trained by a run of its own; .*--start"
    ):
        trained(table, pictures, tmp_path / "latent")
    assert not (tmp_path / "latent").exists()


def test_samples_are_decoded_codes() -> None:
    model, given = latent().eval(), {"label": torch.tensor([0, 1])}
    x = model.sample(2, given, model.Options(steps=2), Draws(3))
    z = model.prior.sample(2, given, model.Options(steps=2), Draws(3))
    assert z.shape == (2, 2, 4, 4)
    torch.testing.assert_close(x, model.autoencoder.decode((z * model.unit).flatten(1)).clamp(-1, 1))


def test_a_loss_is_that_of_the_codes_and_moves_the_prior_alone() -> None:
    model = latent()
    batch = Batch(torch.rand(4, 3, 16, 16) * 2 - 1, {"label": torch.tensor([0, 1, 1, 0])})
    torch.manual_seed(1)
    (loss,) = model.losses(batch)
    torch.manual_seed(1)
    (same,) = model.prior.losses(batch._replace(x=model.codes(batch.x)))
    assert torch.equal(loss.value, same.value)
    assert {id(p) for p in model.parameters()} == {id(p) for p in model.prior.parameters()}


def test_codes_are_in_units_of_what_the_decoder_bears() -> None:
    model, x = latent(), torch.rand(8, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        model.autoencoder.encoder.last.bias[2:] = torch.tensor([-4.0, 0.0])  # log-variances of the two features
    own = model.codes(x)
    next(model.losses(Batch(x, {"label": torch.zeros(8, dtype=torch.long)})))
    codes = model.codes(x)
    torch.testing.assert_close(codes.square().mean(), torch.tensor(1.0))
    ratio = (codes / own).mean((0, 2, 3))
    assert float(ratio[0] / ratio[1]) == pytest.approx(float(torch.tensor(2.0).exp()), rel=0.2)
    before = model.unit.clone()
    next(model.losses(Batch(x / 2, {"label": torch.zeros(8, dtype=torch.long)}, step=1)))
    assert torch.equal(model.unit, before)


def test_codes_without_places_are_one_place() -> None:
    convnet = VAE | {"net": {"name": "convnet", "channels": 8, "n_hidden": 16}, "n_latent": 12}
    model = latent(autoencoder=convnet)
    assert model.codes(torch.zeros(2, 3, 16, 16)).shape == (2, 12, 1, 1)
    assert model.sample(2, options=model.Options(steps=2)).shape == (2, 3, 16, 16)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(BowerbirdError, match=r"has no codes; use a family that has, such as vae\."):
        latent(autoencoder=FLOW)
    with pytest.raises(BowerbirdError, match=r"codes of the given source too, .*use its prior by itself\."):
        latent(replace(SPEC, given={"source": Tensors((1, 16, 16))}))
    with pytest.raises(BowerbirdError, match=r"4×4 positions .* 40 numbers .* multiple of 16, such as .*n_latent = 32"):
        GridConfig(channels=8, patch=2).decoder(SPEC, 40, 3)
    with pytest.raises(BowerbirdError, match=r"test: \[model.prior\] needs family = one of .*flow"):
        latent(prior={"net": {"name": "dit"}})
