"""Whether samples show what was asked for: by the shipped classifier of digits, or by one that learns from the data."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from bowerbird import registry
from bowerbird.data.fetch import cache_folder
from bowerbird.measuring.context import Attributes, Captions, Context, Counterparts, Named, with_extractor
from bowerbird.measuring.metric import Metric
from bowerbird.metrics import averages
from bowerbird.metrics.attributes import VERSION, AttributeNet, fit_attributes, right, untrained
from bowerbird.metrics.averages import mean
from bowerbird.metrics.features import Digits
from bowerbird.metrics.matcher import CANDIDATES, Captioned, Matcher, fit_matcher, retrieved
from bowerbird.metrics.matcher import VERSION as MATCHER_VERSION
from bowerbird.metrics.measurement import Measurement, Protocol, settings
from bowerbird.spec import Tokens

N = TypeVar("N", bound=nn.Module)


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
        value, stderr = averages.mean(correct.numpy())
        return [self.measurement(value, protocol, stderr)]


@registry.metrics.register("label_accuracy")
class LabelAccuracy(Metric):
    better, title = "higher", "label accuracy"
    reading = "share of the reference pictures whose label the model itself names"
    needs = ("named",)
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        found: Named = context["named"]
        value, stderr = mean((found.found == found.truth.cpu()).double().numpy())
        return [self.measurement(value, found.protocol, stderr)]


@registry.metrics.register("conditional_accuracy")
class ConditionalAccuracy(Metric):
    """One value per attribute, ``conditional_accuracy.hair`` (a label is an attribute of that name), and their mean."""

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
        if len(made) > 1:
            made, real = (side | {"": torch.stack(list(side.values())).mean(0)} for side in (made, real))
        results = []
        for name, correct in made.items():
            value, stderr = mean(correct.numpy())
            parameters = settings({"held_out_accuracy": round(float(real[name].mean()), 6)})
            results.append(self.measurement(value, replace(common, parameters=parameters), stderr, part=name))
        return results


@registry.metrics.register("caption_retrieval")
class CaptionRetrieval(Metric):
    better, title = "higher", "caption retrieval"
    reading = (
        "share of samples whose own caption fits best of 100, by a matcher that learnt from the training pictures; in "
        "the protocol, 'truth' is what unseen real pictures reach, 'source' what copying the training picture with the "
        "nearest caption reaches"
    )
    needs = ("captions", "counterparts")

    def compute(self, context: Context) -> list[Measurement]:
        found: Captions = context["captions"]
        pairs: Counterparts = context["counterparts"]
        judge = context.once(_matcher)
        sides = {"made": pairs.made, "truth": pairs.truth, "source": pairs.source}
        shares = {
            name: mean(retrieved(judge, one, found.asked).numpy()) for name, one in sides.items() if one is not None
        }
        value, stderr = shares.pop("made")
        candidates = min(CANDIDATES, len(found.asked.unique(dim=0)))
        beside = settings({"of": candidates, **{name: round(share, 6) for name, (share, _) in shares.items()}})
        protocol = replace(
            pairs.protocol, extractor="matcher", extractor_sha256=judge.sha256,
            parameters=settings({**dict(pairs.protocol.parameters), **dict(beside)}),
        )  # fmt: skip
        return [self.measurement(value, protocol, stderr)]


def _matcher(context: Context) -> Matcher:
    found: Captions = context["captions"]
    return matcher_of(found.training, found.field, context["counterparts"].protocol.fingerprint)


def matcher_of(pairs: Captioned, field: Tokens, fingerprint: str) -> Matcher:
    """The matcher of these training pairs, learnt once and kept in the cache."""
    told = f"matcher {MATCHER_VERSION} {fingerprint} {tuple(pairs.tokens.shape)}"
    empty = Matcher(pairs.images.shape[1], field.vocab_size, field.pad)
    return _learnt(told, empty, lambda: fit_matcher(pairs, field.vocab_size, field.pad))


def _judge(context: Context) -> AttributeNet:
    """The classifier of these data's attributes, learnt once and kept in the cache."""
    found: Attributes = context["attributes"]
    classes = {name: tuple(names) for name, names in found.classes.items()}
    told = f"{VERSION} {found.protocol.fingerprint} {tuple(found.training.shape)} {sorted(classes.items())}"
    empty = untrained(found.training.shape[1], found.classes)
    return _learnt(told, empty, lambda: fit_attributes(found.training, found.training_given, found.classes))


def _learnt(told: str, empty: N, fit: Callable[[], N]) -> N:
    """A network from the cache, where its file is named after what it was ``told``; else it is fitted and kept."""
    path = cache_folder() / "classifiers" / f"{hashlib.sha256(told.encode()).hexdigest()[:40]}.safetensors"
    with suppress(OSError, SafetensorError, RuntimeError):  # not there, or not whole
        empty.load_state_dict(load_file(path))
        return empty.eval().requires_grad_(False)
    net = fit()
    _keep(net, path)
    return net


def _keep(net: nn.Module, path: Path) -> None:
    """Writes under a temporary name and renames; a cache that cannot be written costs time, but is no error."""
    with suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        save_file(net.state_dict(), temporary)
        temporary.replace(path)
