"""What is known before the first step: the data as the model is given them, the schedule, the size of things."""

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bowerbird.models.base import Batch
from bowerbird.spec import Classes, Spec, Tensors, Tokens

N_EXAMPLES = 256


@runtime_checkable
class HasSchedule(Protocol):
    """A model that turns data into noise: x_t = alpha(t) x_0 + sigma(t) eps."""

    schedule: Any


def facts_of(model: Any, spec: Spec, batch: Batch) -> dict[str, Any]:
    """One batch of training examples and the model's constants as plain numbers."""
    facts: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    if isinstance(spec.target, Tensors):
        label = spec.given.get("label")
        n_classes = len(label.names) if isinstance(label, Classes) else 0
        facts |= {"dims": spec.target.dims, "n_classes": n_classes, "uses_labels": "label" in model.spec.given}
        facts["data"] = _range(batch.x) | {"bounded": float(spec.target.bounds is not None)}
        if isinstance(model, HasSchedule):
            facts["noise"] = _end_of_schedule(model.schedule, facts["data"]["std"])
    if isinstance(spec.target, Tokens):
        facts["tokens"] = _tokens(spec.target, batch)
    return facts


def _range(x: Tensor) -> dict[str, float]:
    finite = x[torch.isfinite(x)].float()
    if len(finite) == 0:
        return {"finite": 0.0, "min": 0.0, "max": 0.0, "mean": 0.0, "std": 0.0}
    return {
        "finite": len(finite) / x.numel(),
        "min": finite.min().item(),
        "max": finite.max().item(),
        "mean": finite.mean().item(),
        "std": finite.std().item(),
    }


def _end_of_schedule(schedule: Any, data_std: float) -> dict[str, float]:
    """What is left of the data at t = 1: alpha, sigma, and the ratio of the data's spread to the noise's."""
    one = torch.ones(1, dtype=torch.float64)
    alpha, sigma = float(schedule.alpha(one)), float(schedule.sigma(one))
    return {"alpha": alpha, "sigma": sigma, "signal_to_noise": alpha * data_std / max(sigma, 1e-12)}


def _tokens(spec: Tokens, batch: Batch) -> dict[str, float]:
    counted = torch.ones_like(batch.x, dtype=torch.bool) if batch.weight is None else batch.weight
    padding = batch.x == spec.pad
    # Where padding is a token of its own, nothing else has its number, and it must not be predicted.
    own = spec.pad not in (spec.eos, spec.bos) and spec.pad >= 0
    return {
        "vocabulary": spec.vocab_size,
        "uniform_nll": math.log(spec.vocab_size),
        "largest": int(batch.x.max()),
        "padding": float(padding.float().mean()) if own else 0.0,
        "counted_padding": float((counted & padding).sum() / counted.sum().clamp(min=1)) if own else 0.0,
    }
