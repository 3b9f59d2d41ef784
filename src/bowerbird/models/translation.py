"""Translation of pictures: a network G turns a source into a target, learned from pairs or from two unrelated piles.

Notation: source s, target x, both in [-1, 1]; G(s) looks like a target and F(x), where there is a way back, like a
source; a discriminator D answers with logits, large where a picture looks real; ‖·‖₁ is the mean absolute value.

**paired** (pix2pix: Isola et al. 2017, arXiv:1611.07004): x is what s should become.

    G moves down  ‖G(s) - x‖₁                                         without a discriminator
    G moves down  g(D(s, G(s))) + l1_weight · ‖G(s) - x‖₁             with one (equation 4), which sees the source too
    D moves down  d(D(s, x), D(s, G(s)))

**cycle** (CycleGAN: Zhu et al. 2017, arXiv:1703.10593, equation 3 and section 5.2): x and s are drawn independently.

    G moves down  g(D_target(G(s))) + cycle_weight · (‖F(G(s)) - s‖₁ + ‖G(F(x)) - x‖₁) + identity_weight · ‖G(x) - x‖₁
    F moves down  the same with the two sides exchanged
    D_target      d(D_target(x), D_target(y)), y from a pool of translations G(s), old and new; D_source likewise

Where we differ: G and F step in turn, each with the other held fixed (CycleGAN moves both at once); G has no dropout,
which hardly changed pix2pix's pictures (section 3.1), so that a source has one translation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird import config
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, GenerativeModel, Loss, Options, Piece, Positional, evaluating
from bowerbird.nets.conditioning import Given
from bowerbird.nets.roles import NetConfig
from bowerbird.nets.unet import UNetConfig
from bowerbird.ranges import NonNegative, Whole
from bowerbird.registry import families
from bowerbird.spec import Tensors

Images = Float[Tensor, "n c h w"]
Others = Float[Tensor, "n c2 h w"]  # pictures of the other side, which may have other channels
Logits = Float[Tensor, "n *patches"]
Scalar = Float[Tensor, ""]
Shape = tuple[int, ...]

# ---------------------------------------------------------------------------------------------------- the losses


def l1(x: Images, y: Images) -> Scalar:
    """‖x - y‖₁."""
    return (x - y).abs().mean()


def least_squares(logits: Logits, real: float) -> Scalar:
    """E(D - real)²: Mao et al. 2017, arXiv:1611.04076, as in CycleGAN's section 4."""
    return (logits - real).square().mean()


def cross_entropy(logits: Logits, real: float) -> Scalar:
    """-real · E log sigmoid(D) - (1 - real) · E log(1 - sigmoid(D)): pix2pix's equation 1; g does not saturate."""
    return (F.softplus(logits) - real * logits).mean()


LossName = Literal["least-squares", "non-saturating"]
LOSSES: dict[LossName, Callable[[Tensor, float], Tensor]] = {
    "least-squares": least_squares,
    "non-saturating": cross_entropy,
}


