"""One contract for all metrics: what is registered is measured, compared and named; what a context lacks is said."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bowerbird import api, registry
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.context import Attributes, Context, Counterparts
from bowerbird.measuring.engine import measure_context
from bowerbird.measuring.extractors import find_extractor
from bowerbird.measuring.metric import Metric, measured
from bowerbird.measuring.request import Measuring
from bowerbird.metrics import attributes
from bowerbird.metrics.attributes import fit_attributes, untrained
from bowerbird.metrics.measurement import Measurement, Protocol
from bowerbird.metrics.pixelwise import ssim
from bowerbird.metrics.truth import feature_distance, l1
from bowerbird.report.table import metric as about
from bowerbird.report.tabulated import table


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def own() -> Iterator[type[Metric]]:
    """A metric of rows of numbers, of which Bowerbird knows nothing."""

    @registry.metrics.register("mean_of_rows")
    class MeanOfRows(Metric):
        unit, better, title, reading = "metres", "higher", "mean of all rows", "of a medium of one's own"
        needs = ("rows",)
        default = True

        def compute(self, context: Context) -> list[Measurement]:
            rows = context["rows"]
            return [self.measurement(sum(rows) / len(rows), context.protocol)]

    yield MeanOfRows
    del registry.metrics._classes["mean_of_rows"]


# ----------------------------------------------------------------------------------------------------- the contract


def test_a_metric_of_a_medium_of_ones_own_needs_only_its_class(own: type[Metric]) -> None:
    context = Context(Protocol(reference="rows"), {"rows": lambda context: [1.0, 2.0, 6.0]})
    (found,) = measure_context(context)
    assert (found.name, found.value, found.unit) == ("mean_of_rows", 3.0, "metres")
    assert registry.metrics.names()[-1] == "mean_of_rows" and registry.metrics.added() == ["mean_of_rows"]
    shown = table({"a": [found], "b": [measured("mean_of_rows", 2.0, found.protocol)]})
    titles, first, second = (list(column.cells) for column in shown.columns)
    assert titles == ["mean of all rows [metres] ↑"] and (first[0].style, second[0].style) == ("bold", "")
    other = measured("mean_of_rows", 2.0, Protocol(reference="other rows"))
    with pytest.raises(BowerbirdError, match="measured differently.*reference"):
        table({"a": [found], "b": [other]})
    with pytest.raises(BowerbirdError, match="reference"):
        _ = found < other


class OfAPackage(Metric):
    unit, needs = "grams", ("rows",)

    def compute(self, context: Context) -> list[Measurement]:
        return [self.measurement(max(context["rows"]), context.protocol)]


def test_a_metric_of_another_package_is_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.metrics, "_classes", dict(registry.metrics._classes))
    monkeypatch.setattr(registry.metrics, "_where", {"heaviest": f"{__name__}:OfAPackage"})
    (found,) = measure_context(Context(Protocol(), {"rows": lambda context: [1.0, 4.0]}), ["heaviest"])
    assert (found.name, found.value, found.unit) == ("heaviest", 4.0, "grams")
    assert about("heaviest").title == "heaviest" and registry.metrics.added() == ["heaviest"]


def test_names_that_do_not_exist_or_do_not_apply(own: type[Metric]) -> None:
    context = Context(Protocol(), {"rows": lambda context: [1.0]}, "this table")
    with pytest.raises(BowerbirdError, match="There is no metric 'mean_of_row'; did you mean 'mean_of_rows'?"):
        measure_context(context, ["mean_of_row"])
    with pytest.raises(BowerbirdError, match="kid does not apply to this table; it needs features of pictures"):
        measure_context(context, ["mean_of_rows", "kid"])
    with pytest.raises(BowerbirdError, match="There is a metric 'kid' already"):
        registry.metrics.register("kid")(own)


def test_what_metrics_share_is_computed_once_and_what_none_asks_for_never(own: type[Metric]) -> None:
    asked: list[str] = []

    def rows(context: Context) -> list[float]:
        asked.append("rows")
        return [1.0, 3.0]

    def never(context: Context) -> Any:
        raise AssertionError

    context = Context(Protocol(), {"rows": rows, "pictures": never, "features": never})
    for _ in range(2):
        assert measure_context(context, ["mean_of_rows"])[0].value == 2
    assert asked == ["rows"]


def test_a_request_refuses_what_it_does_not_know() -> None:
    request = Measuring(n_samples=5).but(metrics=["kid", "recall"], seed=3)
    assert (request.metrics, request.n_samples, request.seed) == (("kid", "recall"), 5, 3)
    assert Measuring().but(metrics="kid").metrics == ("kid",)
    assert request.changed() == {"metrics": ["kid", "recall"], "n_samples": 5, "seed": 3}
    with pytest.raises(BowerbirdError, match="did you mean 'n_samples'"):
        request.but(n_sample=3)
    with pytest.raises(BowerbirdError, match="seeds must be at least 1, not 0"):
        Measuring(seeds=0)
    with pytest.raises(BowerbirdError, match="did you mean 'metrics'"):
        api.measure("runs/none", metric="kid")


def test_a_part_and_an_unknown_metric_have_titles() -> None:
    assert about("conditional_accuracy.hair").title == "conditional accuracy of hair"
    assert about("of_a_lost_plugin").title == "of a lost plugin" and about("of_a_lost_plugin").better == ""


# ------------------------------------------------------------------------------------------- distances to the truth


def test_distances_to_the_truth_by_hand() -> None:
    truth = noise(6, 3, 16, 16).clamp(max=200)
    brighter = truth.clone()
    brighter[:3] += 51  # a fifth of the range of 2, for half of the pictures
    value, stderr = l1(brighter, truth)
    assert value == pytest.approx(0.4 / 2) and stderr == pytest.approx(0.2 * math.sqrt(6 / 5) / math.sqrt(6))
    f = randn(500, 8)
    assert feature_distance(f, f)[0] == 0
    assert feature_distance(f.roll(1, 0), f)[0] == pytest.approx(1, abs=0.05)  # another true picture
    assert feature_distance(3 * f + 7, 3 * f)[0] == pytest.approx(feature_distance(f + 7 / 3, f)[0])  # no unit
    assert math.isnan(feature_distance(f, torch.zeros_like(f))[0])


def test_pictures_beside_their_counterparts_and_what_doing_nothing_reaches() -> None:
    truth, source = noise(12, 1, 28, 28), noise(12, 1, 28, 28, seed=1)
    made = ((truth.int() + source.int()) // 2).byte()
    protocol = Protocol(n_generated=12, n_reference=12, split="test")
    extractor = find_extractor("digits")

    def measure(made: Tensor) -> dict[str, Measurement]:
        pairs = Counterparts(made, truth, protocol, source)
        offers = {"counterparts": lambda context: pairs, "extractor": lambda context: extractor}
        return {m.name: m for m in measure_context(Context(protocol, offers))}

    half, all_of_it, nothing = measure(made), measure(truth), measure(source)
    assert list(half) == ["l1", "ssim_to_truth", "feature_distance"]
    assert half["l1"].value == pytest.approx(nothing["l1"].value / 2, rel=0.01)
    assert (all_of_it["l1"].value, all_of_it["feature_distance"].value) == (0, 0)
    assert all_of_it["ssim_to_truth"].value == pytest.approx(1)
    assert half["ssim_to_truth"].value == pytest.approx(float(ssim(truth, made).mean()))
    for name, m in half.items():
        assert m.protocol == all_of_it[name].protocol, "the model has no say in the protocol"
        assert dict(m.protocol.parameters)["source"] == pytest.approx(nothing[name].value, abs=1e-5)
    assert half["feature_distance"].protocol.extractor == "digits" and half["l1"].protocol.extractor == ""
    assert 0 < half["feature_distance"].value < nothing["feature_distance"].value


# ----------------------------------------------------------------------------------------------- conditional accuracy

CLASSES = {"colour": ("red", "green", "blue"), "place": ("above", "below")}


def shapes(n: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Noise with half of one channel brighter: the channel is the colour, the half the place."""
    generator = torch.Generator().manual_seed(seed)
    given = {name: torch.randint(len(names), (n,), generator=generator) for name, names in CLASSES.items()}
    x = torch.randint(100, (n, 3, 16, 16), dtype=torch.uint8, generator=generator)
    for picture, colour, place in zip(x, given["colour"], given["place"], strict=True):
        picture[colour, slice(0, 8) if place == 0 else slice(8, 16)] += 60
    return x, given


