"""What drawing samples costs."""

from bowerbird import registry
from bowerbird.measuring.context import Context, SamplingCost
from bowerbird.measuring.metric import Metric
from bowerbird.metrics.measurement import Measurement, Protocol


@registry.metrics.register("network_evaluations")
class NetworkEvaluations(Metric):
    unit, better, title = "evaluations/image", "lower", "network evaluations"
    reading = "forward passes of the sampling network per image, counted"
    needs = ("cost",)
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        return [self.measurement(context["cost"].evaluations, Protocol())]


@registry.metrics.register("seconds_per_image")
class SecondsPerImage(Metric):
    unit, better, title = "s/image", "lower", "seconds per image"
    reading = "wall-clock time of sampling on the machine named in the protocol"
    needs = ("cost",)
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        cost: SamplingCost = context["cost"]
        return [self.measurement(cost.seconds, Protocol(n_generated=cost.n, machine=cost.machine))]
