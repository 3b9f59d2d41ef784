"""Measuring end to end on the digits that ship: real digits score as real, copies as copies, noise as noise."""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from bowerbird import api, cli, config, generating, registry
from bowerbird.draws import Draws
from bowerbird.eightbit import to_float
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.generating import draw
from bowerbird.measuring import selftest
from bowerbird.measuring.extractors import as_digits, choose, find_extractor
from bowerbird.measuring.folders import measure_folder
from bowerbird.measuring.offers import protocol_of
from bowerbird.measuring.plain import measure_images
from bowerbird.measuring.request import Measuring
from bowerbird.measuring.selftest import require_quick
from bowerbird.measuring.trained import measure_model
from bowerbird.media import open_data
from bowerbird.media.image.imageset import ImageData
from bowerbird.metrics import closed_forms
from bowerbird.metrics.chosen import subset
from bowerbird.metrics.closed_forms import Check, quick_checks
from bowerbird.metrics.features import Digits
from bowerbird.metrics.measurement import Measurement
from bowerbird.models.base import Batch, Estimator, GenerativeModel, Loss, Options
from bowerbird.spec import Tensors

SHARES = {"precision", "recall", "density", "coverage"}
MEMORISATION = {"copied_fraction", "memorisation_ratio", "closer_to_training"}
COST = {"network_evaluations", "seconds_per_image"}


