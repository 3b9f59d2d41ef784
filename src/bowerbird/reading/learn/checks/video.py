"""Check of the exercise on moving pictures."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bowerbird.reading.learn.checks import Observation, checks


def mean(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True).expand_as(x)


@checks("over-time")
def over_time(answer: Any) -> Iterator[Observation]:
    x = torch.randn(2, 4, 3, 5)
    same = answer.over_time(x, lambda rows: rows)
    shape = tuple(same.shape)
    yield Observation(
        shape == tuple(x.shape) and torch.equal(same, x),
        f"With a mix that changes nothing, shape {tuple(x.shape)} becomes {shape}, and every number should stay.",
        f"当 mix 什么也不改时，形状 {tuple(x.shape)} 变为 {shape}，每个数都应留在原处。",
    )
    lengths: list[int] = []
    answer.over_time(x, lambda rows: lengths.append(rows.shape[1]) or rows)  # type: ignore[func-returns-value]
    yield Observation(
        lengths == [4],
        f"mix is called on sequences of length {lengths}; once, of length 4, is right for 4 frames.",
        f"mix 被调用时序列长度为 {lengths}；4 帧应为一次，长度 4。",
    )
    error = (answer.over_time(x, mean) - x.mean(1, keepdim=True)).abs().max().item()
    yield Observation(
        error < 1e-5,
        f"With the mean as mix, the result is off by up to {error:.3g} from the mean over frames at each position.",
        f"以求平均为 mix 时，结果与每个位置上各帧的平均最多相差 {error:.3g}。",
    )
    changed = x.clone()
    changed[0, 2, 1] += 1
    touched = (answer.over_time(changed, mean) - answer.over_time(x, mean)).abs().sum(-1) > 1e-6
    where = int(touched[0, :, 1].sum()), int(touched.sum())
    yield Observation(
        where == (4, 4),
        f"One token changed: {where[1]} tokens follow, {where[0]} of them at its position; it should be 4 and 4.",
        f"改动一个 token：有 {where[1]} 个 token 随之改变，其中 {where[0]} 个在同一位置；应为 4 与 4。",
    )
