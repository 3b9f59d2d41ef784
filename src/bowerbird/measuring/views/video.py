"""Moving pictures."""

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from bowerbird.eightbit import to_uint8
from bowerbird.generating import Drawn, draw
from bowerbird.measuring.context import Context, Moving
from bowerbird.measuring.extractors import Choice, choose_by_shape, unfit
from bowerbird.measuring.offers import Offers
from bowerbird.measuring.views.view import View
from bowerbird.media.video.clipset import ClipData
from bowerbird.metrics import motion
from bowerbird.metrics.chosen import subset
from bowerbird.metrics.features import Extractor
from bowerbird.metrics.measurement import settings
from bowerbird.spec import Classes, shape_of_clip


class VideoView(View):
    """Clips: uint8 tensors of frames."""

    data: ClipData

    def offers(self) -> Offers:
        extractor: Offers = {"extractor": self.extractor} if self.choice else {}
        return super().offers() | {"clips": self.clips} | extractor

    @cached_property
    def choice(self) -> Choice | None:
        channels, _, height, width = shape_of_clip(self.data.spec)
        return choose_by_shape(self.request.extractor, [(height, width, channels)])

    @property
    def missing(self) -> dict[str, str]:
        return {} if self.choice else {"extractor": unfit()}

    def extractor(self, context: Context) -> Extractor:
        assert self.choice is not None
        return self.choice.load(self.model.device, self.request.precision)

    @cached_property
    def begun(self) -> dict[str, Any]:
        """The real clips whose first frames and other inputs the samples have, in order, each as often as need be."""
        real = getattr(self.data, self.split)
        batch: dict[str, Any] = real.batch(torch.arange(self.n) % len(real))
        return batch

    @cached_property
    def drawn(self) -> Drawn:
        fields = self.model.spec.given
        asked = any(not isinstance(field, Classes) for field in fields.values())
        given = {name: self.begun["given"][name] for name in (fields if asked else ())}
        return draw(self.model, self.n, seed=self.request.seed, given=given, options=self.options)

    def clips(self, context: Context) -> Moving:
        real = subset(getattr(self.data, self.split).clips, self.request.n_reference)
        firsts, known = to_uint8(self.begun["x"][:, :, 0]), self.data.train.clips
        baselines = {
            "first_repeated": motion.repeated(firsts, real.shape[2]),
            "nearest_training": known[motion.nearest(firsts, known)],
        }
        protocol = replace(self.protocol, n_generated=self.n, n_reference=len(real), parameters=settings(self.options))
        return Moving(to_uint8(self.drawn.x), real, baselines, protocol)


view = VideoView
