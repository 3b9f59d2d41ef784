"""Translation and summary metrics: what a text shares with a reference, by the field's own implementations.

BLEU (Papineni et al. 2002) and chrF (Popović 2015) are sacrebleu's, over the whole corpus, and their protocol has its
signature; Chinese is split into characters by sacrebleu's tokeniser ``zh``.  ROUGE (Lin 2004) is rouge-score's F1, mean
over pairs, on our words: rouge-score's own drop every letter that is not a … z.  All are in percent.

Standard errors: of BLEU and chrF from sacrebleu's bootstrap over sentences (half its 95 % interval over 1.96), of ROUGE
from the spread over pairs.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bowerbird.errors import BowerbirdError, unknown
from bowerbird.metrics.averages import mean
from bowerbird.metrics.measurement import Measurement, Protocol, measured, settings
from bowerbird.metrics.text import bleu_tokenizer, words

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

ROUGE_METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
TRANSLATION_METRICS = ("bleu", "chrf", *ROUGE_METRICS)

RESAMPLES = 500
"""Draws of the bootstrap."""


def measure_translations(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    metrics: Sequence[str] = TRANSLATION_METRICS,
    protocol: Protocol = Protocol(),
) -> list[Measurement]:
    """The chosen ``TRANSLATION_METRICS``, in their order, of hypotheses with one reference each.

    ROUGE-Lsum goes line by line: break summaries into one sentence per line.  ``protocol`` names the reference data and
    may have parameters of its own (how it was decoded).
    """
    if len(hypotheses) != len(references):
        raise BowerbirdError(
            f"{len(hypotheses)} translations cannot be held against {len(references)} references; give one each."
        )
    if not hypotheses:
        raise BowerbirdError("There are no translations to measure.")
    for name in metrics:
        if name not in TRANSLATION_METRICS:
            raise unknown("metric of translations", name, TRANSLATION_METRICS)
    protocol = replace(protocol, n_generated=len(hypotheses), n_reference=len(references))
    results = [_corpus(name, hypotheses, references, protocol) for name in ("bleu", "chrf") if name in metrics]
    if wanted := [name for name in ROUGE_METRICS if name in metrics]:
        results += _rouge(wanted, hypotheses, references, protocol)
    return results


def _corpus(name: str, hypotheses: Sequence[str], references: Sequence[str], protocol: Protocol) -> Measurement:
    from sacrebleu.metrics.bleu import BLEU  # half a second that only those who measure should pay
    from sacrebleu.metrics.chrf import CHRF

    metric: Metric = BLEU(tokenize=bleu_tokenizer(references)) if name == "bleu" else CHRF()
    resamples = RESAMPLES if len(hypotheses) > 1 else 1
    score = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=resamples)
    signature = str(metric.get_signature())
    # JSON is sacrebleu's one public way to the interval; where every draw scored 0 there is none.
    told = json.loads(score.format(width=12, signature=signature, is_json=True))
    stderr = told["confidence_var"] / 1.96 if "confidence_var" in told else None
    return measured(name, score.score, _with(protocol, signature=signature), stderr)


class Words:
    """Splits texts for rouge-score into ``bowerbird.metrics.text.words``."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _rouge(
    names: Sequence[str], hypotheses: Sequence[str], references: Sequence[str], protocol: Protocol
) -> list[Measurement]:
    from importlib.metadata import version

    from rouge_score.rouge_scorer import RougeScorer  # brings nltk: seconds

    scorer = RougeScorer(list(names), tokenizer=Words())
    scores = [scorer.score(target, made) for target, made in zip(references, hypotheses, strict=True)]
    protocol = _with(protocol, implementation=f"rouge-score {version('rouge-score')}", score="F1", stemmer="none",
                     words="letters and digits; Han characters and kana singly")  # fmt: skip
    results = []
    for name in names:
        value, stderr = mean([100 * score[name].fmeasure for score in scores])
        results.append(measured(name, value, protocol, stderr))
    return results


def _with(protocol: Protocol, **parameters: str) -> Protocol:
    """The protocol with a metric's own settings beside those that it has."""
    return replace(protocol, parameters=settings({**dict(protocol.parameters), **parameters}))
