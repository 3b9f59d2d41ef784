"""What there is of a model beside the data that it is measured against, whatever the medium."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bowerbird import machine
from bowerbird.generating import Drawn, draw
from bowerbird.measuring.context import Context, SamplingCost, Sides
from bowerbird.measuring.offers import Offers, protocol_of
from bowerbird.measuring.request import Measuring
from bowerbird.media.medium import medium
from bowerbird.metrics.measurement import Protocol
from bowerbird.models.base import GenerativeModel


class View:
    """A model beside the data that it is measured against: what there is whatever the medium."""

    def __init__(self, model: GenerativeModel, data: Any, request: Measuring):
        self.model, self.data, self.request = model, data, request
        self.split = request.split or "test"
        self.n = request.n_samples or medium(data.spec.medium).n_measured
        self.options = dict(request.options)

    @property
    def protocol(self) -> Protocol:
        """Of what is measured against these data."""
        return protocol_of(self.data, self.split)

    def offers(self) -> Offers:
        return {"examples": self.examples, "cost": self.cost}

    @property
    def missing(self) -> dict[str, str]:
        """What cannot be offered on this machine, and why."""
        return {}

    @cached_property
    def drawn(self) -> Drawn:
        return draw(self.model, self.n, seed=self.request.seed, options=self.options)

    def examples(self, context: Context) -> Sides[Tensor]:
        real = getattr(self.data, self.split)
        n = min(len(real), self.request.n_reference or len(real))
        return Sides.of(self.protocol, self.drawn.x, real.batch(torch.arange(n))["x"])

    def cost(self, context: Context) -> SamplingCost:
        device = self.model.device
        where = str(machine.describe()["processor"]) + f", {torch.get_num_threads()} threads"
        if device.type == "cuda":
            where = torch.cuda.get_device_name(device)
        return SamplingCost(self.n, self.drawn.evaluations, self.drawn.seconds, where)
