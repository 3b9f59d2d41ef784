"""Numbers as text: as many digits as are known, and units that a reader need not convert."""

import math

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


ROUNDING = 1e-12
"""An error below this part of the value is what float arithmetic left over, and is not printed."""


def with_error(value: float | None, stderr: float | None = None) -> str:
    """``12.3 ± 0.4``: the error to two digits (one from 3.5 on), the value to the same place; without one, 4 digits."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if not stderr or not math.isfinite(stderr) or stderr < ROUNDING * abs(value):
        return _plain(value, 4)
    place = _place(stderr)
    return f"{_to(place, value, value)} ± {_to(place, stderr, value)}"


def with_interval(value: float, low: float, high: float) -> str:
    """``0.12 (0.09 … 0.16)``: all to the place that half the interval allows as an error."""
    reach = (high - low) / 2
    if not math.isfinite(value) or not math.isfinite(reach) or not reach > ROUNDING * abs(value):
        return with_error(value)
    place = _place(reach)
    return f"{_to(place, value, value)} ({_to(place, low, value)} … {_to(place, high, value)})"


def _place(error: float) -> int:
    """The last decimal place that a value with this error has: 2 is hundredths, -2 hundreds."""
    mantissa, exponent = f"{error:.1e}".split("e")  # rounded first: 0.0996 is 0.10
    return (0 if float(mantissa) >= 3.5 else 1) - int(exponent)


def _to(place: int, number: float, beside: float) -> str:
    """Rounded to a place; with a power of ten where what it stands ``beside`` is tiny, huge or very exact."""
    if place > 6 or abs(beside) >= 1e7:
        exponent = math.floor(math.log10(abs(number))) if number else 0
        return f"{number:.{max(0, exponent + place)}e}"
    return f"{round(number, place):,.{max(0, place)}f}"


def part_of(ratio: float) -> str:
    """``35% of``, to stand before the whole; ``430 times`` from ten times on, where nobody reads percentages."""
    return f"{ratio:.0%} of" if abs(ratio) < 10 else f"{_plain(ratio, 2)} times"


def _plain(value: float, digits: int) -> str:
    """Four digits are what a measurement without an error bar is worth; whole numbers keep all of theirs."""
    if value == 0 or (value == int(value) and abs(value) < 1e7):
        return f"{value:,.0f}"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent >= 7:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def count(value: float | None, unit: str = "") -> str:
    """``1.24 M`` with a decimal prefix from 10,000 on; smaller numbers in full."""
    if value is None:
        return "–"
    if not math.isfinite(value) or abs(value) < 1e4:
        return f"{value:,.4g} {unit}".strip()
    size, prefix = next((size, prefix) for size, prefix in _PREFIXES if abs(value) >= size)
    return f"{value / size:.3g} {prefix}{unit}"


def duration(seconds: float | None) -> str:
    """``850 ms``, ``12.3 s``, ``4 min 05 s``, ``2 h 15 min``."""
    if seconds is None:
        return "–"
    if not math.isfinite(seconds):
        return str(seconds)
    if seconds < 1:
        return f"{seconds * 1e6:.3g} µs" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.3g} s"
    if round(seconds) < 3600:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
