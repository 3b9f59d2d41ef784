"""BLEU, chrF, ROUGE: what a text shares with a reference, by the field's own implementations.

BLEU (Papineni et al. 2002) and chrF (Popović 2015) are sacrebleu's, over the whole corpus, and come with its signature;
the tokeniser of BLEU follows the script of the references.  ROUGE (Lin 2004) is rouge-score's F1, mean over pairs, on
our words: rouge-score's own drop every letter that is not a … z.  What is a word, and which tokeniser suits a script,
says ``bowerbird.metrics.scripts``.  All are in percent, of texts in Unicode's form NFC.

Standard errors: of BLEU and chrF from sacrebleu's bootstrap over sentences (half its 95 % interval over 1.96), of ROUGE
from the spread over pairs.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bowerbird.metrics.averages import Average, mean
from bowerbird.metrics.scripts import GRAPHEMES, WORDS, bleu_tokenizer, composed, splitter, words

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as CorpusMetric

ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
"""As rouge-score names them; ROUGE-Lsum goes line by line."""
RESAMPLES = 500
"""Draws of the bootstrap."""


class CorpusScore(NamedTuple):
    """A score in percent, its standard error (None where no draw scored anything), and sacrebleu's signature."""

    value: float
    stderr: float | None
    signature: str


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> CorpusScore:
    """BLEU of n ≥ 1 texts with one reference each."""
    from sacrebleu.metrics.bleu import BLEU  # half a second that only those who measure should pay

    tokenizer = bleu_tokenizer(references)
    if tokenizer != GRAPHEMES:
        return _corpus(BLEU(tokenize=tokenizer), hypotheses, references)
    ours = BLEU(tokenize="none")
    ours.tokenizer, ours.tokenizer_signature = splitter(tokenizer), tokenizer
    return _corpus(ours, hypotheses, references)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> CorpusScore:
    """chrF of n ≥ 1 texts with one reference each."""
    from sacrebleu.metrics.chrf import CHRF, CHRFScore

    class Bootstrapped(CHRF):
        """The bootstrap counts in numpy's float32, of which sacrebleu cannot take a mean where one draw scores 0."""

        def _compute_score_from_stats(self, stats: Any) -> CHRFScore:
            return super()._compute_score_from_stats(np.asarray(stats, float).tolist())

    return _corpus(Bootstrapped(), hypotheses, references)


def _corpus(metric: "CorpusMetric", hypotheses: Sequence[str], references: Sequence[str]) -> CorpusScore:
    made, wanted = ([composed(text) for text in texts] for texts in (hypotheses, references))
    score = metric.corpus_score(made, [wanted], n_bootstrap=RESAMPLES if len(made) > 1 else 1)
    signature = str(metric.get_signature())
    # JSON is sacrebleu's one public way to the interval; where every draw scored 0 there is none.
    told = json.loads(score.format(width=12, signature=signature, is_json=True))
    stderr = told["confidence_var"] / 1.96 if "confidence_var" in told else None
    return CorpusScore(score.score, stderr, signature)


class Words:
    """Splits texts for rouge-score into ``bowerbird.metrics.scripts.words``."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def rouge(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Average]:
    """The mean F1 in percent of every one of ``ROUGES`` over n ≥ 1 pairs, with its standard error."""
    from rouge_score.rouge_scorer import RougeScorer  # brings nltk: seconds

    scorer = RougeScorer(list(ROUGES), tokenizer=Words())
    scores = [scorer.score(target, made) for target, made in zip(references, hypotheses, strict=True)]
    return {name: mean([100 * score[name].fmeasure for score in scores]) for name in ROUGES}


def rouge_implementation() -> dict[str, str]:
    """What a protocol states of ROUGE."""
    from importlib.metadata import version

    return {"implementation": f"rouge-score {version('rouge-score')}", "score": "F1", "stemmer": "none", "words": WORDS}
