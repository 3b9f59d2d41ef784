"""Evolutionary adversarial networks (Wang et al. 2018, E-GAN, arXiv:1803.00657): generators compete under one critic.

Notation: latent z ~ N(0, I), generator G(z), critic D(x) with a *logit* as output, s = sigmoid(D(x)).

One step of training (algorithm 1 of the paper, with one parent):

    d_steps times:      z ~ p(z);  D moves down  -E log s(x) - E log(1 - s(G(z)))              (equation 1)
    for each mutation:  a child, which begins as the parent G, moves down one of

                        minimax          E log(1 - s(G(z)))                                    (equation 2)
                        heuristic       -E log s(G(z))                                         (equation 4)
                        least-squares    E (s(G(z)) - 1)²                                      (equation 6)

    once:               the child of the greatest fitness F = F_q + diversity · F_d becomes the parent (equation 9)

                        F_q = E s(G(z))                                  quality                (equation 7)
                        F_d = -log ‖∇_D (-E log s(x) - E log(1 - s(G(z))))‖   diversity         (equation 8)

The last is high where D need not change much for this child: fakes that have collapsed to few places let D turn against
them all at once, and its gradient is large.  All children are judged by the same z and the same real images.

Where we differ: the children of a step share one optimiser, whose second moment is that of all their gradients; the
authors' code gives each child a copy of its parent's.  There is one parent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.models.base import Batch, GenerativeModel, Loss, Piece, Positional
from bowerbird.nets.conditioning import Given
from bowerbird.nets.generator import Generator
from bowerbird.nets.roles import NetConfig
from bowerbird.ranges import Count, NonNegative
from bowerbird.registry import families
from bowerbird.spec import Spec, Tensors

Images = Float[Tensor, "n c h w"]
Logits = Float[Tensor, " n"]
Scalar = Float[Tensor, ""]

# ------------------------------------------------------------------------------------------------- the game


def critic_loss(real_logits: Logits, fake_logits: Logits) -> Scalar:
    """-E log s(x) - E log(1 - s(G(z)))."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def minimax(fake_logits: Logits) -> Scalar:
    """E log(1 - s(G(z))): flat where D wins."""
    return -F.softplus(fake_logits).mean()


def heuristic(fake_logits: Logits) -> Scalar:
    """-E log s(G(z)): steep where D wins."""
    return F.softplus(-fake_logits).mean()


def least_squares(fake_logits: Logits) -> Scalar:
    """E (s(G(z)) - 1)²: flat at both ends."""
    return (fake_logits.sigmoid() - 1).square().mean()


Mutation = Literal["minimax", "heuristic", "least-squares"]
MUTATIONS: dict[Mutation, Callable[[Tensor], Tensor]] = {
    "minimax": minimax,
    "heuristic": heuristic,
    "least-squares": least_squares,
}


def quality(fake_logits: Logits) -> Scalar:
    """F_q = E s(G(z)) in [0, 1]."""
    return fake_logits.sigmoid().mean()


def diversity(loss: Scalar, parameters: list[Tensor]) -> Scalar:
    """F_d = -log ‖∇ loss‖ over D's parameters."""
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return -torch.stack([g.float().square().sum() for g in gradients if g is not None]).sum().sqrt().log()


# ------------------------------------------------------------------------------------------------- the family


