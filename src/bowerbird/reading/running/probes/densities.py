"""Divergences and likelihoods by their values: what a function does when a mean and a scale are moved.

    KL(N(a, R) ‖ N(0, 1)) = (a² + R - log R - 1) / 2    least at a = 0 and R = 1
    -log N(z; 0, R) = (z² / R + log R) / 2 + …          least at R = z²

R is the scale itself, its square, its exponential, or the exponential of twice it; which, the values say.  A function
that is a parabola in one argument and has a least value in another, at another place, mistakes its scale.
"""

import itertools
from collections.abc import Callable

import torch

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.subjects import Subject, answer, influenced, subjects, tell

GRID = torch.linspace(-4, 4, 161, dtype=torch.float64)
READINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "the logarithm of the variance": torch.exp, "the logarithm of the deviation": lambda s: torch.exp(2 * s),
    "the deviation": lambda s: torch.where(s > 0, s.square(), torch.nan),
    "the variance": lambda s: torch.where(s > 0, s, torch.nan),
}  # fmt: skip
MOST_PAIRS = 12


@probe("densities", late=True)
def densities(live: Live) -> None:
    """Records ``property.density`` for each function in which a mean and a scale can be made out."""
    for subject in subjects(live):
        floats = [n for n, t in subject.tensors.items() if t.is_floating_point()]
        if subject.module is not None or not 2 <= len(floats) <= 6:
            continue
        shapes = {n: subject.tensors[n].shape for n in floats}
        fitting = [
            (m, s) for m, s in itertools.permutations(floats, 2) if shapes[s].numel() == 1 or shapes[s] == shapes[m]
        ]
        pairs = fitting[:MOST_PAIRS]
        for mean, scale in pairs:
            said = _judged(_Function(live, subject, mean, scale))
            if said is not None:
                seen = influenced(live, subject, {scale: subject.given[scale] * 0.5 + 0.3})
                line = seen[0].line if seen and seen[0].file == subject.file else subject.line
                tell(live, "density", subject.name, not said, said or "mean and scale belong together", subject.file,
                     line, mean=mean, scale=scale)  # fmt: skip
                break


class _Function:
    """The sum of an answer as a function of two numbers, of which whole arguments are made."""

    def __init__(self, live: Live, subject: Subject, mean: str, scale: str) -> None:
        self.live, self.subject, self.mean, self.scale = live, subject, mean, scale
        others = [
            n for n, t in subject.tensors.items() if t.shape == subject.given[mean].shape and n not in (mean, scale)
        ]
        self.zero = {n: torch.zeros_like(subject.given[n]) for n in others if subject.given[n].is_floating_point()}

    def __call__(self, a: float, s: float) -> float:
        given = {self.mean: torch.full_like(self.subject.given[self.mean], a),
                 self.scale: torch.full_like(self.subject.given[self.scale], s)}  # fmt: skip
        out = answer(self.live, self.subject, {**self.zero, **given})
        first = next((t for t in out or () if t.is_floating_point()), None)
        return float(first.double().sum()) if first is not None else float("nan")


def _judged(f: _Function) -> str | None:
    """What is wrong; empty where the scale is as it should be, None where there are no mean and scale."""
    bend = [f(1, s) + f(-1, s) - 2 * f(0, s) for s in (0.5, 1.0)]
    if not all(b == b and abs(b) > 1e-9 for b in bend) or abs(f(1, 0.7) - f(-1, 0.7)) > 1e-4 * abs(bend[0]):
        return None
    if abs(f(2, 0.5) - 2 * f(1, 0.5) + f(0, 0.5) - bend[0]) > 1e-3 * abs(bend[0]):
        return None  # no parabola
    sign = 1.0 if bend[0] > 0 else -1.0
    if abs(bend[0] - bend[1]) < 1e-4 * abs(bend[0]):
        return _divergence(f, sign)
    return _likelihood(f, sign)


def _curve(f: _Function, a: float, sign: float) -> torch.Tensor:
    return torch.tensor([sign * f(a, float(s)) for s in GRID[::4]], dtype=torch.float64)


def _least(curve: torch.Tensor) -> float | None:
    """Where a curve has its least value, between grid points by a parabola; None at an end or where it is flat."""
    if int(curve.isfinite().sum()) < 15:
        return None  # what is defined between zero and one alone is no scale
    known = curve.nan_to_num(torch.inf)
    place = int(known.argmin())
    if not 0 < place < len(curve) - 1 or not bool(known[place - 1 : place + 2].isfinite().all()):
        return None
    left, middle, right = known[place - 1 : place + 2].tolist()
    bend = left + right - 2 * middle
    return float(GRID[::4][place] + 0.2 * (left - right) / (2 * bend)) if bend > 1e-9 * (abs(middle) + 1e-9) else None


def _divergence(f: _Function, sign: float) -> str | None:
    curve = _curve(f, 0.0, sign)
    least = _least(curve)
    if least is None:
        return None
    if min(abs(least), abs(least - 1)) < 0.04:
        return ""
    return (
        f"it is a parabola in `{f.mean}` and is least where `{f.scale}` is {least:.2g}: at a variance of one it should "
        "be 0 (a logarithm) or 1"
    )


def _likelihood(f: _Function, sign: float) -> str | None:
    places = [(z, _least(_curve(f, z, sign))) for z in (0.8, 1.1, 1.5)]
    if all(s is None for _, s in places):
        return _endless(f, sign)
    for reading, variance in READINGS.items():
        if any(s is None for _, s in places):
            continue
        ratios = [float(variance(torch.tensor(s, dtype=torch.float64))) / z**2 for z, s in places]
        if not all(r == r for r in ratios) or max(ratios) - min(ratios) > 0.1 * max(ratios):
            continue
        ratio = sum(ratios) / len(ratios)
        if 0.9 < ratio < 1.1:
            return ""
        told = f"as {reading}, `{f.scale}` is best where the variance is {ratio:.2g} times the squared residual"
        return f"{told}, so it is learned too {'large' if ratio > 1 else 'small'}"
    return None


def _endless(f: _Function, sign: float) -> str | None:
    """A weight of the residual and a term of the scale alone, both in one direction: the scale is driven to its end."""
    steps = [_curve(f, z, sign).diff() for z in (0.0, 1.5)]
    steps = [s[s.isfinite()] for s in steps]
    if any(len(s) < 8 or float(s.abs().min()) < 1e-7 for s in steps):
        return None
    directions = {bool((s > 0).all()) - bool((s < 0).all()) for s in steps}
    if directions not in ({1}, {-1}):
        return None
    end = "smaller" if directions == {1} else "larger"
    return f"the {end} `{f.scale}`, the less it is, whatever the residual: no scale is best"
