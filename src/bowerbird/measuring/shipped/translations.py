"""What texts share with the reference that each of them has."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from bowerbird import registry
from bowerbird.measuring.context import Context, Sides
from bowerbird.measuring.metric import Metric
from bowerbird.metrics import bleu_rouge
from bowerbird.metrics.averages import Average
from bowerbird.metrics.bleu_rouge import CorpusScore
from bowerbird.metrics.measurement import Measurement, Protocol, settings


def _with(protocol: Protocol, **parameters: str) -> Protocol:
    """The protocol with a metric's own settings beside those that it has."""
    return replace(protocol, parameters=settings({**dict(protocol.parameters), **parameters}))


class _Corpus(Metric):
    unit, better = "%", "higher"
    needs = ("translations",)
    default = True

    @staticmethod
    @abstractmethod
    def score(hypotheses: Sequence[str], references: Sequence[str]) -> CorpusScore: ...

    def compute(self, context: Context) -> list[Measurement]:
        texts: Sides[list[str]] = context["translations"]
        found = self.score(texts.samples, texts.reference)
        return [self.measurement(found.value, _with(texts.protocol, signature=found.signature), found.stderr)]


@registry.metrics.register("bleu")
class Bleu(_Corpus):
    title = "BLEU"
    reading = "n-grams shared with the references, n ≤ 4; only equal signatures compare"
    score = staticmethod(bleu_rouge.bleu)


@registry.metrics.register("chrf")
class Chrf(_Corpus):
    title = "chrF"
    reading = "character n-grams shared with the references, n ≤ 6"
    score = staticmethod(bleu_rouge.chrf)


def _rouge(context: Context) -> dict[str, Average]:
    texts: Sides[list[str]] = context["translations"]
    return bleu_rouge.rouge(texts.samples, texts.reference)


class _Rouge(Metric):
    unit, better = "%", "higher"
    needs = ("translations",)
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        value, stderr = context.once(_rouge)[self.name]
        protocol = _with(context["translations"].protocol, **bleu_rouge.rouge_implementation())
        return [self.measurement(value, protocol, stderr)]


@registry.metrics.register("rouge1")
class Rouge1(_Rouge):
    title, reading = "ROUGE-1", "F1 of the words shared with the reference"


@registry.metrics.register("rouge2")
class Rouge2(_Rouge):
    title, reading = "ROUGE-2", "F1 of the pairs of words shared with the reference"


@registry.metrics.register("rougeL")
class RougeL(_Rouge):
    title, reading = "ROUGE-L", "F1 of the longest common subsequence of words"


@registry.metrics.register("rougeLsum")
class RougeLsum(_Rouge):
    title, reading = "ROUGE-Lsum", "the same line by line, united"
