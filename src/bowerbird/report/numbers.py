"""Numbers as text: as many digits as are known, and units that a reader need not convert."""

import math

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def with_error(value: float | None, stderr: float | None = None) -> str:
    """``12.3 ± 0.4``: the error to two digits (one from 3.5 on), the value to the same place; without one, 4 digits."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if not stderr or not math.isfinite(stderr):
        return _plain(value, 4)
    mantissa, exponent = f"{stderr:.1e}".split("e")  # rounded first: 0.0996 is 0.10
    place = (0 if float(mantissa) >= 3.5 else 1) - int(exponent)
    if place > 6 or abs(value) >= 1e7:
        return f"{value:.2e} ± {stderr:.0e}"
    if place < 0:
        return f"{round(value, place):,.0f} ± {round(stderr, place):,.0f}"
    return f"{value:,.{place}f} ± {stderr:,.{place}f}"


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