def test_conditional_accuracy_of_each_attribute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight samples in ten the colour is the one that was asked for, the place always."""
    monkeypatch.setenv("BOWERBIRD_CACHE", str(tmp_path))
    fits: list[attributes.AttributeNet] = []

    def fit(images: Tensor, given: Any, classes: Any) -> attributes.AttributeNet:
        fits.append(fits[0] if fits else fit_attributes(images, given, classes, steps=25))
        return fits[-1]

    monkeypatch.setattr("bowerbird.measuring.shipped.obedience.fit_attributes", fit)
    (training, learnt), (held_out, unseen), (samples, shown) = (
        shapes(n, seed) for n, seed in ((300, 1), (90, 2), (100, 3))
    )
    asked = shown | {"colour": torch.where(torch.arange(100) < 80, shown["colour"], (shown["colour"] + 1) % 3)}
    found = Attributes(samples, asked, CLASSES, training, learnt, held_out, unseen, Protocol(fingerprint="ab"))

    def measure() -> dict[str, Measurement]:
        context = Context(Protocol(), {"attributes": lambda context: found})
        return {m.name: m for m in measure_context(context, ["conditional_accuracy"])}

    first = measure()
    assert list(first) == [f"conditional_accuracy{part}" for part in (".colour", ".place", "")]
    colour, place, both = first.values()
    assert both.value == pytest.approx((colour.value + place.value) / 2)
    assert colour.value == pytest.approx(0.8, abs=0.03) and place.value > 0.97
    assert colour.stderr == pytest.approx(0.04, abs=0.005)
    assert float(dict(colour.protocol.parameters)["held_out_accuracy"]) > 0.97
    assert (colour.protocol.n_generated, colour.protocol.n_reference, colour.protocol.split) == (100, 300, "train")
    assert measure() == first and len(fits) == 1  # what is cached is not learnt
    (file,) = (tmp_path / "classifiers").iterdir()
    file.write_bytes(b"torn")
    assert measure() == first and len(fits) == 2


def test_the_classifier_follows_from_its_seed_and_leaves_the_global_generator_alone() -> None:
    x, given = shapes(40, 0)
    before = torch.get_rng_state()
    one, again, other = (fit_attributes(x, given, CLASSES, steps=2, seed=seed).sha256 for seed in (0, 0, 1))
    assert one == again != other and torch.equal(torch.get_rng_state(), before)
    assert untrained(3, CLASSES).sha256 != one
    with pytest.raises(BowerbirdError, match="at least one attribute"):
        fit_attributes(x, {}, {})