class ImagePool(nn.Module):
    """Translations of the past, so that D does not forget what it has learned to reject (CycleGAN, section 4).

    A pool that is full returns for each picture offered the picture itself or, with probability ½, one that it keeps,
    whose place the picture takes (Shrivastava et al. 2017, arXiv:1612.07828, section 2.3).  What it keeps are buffers:
    a resumed run goes on exactly.  ``size`` = 0 returns what it is offered.
    """

    kept: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: Shape):
        super().__init__()
        self.size = size
        self.register_buffer("kept", torch.zeros(size, *shape) if size else None)
        self.register_buffer("filled", torch.tensor(0) if size else None)

    @torch.no_grad()
    def exchange(self, fresh: Images) -> Images:
        """As many pictures as ``fresh`` has; the draws are of torch's global generator on the CPU."""
        return torch.stack([self._one(picture) for picture in fresh]) if self.size else fresh.detach()

    def _one(self, picture: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
        if (filled := int(self.filled)) < self.size:
            self.kept[filled] = picture
            self.filled += 1
            return picture
        if torch.rand(()) < 0.5:
            return picture
        place = int(torch.randint(self.size, ()))
        old = self.kept[place].clone()
        self.kept[place] = picture
        return old


class Translator(nn.Module):
    """Source → picture: tanh(net(source)), or source + net(source) where the network answers with the change."""

    def __init__(self, net: nn.Module, output: str):
        super().__init__()
        self.net, self.output = net, output

    def forward(self, source: Images) -> Float[Tensor, "n channels_out h w"]:
        y = self.net(source, source.new_zeros(source.shape[0]), {}).float()
        return source + y if self.output == "change" else torch.tanh(y)


# ---------------------------------------------------------------------------------------------------- the family


@dataclass(frozen=True)
class TranslationOptions(Options):
    """Which way pictures are translated."""

    direction: Literal["forward", "backward"] = "forward"
    """forward: source to target; backward: target to source, which a model of cycles has learned too."""


@families.register("translation")
@dataclass(frozen=True)
class TranslationConfig(config.ModelConfig):
    """Hyperparameters of a translation of pictures."""

    net: NetConfig = field(default_factory=UNetConfig)
    """The network of G, and of F: unet, resnet, dit or mlp."""
    discriminator: NetConfig | None = None
    """What tells real from translated: patchgan, convnet or mlp (None: learn from pairs by L1 alone)."""
    learning: Literal["paired", "cycle"] = "paired"
    """paired: every source comes with its target; cycle: sources and targets are two unrelated piles."""
    output: Literal["picture", "change"] = "picture"
    """Whether the network answers with the picture or with its difference from the source."""
    loss: LossName = "least-squares"
    """Which game G and D play."""
    l1_weight: NonNegative = 100.0
    """Learning from pairs, with a discriminator: weight of ‖G(s) - x‖₁."""
    cycle_weight: NonNegative = 10.0
    """Learning from cycles: weight of the cycle consistency loss."""
    identity_weight: NonNegative = 0.0
    """Learning from cycles: weight of the identity loss; the paper's 5 keeps the colours of paintings."""
    pool: Whole = 50
    """Learning from cycles: number of earlier translations that each discriminator is shown again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learning == "cycle" and self.discriminator is None:
            raise ValueError('Learning from cycles needs a discriminator; set model.discriminator.name = "patchgan".')

    def build(self, spec: Any) -> "Translation":
        return Translation(self, spec)

    def for_use(self) -> "TranslationConfig":
        return replace(self, pool=0)


class Translation(GenerativeModel):
    """G, and where they are asked for F and the discriminators, with an optimiser each."""

    Options: ClassVar[type] = TranslationOptions

    def __init__(self, config: TranslationConfig, spec: Any):
        super().__init__()
        source, target = checked(spec, config)
        self.config, self.spec = config, replace(spec, given={"source": spec.given["source"]})
        self.starts = {"forward": source, "backward": target}
        net, judge = config.net, config.discriminator
        self.G = Translator(net.denoiser(seen(spec, source), target[0]), config.output)
        if judge is not None and config.learning == "cycle":
            self.F = Translator(net.denoiser(seen(spec, target), source[0]), config.output)
            self.D_target, self.D_source = (judge.encoder(seen(spec, shape), 1) for shape in (target, source))
            self.past_targets, self.past_sources = (ImagePool(config.pool, shape) for shape in (target, source))
        elif judge is not None:
            self.D = judge.encoder(seen(spec, (source[0] + target[0], *target[1:])), 1)

    @property
    def players(self) -> dict[str, nn.Module]:
        names = ("D", "G", "F", "D_target", "D_source")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    @property
    def sampling_network(self) -> nn.Module:
        return self.G

    @property
    def pieces(self) -> dict[str, Piece]:
        nets = {"forward": self.G} | ({"backward": self.F} if hasattr(self, "F") else {})
        return {
            name: Piece(Positional(net, net), {"source": Tensors(self.starts[name])}, "x") for name, net in nets.items()
        }

    def procedure(self) -> dict[str, Any]:
        return {"kind": "translate", "piece": "forward"}

    def weights(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.state_dict().items() if not name.startswith("past_")}

    def losses(self, batch: Batch) -> Iterator[Loss]:
        by = self.cycle_losses if self.config.learning == "cycle" else self.paired_losses
        yield from by(batch.given["source"], batch.x)

    # ------------------------------------------------------------------------------------------- from pairs

    def paired_losses(self, source: Images, target: Others) -> Iterator[Loss]:
        fake = self.G(source)
        distance = l1(fake, target)
        if self.config.discriminator is None:
            yield Loss("G", distance, {"l1": distance.detach()})
            return
        yield self.discriminator_loss("D", beside(source, target), beside(source, fake.detach()))
        fooled = self.fooled(self.D, beside(source, fake))  # here D has been stepped, and G has not
        logs = {"l1": distance.detach(), "fooled": fooled.detach()}
        yield Loss("G", fooled + self.config.l1_weight * distance, logs)

    # ------------------------------------------------------------------------------------------- from cycles

    def cycle_losses(self, source: Images, target: Others) -> Iterator[Loss]:
        fake_target, fake_source = self.G(source), self.F(target)
        yield self.generator_loss("G", source, fake_target, target, fake_source.detach())
        yield self.generator_loss("F", target, fake_source, source, fake_target.detach())
        yield self.discriminator_loss("D_target", target, self.past_targets.exchange(fake_target.detach()))
        yield self.discriminator_loss("D_source", source, self.past_sources.exchange(fake_source.detach()))

    def generator_loss(self, player: str, a: Images, fake_b: Others, b: Others, fake_a: Images) -> Loss:
        """Of the translator from a to b: ``fake_b`` is its translation of a, ``fake_a`` the other's of b."""
        c = self.config
        there, back, D = (self.G, self.F, self.D_target) if player == "G" else (self.F, self.G, self.D_source)
        parts = {"fooled": self.fooled(D, fake_b), "cycle": l1(back(fake_b), a) + l1(there(fake_a), b)}
        value = parts["fooled"] + c.cycle_weight * parts["cycle"]
        if c.identity_weight:
            parts["identity"] = l1(there(b), b)
            value = value + c.identity_weight * parts["identity"]
        return Loss(player, value, {name: part.detach() for name, part in parts.items()})

    # ------------------------------------------------------------------------------------------- the game

    def fooled(self, D: nn.Module, fake: Images) -> Scalar:
        """g(D(fake)): how far D is from taking the pictures for real."""
        return LOSSES[self.config.loss](D(fake, {}).float(), 1.0)

    def discriminator_loss(self, player: str, real: Images, fake: Images) -> Loss:
        """d = ½ (loss of real pictures + loss of translated ones); halved in both papers, so that D learns slower."""
        D, loss = self.players[player], LOSSES[self.config.loss]
        real_logits, fake_logits = D(real, {}).float(), D(fake, {}).float()
        value = (loss(real_logits, 1.0) + loss(fake_logits, 0.0)) / 2
        logs = {
            "real_logits": real_logits.mean(),
            "fake_logits": fake_logits.mean(),
            "accuracy": (real_logits > fake_logits).float().mean(),  # share of places that D orders rightly
        }
        return Loss(player, value, {name: log.detach() for name, log in logs.items()})

    # ------------------------------------------------------------------------------------------- use

    @torch.no_grad()
    def sample(
        self, n: int, given: Given | None = None, options: Any = None, generator: Any = None
    ) -> Float[Tensor, "n c h w"]:
        """The translations of ``given["source"]``, n pictures in [-1, 1]; nothing is drawn at random."""
        direction = (options or TranslationOptions()).direction
        if direction == "backward" and self.config.learning != "cycle":
            raise BowerbirdError("This model was trained on pairs and translates forward only; leave --direction out.")
        translator, shape = self.F if direction == "backward" else self.G, self.starts[direction]
        source = (given or {}).get("source")
        if source is None or source.shape != (n, *shape):
            found = "none were given" if source is None else f"what was given has the shape {tuple(source.shape)}"
            wanted = "x".join(map(str, shape))
            raise BowerbirdError(f"This model translates pictures: it needs {n} of {wanted} numbers, and {found}.")
        self.requested(n, given, generator or Draws(0))  # refuses what the model does not take
        with evaluating(translator):
            return translator(source.to(self.device)).clamp(-1, 1)


def beside(source: Images, picture: Others) -> Float[Tensor, "n both h w"]:
    """What the discriminator of pairs sees: source and picture laid over one another as channels."""
    return torch.cat([source, picture], dim=1)


def seen(spec: Any, shape: Shape) -> Any:
    """The spec of a network that sees pictures of this shape and nothing else."""
    return replace(spec, target=replace(spec.target, shape=shape), given={})


def checked(spec: Any, config: TranslationConfig) -> tuple[Shape, Shape]:
    """The shapes of source and target; BowerbirdError where they cannot be translated."""
    field, target = spec.given.get("source"), spec.needs(Tensors, "translation").shape
    if not isinstance(field, Tensors):
        raise BowerbirdError(
            "The family translation needs a source picture for every example; give it data that have one, for "
            "example --data emoji --data.from flat --data.to 3d."
        )
    if field.shape[1:] != target[1:]:
        raise BowerbirdError("The family translation needs sources and targets of one size; set --data.size.")
    if field.shape != target and (config.output == "change" or config.identity_weight):
        raise BowerbirdError(
            f"Sources have {field.shape[0]} channels and targets {target[0]}, so there is neither a change of the "
            'source nor an identity; set model.output = "picture" and model.identity_weight = 0.'
        )
    return field.shape, target
