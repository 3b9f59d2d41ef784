"""Check of the exercise on compression."""

import math
import random
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.learn.checks import Observation, checks, seen

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
    yield seen(same == len(symbols), "back", n=len(symbols), same=same)
    yield seen(left == begin, "state", off=float(min(abs(left - begin), 10**300)))
    total = sum(FREQUENCIES)
    wanted = sum(math.log2(total / FREQUENCIES[symbol]) for symbol in symbols)
    yield seen(abs(bits - wanted) < 0.01 * wanted, "length", bits=bits, wanted=wanted)
    rare = (answer.push(1 << 64, 4, FREQUENCIES)).bit_length() - 65
    yield seen(rare in (9, 10), "rare", total=total, rare=rare)
