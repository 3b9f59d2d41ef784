"""Check of the exercise on moving pictures."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bowerbird.reading.learn.checks import Observation, checks, seen


def mean(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True).expand_as(x)


@checks("over-time")
def over_time(answer: Any) -> Iterator[Observation]:
    x = torch.randn(2, 4, 3, 5)
    same = answer.over_time(x, lambda rows: rows)
    shape = tuple(same.shape)
    yield seen(shape == tuple(x.shape) and torch.equal(same, x), "same", wanted=tuple(x.shape), shape=shape)
    lengths: list[int] = []
    answer.over_time(x, lambda rows: lengths.append(rows.shape[1]) or rows)  # type: ignore[func-returns-value]
    yield seen(lengths == [4], "once", lengths=lengths)
    error = (answer.over_time(x, mean) - x.mean(1, keepdim=True)).abs().max().item()
    yield seen(error < 1e-5, "mean", error=error)
    changed = x.clone()
    changed[0, 2, 1] += 1
    touched = (answer.over_time(changed, mean) - answer.over_time(x, mean)).abs().sum(-1) > 1e-6
    where = int(touched[0, :, 1].sum()), int(touched.sum())
    yield seen(where == (4, 4), "touched", all=where[1], there=where[0])
