"""The style of one picture on the content of another (Gatys et al. 2016, CVPR, "Image style transfer using CNNs").

No model is trained: L-BFGS moves the pixels of x from the content picture c towards the style picture s.  F_l are the
features of a classifier's layer l, one row per channel, and G_l = F_l F_lᵀ / places is how the channels of a layer go
together, wherever in the picture that is.

    content    C(x) = ‖F(x) - F(c)‖² / ‖F(c)‖²                           at one deep layer       (equation 1)
    style      S(x) = mean over l of ‖G_l(x) - G_l(s)‖² / ‖G_l(s)‖²     at layers of all depths  (equations 3 to 5)
    smooth     V(x) = E (differences of neighbouring pixels)²
    range      R(x) = E (what of x lies beyond black and white)²

    x = argmin S + CONTENT / strength · C + SMOOTH · V + RANGE · R

Where we differ: the paper's classifier is VGG; ours is EfficientNet-Lite0, 30 times cheaper, of which the outputs of
the blocks are taken, before their non-linearity.  Each term is relative to its target, so that one strength fits all
pictures.  V is not in the paper: without it, the strides of the network show as a fine chequerboard.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from bowerbird import ranges
from bowerbird.data.fetch import needed
from bowerbird.errors import BowerbirdError
from bowerbird.generating import Samples
from bowerbird.media.image import pixels
from bowerbird.media.image.supplied import as_stored
from bowerbird.metrics.efficientnet import EfficientNetLite0
from bowerbird.provenance.labelling import Labeller
from bowerbird.ranges import Count, Positive, Range
from bowerbird.spec import Spec, Tensors

Picture = Float[Tensor, "3 h w"]
Maps = list[Float[Tensor, "1 c rows columns"]]

STYLE_LAYERS, CONTENT_LAYER = (0, 1, 3, 5, 8, 11), 8
"""Of the stem and the blocks after it: down to a sixteenth of the side."""
STRIDE = 16
"""What the sides of both pictures must be multiples of."""
CONTENT, SMOOTH, RANGE = 0.02, 0.3, 10.0


@dataclass(frozen=True)
class Styling:
    """How a picture is to be painted."""

    strength: Positive = 1.0
    """Above 1 more of the style, below 1 more of the content."""
    size: Annotated[int, Range(64, 1024)] = 256
    """The longest side of the result in pixels; the cost grows with its square."""
    iterations: Count = 150
    """Steps of the search; each is one pass through the network and back."""

    def __post_init__(self) -> None:
        ranges.check(self, "")


def stylise(content: Path, style: Path, styling: Styling, labeller: Labeller) -> Samples:
    """The content of one picture in the style of another, beside it.

    BowerbirdError for files that are no pictures, and where the weights efficientnet-lite0 are not on this machine.
    """
    network = EfficientNetLite0.load(needed("efficientnet-lite0"))
    shown, painting = (read(path, styling.size) for path in (content, style))
    x = stylised(shown, painting, network, strength=styling.strength, iterations=styling.iterations)
    shape = tuple(x.shape)
    spec = Spec("image", Tensors(shape), {"source": Tensors(shape)})
    usual = asdict(Styling())
    said = {name: value for name, value in asdict(styling).items() if value != usual[name]}
    about = {"generated_by": "stylise", "content": content.name, "style": style.name} | said
    return Samples(x[None] * 2 - 1, {"source": shown[None] * 2 - 1}, spec, about, [content.stem], labeller)


def read(path: Path, longest: int) -> Picture:
    """One picture in [0, 1] with this longest side."""
    found = list(as_stored(path.expanduser()).values())
    if len(found) > 1:
        raise BowerbirdError(f"{path} holds {len(found)} pictures; name one.")
    image = Image.fromarray(pixels.with_channels(found, 3)[0])
    fitting = image.resize(fitted(image.size, longest), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(fitting).copy()).permute(2, 0, 1).float().div(255).contiguous()


def stylised(
    content: Picture,
    style: Float[Tensor, "3 rows columns"],
    network: EfficientNetLite0,
    *,
    strength: float = 1.0,
    iterations: int = 150,
) -> Picture:
    """The picture, all values in [0, 1], of the size of ``content``; both sides of each are multiples of ``STRIDE``."""
    with torch.no_grad():
        wanted = features(network, content)[CONTENT_LAYER]
        grams = [gram(features(network, style)[layer]) for layer in STYLE_LAYERS]
    x = content.clone().requires_grad_()

    def loss() -> Tensor:
        maps = features(network, x)
        pairs = zip(STYLE_LAYERS, grams, strict=True)
        styles = torch.stack([apart(gram(maps[layer]), aim) for layer, aim in pairs])
        near = CONTENT / strength * apart(maps[CONTENT_LAYER], wanted)
        return styles.mean() + near + SMOOTH * variation(x) + RANGE * (x - x.clamp(0, 1)).square().mean()

    descend(x, loss, iterations)
    return x.detach().clamp(0, 1)


def features(network: EfficientNetLite0, x: Picture) -> Maps:
    """The feature maps down to the deepest layer that is used."""
    return list(islice(network.maps(x[None]), max(*STYLE_LAYERS, CONTENT_LAYER) + 1))


def gram(maps: Float[Tensor, "1 c rows columns"]) -> Float[Tensor, "1 c c"]:
    """G = F Fᵀ / places."""
    rows = maps.flatten(2)
    return rows @ rows.transpose(1, 2) / rows.shape[2]


def apart(found: Tensor, wanted: Tensor) -> Float[Tensor, ""]:
    """‖found - wanted‖² / ‖wanted‖²."""
    return (found - wanted).square().sum() / wanted.square().sum()


def variation(x: Picture) -> Float[Tensor, ""]:
    """The mean square difference of neighbours, across and down."""
    return x.diff(dim=1).square().mean() + x.diff(dim=2).square().mean()


def descend(x: Tensor, loss: Callable[[], Tensor], iterations: int) -> None:
    """Moves x by L-BFGS with a line search; about one evaluation and its gradient per iteration."""
    optimizer = torch.optim.LBFGS([x], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe")

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(evaluate)


def fitted(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Width and height with this longest side, as multiples of ``STRIDE``, in nearly the same proportion."""
    scale = longest / max(size)
    return tuple(max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in size)  # type: ignore[return-value]
