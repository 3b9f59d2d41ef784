"""A classifier and a generator learnt from many pictures of which few have labels.

Notation: x a picture, y its label, p(y) uniform over K classes, z ~ N(0, I); three networks give q(y|x),
q(z|x, y) = N(mu(x) + e(y), diag exp(logvar(x))) and p(x|y, z).  In nats, per picture:

    L(x, y) = E_q log p(x|y, z) + log p(y) - KL(q(z|x, y) ‖ p(z))  ≤  log p(x, y)
    U(x)    = Σ_y q(y|x) (L(x, y) - log q(y|x))                    ≤  log p(x)

``learning`` says what teaches the classifier besides the cross-entropy C of the labelled pictures:

    m2            loss = alpha C - U(x) - L(x_labelled, y)           (Kingma et al. 2014, arXiv:1406.5298, M2)
    consistency   loss = C + consistency · E 1[max q(y|x) ≥ threshold] · -log q(ŷ | changed x) - L(x, ŷ)
                  with ŷ the likeliest label of x, moved a little, and changed = moved, partly covered and bent
                  (Sohn et al. 2020, arXiv:2001.07685, FixMatch)
    labels        loss = C - L(x, ŷ): nothing, the baseline

In the last two, the generator learns from the labels that the classifier finds, and does not teach it.  C is that of
labelled pictures moved a little in all three.

Which labels are seen: the model keeps the first ``n_labels`` labelled pictures that training meets, as many of each
class, and draws from them at every step; every other label is hidden from the loss.  The order of training follows
from its seed, and so do they.  A class number of K or more is a picture without a label.

log p(x|y, z) is the Bernoulli cross-entropy, which is a likelihood for black and white pixels only.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, GenerativeModel, Loss, Options, Piece, Positional
from bowerbird.nets.augment import Augmentation, augmented
from bowerbird.nets.conditioning import Given
from bowerbird.nets.roles import NetConfig
from bowerbird.ranges import Count, NonNegative, Share, Whole
from bowerbird.registry import families
from bowerbird.spec import Classes, Spec, Tensors

LABEL = "label"
Images = Float[Tensor, "n c h w"]
Labels = Int64[Tensor, " n"]


@families.register("fewlabels")
@dataclass(frozen=True)
class FewLabelsConfig(config.ModelConfig):
    """Hyperparameters of a model that learns from few labels."""

    net: NetConfig
    """Classifier, encoder and decoder, each a network of its own."""
    learning: Literal["consistency", "m2", "labels"] = "consistency"
    """What teaches the classifier besides the labels: agreement of its answers on changed pictures, the bound of the
    generative model, or nothing."""
    n_labels: Whole = 100
    """Labelled pictures that training may use, as many of each class."""
    labelled_batch: Count = 32
    """Labelled pictures drawn per micro-batch, beside those of the batch."""
    n_latent: Count = 16
    """Dimensions of z."""
    alpha: NonNegative = 50.0
    """Weight of the labels' cross-entropy in m2, whose bound is measured in nats per picture."""
    consistency: NonNegative = 1.0
    """Weight of the agreement on changed pictures."""
    threshold: Share = 0.95
    """Least probability of a label for it to be taught to the changed picture."""

    def build(self, spec: Spec) -> "FewLabels":
        return FewLabels(self, spec)

    def for_use(self) -> "FewLabelsConfig":
        return replace(self, n_labels=0)


