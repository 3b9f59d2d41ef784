"""A metric of one's own: are the samples as bright as real pictures?"""

from bowerbird import registry
from bowerbird.measuring.metric import Metric


@registry.metrics.register("brightness_gap")
class BrightnessGap(Metric):
    unit, better, title = "grey levels", "lower", "difference in brightness"
    reading = "between the mean pixel of all samples and that of all real pictures; 0 is equal"
    needs = ("pictures",)
    default = True

    def compute(self, context):
        pictures = context["pictures"]
        of_each = pictures.samples.double().mean((1, 2, 3))
        gap = abs(of_each.mean() - pictures.reference.double().mean())
        return [self.measurement(float(gap), pictures.protocol, float(of_each.std() / len(of_each) ** 0.5))]
