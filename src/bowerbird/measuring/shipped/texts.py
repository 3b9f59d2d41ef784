"""How varied texts are, whether they keep a form, and how much of them stands in the training data."""

import math
from dataclasses import replace

from bowerbird import registry
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.context import Context, Copies, Sides
from bowerbird.measuring.metric import Metric
from bowerbird.metrics.averages import mean, ratio
from bowerbird.metrics.copied import covered, longest
from bowerbird.metrics.measurement import Measurement, with_data
from bowerbird.metrics.scripts import WORDS, bleu_tokenizer, words
from bowerbird.metrics.wording import BLOCK, distinct_in_blocks, self_bleu, share_of_form


class _Distinct(Metric):
    better = "higher"
    needs = ("texts",)
    default = True
    n: int

    def compute(self, context: Context) -> list[Measurement]:
        texts: Sides[list[str]] = context["texts"]
        grams = sum(max(len(words(text)) - self.n + 1, 0) for text in texts.samples)
        block = min(BLOCK, grams)
        real = distinct_in_blocks(texts.reference, self.n, max(block, 1))[0]
        value, stderr = distinct_in_blocks(texts.samples, self.n)
        return [self.measurement(value, with_data(texts.protocol, real, block=block, words=WORDS), stderr)]


@registry.metrics.register("distinct_1")
class DistinctWords(_Distinct):
    title, n = "distinct-1", 1
    reading = "share of different words among 1,000: variety; 'data' has that of real text"


@registry.metrics.register("distinct_2")
class DistinctPairs(_Distinct):
    title, n = "distinct-2", 2
    reading = "the same of pairs of words"


@registry.metrics.register("distinct_3")
class DistinctTriples(_Distinct):
    title, n = "distinct-3", 3
    reading = "the same of triples of words"


@registry.metrics.register("self_bleu")
class SelfBleu(Metric):
    """Its standard error takes the samples' values for independent."""

    unit, better, title = "%", "lower", "self-BLEU"
    reading = "of each sample against all others: sameness; 'data' has that of real texts"
    needs = ("texts",)

    def by_default(self, context: Context) -> bool:
        return len(context["texts"].samples) > 1

    def compute(self, context: Context) -> list[Measurement]:
        import sacrebleu  # half a second that only those who measure should pay

        texts: Sides[list[str]] = context["texts"]
        unseen = texts.reference
        tokenize = bleu_tokenizer(unseen)
        real = float(self_bleu(unseen, tokenize).mean()) if len(unseen) > 1 else math.nan
        value, stderr = mean(self_bleu(texts.samples, tokenize))
        signature = f"eff:yes|tok:{tokenize}|smooth:exp|version:{sacrebleu.__version__}"
        return [self.measurement(value, with_data(texts.protocol, real, signature=signature), stderr)]


@registry.metrics.register("text_form")
class TextForm(Metric):
    better, title = "higher", "texts in form"
    reading = "share of samples with the lines and characters asked for"
    needs = ("texts", "form")

    def by_default(self, context: Context) -> bool:
        return context["form"] is not None

    def compute(self, context: Context) -> list[Measurement]:
        if context["form"] is None:
            raise BowerbirdError("text_form needs real texts in one verse form, and these have none in common.")
        lines, characters = context["form"]
        texts: Sides[list[str]] = context["texts"]
        value, stderr = mean([share_of_form([text], lines, characters) for text in texts.samples])
        asked = with_data(texts.protocol, math.nan, lines=lines, characters=characters)
        return [self.measurement(value, replace(asked, n_reference=0), stderr)]


@registry.metrics.register("longest_copied_span")
class LongestCopiedSpan(Metric):
    unit, title = "characters", "longest copied span"
    reading = (
        "in any sample, letter for letter in the training text; memorised where far above 'data', that of unseen text"
    )
    needs = ("texts", "copies")
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        copies: Copies = context["copies"]
        top, real = (max(map(longest, part)) for part in (copies.samples, copies.unseen))
        return [self.measurement(top, with_data(copies.protocol, real, **copies.parameters))]


@registry.metrics.register("copied_share")
class CopiedShare(Metric):
    """Of texts and of music."""

    title = "copied share"
    reading = (
        "of the samples, in spans of at least 'span' that are in the training data; beside 'data', that of unseen ones"
    )
    needs = ("copies",)
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        copies: Copies = context["copies"]
        (share, stderr), (real, _) = (
            ratio([covered(match, copies.span) for match in part], [len(match) for match in part])
            for part in (copies.samples, copies.unseen)
        )
        protocol = with_data(copies.protocol, real, span=copies.span, **copies.parameters)
        return [self.measurement(share, protocol, stderr)]
