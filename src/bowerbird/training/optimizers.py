"""What the trainer does to weights: one optimiser per player, the learning rate, the moving average."""

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.config import Train
from bowerbird.errors import BowerbirdError
from bowerbird.machine import bf16_is_faster


class PlayerOptimizer:
    """The optimiser of one player: Adam, AdamW, or Muon for weight matrices and kernels with AdamW for the rest."""

    def __init__(self, player: str, module: nn.Module, train: Train):
        self.player = player
        self.lr = train.lr * train.lr_multiplier.get(player, 1.0)
        self.clip_norm = train.clip_norm
        self.named_parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.parameters = list(self.named_parameters.values())
        if not self.parameters:
            raise BowerbirdError(f"The player '{player}' has no parameters to train.")
        self._optimizers = list(_optimizers(module, self.parameters, train, self.lr))

    def gradient_norm(self) -> Tensor:
        """The norm of all gradients together."""
        return torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])

    def step(self, rate: float, norm: Tensor) -> None:
        """Clips gradients of this finite ``norm``, and steps at ``rate`` times the peak learning rate."""
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * rate
            optimizer.step()

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def state_bytes(self) -> int:
        """Bytes that the state takes once there has been a step: two moments (Muon: one) per parameter."""
        held = 0
        for optimizer in self._optimizers:
            n_moments = 1 if isinstance(optimizer, Muon) else 2
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            held += n_moments * sum(p.numel() * p.element_size() for p in parameters)
        return held

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the optimisers' state, by a flat name."""
        return {
            f"{self.player}/{k}/{index}/{name}": value
            for k, optimizer in enumerate(self._optimizers)
            for index, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        for k, optimizer in enumerate(self._optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                player, number, index, name = key.rsplit("/", 3)
                if player == self.player and int(number) == k:
                    state.setdefault(int(index), {})[name] = value
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
            for parameter, values in optimizer.state.items():
                for name, value in values.items():
                    if value.shape == parameter.shape:  # fused kernels assume the parameter's memory layout
                        values[name] = torch.empty_like(parameter).copy_(value)


def _optimizers(
    module: nn.Module, parameters: Sequence[Tensor], train: Train, lr: float
) -> Iterator[torch.optim.Optimizer]:
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    if train.optimizer == "adam":
        yield _uncompiled(torch.optim.Adam)(parameters, lr, train.betas, weight_decay=train.weight_decay, fused=fused)
        return
    matrices: list[Tensor] = []
    if train.optimizer == "muon":
        embeddings = {id(p) for m in module.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        matrices = [p for p in parameters if p.ndim >= 2 and id(p) not in embeddings]
        if matrices:
            yield _uncompiled(Muon)(matrices, lr, weight_decay=train.weight_decay)
    chosen = {id(p) for p in matrices}
    if rest := [p for p in parameters if id(p) not in chosen]:
        yield _uncompiled(torch.optim.AdamW)(rest, lr, train.betas, weight_decay=train.weight_decay, fused=fused)


@cache
def _uncompiled(kind: type[torch.optim.Optimizer]) -> Any:
    """The optimiser without the wrappers by which torch.compile is kept out of its methods.

    They import the whole compiler to do so: 1.4 CPU seconds at the start of every run.  Ours compile networks only,
    never a step of the optimiser.
    """
    kept_out = ("add_param_group", "state_dict", "load_state_dict")
    own: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in kept_out}
    return type(kind.__name__, (kind,), own | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


class Muon(torch.optim.Optimizer):
    """Steps whose matrix has all singular values near 1 (Jordan et al. 2024), scaled to the size of Adam's.

        momentum ← μ momentum + (1 - μ) gradient
        weights  ← (1 - lr · weight_decay) weights - lr · 0.2 √max(rows, columns) · orthogonal(nesterov momentum)

    A convolution's kernel counts as the matrix (out, in · h · w).  torch.optim.Muon takes matrices only and
    always computes in bf16, which CPUs without bf16 instructions emulate, many times slower than fp32.
    """

    MOMENTUM = 0.95
    RMS = 0.2
    """Root mean square of an Adam step, which Liu et al. 2025 (arXiv:2502.16982, section 2.2) match."""

    def __init__(self, parameters: Sequence[Tensor], lr: float, weight_decay: float = 0.0):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - self.MOMENTUM)
                matrix = p.grad.lerp(momentum, self.MOMENTUM).flatten(1)
                scale = self.RMS * max(matrix.shape) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(orthogonal(matrix).view_as(p), alpha=-group["lr"] * scale)


def orthogonal(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The matrix with its singular values moved to between 0.7 and 1.2, by five Newton-Schulz steps.

    X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X, coefficients of Jordan et al. 2024: they trade exactness for few steps.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16() if bf16_is_faster(matrix.device.type) else matrix
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)


def learning_rate(train: Train, step: int, progress: float) -> float:
    """Fraction of the peak rate: linear warm-up over ``warmup_steps``, then constant, or half a cosine to 0.

    ``progress`` in [0, 1] is the used part of the budget, whatever it is counted in.
    """
    warmup = min(1.0, (step + 1) / train.warmup_steps) if train.warmup_steps else 1.0
    decay = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))) if train.schedule == "cosine" else 1.0
    return warmup * decay


class MovingAverage:
    """Exponential moving average of a model's parameters; buffers (running statistics) are copied.

    average ← decay · average + (1 − decay) · weights,   with decay_k = min(decay, (1 + k) / (10 + k)) at step k,
    so that the random first weights are forgotten quickly.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.model = model
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = [p.detach() for _, p in self.model.named_parameters()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model holds the average and is in eval mode."""
        own = {name: p.data for name, p in self.model.named_parameters()}
        training = self.model.training
        try:
            for name, p in self.model.named_parameters():
                p.data = self.average[name]
            self.model.eval()
            yield
        finally:
            for name, p in self.model.named_parameters():
                p.data = own[name]
            self.model.train(training)
