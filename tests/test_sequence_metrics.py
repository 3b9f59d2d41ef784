"""Metrics of sequences against values by hand, brute force, known facts of music, and the field's own packages."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bowerbird.data import builtin
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.plain import measure_music, measure_nll, measure_texts, measure_translations
from bowerbird.metrics import averages, harmony, wording
from bowerbird.metrics.copied import covered, longest, matches
from bowerbird.metrics.harmony import REST, Parallels, grid_notes, parallels
from bowerbird.metrics.measurement import Measurement, Protocol
from bowerbird.metrics.ngram import STRENGTHS, fit_bigram
from bowerbird.metrics.nll import bits_per, perplexity
from bowerbird.metrics.scripts import words
from bowerbird.metrics.wording import share_of_form
from bowerbird.report.tabulated import table

TEXT_METRICS = ["distinct_1", "distinct_2", "distinct_3", "self_bleu", "longest_copied_span", "copied_share"]
COPY_METRICS = TEXT_METRICS[-2:]
OVERLAPS = ["pitch_class_overlap", "duration_overlap"]
RUN_METRICS = ["longest_copied_run", "longest_transposed_run", "copied_share"]
MUSIC_METRICS = [*OVERLAPS, "scale_consistency", "parallel_fifths", "parallel_octaves", *RUN_METRICS]

POEM = "床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。"
ENGLISH = [
    "The cat sat on the mat, and the dog lay by the door.",
    "A dog ran through the wet grass towards its master.",
    "Nobody knows the trouble I've seen; nobody knows my sorrow.",
]
MADE = [
    "The cat sat on a mat, and a dog lay near the door.",
    "The dog runs through wet grass to its master.",
    "Nobody knows my sorrow.",
]


def by_name(measurements: list[Measurement]) -> dict[str, Measurement]:
    return {m.name: m for m in measurements}


def setting(measurement: Measurement, name: str) -> float:
    return float(dict(measurement.protocol.parameters)[name])


# -------------------------------------------------------------------------------------------------- copied spans


def brute_force(query: Sequence[int], training: Sequence[Sequence[int]]) -> list[int]:
    """The longest match from each position, by trying all pairs of positions."""

    def agree(a: Sequence[int], b: Sequence[int]) -> int:
        return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

    return [
        max((agree(query[i:], s[j:]) for s in training for j in range(len(s))), default=0) for i in range(len(query))
    ]


def sequences(alphabet: int, most: int) -> st.SearchStrategy[list[list[int]]]:
    return st.lists(st.lists(st.integers(0, alphabet), max_size=40), max_size=most)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([0, 1, 2, 300, 70000]).flatmap(lambda k: st.tuples(sequences(k, 4), sequences(k, 3))), st.booleans()
)
@example(([[0] * 40, [0] * 39], [[0] * 40]), False)
@example(([[1, 2] * 30 + [3], [2] * 9], [[1, 2] * 30]), True)
def test_matches_are_those_of_brute_force(lists: tuple[list[list[int]], list[list[int]]], copy: bool) -> None:
    training, queries = lists
    queries = [*queries, [1, 1, 2, 1]]
    if copy and training:
        queries.append(training[0][1:] + training[-1])
    found = matches([np.array(q, dtype=int) for q in queries], [np.array(s, dtype=int) for s in training])
    assert [part.tolist() for part in found] == [brute_force(q, training) for q in queries]


def test_the_best_of_many_continuations_is_found() -> None:
    """Training sequences that follow one trunk and leave it at different points, so the nearest in order matters."""
    rng = np.random.default_rng(0)
    for _ in range(15):
        trunk = rng.integers(0, 60, 40)
        *training, one, other = (
            np.concatenate([trunk[: rng.integers(5, 40)], rng.integers(0, 60, 20)]) for _ in range(10)
        )
        expected = [brute_force(query.tolist(), [s.tolist() for s in training]) for query in (one, other)]
        assert [found.tolist() for found in matches([one, other], training)] == expected


def test_long_copies_are_measured_exactly() -> None:
    """Far longer than one packed window, with repeats in the training text."""
    rng = np.random.default_rng(0)
    source = rng.integers(0, 60, 5000)
    training = np.concatenate([source, source[:3000], rng.integers(0, 60, 1000)])
    query = np.concatenate([rng.integers(60, 90, 100), source[1234:4321], rng.integers(60, 90, 100)])
    (found,) = matches([query], [training])
    assert longest(found) == 4321 - 1234
    assert found[100:-100].tolist() == list(range(4321 - 1234, 0, -1)) and not found[:100].any()
    assert covered(found, 3087) == 3087 and covered(found, 3088) == 0


def test_covered_joins_overlapping_spans_and_leaves_gaps() -> None:
    """abcd and cdef are in training, abcdef is not; x is not; ef alone is too short."""
    (found,) = wording.copied_spans(["abcdefxef"], ["abcd", "cdef"])
    assert found.tolist() == [4, 3, 4, 3, 2, 1, 0, 2, 1]
    assert [covered(found, span) for span in (1, 2, 3, 4, 5)] == [8, 8, 6, 6, 0]


def test_spans_do_not_run_over_the_end_of_a_text() -> None:
    (found,) = wording.copied_spans(["abcdef"], ["abc", "def"])
    assert longest(found) == 3


def test_spans_are_characters_of_any_script() -> None:
    (found,) = wording.copied_spans(["低頭思故鄉𩘶!"], ["舉頭望明月，低頭思故鄉𩘶。"])
    assert found.tolist() == [6, 5, 4, 3, 2, 1, 0]


# ------------------------------------------------------------------------------------------------------- variety


def test_words_of_english_are_those_of_rouge() -> None:
    from rouge_score.tokenizers import DefaultTokenizer

    for line in [*ENGLISH, "snake_case, 3.14 and DON'T"]:
        assert words(line) == DefaultTokenizer().tokenize(line)
    assert words("Über 2 Straßen, 明月光。カナ") == ["über", "2", "straßen", "明", "月", "光", "カ", "ナ"]


def test_distinct_by_hand() -> None:
    """a b a b: 2 of 4 words, {ab, ba} of 3 pairs, {aba, bab} of 2 triples; pairs do not cross texts."""
    assert [wording.distinct_n(["a b a b"], n) for n in (1, 2, 3)] == [0.5, 2 / 3, 1.0]
    assert wording.distinct_n(["a b", "a b"], 2) == 0.5
    assert wording.distinct_n(["明月明月"], 1) == 0.5
    assert math.isnan(wording.distinct_n([""], 1))


def test_distinct_in_blocks_does_not_fall_with_length() -> None:
    rng = np.random.default_rng(0)
    line = " ".join(f"w{i}" for i in rng.integers(0, 300, 20_000))
    short, long = (" ".join(line.split()[:n]) for n in (2000, 20_000))
    assert wording.distinct_n([long], 1) < 0.2 * wording.distinct_n([short], 1)
    value, stderr = wording.distinct_in_blocks([long], 1)
    assert stderr is not None and value == pytest.approx(wording.distinct_in_blocks([short], 1)[0], abs=0.02)
    expected = (1 - (1 - 1 / 300) ** 1000) * 300 / 1000
    assert value == pytest.approx(expected, abs=4 * stderr + 1e-3)


@pytest.mark.parametrize(
    ("texts", "tokenize"), [([*ENGLISH, *MADE], "13a"), ([POEM, POEM[:12] + POEM, "明月明月明月"], "zh")]
)
def test_self_bleu_is_sacrebleu_with_all_others_as_references(texts: list[str], tokenize: str) -> None:
    metric = sacrebleu.BLEU(tokenize=tokenize, effective_order=True)
    expected = [metric.sentence_score(t, [o for j, o in enumerate(texts) if j != i]).score for i, t in enumerate(texts)]
    assert wording.self_bleu(texts, tokenize) == pytest.approx(expected)


def test_self_bleu_of_identical_and_of_unlike_texts() -> None:
    assert wording.self_bleu([ENGLISH[0]] * 3) == pytest.approx([100] * 3)
    assert wording.self_bleu(["a b c d e", "f g h i j"]) == pytest.approx([0, 0])
    with pytest.raises(BowerbirdError, match="at least two"):
        wording.self_bleu(["alone"])


# ---------------------------------------------------------------------------------------------------------- form


@pytest.mark.parametrize(
    ("poem", "kept"),
    [
        (POEM, True),
        (POEM.replace("，", "\n").replace("。", "\n"), True),
        (POEM.replace("。", "。\n"), True),
        ("  " + POEM[:-1], True),
        (POEM.replace("床", "𩘶"), True),
        (POEM.replace("床前", "床"), False),
        (POEM.replace("床", "a"), False),
        (POEM + POEM[:6], False),
        (POEM[:18], False),
        (POEM.replace("，", ""), False),
        ("", False),
    ],
)
def test_form_of_a_quatrain(poem: str, kept: bool) -> None:
    assert share_of_form([poem]) == kept


def test_share_of_form_counts() -> None:
    assert share_of_form([POEM, POEM[:12], POEM, "x"], lines=4, characters=5) == 0.5
    assert share_of_form([POEM[:12]], lines=2, characters=5) == 1


# ------------------------------------------------------------------------------------------------ measuring texts


def test_measure_texts_finds_copies_and_sameness() -> None:
    rng = np.random.default_rng(0)
    lines = [" ".join(f"w{i}" for i in rng.integers(0, 500, 40)) for _ in range(60)]
    training, unseen, clean = lines[:30], lines[30:45], lines[45:]
    copies = by_name(
        measure_texts([training[0]] * 5, unseen, training, protocol=Protocol(reference="lines", split="val"))
    )
    assert list(copies) == TEXT_METRICS
    assert copies["longest_copied_span"].value == len(training[0]) and copies["copied_share"].value == 1
    assert copies["self_bleu"].value == pytest.approx(100) and setting(copies["self_bleu"], "data") < 10
    assert copies["distinct_1"].value < 0.25 < setting(copies["distinct_1"], "data")
    fair = by_name(measure_texts(clean, unseen, training, span=12))
    assert fair["copied_share"].value == pytest.approx(setting(fair["copied_share"], "data"), abs=0.05)
    assert fair["longest_copied_span"].value < 30
    assert setting(fair["longest_copied_span"], "data") == pytest.approx(fair["longest_copied_span"].value, abs=8)
    protocol = copies["self_bleu"].protocol
    assert (protocol.n_generated, protocol.n_reference, protocol.reference, protocol.split) == (5, 5, "lines", "val")
    assert copies["copied_share"].protocol.split == "train" and copies["copied_share"].protocol.n_reference == 30
    assert "5 samples against 5 of lines (val)" in str(table({"a": list(copies.values())}).caption)


def test_measure_texts_of_a_form_and_of_few() -> None:
    drawn = Protocol(parameters=(("temperature", 0.8),))
    chosen = ["copied_share", "text_form"]
    found = by_name(measure_texts([POEM, POEM[:12]], [POEM], [POEM], form=(4, 5), metrics=chosen, protocol=drawn))
    assert all(setting(measurement, "temperature") == 0.8 for measurement in found.values())
    assert list(found) == ["text_form", "copied_share"]
    assert found["text_form"].value == 0.5 and found["text_form"].stderr == pytest.approx(0.5)
    assert setting(found["copied_share"], "span") == wording.SPAN_HAN
    assert "self_bleu" not in by_name(measure_texts([ENGLISH[0]], ENGLISH, ENGLISH))
    with pytest.raises(BowerbirdError, match="did you mean 'self_bleu'"):
        measure_texts(MADE, ENGLISH, ENGLISH, metrics=["selfbleu"])
    with pytest.raises(BowerbirdError, match="at least one sample"):
        measure_texts([], ENGLISH, ENGLISH)


def test_measures_of_two_runs_compare() -> None:
    """Protocols depend on the data and on how much was generated, not on what."""
    one, other = (by_name(measure_texts(samples, ENGLISH, ENGLISH)) for samples in (MADE, MADE[::-1]))
    assert all(one[name].protocol == other[name].protocol for name in one)


def test_copies_of_real_text_are_rare(shared: Path) -> None:
    """Unseen Shakespeare shares no more than common phrases with the rest; passages of the rest are all copies."""
    whole = (shared / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    training = whole[:1_000_000]
    unseen = [whole[i : i + 500] for i in range(1_000_000, 1_100_000, 500)]
    seen = [training[i : i + 500] for i in range(0, 20_000, 500)]
    found = by_name(measure_texts(seen, unseen, [training], metrics=COPY_METRICS))
    assert found["longest_copied_span"].value == 500 and found["copied_share"].value == 1
    assert setting(found["copied_share"], "data") < 0.01 and 10 < setting(found["longest_copied_span"], "data") < 50


# --------------------------------------------------------------------------------------------------- translations


def test_bleu_and_chrf_are_sacrebleu() -> None:
    found = by_name(measure_translations(MADE, ENGLISH, metrics=["bleu", "chrf"]))
    assert found["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(MADE, [ENGLISH]).score)
    assert found["chrf"].value == pytest.approx(sacrebleu.corpus_chrf(MADE, [ENGLISH]).score)
    signature = dict(found["bleu"].protocol.parameters)["signature"]
    assert "tok:13a" in str(signature) and f"version:{sacrebleu.__version__}" in str(signature)


def test_bleu_by_hand() -> None:
    """One sentence, one word missing at the end: precisions 1, brevity exp(1 - 6/5)."""
    (found,) = measure_translations(["a b c d e"], ["a b c d e f"], metrics=["bleu"])
    assert found.value == pytest.approx(100 * math.exp(1 - 6 / 5)) and found.stderr is None


def test_chinese_is_split_into_characters() -> None:
    found = by_name(measure_translations([POEM[:11]], [POEM[:12]]))
    assert "tok:zh" in str(dict(found["bleu"].protocol.parameters)["signature"])
    assert found["bleu"].value == pytest.approx(sacrebleu.corpus_bleu([POEM[:11]], [[POEM[:12]]], tokenize="zh").score)
    assert found["rouge1"].value == pytest.approx(100)  # the mark that is missing is no word
    (half,) = measure_translations(["床前明月光"], ["床前明月光疑是地上霜"], metrics=["rougeL"])
    assert half.value == pytest.approx(100 * 2 * 1 * 0.5 / 1.5)


def test_rouge_of_english_is_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer  # with it comes the whole of nltk

    texts = [line.replace(", ", ",\n") for line in ENGLISH]
    found = by_name(measure_translations(MADE, texts, metrics=["rougeLsum", "rouge1", "rouge2", "rougeL"]))
    assert list(found) == ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = RougeScorer(list(found))
    scores = [scorer.score(target, made) for target, made in zip(texts, MADE, strict=True)]
    for name, measurement in found.items():
        values = [100 * score[name].fmeasure for score in scores]
        assert measurement.value == pytest.approx(np.mean(values))
        assert measurement.stderr == pytest.approx(np.std(values, ddof=1) / math.sqrt(3))


def test_bootstrap_of_bleu_is_the_spread_of_corpora() -> None:
    """Half of the sentences are right, half wrong: the score varies as the share of right ones does, about 1/(2√n)."""
    hypotheses = [f"w{i} x{i} y{i} z{i} v{i}" if i % 2 else f"q{i} r{i} s{i} t{i} u{i}" for i in range(100)]
    references = [f"w{i} x{i} y{i} z{i} v{i}" for i in range(100)]
    (found,) = measure_translations(hypotheses, references, metrics=["bleu"])
    assert found.value == pytest.approx(50) and found.stderr == pytest.approx(100 / (2 * 10), rel=0.15)


def test_wrong_translations() -> None:
    with pytest.raises(BowerbirdError, match="2 translations cannot be held against 3"):
        measure_translations(MADE[:2], ENGLISH)
    with pytest.raises(BowerbirdError, match="no translations"):
        measure_translations([], [])
    with pytest.raises(BowerbirdError, match="did you mean 'bleu'"):
        measure_translations(MADE, ENGLISH, metrics=["blue"])


# ---------------------------------------------------------------------------------------------------- likelihoods


def test_bits_and_perplexity_by_hand() -> None:
    assert bits_per(10 * math.log(256), 10) == pytest.approx(8)
    assert perplexity(10 * math.log(65), 10) == pytest.approx(65)
    assert perplexity(1e6, 1) == math.inf


def test_losses_in_all_units() -> None:
    """Two documents; ratio and its error by hand: (6 + 2)/(3 + 1) = 2, residuals 0 and 0."""
    nll, tokens = np.array([6.0, 2.0]), np.array([3, 1])
    found = by_name(measure_nll(nll, {"token": tokens, "byte": 16, "character": np.array([4, 4])}, bigram=2 * nll))
    assert found["nll_per_token"].value == 2 and found["nll_per_token"].stderr == 0
    assert found["bigram_nll_per_token"].value == 4
    assert found["perplexity"].value == pytest.approx(math.e**2)
    assert (
        found["bits_per_byte"].value == pytest.approx(0.5 / math.log(2)) and found["bits_per_byte"].unit == "bits/byte"
    )
    assert found["bits_per_character"].value == pytest.approx(1 / math.log(2))
    frames = by_name(measure_nll(nll, {"frame": np.array([2, 2]), "note": np.array([1, 3])}))
    assert (frames["nll_per_frame"].value, frames["nll_per_note"].value) == (2, 2)
    # residuals of nll - 2·frames: 2, -2; √(2/1 · 8)/4
    assert frames["nll_per_frame"].stderr == pytest.approx(1)
    with pytest.raises(BowerbirdError, match="did you mean 'token'"):
        measure_nll(nll, {"tokens": tokens})


def test_ratio_errors_are_those_of_repeated_experiments() -> None:
    rng = np.random.default_rng(0)

    def draw() -> tuple[float, float]:
        b = rng.integers(1, 20, 200)
        value, stderr = averages.ratio(rng.normal(1.5 * b, np.sqrt(b)), b)
        assert stderr is not None
        return value, stderr

    values, errors = np.array([draw() for _ in range(400)]).T
    assert values.mean() == pytest.approx(1.5, abs=0.01)
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)


def test_bigram_by_hand() -> None:
    """Training 0 1 0 1 0: c(0,1) = c(1,0) = 2, p(b) = (2 + 1)/(4 + 3) for 0 and 1, 1/7 for the unseen 2."""
    model = fit_bigram([np.array([0, 1, 0, 1, 0])], [np.array([0, 1, 0])], vocab_size=3)
    assert model.k == STRENGTHS[0]  # validation goes on as training did: trust the pairs
    k = model.k
    expected = [(2 + k * 3 / 7) / (2 + k), (0 + k * 1 / 7) / (2 + k), 1 / 7]
    assert model.nll(np.array([0, 1, 2, 2])) == pytest.approx(-np.log(expected))
    strange = fit_bigram([np.array([0, 1, 0, 1, 0])], [np.array([1, 1, 0, 0, 1, 1])], vocab_size=3)
    assert strange.k > 10


def test_bigram_is_a_distribution_and_finds_the_entropy_of_a_chain() -> None:
    rng = np.random.default_rng(0)
    transition = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.3, 0.6, 0.1]])
    tokens = [0]
    for uniform in rng.random(30_000):
        tokens.append(int((uniform > transition[tokens[-1]].cumsum()).sum()))
    chain = np.array(tokens)
    model = fit_bigram([chain[:20_000]], [chain[20_000:25_000]], vocab_size=5)
    for a in range(5):
        assert sum(math.exp(-model.nll(np.array([a, b]))[0]) for b in range(5)) == pytest.approx(1)
    stationary = np.linalg.matrix_power(transition, 100)[0]
    entropy = -float(stationary @ (transition * np.log(transition)).sum(1))
    assert model.nll(chain[25_000:]).mean() == pytest.approx(entropy, abs=0.03)
    with pytest.raises(BowerbirdError, match="beyond the vocabulary of 2"):
        fit_bigram([chain], [chain], vocab_size=2)
    with pytest.raises(BowerbirdError, match="at least two tokens"):
        fit_bigram([chain[:1]], [chain], vocab_size=3)


# ---------------------------------------------------------------------------------------------------------- music

C, D, E, F, G, A, B = 60, 62, 64, 65, 67, 69, 71
SCALE = [C, D, E, F, G, A, B, C + 12]


@pytest.mark.parametrize(
    ("frames", "fifths", "octaves", "changes"),
    [
        ([[G, C], [A, D]], 1, 0, 1),
        ([[C, G], [D, A]], 1, 0, 1),  # whichever voice is written first
        ([[G + 12, C], [C, F - 12]], 1, 0, 1),  # both move down, from a twelfth to a fifth
        ([[G, C], [A + 12, D]], 1, 0, 1),
        ([[G, C], [C + 12, F - 12]], 0, 0, 1),  # contrary motion, from a fifth to a twelfth
        ([[G, C], [G, C]], 0, 0, 0),  # a repeated chord
        ([[G, C], [G, C], [A, D]], 1, 0, 1),  # a held chord before it
        ([[G, C], [A, C]], 0, 0, 1),  # oblique motion
        ([[G, C], [B, D]], 0, 0, 1),  # fifth to sixth
        ([[C + 12, C], [D + 12, D]], 0, 1, 1),
        ([[C, C], [D, D]], 0, 1, 1),  # unisons
        ([[G, REST], [A, D]], 0, 0, 1),
        ([[G, C], [REST, REST], [A, D]], 0, 0, 2),
        ([[C + 12, G, C], [D + 12, A, D]], 1, 1, 1),
        ([[G, C, F - 12], [A, D, G - 12]], 2, 0, 1),  # two stacked fifths; the ninth between the outer voices is none
    ],
)
def test_parallels(frames: list[list[int]], fifths: int, octaves: int, changes: int) -> None:
    assert parallels(np.array(frames)) == Parallels(fifths, octaves, changes)


def test_notes_of_a_grid() -> None:
    grid = np.array([[C, G], [C, A], [REST, A], [C, A]])
    expected = [[0, 1.0, C], [0, 0.5, G], [0.5, 1.5, A], [1.5, 0.5, C]]
    assert grid_notes(grid, frame_quarters=0.5).tolist() == expected
    assert len(grid_notes(np.full((3, 2), REST))) == 0


def test_scale_consistency_of_scales() -> None:
    def piece(pitches: list[int]) -> np.ndarray:
        return np.array([[i, 1.0, pitch] for i, pitch in enumerate(pitches)])

    assert harmony.scale_consistency(piece(SCALE)) == 1
    assert harmony.scale_consistency(piece([p + 6 for p in SCALE])) == 1
    assert harmony.scale_consistency(piece([A, B, C, D, E, F, G])) == 1  # A minor
    assert harmony.scale_consistency(piece(list(range(60, 72)))) == pytest.approx(7 / 12)
    assert harmony.scale_consistency(piece([*SCALE, C + 1, C + 1])) == pytest.approx(8 / 10)


def test_histograms_by_hand() -> None:
    notes = np.array([[0, 1.0, C], [1, 0.5, C + 12], [1.5, 1 / 3, G], [2, 100.0, G]])
    assert {i: n for i, n in enumerate(harmony.pitch_classes(notes)) if n} == {0: 2, 7: 2}
    assert {i: n for i, n in enumerate(harmony.durations(notes)) if n} == {12: 1, 6: 1, 4: 1, harmony.LONGEST: 1}
    assert averages.overlap(np.array([2, 2, 0]), np.array([1, 0, 3])) == pytest.approx(0.25)


def chorale(rng: np.random.Generator, frames: int = 60) -> np.ndarray:
    """Four voices that wander through C major, soprano first."""
    degrees = np.clip(np.cumsum(rng.integers(-2, 3, (frames, 4)), axis=0) + np.array([21, 17, 13, 8]), 0, 35)
    return np.array([12 * (d // 7) + np.array([0, 2, 4, 5, 7, 9, 11])[d % 7] + 36 for d in degrees])


def test_measure_music_of_like_and_of_copied_chorales() -> None:
    rng = np.random.default_rng(0)
    training, unseen, made = ([chorale(rng) for _ in range(n)] for n in (30, 12, 12))
    found = by_name(measure_music(made, unseen, training, kind="grid", protocol=Protocol(reference="c", split="test")))
    assert list(found) == MUSIC_METRICS
    for name in OVERLAPS:
        assert found[name].value > 0.9 and setting(found[name], "data") > 0.9
    assert found["scale_consistency"].value == 1 and found["copied_share"].value == 0
    assert found["longest_copied_run"].value <= 3
    fifths = found["parallel_fifths"]
    assert fifths.stderr is not None and fifths.value == pytest.approx(setting(fifths, "data"), abs=4 * fifths.stderr)
    copy = training[3].copy()
    copy[20:] += 5
    drawn = Protocol(parameters=(("temperature", 0.8),))
    stolen = by_name(measure_music([copy], unseen, training, kind="grid", protocol=drawn))
    assert all(setting(measurement, "temperature") == 0.8 for measurement in stolen.values())
    assert stolen["longest_copied_run"].value == 20 and stolen["longest_transposed_run"].value == 40
    assert stolen["copied_share"].value == pytest.approx(20 / 60)
    assert stolen["scale_consistency"].value < 1


def test_runs_in_any_key_with_rests_and_silences() -> None:
    rng = np.random.default_rng(1)
    piece = chorale(rng, 30)
    piece[5, :] = REST
    piece[10:14, 0] = REST
    moved = np.where(piece == REST, REST, piece - 4)
    moved[25] += [1, 0, 0, 0]
    found = by_name(measure_music([moved], [chorale(rng, 30)], [piece], kind="grid", metrics=RUN_METRICS))
    assert found["longest_transposed_run"].value == 25
    assert found["longest_copied_run"].value < 25


def test_runs_of_notes() -> None:
    """Ten notes of a melody, in another key, from another beat on, held for other lengths, among others."""
    rng = np.random.default_rng(2)
    melody = np.stack([np.cumsum(rng.integers(1, 5, 50) / 4), np.ones(50), rng.integers(48, 84, 50)], axis=1)
    other = np.stack([np.cumsum(rng.integers(1, 5, 40) / 3), np.ones(40), rng.integers(48, 84, 40)], axis=1)
    excerpt = melody[20:30] + np.array([200.0, 0.5, 0])
    same = np.concatenate([other, excerpt])
    found = by_name(measure_music([same, other], [other], [melody], kind="midi", metrics=RUN_METRICS))
    assert found["longest_copied_run"].value == 10 and setting(found["longest_copied_run"], "data") < 5
    moved = np.concatenate([other, excerpt + np.array([0, 0, 3])])
    found = by_name(measure_music([moved], [other], [melody], kind="midi"))
    assert found["longest_transposed_run"].value == 10 and found["longest_copied_run"].value < 5
    assert "parallel_fifths" not in found and 0.5 < found["scale_consistency"].value < 1
    with pytest.raises(BowerbirdError, match="kind midi"):
        measure_music([moved], [other], [melody], kind="midi", metrics=["parallel_fifths"])


def test_silent_and_very_short_music_is_measured() -> None:
    rng = np.random.default_rng(3)
    silent, single = np.full((4, 4), REST), chorale(rng, 1)
    found = by_name(measure_music([silent, single], [chorale(rng)], [chorale(rng)], kind="grid"))
    assert found["scale_consistency"].value == 1 and found["scale_consistency"].stderr is None
    assert found["parallel_fifths"].value is not None and 0 <= found["duration_overlap"].value <= 1
    empty = np.empty((0, 3))
    assert by_name(measure_music([empty], [empty], [empty], kind="midi"))["pitch_class_overlap"].value == 0


def test_bach_avoids_parallels() -> None:
    """Far fewer than where alto and bass are taken from another chorale."""
    pack = builtin.load("chorales")
    chorales = np.split(pack["16th"].astype(int), pack["16th_offsets"][1:-1])[:60]
    mixed = []
    for one, other in itertools.pairwise(chorales):
        n = min(len(one), len(other))
        mixed.append(np.stack([one[:n, 0], other[:n, 1], one[:n, 2], other[:n, 3]], axis=1))
    written, chance = (np.sum([parallels(piece) for piece in pieces], axis=0) for pieces in (chorales, mixed))
    for kind in (0, 1):
        assert 100 * written[kind] / written[2] < 0.5
        assert written[kind] / written[2] < 0.2 * chance[kind] / chance[2]
