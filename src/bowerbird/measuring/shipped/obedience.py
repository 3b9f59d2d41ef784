"""Whether samples show what was asked for: by the shipped classifier of digits, or by one that learns from the data."""

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bowerbird import registry
from bowerbird.data.fetch import cache_folder
from bowerbird.measuring.context import Attributes, Context, with_extractor
from bowerbird.measuring.metric import Metric
from bowerbird.metrics.attributes import VERSION, AttributeNet, fit_attributes, right, untrained
from bowerbird.metrics.averages import mean
from bowerbird.metrics.features import Digits
from bowerbird.metrics.measurement import Measurement, Protocol, settings


@registry.metrics.register("class_accuracy")
class ClassAccuracy(Metric):
    also = ("accuracy",)
    better, title = "higher", "class accuracy"
    reading = "share of samples that the digit classifier gives the class that was asked for"
    needs = ("pictures", "digits")
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        samples, digits = context["pictures"].samples, context["digits"]
        judge = Digits(torch.device("cpu"))
        correct = (judge.classify(samples) == digits.cpu()).double()
        protocol = with_extractor(Protocol(n_generated=len(samples)), judge)
        return [self.measurement(float(correct.mean()), protocol, float(correct.std() / len(correct) ** 0.5))]


@registry.metrics.register("conditional_accuracy")
class ConditionalAccuracy(Metric):
    """One value per attribute: ``conditional_accuracy.hair``; a label is an attribute of that name."""

    better, title = "higher", "conditional accuracy"
    reading = (
        "share of samples in which a classifier that learnt from the training pictures finds what was asked for; "
        "'held_out_accuracy' in the protocol is what it reaches on unseen real pictures"
    )
    needs = ("attributes",)

    def compute(self, context: Context) -> list[Measurement]:
        found: Attributes = context["attributes"]
        judge = context.once(_judge)
        made, real = right(judge, found.samples, found.asked), right(judge, found.held_out, found.held_out_given)
        common = replace(
            found.protocol, split="train", n_generated=len(found.samples), n_reference=len(found.training),
            extractor="attributes", extractor_sha256=judge.sha256,
        )  # fmt: skip
        results = []
        for name, correct in made.items():
            value, stderr = mean(correct.numpy())
            parameters = settings({"held_out_accuracy": round(float(real[name].mean()), 6)})
            results.append(self.measurement(value, replace(common, parameters=parameters), stderr, part=name))
        return results


def _judge(context: Context) -> AttributeNet:
    """The classifier of these data's attributes, learnt once and kept in the cache."""
    found: Attributes = context["attributes"]
    path = _place(found)
    net = untrained(found.training.shape[1], found.classes)
    with suppress(OSError, SafetensorError, RuntimeError):  # not there, or not whole
        net.load_state_dict(load_file(path))
        return net.eval().requires_grad_(False)
    net = fit_attributes(found.training, found.training_given, found.classes)
    _keep(net, path)
    return net


def _place(found: Attributes) -> Path:
    """The file of the classifier, named after the data and what it tells apart."""
    classes = {name: tuple(names) for name, names in found.classes.items()}
    told = f"{VERSION} {found.protocol.fingerprint} {tuple(found.training.shape)} {sorted(classes.items())}"
    return cache_folder() / "classifiers" / f"{hashlib.sha256(told.encode()).hexdigest()[:40]}.safetensors"


def _keep(net: AttributeNet, path: Path) -> None:
    """Writes under a temporary name and renames; a cache that cannot be written costs time, but is no error."""
    with suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        save_file(net.state_dict(), temporary)
        temporary.replace(path)
