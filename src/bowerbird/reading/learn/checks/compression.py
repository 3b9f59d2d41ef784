"""Check of the exercise on compression."""

import math
import random
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.learn.checks import Observation, checks

FREQUENCIES = [900, 80, 15, 4, 1]


@checks("numeral-system")
def numeral_system(answer: Any) -> Iterator[Observation]:
    symbols = random.Random(0).choices(range(len(FREQUENCIES)), FREQUENCIES, k=2000)
    state, begin = 1 << 32, 1 << 32
    for symbol in symbols:
        state = answer.push(state, symbol, FREQUENCIES)
    bits = state.bit_length() - begin.bit_length()
    back = []
    left = state
    for _ in symbols:
        left, symbol = answer.pop(left, FREQUENCIES)
        back.append(symbol)
    same = sum(a == b for a, b in zip(symbols, reversed(back), strict=True))
    yield Observation(
        same == len(symbols),
        f"Of {len(symbols)} symbols pushed, {same} come back, the last one first; all should.",
        f"压入 {len(symbols)} 个符号，按后进先出还原了 {same} 个；应全部还原。",
    )
    yield Observation(
        left == begin,
        f"After all pops the state is {'as' if left == begin else 'not as'} it was at the beginning.",
        f"全部弹出之后，state 与开始时{'相同' if left == begin else '不同'}。",
    )
    total = sum(FREQUENCIES)
    wanted = sum(math.log2(total / FREQUENCIES[symbol]) for symbol in symbols)
    yield Observation(
        abs(bits - wanted) < 0.01 * wanted,
        f"The symbols take {bits} bits; by their frequencies they should take {wanted:.0f}.",
        f"这些符号占 {bits} 比特；按频数应为 {wanted:.0f}。",
    )
    rare = (answer.push(1 << 64, 4, FREQUENCIES)).bit_length() - 65
    yield Observation(
        rare in (9, 10),
        f"The rarest symbol, one in {total}, takes {rare} bits; it should take 10, to within one.",
        f"最罕见的符号（{total} 分之一）占 {rare} 比特；应为 10，误差不超过 1。",
    )
