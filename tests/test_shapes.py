"""The checks of shapes check."""

import jaxtyping
import pytest
import torch

from bowerbird.metrics.frechet import fit_gaussian
from bowerbird.nets.augment import translate


def test_a_wrong_shape_is_seen() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        fit_gaussian(torch.zeros(3, 4, 5, dtype=torch.float64))


def test_a_wrong_shape_under_another_name_is_seen() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        translate(torch.zeros(3, 4))  # annotated as Images
