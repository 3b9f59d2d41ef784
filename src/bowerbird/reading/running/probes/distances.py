"""Distances between Gaussians, whatever the function is called: asked with means and covariances of ours.

Fréchet (FID): d² = |m₁ - m₂|² + tr(S₁ + S₂ - 2 (S₁ S₂)^½)
"""

import inspect
from typing import Any

import numpy as np
import torch

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.subjects import tell

WIDTH = 5


@probe("distances", late=True)
def distances(live: Live) -> None:
    """Records ``property.distance`` for each function of two means and covariances."""
    generator = np.random.default_rng(0)
    first, second = (a @ a.T / WIDTH + np.eye(WIDTH) for a in generator.normal(size=(2, WIDTH, WIDTH)))
    shift, zero = generator.normal(size=WIDTH), np.zeros(WIDTH)
    for name, function in live.functions().items():
        needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        if len(needed) != 4 or any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in needed):
            continue

        found = {
            "alike": _asked(live, function, (zero, first, zero, first)),
            "moved": _asked(live, function, (shift, first, zero, first)),
            "spread": _asked(live, function, (zero, first, zero, second)),
        }
        if any(value is None for value in found.values()):
            continue
        alike, shifted, spread = (float(value or 0) for value in found.values())
        right = {"means": (shifted - alike, float(shift @ shift)), "covariances": (spread, _frechet(first, second))}
        matches = {part: abs(value - wanted) < 1e-2 * wanted for part, (value, wanted) in right.items()}
        if not any(matches.values()) or abs(spread - alike) < 1e-6:
            continue  # another distance
        wrong = next((part for part, good in matches.items() if not good), "")
        said = "it is Fréchet's"
        if wrong:
            value, wanted = right[wrong]
            said = f"the part of the {wrong} is {value:.4g} where Fréchet's is {wanted:.4g}"
        tell(live, "distance", name, not wrong, said, *live.place_of(function))


def _asked(live: Live, function: Any, arguments: tuple[Any, ...]) -> float | None:
    for convert in (np.copy, lambda a: torch.from_numpy(a).float()):
        try:
            value = live.call(function, *map(convert, arguments))
            return float(np.real(value)) if np.size(value) == 1 else None
        except Exception:  # it wants the other kind, or something else
            continue
    return None


def _frechet(first: Any, second: Any) -> float:
    """Of two Gaussians with one mean: the eigenvalues of S₁ S₂ are those of a symmetric product, so real."""
    values = np.linalg.eigvals(first @ second)
    return float(np.trace(first + second) - 2 * np.sqrt(np.maximum(values.real, 0)).sum())
