"""Likelihoods: of pictures in nats and bits per number, of sequences over whatever they consist of."""

from bowerbird import registry
from bowerbird.measuring.context import Context, DocumentNats, PictureNats
from bowerbird.measuring.metric import Metric
from bowerbird.metrics import averages
from bowerbird.metrics.averages import Average
from bowerbird.metrics.bits import bits_per_dim
from bowerbird.metrics.measurement import Measurement
from bowerbird.metrics.nll import bits_per, nats_per, perplexity

# --------------------------------------------------------------------------------------------------------- pictures


def mean_nats(found: PictureNats) -> Average:
    """Mean and standard error over pictures."""
    return averages.mean(found.nats.numpy(force=True))


@registry.metrics.register("nll")
class NegativeLogLikelihood(Metric):
    unit, better, title = "nats/image", "lower", "negative log-likelihood"
    reading = "of the reference images, or the bound that the family computes"
    needs = ("nats",)

    def compute(self, context: Context) -> list[Measurement]:
        found: PictureNats = context["nats"]
        value, stderr = mean_nats(found)
        return [self.measurement(value, found.protocol, stderr)]


@registry.metrics.register("bits_per_dim")
class BitsPerDim(Metric):
    also = ("bpd",)
    unit, better, title = "bits/dim", "lower", "bits per dimension"
    reading = "the negative log-likelihood per number of the image, in bits"
    needs = ("nats",)

    def compute(self, context: Context) -> list[Measurement]:
        found: PictureNats = context[self.needs[0]]
        value, stderr = mean_nats(found)
        error = None if stderr is None else bits_per_dim(stderr, found.dims)
        return [self.measurement(bits_per_dim(value, found.dims), found.protocol, error)]


@registry.metrics.register("flow_bits_per_dim")
class FlowBitsPerDim(BitsPerDim):
    title = "bits per dimension by the flow"
    reading = (
        "the same under the probability flow instead of the family's own bound; the protocol states the solver's "
        "tolerance"
    )
    needs = ("flow_nats",)


# -------------------------------------------------------------------------------------------------------- sequences


def average(context: Context, counted: str, nats: str = "document_nats") -> Average:
    """Nats over what is counted in the documents."""
    documents = context[nats]
    tokens = context["tokens"] if context.has("tokens") else None
    return nats_per(documents if nats == "bigram" else documents.nats, context[counted], tokens)


class _Per(Metric):
    """``needs`` ends with what is counted."""

    better = "lower"
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        documents: DocumentNats = context["document_nats"]
        value, stderr = average(context, self.needs[-1])
        return [self.measurement(value, documents.protocol, stderr)]


@registry.metrics.register("nll_per_token")
class NatsPerToken(_Per):
    unit, title = "nats/token", "loss per token"
    reading = "negative log-likelihood; compares only between runs of one tokeniser"
    needs = ("document_nats", "tokens")


@registry.metrics.register("perplexity")
class Perplexity(Metric):
    also = ("ppl",)
    better, title = "lower", "perplexity"
    reading = "e to the loss per token: as unsure as among that many equally likely tokens"
    needs = ("document_nats", "tokens")
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        nats, stderr = average(context, "tokens")
        value = perplexity(nats, 1)
        return [self.measurement(value, context["document_nats"].protocol, None if stderr is None else stderr * value)]


class _BitsPer(Metric):
    better = "lower"
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        value, stderr = average(context, self.needs[-1])
        error = None if stderr is None else bits_per(stderr, 1)
        return [self.measurement(bits_per(value, 1), context["document_nats"].protocol, error)]


@registry.metrics.register("bits_per_byte")
class BitsPerByte(_BitsPer):
    unit, title = "bits/byte", "bits per byte"
    reading = "of UTF-8 text: comparable across tokenisers and with compressors"
    needs = ("document_nats", "bytes")


@registry.metrics.register("bits_per_character")
class BitsPerCharacter(_BitsPer):
    unit, title = "bits/character", "bits per character"
    reading = "comparable across tokenisers of one language"
    needs = ("document_nats", "characters")


@registry.metrics.register("nll_per_frame")
class NatsPerFrame(_Per):
    unit, title = "nats/frame", "loss per frame"
    reading = "all voices of one time step together"
    needs = ("document_nats", "frames")


@registry.metrics.register("nll_per_note")
class NatsPerNote(_Per):
    unit, title = "nats/note", "loss per note"
    reading = "the same nats over the number of notes"
    needs = ("document_nats", "notes")


class _Bigram(Metric):
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        value, stderr = average(context, self.needs[-1], "bigram")
        return [self.measurement(value, context["document_nats"].protocol, stderr)]


@registry.metrics.register("bigram_nll_per_token")
class BigramPerToken(_Bigram):
    unit, title = "nats/token", "bigram's loss per token"
    reading = "what one previous token tells: a model must be well below"
    needs = ("document_nats", "bigram", "tokens")


@registry.metrics.register("bigram_nll_per_frame")
class BigramPerFrame(_Bigram):
    unit, title = "nats/frame", "bigram's loss per frame"
    reading = "the same baseline per frame"
    needs = ("document_nats", "bigram", "frames")


@registry.metrics.register("bigram_nll_per_note")
class BigramPerNote(_Bigram):
    unit, title = "nats/note", "bigram's loss per note"
    reading = "the same baseline per note"
    needs = ("document_nats", "bigram", "notes")