@families.register("evolution")
@dataclass(frozen=True)
class EvolutionConfig(config.ModelConfig):
    """Hyperparameters of an evolutionary adversarial network."""

    net: NetConfig
    """The generator's network, and the critic's unless ``critic`` is given."""
    critic: NetConfig | None = None
    """The critic's network (None: as ``net``)."""
    mutations: tuple[Mutation, ...] = ("minimax", "heuristic", "least-squares")
    """The losses by which the children of a step are trained."""
    diversity: NonNegative = 0.1
    """Weight of diversity beside quality in the fitness."""
    d_steps: Count = 1
    """Critic steps per generation."""
    n_latent: Count = 64
    """Dimensions of z."""
    conditional: bool = True
    """Learn images from what is given with them (a label, attributes, a caption), where the data have any."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mutations or len(set(self.mutations)) < len(self.mutations):
            raise ValueError("model.mutations must name at least one mutation, and none of them twice.")

    def build(self, spec: Spec) -> "Evolution":
        return Evolution(self, spec)


class Evolution(GenerativeModel):
    """A generator G, which is the parent between steps and each of its children in turn within one, and a critic D."""

    def __init__(self, config: EvolutionConfig, spec: Spec):
        super().__init__()
        self.config = config
        self.spec = spec if config.conditional else spec.alone()
        channels = spec.needs(Tensors, "evolution").shape[0]
        self.G = Generator(config.net.decoder(self.spec, config.n_latent, channels), config.n_latent)
        self.D = (config.critic or config.net).encoder(self.spec, 1)
        self.wins: Tensor
        """How often the child of each mutation was the fittest."""
        self.register_buffer("wins", torch.zeros(len(config.mutations)))

    @property
    def players(self) -> dict[str, nn.Module]:
        return {"D": self.D, "G": self.G}

    @property
    def sampling_network(self) -> nn.Module:
        return self.G

    @property
    def pieces(self) -> dict[str, Piece]:
        inputs = {"z": Tensors((self.config.n_latent,), None), **self.spec.given}
        return {"generator": Piece(Positional(self.G, self.G, self.spec.given), inputs, "x")}

    def procedure(self) -> dict[str, Any]:
        return {"kind": "decode", "piece": "generator", "latent": "gaussian", "n_latent": self.config.n_latent}

    def losses(self, batch: Batch) -> Iterator[Loss]:
        real, given = batch.x, batch.given
        for _ in range(self.config.d_steps):
            with torch.no_grad():
                fake = self.G(self.G.draw(len(real)), given)
            yield self.turn_of_critic(real, fake, given)
        parent, children = copied(self.G), []
        for name in self.config.mutations:
            fake_logits = self.score(self.G(self.G.draw(len(real)), given), given)
            yield Loss("G", MUTATIONS[name](fake_logits))
            children.append(copied(self.G))  # here G has been stepped
            self.G.load_state_dict(parent)
        self.select(children, real, given)

    def turn_of_critic(self, real: Images, fake: Images, given: Given) -> Loss:
        real_logits, fake_logits = self.score(real, given), self.score(fake, given)
        logs = {
            "real_logits": real_logits.mean(),
            "fake_logits": fake_logits.mean(),
            "accuracy": (real_logits > fake_logits).float().mean(),
        }
        shares = self.wins / self.wins.sum().clamp(min=1)
        logs |= {f"{name}_wins": share for name, share in zip(self.config.mutations, shares, strict=True)}
        return Loss("D", critic_loss(real_logits, fake_logits), {name: log.detach() for name, log in logs.items()})

    @torch.no_grad()
    def select(self, children: list[dict[str, Tensor]], real: Images, given: Given) -> None:
        """G becomes the fittest child; all are judged by the same z."""
        z = self.G.draw(len(real))
        fitness = []
        for child in children:
            self.G.load_state_dict(child)
            fitness.append(self.fitness(self.G(z, given), real, given))
        fittest = max(range(len(children)), key=fitness.__getitem__)
        self.G.load_state_dict(children[fittest])
        self.wins[fittest] += 1

    @torch.enable_grad()
    def fitness(self, fake: Images, real: Images, given: Given) -> float:
        """F_q + diversity · F_d."""
        fake_logits = self.score(fake, given)
        found = quality(fake_logits)
        if self.config.diversity:
            loss = critic_loss(self.score(real, given), fake_logits)
            found = found + self.config.diversity * diversity(loss, list(self.D.parameters()))
        return found.item()

    def score(self, x: Images, given: Given) -> Logits:
        """D's logits."""
        return self.D(x, given).squeeze(1).float()

    @torch.no_grad()
    def sample(self, n: int, given: Given | None = None, options: Any = None, generator: Draws | None = None) -> Images:
        draws = generator or fresh()
        asked = self.requested(n, given, draws)
        return self.G(self.G.draw(n, draws), asked)


def copied(net: nn.Module) -> dict[str, Tensor]:
    """The state of a network as it is now."""
    return {name: value.clone() for name, value in net.state_dict().items()}
