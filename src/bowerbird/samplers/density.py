"""Densities by transport: the log-density of a point is that of where a flow carries it, plus how much space shrank.

    dx/ds = f(x, s),      log p(x(a)) = log p(x(b)) + ∫_a^b div f(x(s), s) ds      (Chen et al. 2018, eq. 8)

Both integrals are taken together by the pair of Dormand & Prince of orders 5 and 4, whose step is chosen so that their
difference, per number of x in root mean square over the batch, stays below ``tolerance`` · max(1, |x|).  The divergence
is exact, or zᵀ (∂f/∂x) z for one random sign vector z per example, without bias (Hutchinson; Grathwohl et al. 2019,
arXiv:1810.01367, eq. 7).

A density on the line has no meaning in bits until values are given a width: ``of_bytes`` spreads each of 256 values
evenly over its bin of width 2/255 on [-1, 1] (Theis et al. 2016, arXiv:1511.01844, section 3.1), which bounds the
probability of the byte from below:  log P(x) ≥ E_u log p(x + u) + dims log(2/255).
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.errors import RunFailed

Field = Callable[[Tensor, float], Tensor]
"""f(x, s)."""
Divergence = Literal["hutchinson", "exact"]
TOLERANCE = 1e-4
SMALLEST_STEP = 1e-9
"""Part of the whole way below which a step no longer helps."""
ESTIMATOR = f"probability flow, Dormand-Prince to {TOLERANCE:g}, Hutchinson's trace, uniform dequantisation"
"""What ``of_bytes`` of ``transport`` computes by default, as protocols state it."""

# Dormand & Prince 1980: nodes, stages, and the weights of orders 5 and (5 - 4).
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def transport(
    f: Field,
    x: Float[Tensor, "n *shape"],
    start: float,
    end: float,
    *,
    divergence: Divergence = "hutchinson",
    tolerance: float = TOLERANCE,
    generator: torch.Generator | None = None,
) -> tuple[Float[Tensor, "n *shape"], Float[Tensor, " n"]]:
    """x(end) and ∫ div f ds, from x(start) = x; start < end."""
    dims = x[0].numel()
    probes = torch.randint(0, 2, (1, *x.shape), generator=generator).to(x) * 2 - 1
    if divergence == "exact":
        probes = torch.eye(dims).to(x).view(dims, 1, *x.shape[1:])

    def rate(state: tuple[Tensor, Tensor], s: float) -> tuple[Tensor, Tensor]:
        return _with_divergence(f, state[0], s, probes)

    state, s, h = (x, x.new_zeros(len(x))), start, (end - start) / 20
    first = rate(state, s)
    while h > SMALLEST_STEP * (end - start):
        h = min(h, end - s)
        rates = [first]
        for node, weights in zip(_NODES[1:], _STAGES[1:], strict=True):
            trial = _moved(state, rates, weights, h)
            rates.append(rate(trial, s + node * h))
        size = _error(_moved((0 * x, 0 * state[1]), rates, _ERROR, h), state[0], dims) / tolerance
        if size <= 1:
            state, s, first = trial, s + h, rates[-1]
            if end - s <= SMALLEST_STEP * (end - start):
                return state
        h *= min(5.0, max(0.2, 0.9 * size**-0.2)) if size > 0 else 5.0
    raise RunFailed(
        f"The probability flow could not be followed to a tolerance of {tolerance:g}, however small the steps; is the "
        "model trained?"
    )


def followed(f: Field, x: Float[Tensor, "n *shape"], start: float, end: float, steps: int) -> Float[Tensor, "n *shape"]:
    """x(end) from x(start) = x by Heun's method, in equal steps: quick, and without the density."""
    h = (end - start) / steps
    for i in range(steps):
        s = start + i * h
        first = f(x, s)
        x = x + h / 2 * (first + f(x + h * first, s + h))
    return x


def _moved(
    state: tuple[Tensor, Tensor], rates: list[tuple[Tensor, Tensor]], weights: tuple[float, ...], h: float
) -> tuple[Tensor, Tensor]:
    x, integral = state
    for w, (dx, div) in zip(weights, rates, strict=True):
        if w:
            x, integral = x + h * w * dx, integral + h * w * div
    return x, integral


def _error(errors: tuple[Tensor, Tensor], x: Tensor, dims: int) -> float:
    """Root mean square over the batch, of x per number and of the integral per dimension; not finite counts as huge."""
    of_x = (errors[0] / x.abs().clamp(min=1)).square().mean()
    size = float((of_x + (errors[1] / dims).square().mean()).sqrt())
    return size if math.isfinite(size) else 1e6


def _with_divergence(f: Field, x: Tensor, s: float, probes: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        velocity = f(x, s)
    total = x.new_zeros(len(x))
    for i, probe in enumerate(probes):
        probe = probe.expand_as(velocity)
        (row,) = torch.autograd.grad(velocity, x, probe, retain_graph=i + 1 < len(probes))
        total += (row * probe).flatten(1).sum(1)
    return velocity.detach(), total


def standard_normal(x: Float[Tensor, "n *shape"]) -> Float[Tensor, " n"]:
    """log N(x; 0, I) in nats."""
    return -0.5 * (x.square() + math.log(2 * math.pi)).flatten(1).sum(1)


def of_bytes(
    log_density: Callable[[Tensor], Tensor], x: Float[Tensor, "n *shape"], generator: torch.Generator | None
) -> Float[Tensor, " n"]:
    """A stochastic lower bound on the log-probability of 8-bit values on [-1, 1], in nats."""
    u = torch.rand(x.shape, generator=generator).to(x) - 0.5
    return log_density(x + u * (2 / 255)) + x[0].numel() * math.log(2 / 255)