class FewLabels(GenerativeModel):
    """q(y|x), q(z|x, y) and p(x|y, z), trained as one player."""

    kept_x: Tensor
    """The labelled pictures, (n_labels, c, h, w); what they are is a buffer, so that a resumed run goes on exactly."""
    kept: Tensor
    """Which of the places are taken, bool (n_labels,)."""

    def __init__(self, config: FewLabelsConfig, spec: Spec):
        super().__init__()
        label = spec.given.get(LABEL)
        if not isinstance(label, Classes):
            raise BowerbirdError(
                "The family fewlabels needs pictures of which some have labels; choose another --data."
            )
        self.config = config
        self.spec = replace(spec, given={LABEL: label})
        self.n_classes = len(label.names)
        shape = spec.needs(Tensors, "fewlabels").shape
        self.classifier = config.net.encoder(spec.alone(), self.n_classes)
        self.encoder = config.net.encoder(spec.alone(), 2 * config.n_latent)
        self.shift = nn.Embedding(self.n_classes, config.n_latent)
        self.decoder = config.net.decoder(self.spec, config.n_latent, shape[0])
        self.register_buffer("kept_x", torch.zeros(config.n_labels, *shape))
        self.register_buffer("kept", torch.zeros(config.n_labels, dtype=torch.bool))

    def weights(self) -> dict[str, Tensor]:
        """Without the labelled pictures."""
        empty = {"kept_x": self.kept_x[:0], "kept": self.kept[:0]}
        return self.state_dict() | empty

    @property
    def sampling_network(self) -> nn.Module:
        return self.decoder

    # ------------------------------------------------------------------------------------------------ few labels

    def labelled(self, batch: Batch) -> tuple[Images, Labels]:
        """The pictures whose labels may be seen: in training draws from those kept, in evaluation the batch itself."""
        x, y = batch.x, batch.given[LABEL]
        if not self.training:
            return x[y < self.n_classes], y[y < self.n_classes]
        self.keep(x, y)
        places = self.kept.nonzero().flatten()
        n = self.config.labelled_batch if len(places) else 0
        drawn = places[torch.randint(max(1, len(places)), (n,)).to(places.device)]
        return self.kept_x[drawn], drawn % self.n_classes

    @torch.no_grad()
    def keep(self, x: Images, y: Labels) -> None:
        """Fills free places: place i is for class i mod K."""
        places = torch.arange(len(self.kept)) % self.n_classes
        for label in (~self.kept.cpu()).nonzero().flatten().remainder(self.n_classes).unique().tolist():
            free = ((places == label) & ~self.kept.cpu()).nonzero().flatten().to(x.device)
            found = (y == label).nonzero().flatten()[: len(free)]
            self.kept_x[free[: len(found)]] = x[found]
            self.kept[free[: len(found)]] = True

    # ---------------------------------------------------------------------------------------------------- losses

    def losses(self, batch: Batch) -> Iterator[Loss]:
        x, y = self.labelled(batch)
        entropy = F.cross_entropy(self.classifier(moved(x)).float(), y, reduction="sum") / max(1, len(y))
        if self.config.learning == "m2":
            rest, logs = self.by_bound(batch.x, x, y)
            value = self.config.alpha * entropy + rest
        else:
            rest, logs = self.by_consistency(batch.x) if self.config.learning == "consistency" else self.alone(batch.x)
            value = entropy + rest
        yield Loss("model", value, {"cross_entropy": entropy.detach(), **logs})

    def by_bound(
        self, unlabelled: Images, x: Float[Tensor, "m c h w"], y: Int64[Tensor, " m"]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """-U - L, each a mean over its pictures."""
        bound = self.marginal_bound(unlabelled).mean()
        labelled = self.bound(x, self.encoder(x), y).sum() / max(1, len(y))
        return -bound - labelled, {"bound": bound.detach()}

    def by_consistency(self, x: Images) -> tuple[Tensor, dict[str, Tensor]]:
        """consistency · E 1[sure] · -log q(ŷ | changed x) - L(x, ŷ)."""
        probability, found = self.classify(moved(x)).exp().max(1)
        sure = (probability >= self.config.threshold).float()
        logits = self.classifier(bent(moved(x, "cutout"))).float()
        agreement = (sure * F.cross_entropy(logits, found, reduction="none")).mean()
        bound = self.bound(x, self.encoder(x), found).mean()
        logs = {"bound": bound.detach(), "agreement": agreement.detach(), "sure": sure.mean()}
        return self.config.consistency * agreement - bound, logs

    def alone(self, x: Images) -> tuple[Tensor, dict[str, Tensor]]:
        """-L(x, ŷ)."""
        bound = self.bound(x, self.encoder(x), self.classify(x).argmax(1)).mean()
        return -bound, {"bound": bound.detach()}

    def bound(self, x: Images, code: Float[Tensor, "n two_n_latent"], y: Labels) -> Float[Tensor, " n"]:
        """L(x, y), the encoder's output for x being ``code``."""
        mu, logvar = code.float().chunk(2, dim=1)
        mu = mu + self.shift(y)
        z = mu + (logvar / 2).exp() * torch.randn(mu.shape).to(mu)
        logits = self.decoder(z, {LABEL: y}).float()
        log_likelihood = -F.binary_cross_entropy_with_logits(logits, (x + 1) / 2, reduction="none").flatten(1).sum(1)
        kl = ((mu.square() + logvar.exp() - logvar - 1) / 2).sum(1)
        return log_likelihood - math.log(self.n_classes) - kl

    def marginal_bound(self, x: Images) -> Float[Tensor, " n"]:
        """U(x), by decoding x with every label."""
        log_q = self.classifier(x).float().log_softmax(1)
        y = torch.arange(self.n_classes, device=x.device).repeat(len(x))
        each, code = (one.repeat_interleave(self.n_classes, 0) for one in (x, self.encoder(x)))
        bounds = self.bound(each, code, y).view(len(x), self.n_classes)
        return (log_q.exp() * (bounds - log_q)).sum(1)

    # ------------------------------------------------------------------------------------------------------- use

    @torch.no_grad()
    def classify(self, x: Images) -> Float[Tensor, "n n_classes"]:
        """log q(y|x)."""
        return self.classifier(x).float().log_softmax(1)

    @torch.no_grad()
    def sample(
        self, n: int, given: Given | None = None, options: Options | None = None, generator: Draws | None = None
    ) -> Images:
        """The expected picture of z ~ N(0, I) and the label."""
        draws = generator or fresh()
        asked = self.requested(n, given, draws)
        return self.decode(draws.randn(n, self.config.n_latent).to(self.device), asked)

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "n n_latent"], given: Given) -> Images:
        """E[x|y, z]."""
        return self.decoder(z, given).float().sigmoid() * 2 - 1

    @property
    def pieces(self) -> dict[str, Piece]:
        x, z = self.spec.needs(Tensors, "fewlabels"), Tensors((self.config.n_latent,), None)
        decoder = Positional(self.decoder, self.decode, self.spec.given)
        return {
            "decoder": Piece(decoder, {"z": z, **self.spec.given}, "x"),
            "classifier": Piece(Positional(self.classifier, self.classify), {"x": x}, "log_probabilities"),
        }

    def procedure(self) -> dict[str, Any]:
        return {"kind": "decode", "piece": "decoder", "latent": "gaussian", "n_latent": self.config.n_latent}


def moved(x: Images, *besides: Augmentation) -> Images:
    """Moved by up to 1/8 of the side, and changed ``besides``; what is uncovered becomes black."""
    return augmented(x + 1, ("translate", *besides)) - 1


BEND = 0.2
"""The largest entry of a matrix that bends."""


def bent(x: Images) -> Images:
    """Turned, sheared and scaled at once: at place p stands what was at (I + E) p, the entries of E uniform in ±0.2."""
    matrix = torch.eye(2, 3) + F.pad((2 * torch.rand(len(x), 2, 2) - 1) * BEND, (0, 1))
    places = F.affine_grid(matrix.to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, places, align_corners=False) - 1
