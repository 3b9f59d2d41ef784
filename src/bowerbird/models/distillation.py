r"""Distribution matching distillation (Yin et al. 2024, arXiv:2311.18828): a student that needs few evaluations.

A teacher, a trained diffusion or flow, knows the mean D(x_t, t) = E[x_0 | x_t] of the data, and so the score of the
noisy data, (alpha D - x_t) / sigma^2.  The student G has its network and begins with its weights, but its answer to
x_t is to be an example, not a mean:

    y = G(x_t, t),      x_t = sigma eps at its first t, or alpha x_0 + sigma eps later

What it makes is to have the distribution p of the data.  Let q be that of y, and y_s = alpha_s y + sigma_s eps.  Then

    grad KL(q_s, p_s) = E (score_q(y_s) - score_p(y_s)) alpha_s dy  ~  E (D_q(y_s, s) - D_p(y_s, s)) dy    (eq. 3 to 7)

D_p is the teacher with its guidance, D_q a third network, the fake, which starts as the teacher too and is trained by
the teacher's own loss on what the student makes.  The student goes down the gradient, weighted so that every time
counts alike (eq. 8):

    L = mean |y - stop(y - g)|^2 / 2,       g = (D_q - D_p) / mean |y - D_p|

Nothing is paired: the student need not follow the teacher's paths, which a small network cannot in one step, and an
error is not averaged into a blur.  A fake that lags behind makes the student run away; it takes ``fake_updates`` steps
for each of the student's (Yin et al. 2024, DMD2, arXiv:2405.14867, section 4.2), all on the same examples.

The student begins where sigma / alpha = ``begin``, with noise of that sigma (Zhou et al. 2024, SiD, arXiv:2404.04057):
at t = 1 its first weights would make one and the same mean of all noises, there they make blurred examples,
each its own.  With several steps a sample goes up again by fresh noise between two answers, and the student practises
this on noisy data (``from_noise``).

Where we differ: no regression on samples of the teacher, and no discriminator.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import (
    Batch,
    Denoises,
    GenerativeModel,
    Loss,
    Options,
    Piece,
    evaluating,
    keep,
)  # fmt: skip
from bowerbird.nets.conditioning import Given, dropped
from bowerbird.ranges import Count, Positive, Share, Whole
from bowerbird.registry import families
from bowerbird.samplers.integrate import Denoising, Path, integrate
from bowerbird.samplers.schedule import stratified_uniform
from bowerbird.spec import Spec, Tensors

N_TIMES = 1000
"""Times that training visits, spread as those of the teacher's sampler, number 0 being t = 1."""
MARGIN = 0.02
"""Share of the times at either end at which the distributions are not compared: all is noise there, or none."""
PLAIN = {"sampler": "euler", "sample_steps": N_TIMES, "guidance": 1.0}
"""Settings of a teacher that its student has otherwise: no second evaluation, and all times."""


@dataclass(frozen=True)
class DistillationOptions(Options):
    """How samples are drawn."""

    steps: Count | None = None
    """Evaluations of the network; None is as the recipe says."""


@families.register("distillation")
@dataclass(frozen=True)
class DistillationConfig(config.ModelConfig):
    """A student of a trained diffusion or flow."""

    teacher: config.ModelConfig = field(
        default_factory=partial(config.model_from, {"family": "flow", "guidance": 2.0}, "distillation")
    )
    """The teacher, set as the run that ``train.start`` names was trained; the student learns its guidance."""
    begin: Positive = 2.5
    """Noise level sigma/alpha at which the student begins."""
    from_noise: Share = 0.5
    """Share of the examples that the student makes from pure noise; it makes the others from noisy data."""
    fake_updates: Whole = 1
    """Updates of the network that follows the student, for each update of the student; 0: a trained student."""
    label_dropout: Share = 0.0
    """Probability of hiding what is given in training; needed for samples without it."""
    sample_steps: Count = 1
    """Evaluations of the network per sample."""

    def build(self, spec: Spec) -> "Distillation":
        return Distillation(self, spec)

    def for_use(self) -> "DistillationConfig":
        return replace(self, fake_updates=0)

    def student(self) -> config.ModelConfig:
        """The teacher's settings, at all times and without a second evaluation for guidance."""
        if missing := PLAIN.keys() - {one.name for one in fields(self.teacher)}:
            raise BowerbirdError(
                f"model.teacher = {families.name_of(type(self.teacher))} has no {min(missing)}, so it cannot be "
                "distilled; use flow or diffusion."
            )
        return replace(self.teacher, **PLAIN)