@pytest.fixture(scope="module")
def data() -> ImageData:
    return open_data(config.Data(source="digits"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of this module's own, shared by its tests because features of 10,000 digits take a second."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOWERBIRD_CACHE", str(folder))
        yield folder


@dataclasses.dataclass(frozen=True)
class Twisted(Options):
    twist: int = 0
    """How far the class that is drawn lies from the one that is asked for."""


class Replay(GenerativeModel):
    """A model that has learnt its images by heart; drawing one calls its network twice."""

    Options = Twisted

    def __init__(self, data: ImageData, images: Tensor, labels: Tensor | None) -> None:
        super().__init__()
        self.spec = data.spec
        self.images, self.labels = images, labels
        self.network = nn.Conv2d(1, 1, 1)
        nn.init.ones_(self.network.weight)
        nn.init.zeros_(self.network.bias)

    def losses(self, batch: Batch) -> Iterator[Loss]:
        raise NotImplementedError

    def sample(self, n: int, given: Any = None, options: Any = None, generator: Draws | None = None) -> Tensor:
        assert not self.training and not torch.is_grad_enabled() and generator is not None
        u = generator.rand(n)
        if self.labels is None:
            rows = (u * len(self.images)).long()
        else:
            wanted = (given["label"] + options.twist) % 10
            rows = torch.stack([self._one(int(k), float(v)) for k, v in zip(wanted, u, strict=True)])
        return self.network(self.network(to_float(self.images[rows])))

    def _one(self, label: int, u: float) -> Tensor:
        assert self.labels is not None
        found = (self.labels == label).nonzero()[:, 0]
        return found[int(u * len(found))]

    @property
    def sampling_network(self) -> nn.Module:
        return self.network


class Uniform(Replay):
    """Knows that pixels are uniform: log_prob = -dims · ln 256 of the discrete values."""

    @property
    def estimators(self) -> dict[str, Estimator]:
        return {"nll": Estimator("exact", self.log_prob)}

    def log_prob(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        assert len(batch.given["label"]) == len(batch.x)
        return torch.full((len(batch.x),), -self.spec.needs(Tensors, "uniform").dims * math.log(256))


def by_name(measurements: list[Measurement]) -> dict[str, Measurement]:
    return {m.name: m for m in measurements}


def image_metrics(data: ImageData, samples: Tensor, cache: Path, *metrics: str) -> dict[str, Measurement]:
    found = measure_images(
        samples, data.test.images, extractor=find_extractor("digits"), metrics=metrics, training=data.train.images,
        held_out=data.val.images, protocol=protocol_of(data, "test"),
    )  # fmt: skip
    return by_name(found)


def test_classifier_recognises_the_test_digits(data: ImageData) -> None:
    choice = choose("auto", data)
    assert choice is not None and not choice.caveat
    network = choice.load()
    assert isinstance(network, Digits) and data.test.given["label"] is not None
    assert float((network.classify(data.test.images) == data.test.given["label"]).double().mean()) >= 0.992


def test_digit_features_are_standardised(data: ImageData) -> None:
    """Mean 0, variance 1 over the training digits: the scale on which Fréchet distances are read."""
    features = find_extractor("digits").features(subset(data.train.images, 4000))
    assert float(features.mean(0).abs().max()) < 0.1
    assert float((features.std(0) - 1).abs().max()) < 0.1


def test_real_digits_score_as_real_and_noise_as_noise(data: ImageData, cache: Path) -> None:
    n = len(data.test.images)
    wanted = ("frechet_distance", "precision", "recall", "density", "coverage")
    real = image_metrics(data, subset(data.train.images, n), cache, *wanted)
    noise = torch.randint(256, (n, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    worse = image_metrics(data, noise, cache, *wanted)
    assert real["frechet_distance"].value < 2 < 30 < worse["frechet_distance"].value
    assert min(real[name].value for name in ("precision", "recall", "density", "coverage")) > 0.8
    assert worse["precision"].value < 0.05 and worse["coverage"].value < 0.05
    assert real["frechet_distance"] < worse["frechet_distance"]
    protocol = real["frechet_distance"].protocol
    assert (protocol.n_generated, protocol.n_reference, protocol.split) == (n, n, "test")
    assert protocol.extractor_sha256 == find_extractor("digits").sha256 and protocol.fingerprint == data.fingerprint


def test_blur_is_worse_the_more_of_it(data: ImageData, cache: Path) -> None:
    x = subset(data.train.images, 1500).float()
    distances = []
    for kernel in (1, 3, 5, 7):
        blurred = nn.functional.avg_pool2d(x, kernel, 1, kernel // 2).round().byte()
        distances.append(image_metrics(data, blurred, cache, "frechet_distance")["frechet_distance"].value)
    assert distances == sorted(distances) and distances[-1] > 5 * distances[0]


def test_a_model_that_learnt_by_heart_is_found_out(
    data: ImageData, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generating, "PICTURES_AT_ONCE", 150)  # several batches, the last one ragged
    model = Replay(data, data.train.images, data.train.given["label"]).train()
    with pytest.warns(UserWarning, match="400 images are few"):
        found = by_name(measure_model(model, data, Measuring(n_samples=400)))
    assert model.training
    assert list(found) == [name for name in registry.metrics.names() if name in found]
    assert set(found) == {"frechet_distance", "kid", *SHARES, *MEMORISATION, "class_accuracy", *COST}
    assert found["copied_fraction"].value > 0.98 and dict(found["copied_fraction"].protocol.parameters)["data"] < 0.01  # type: ignore[operator]
    low, high = found["copied_fraction"].interval or (0, 0)
    assert 0.97 < low < found["copied_fraction"].value <= high <= 1
    assert found["memorisation_ratio"].value < 0.01
    assert found["closer_to_training"].value > dict(found["closer_to_training"].protocol.parameters)["chance"]  # type: ignore[operator]
    assert found["class_accuracy"].value > 0.98
    assert found["network_evaluations"].value == 2
    assert found["seconds_per_image"].value > 0 and found["seconds_per_image"].protocol.machine
    unseen = Replay(data, data.test.images, None)
    (ratio,) = measure_model(unseen, data, Measuring(n_samples=400, metrics=("memorisation_ratio",)))
    assert ratio.value == pytest.approx(1, abs=0.1)


def test_sampling_options_and_seeds_reach_the_model(data: ImageData, cache: Path) -> None:
    """Asked for k it draws k + 1, so the classifier finds every class wrong."""
    model = Replay(data, data.val.images, data.val.given["label"])
    wrong = measure_model(model, data, Measuring(n_samples=200, metrics=("class_accuracy",), options={"twist": 1}))
    assert [m.name for m in wrong] == ["class_accuracy"] and wrong[0].value < 0.05
    first, again, other = (draw(model, 20, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.x, again.x) and not torch.equal(first.x, other.x)


def test_likelihoods_in_nats_and_bits(data: ImageData, cache: Path) -> None:
    model = Uniform(data, data.val.images, None)
    found = by_name(measure_model(model, data, Measuring(n_reference=100, metrics=("nll", "bits_per_dim"))))
    assert found["nll"].value == pytest.approx(784 * math.log(256), rel=1e-6)
    assert found["bits_per_dim"].value == pytest.approx(8, rel=1e-6)
    assert found["nll"].protocol.n_reference == 100 and found["nll"].protocol.extractor == ""
    with pytest.raises(BowerbirdError, match="nll does not apply .* it needs a model that knows likelihoods"):
        measure_model(Replay(data, data.val.images, None), data, Measuring(metrics=("nll",)))


def test_folder_of_digits(data: ImageData, cache: Path, tmp_path: Path) -> None:
    n = 300
    for i, image in enumerate(subset(data.test.images, n)):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{i:03d}.png")
    with pytest.warns(UserWarning, match="biased"):
        found = by_name(measure_folder(tmp_path, Measuring(against="digits", extractor="digits")))
    assert found["frechet_distance"].value < 10
    assert found["frechet_distance"].protocol.n_generated == n
    assert "class_accuracy" not in found
    assert found["memorisation_ratio"].value == pytest.approx(1, abs=0.15)


def test_measuring_twice_reads_the_cache(data: ImageData, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = subset(data.val.images, 300)
    with pytest.warns(UserWarning):
        first = image_metrics(data, samples, cache, "frechet_distance", "coverage")
    shown = []
    forward = Digits._forward
    monkeypatch.setattr(Digits, "_forward", lambda self, x: shown.append(len(x)) or forward(self, x))
    with pytest.warns(UserWarning):
        assert image_metrics(data, samples, cache, "frechet_distance", "coverage") == first
    assert sum(shown) == 300


def test_errors_say_what_to_do(data: ImageData, cache: Path) -> None:
    samples = data.test.images[:20]
    with pytest.raises(BowerbirdError, match="did you mean 'recall'"):
        image_metrics(data, samples, cache, "recal")
    with pytest.raises(BowerbirdError, match="class_accuracy does not apply .*labels that are digits"):
        image_metrics(data, samples, cache, "class_accuracy")
    with pytest.raises(BowerbirdError, match="bowerbird data get inception-2015"):
        find_extractor("inception-2015")
    with pytest.raises(BowerbirdError, match="at least 1"):
        draw(Replay(data, samples, None), 0)


def test_classes_that_are_digits() -> None:
    assert as_digits(("3", "0", "9")).tolist() == [3, 0, 9]  # type: ignore[union-attr]
    assert as_digits(()) is None and as_digits(("cat", "1")) is None and as_digits(("12",)) is None


def test_subset_is_fixed_ordered_and_spread() -> None:
    x = torch.arange(1000)
    chosen = subset(x, 100)
    assert torch.equal(chosen, subset(x, 100)) and torch.equal(chosen, chosen.sort().values)
    assert len(chosen.unique()) == 100 and 400 < float(chosen.float().mean()) < 600
    assert subset(x, None) is x and subset(x, 5000) is x


# ------------------------------------------------------------------------------------------------- folders


def save_pictures(folder: Path, images: Tensor, sizes: tuple[int, ...] = (28,), colour: bool = False) -> Path:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        picture = Image.fromarray(image[0].numpy()).resize((sizes[i % len(sizes)],) * 2)
        (picture.convert("RGB") if colour and i % 2 else picture).save(folder / f"{i:03d}.png")
    return folder


def test_two_folders_need_no_model_no_labels_and_no_split(data: ImageData, cache: Path, tmp_path: Path) -> None:
    """Sub-folders are no labels, all images count, sizes and colours mix, and what is no image is counted."""
    real = save_pictures(tmp_path / "real" / "test", subset(data.train.images, 150)).parent
    save_pictures(real / "other", subset(data.val.images, 50))
    made = save_pictures(tmp_path / "made", subset(data.test.images, 120), sizes=(28, 40), colour=True)
    (made / "notes.txt").write_text("no image")
    (made / "broken.png").write_bytes(b"no image either")
    with pytest.warns(UserWarning, match="1 file of unknown kind .notes.txt.*1 broken or truncated"):
        found = by_name(measure_folder(made, Measuring(against=str(real), extractor="digits")))
    assert set(found) == {"frechet_distance", "kid", *SHARES, "diversity"}
    protocol = found["kid"].protocol
    assert (protocol.n_generated, protocol.n_reference, protocol.split) == (120, 200, "all")
    assert found["precision"].value > 0.7 and abs(found["diversity"].value - 1) < 0.1
    with pytest.warns(UserWarning):
        request = Measuring(against=str(made), extractor="digits", metrics=("kid", "frechet_distance"))
        swapped = by_name(measure_folder(real, request))
    for name in ("kid", "frechet_distance"):
        assert swapped[name].value == pytest.approx(found[name].value, rel=1e-6)


def test_few_images_are_left_out_or_refused_with_a_sentence(data: ImageData, cache: Path, tmp_path: Path) -> None:
    real, made = (save_pictures(tmp_path / name, data.test.images[:12]) for name in ("real", "made"))
    with pytest.warns(UserWarning, match="frechet_distance needs at least 50 reference images;.*real has 12; add"):
        found = by_name(measure_folder(made, Measuring(against=str(real), extractor="digits")))
    assert set(found) == {"kid", "diversity"}
    for name in ("frechet_distance", "recall"):
        with pytest.raises(BowerbirdError, match=f"{name} needs at least 50 reference images; real has 12"):
            measure_folder(made, Measuring(against=str(real), extractor="digits", metrics=(name,)))
    many, one = (save_pictures(tmp_path / f"{n}", data.test.images[:n]) for n in (60, 1))
    with pytest.warns(UserWarning, match=r"Samples: 1, too few for sliced_wasserstein \(below 10\)"):
        measure_folder(one, Measuring(against=str(many), metrics=("sliced_wasserstein",)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BowerbirdError, match="holds no images"):
        measure_folder(tmp_path / "empty", Measuring(against=str(real)))
    with pytest.raises(BowerbirdError, match="did you mean 'recall'"):
        measure_folder(made, Measuring(against=str(real), extractor="digits", metrics=("recal",)))


def test_other_sizes_counts_and_splits_are_refused_by_name(data: ImageData, cache: Path) -> None:
    def recall(n: int, split: str) -> Measurement:
        (found,) = measure_images(
            data.train.images[:n], data.split(split).images[:100], extractor=find_extractor("digits"), metrics=["kid"],
            protocol=protocol_of(data, split),
        )  # fmt: skip
        return found

    few = recall(50, "test")
    for other, named in ((recall(60, "test"), "n_generated"), (recall(50, "val"), "split")):
        with pytest.raises(BowerbirdError, match=named):
            _ = few < other
    other = dataclasses.replace(few, protocol=dataclasses.replace(few.protocol, resizer="Lanczos"))
    with pytest.raises(BowerbirdError, match=r"resizer \('BT.601.*' and 'Lanczos'\) differ"):
        _ = few < other


# ------------------------------------------------------------------------------------------------- self-test


def test_quick_self_test_passes_and_a_wrong_metric_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    require_quick()
    checks = quick_checks(find_extractor("digits"))
    assert len(checks) >= 25 and all(check.passed for check in checks)
    for broken in ("frechet_distance", "prdc", "kid", "ssim"):
        with monkeypatch.context() as patch:
            true = getattr(closed_forms, broken)
            patch.setattr(closed_forms, broken, lambda *a, true=true, **k: _spoilt(true(*a, **k)))
            with pytest.raises(RunFailed, match="no number of this installation can be trusted"):
                require_quick()
            with pytest.raises(RunFailed, match="instead of"):
                api.measure(["nowhere"], against="digits")


def _spoilt(value: Any) -> Any:
    """The same kind of value, slightly wrong (precision and recall in the wrong places)."""
    if hasattr(value, "precision"):
        return value._replace(precision=value.recall, recall=value.precision)
    return value._replace(value=value.value + 1e-3) if hasattr(value, "_replace") else value + 1e-3


def test_self_test_on_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    passed = [Check("a closed form", 1.0, 1.0, 0.1)]
    monkeypatch.setattr(selftest, "self_test", lambda: (passed, ["cifar10 is missing"]))
    assert cli.main(["measure", "--self-test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checks"][0]["passed"] is True
    monkeypatch.setattr(selftest, "self_test", lambda: ([*passed, Check("a constant", 1.0, 2.0, 0.1)], []))
    assert cli.main(["measure", "--self-test"]) == 1
    said = capsys.readouterr()
    assert "FAILED" in said.out and "1 of 2 checks failed, the first: a constant" in said.err


def test_several_sample_sets_give_a_mean_and_its_error(data: ImageData, cache: Path) -> None:
    model = Replay(data, data.train.images, data.train.given["label"])

    request = Measuring(n_samples=60, metrics=("kid", "network_evaluations"), seed=5, seeds=3)

    def once(seed: int) -> list[Measurement]:
        return measure_model(model, data, request.but(seed=seed, seeds=1))

    values = [by_name(once(seed))["kid"].value for seed in (5, 6, 7)]
    found = by_name(measure_model(model, data, request))
    assert found["kid"].value == pytest.approx(sum(values) / 3)
    assert found["kid"].stderr == pytest.approx(torch.tensor(values).double().std().item() / 3**0.5)
    assert dict(found["kid"].protocol.parameters)["sample_sets"] == 3
    assert found["network_evaluations"].value == 2 and found["network_evaluations"].stderr is None
    with pytest.raises(BowerbirdError, match="parameters"):
        _ = found["kid"] < by_name(once(5))["kid"]


def test_sheet_of_nearest_pairs_and_reconstructions(data: ImageData, cache: Path, tmp_path: Path) -> None:
    class Autoencoder(Replay):
        def encode(self, x: Tensor, given: Any = None) -> Tensor:
            return x.flatten(1)

        def decode(self, z: Tensor, given: Any = None) -> Tensor:
            return (z * 0.9).unflatten(1, (1, 28, 28))

    model = Autoencoder(data, data.train.images, None)
    request = Measuring(n_samples=40, n_reference=50, metrics=("psnr", "ssim"), pairs=tmp_path / "pairs.png")
    found = by_name(measure_model(model, data, request))
    assert set(found) == {"psnr", "ssim"} and 20 < found["psnr"].value < 40 and 0.7 < found["ssim"].value < 1
    assert Image.open(tmp_path / "pairs.png").width > 8 * 28
    with pytest.raises(BowerbirdError, match="psnr does not apply .* a model that encodes and decodes"):
        measure_model(Replay(data, data.train.images, None), data, Measuring(metrics=("psnr",)))
