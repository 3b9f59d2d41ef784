"""The family of few labels: which labels are seen, its bounds, and what teaches the classifier."""

import math
from typing import Any

import pytest
import torch

from bowerbird import config
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.request import Measuring
from bowerbird.models.base import Batch
from bowerbird.models.fewlabels import FewLabels, moved
from bowerbird.spec import Classes, Spec, Tensors

SPEC = Spec("image", Tensors((1, 8, 8)), {"label": Classes(("a", "b", "c"), (8, 8, 8))})
NET = {"name": "mlp", "hidden": [32], "n_embd": 16}


def model(**settings: Any) -> FewLabels:
    torch.default_generator.manual_seed(0)
    table = {"family": "fewlabels", "net": NET, "n_labels": 7, "n_latent": 4} | settings
    return config.model_from(table, "test").build(SPEC)


def batch(n: int = 24) -> Batch:
    y = torch.arange(n) % 3
    return Batch(torch.rand(n, 1, 8, 8) * 2 - 1, {"label": y})


def value(one: FewLabels, of: Batch) -> float:
    torch.default_generator.manual_seed(3)
    return next(one.losses(of)).value.item()


@pytest.mark.parametrize("learning", ["m2", "consistency", "labels"])
def test_no_label_besides_those_kept_changes_the_loss(learning: str) -> None:
    one, first = model(learning=learning), batch()
    value(one, first)
    assert one.kept.all() and torch.equal(one.kept_x[:6], first.x[:6])  # 3, 2 and 2 of the three classes
    assert torch.equal(one.kept_x[6], first.x[6])
    later = batch()
    hidden = later._replace(given={"label": torch.full((24,), 3)})
    wrong = later._replace(given={"label": later.given["label"].roll(1)})
    assert value(one, later) == value(one, hidden) == value(one, wrong)


def test_pictures_without_a_label_are_not_kept() -> None:
    one, first = model(), batch()
    y = first.given["label"].clone()
    y[:3] = 3
    value(one, first._replace(given={"label": y}))
    assert torch.equal(one.kept_x[0], first.x[3])
    empty = model()
    assert math.isfinite(value(empty, first._replace(given={"label": torch.full((24,), 3)})))
    assert not empty.kept.any()


def test_evaluation_keeps_nothing() -> None:
    one = model().eval()
    value(one, batch())
    assert not one.kept.any()


def test_the_marginal_bound_is_the_sum_over_labels() -> None:
    """Σ q (L - log q) with one bound per label; without noise of z, which the two would draw in another order."""
    one, x = model().eval(), batch(5).x
    with torch.no_grad():
        one.encoder.head.out.bias[4:] = -40.0  # logvar
        one.encoder.head.out.weight[4:] = 0.0
        code, q = one.encoder(x), one.classify(x).exp()
        each = torch.stack([one.bound(x, code, torch.full((5,), y)) for y in range(3)], 1)
        expected = (q * each).sum(1) + torch.special.entr(q).sum(1)
        torch.testing.assert_close(one.marginal_bound(x), expected, rtol=1e-4, atol=1e-3)


def test_only_the_bound_of_m2_teaches_the_classifier() -> None:
    for learning, teaches in (("m2", True), ("labels", False)):
        one = model(learning=learning)
        loss = next(one.losses(batch()._replace(given={"label": torch.full((24,), 3)})))
        loss.value.backward()
        assert any(p.grad is not None and p.grad.any() for p in one.classifier.parameters()) is teaches


def test_agreement_is_taught_where_the_model_is_sure() -> None:
    unsure, sure = (model(learning="consistency", threshold=t) for t in (1.0, 0.0))
    shares = [next(one.losses(batch())).logs["sure"].item() for one in (unsure, sure)]
    assert shares == [0.0, 1.0]


def test_moved_pictures_are_black_where_nothing_covers_them() -> None:
    white = torch.ones(50, 1, 8, 8)
    assert set(moved(white).unique().tolist()) == {-1.0, 1.0}
    assert (moved(white, "cutout") < 0).sum() > (moved(white) < 0).sum()


def test_what_is_kept_for_use_holds_no_pictures() -> None:
    one = model()
    value(one, batch())
    assert all(len(w) == 0 for name, w in one.weights().items() if name.startswith("kept"))


def test_pictures_without_labels_are_refused() -> None:
    with pytest.raises(BowerbirdError, match="some have labels"):
        config.model_from({"family": "fewlabels", "net": NET}, "test").build(SPEC.alone())


def test_the_metric_is_the_share_of_labels_that_the_model_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """On digits, with a model that says 3 to every picture."""
    from bowerbird.measuring.trained import measure_model
    from bowerbird.media import open_data

    data = open_data(config.Data("digits"))
    one = config.model_from({"family": "fewlabels", "net": NET}, "test").build(data.spec).eval()
    with torch.no_grad():
        one.classifier.head.out.weight.zero_()
        one.classifier.head.out.bias.copy_(10.0 * (torch.arange(10) == 3))
    (found,) = measure_model(one, data, Measuring(metrics=("label_accuracy",), n_samples=2))
    expected = (data.test.given["label"] == 3).double().mean().item()
    assert (
        found.name == "label_accuracy" and found.value == pytest.approx(expected) and found.protocol.n_reference == 2000
    )