class Distillation(GenerativeModel):
    """Student, teacher and fake."""

    Options = DistillationOptions
    borrowed = "teacher"

    def __init__(self, config: DistillationConfig, spec: Spec):
        super().__init__()
        self.config = config
        self.student: Any = config.student().build(spec)
        self.spec = self.student.spec
        if config.fake_updates:
            self.teacher: Any = config.teacher.build(spec)
            keep(self.teacher)
            self.fake: Any = config.student().build(spec)

    @cached_property
    def points(self) -> Path:
        """All times, with alpha and sigma."""
        way: Denoising = self.student.denoising({}, self.student.Options())
        return way.points

    @cached_property
    def first(self) -> int:
        """The number of the student's first time."""
        noisy = (sigma > self.config.begin * alpha for _, alpha, sigma in zip(*self.points, strict=True))
        return list(noisy).index(False)

    @property
    def players(self) -> dict[str, nn.Module]:
        return {"student": self.student} | ({"fake": self.fake} if self.config.fake_updates else {})

    def losses(self, batch: Batch) -> Iterator[Loss]:
        if not self.config.fake_updates:
            raise BowerbirdError("model.fake_updates = 0 trains nothing; set it to at least 1.")
        given = dropped(batch.given, self.spec.given, self.config.label_dropout)
        y = _answer(self.student, *self._start(batch.x), given)
        for _ in range(self.config.fake_updates):
            for loss in self.fake.losses(Batch(y.detach(), given)):
                yield loss._replace(player="fake")
        g = self._gradient(y.detach(), given)
        yield Loss("student", (y - (y.detach() - g)).square().mean() / 2, {"gradient": g.abs().mean()})

    @torch.no_grad()
    def _gradient(self, y: Float[Tensor, "n *shape"], given: Given) -> Float[Tensor, "n *shape"]:
        """Of the divergence from the teacher's distribution to the student's."""
        place = MARGIN + (1 - 2 * MARGIN) * stratified_uniform(len(y))
        y_s, s = self._noisy(y, (place * N_TIMES).long())
        with evaluating(self.teacher), evaluating(self.fake):
            real, fake = (_answer(model, y_s, s, given) for model in (self.teacher, self.fake))
        return (fake - real) / _over((y - real).abs().flatten(1).mean(1), y)

    def _start(self, x: Float[Tensor, "n *shape"]) -> tuple[Float[Tensor, "n *shape"], Tensor]:
        """What the student is asked about: noise at its first time, or these data at a later one."""
        of_noise = torch.rand(len(x)) < self.config.from_noise
        later = torch.randint(self.first, N_TIMES, (len(x),))
        return self._noisy(_over(~of_noise, x) * x, torch.where(of_noise, self.first, later))

    def _noisy(self, x: Float[Tensor, "n *shape"], number: Tensor) -> tuple[Float[Tensor, "n *shape"], Tensor]:
        """x at the times of these numbers, and the times."""
        t, alpha, sigma = torch.tensor(self.points, dtype=torch.float64)[:, number]
        return _over(alpha, x) * x + _over(sigma, x) * torch.randn_like(x), t

    @torch.no_grad()
    def sample(
        self,
        n: int,
        given: Given | None = None,
        options: DistillationOptions | None = None,
        generator: Draws | None = None,
    ) -> Float[Tensor, "n *shape"]:
        """n examples within the bounds of the data."""
        draws, target = generator or fresh(), self.spec.needs(Tensors, "distillation")
        noise = draws.randn(n, *target.shape).to(self.device)
        way = self.denoising(self.requested(n, given, draws), options or DistillationOptions())
        with evaluating(self.student):
            x = integrate(way.denoise, way.points.sigma[0] * noise, way.rows(), generator=draws)
        return x.clamp(*target.bounds) if target.bounds else x

    def denoising(self, given: Given, options: DistillationOptions) -> Denoising:
        """The jumps from noise to an example."""
        way: Denoising = self.student.denoising(given, self.student.Options())
        visited = self._visited(options.steps or self.config.sample_steps)
        return way._replace(points=Path(*([row[i] for i in visited] for row in way.points)), sampler="consistency")

    def _visited(self, steps: int) -> list[int]:
        """The numbers of the times from the student's first to the data's."""
        return torch.linspace(self.first, N_TIMES, steps + 1).round().long().tolist()

    @property
    def sampling_network(self) -> nn.Module:
        net: nn.Module = self.student.sampling_network
        return net

    @property
    def pieces(self) -> dict[str, Piece]:
        return dict(self.student.pieces)

    def procedure(self) -> dict[str, Any]:
        table: dict[str, Any] = self.student.procedure()
        way = self.denoising({}, DistillationOptions())
        around = [table["steps"][i] for i in self._visited(self.config.sample_steps)[:-1]]
        rows = [row._asdict() for row in way.rows()]
        steps = [one | {k: v for k, v in row.items() if k != "t"} for one, row in zip(around, rows, strict=True)]
        return table | {"steps": steps, "first_sigma": way.points.sigma[0], "clip": False}

    def weights(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.state_dict().items() if name.startswith("student.")}


def _answer(model: Denoises, x_t: Tensor, t: Tensor, given: Given) -> Float[Tensor, "n *shape"]:
    """What the model, with its own guidance, says of x_t, each example at its own time."""
    options = model.Options()  # type: ignore[attr-defined]
    return model.denoising(given, options).denoise(x_t, t).x0.float()


def _over(numbers: Tensor, x: Tensor) -> Tensor:
    """One number for each example, shaped to multiply or divide x."""
    return numbers.to(x).view(-1, *[1] * (x.dim() - 1))
