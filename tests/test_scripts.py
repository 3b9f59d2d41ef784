"""Words, BLEU, chrF and ROUGE in scripts other than Latin, and of scores that are exactly 0."""

import unicodedata

import pytest

from bowerbird.measuring.plain import measure_texts, measure_translations
from bowerbird.metrics.measurement import Measurement
from bowerbird.metrics.scripts import bleu_tokenizer, graphemes, words
from bowerbird.metrics.wording import distinct_n, self_bleu

SENTENCES = {
    "Hindi": "वह हिन्दी में क्षत्रिय की किताब पढ़ता है।",
    "Arabic": "كُتِبَ الدَّرْسُ على اللَّوْحِ، أليس كذلك؟",
    "Hebrew": "שָׁלוֹם עֲלֵיכֶם חֲבֵרִים טוֹבִים מְאֹד",
    "Thai": "ที่นี่มีน้ำเย็นและผลไม้",
    "Khmer": "ភាសាខ្មែរជាភាសាផ្លូវការ",
    "Burmese": "မြန်မာဘာသာစကားသည်",
    "Japanese": "がっこうで日本語を勉強しています。",
    "Korean": "저는 한국어 문장을 읽고 있습니다",
    "Vietnamese": "Tiếng Việt là một ngôn ngữ rất đẹp",
    "Tamil": "தமிழ் மொழி மிகவும் பழமையான மொழி",
}


def one(hypothesis: str, reference: str, metric: str) -> Measurement:
    return measure_translations([hypothesis], [reference], metrics=[metric])[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी", ["हिन्दी"]),
        ("कि कु के को", ["कि", "कु", "के", "को"]),
        ("كُتِبَ كَتَبَ", ["كُتِبَ", "كَتَبَ"]),
        ("שָׁלוֹם־בַּיִת", ["שָׁלוֹם", "בַּיִת"]),
        ("ที่น้ำ ๑๒๓", ["ที่", "น้ำ", "๑๒๓"]),
        ("ラーメンA3、がぎ", ["ラ", "ー", "メ", "ン", "a3", "が", "ぎ"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("Don't stop_me", ["don", "t", "stop", "me"]),
        ("E\u0301te\u0301", ["été"]),
    ],
)
def test_a_word_keeps_its_marks(text: str, expected: list[str]) -> None:
    assert words(text) == [unicodedata.normalize("NFC", word) for word in expected]


@pytest.mark.parametrize("language", SENTENCES)
def test_nfc_and_nfd_are_one_text(language: str) -> None:
    """A text equals itself in the other form, and distinct-n sees as many words."""
    text = SENTENCES[language]
    other = unicodedata.normalize("NFD", text)
    assert words(other) == words(text)
    for metric in ("bleu", "chrf", "rouge1", "rougeL"):
        assert one(other, text, metric).value == pytest.approx(100)


@pytest.mark.parametrize("language", SENTENCES)
def test_a_text_of_other_words_shares_none(language: str) -> None:
    """Every word loses its last letter's marks or changes it; what is shared falls far below all."""
    text = SENTENCES[language]
    other = "".join(reversed(words(text)[: len(words(text)) // 2]))
    assert one(other, text, "rougeL").value < 60 and one(other, text, "chrf").value < 90


def test_marks_alone_tell_words_apart() -> None:
    assert one("कि कु के को का", "की कू कै कौ क", "rouge1").value == 0
    assert one("كُتِبَ", "كَتَبَ", "rouge1").value == 0
    assert distinct_n(["कि कु के को का की कू"], 1) == 1
    assert one("été à la plage", "e\u0301te\u0301 a\u0300 la plage", "rouge1").value == 100


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("Hindi", "intl"), ("Arabic", "intl"), ("Hebrew", "intl"), ("Korean", "intl"), ("Tamil", "intl")]
    + [(language, "graphemes") for language in ("Thai", "Khmer", "Burmese", "Japanese")]
    + [("Vietnamese", "13a")],
)
def test_the_script_of_the_references_chooses_the_tokenizer(language: str, tokenizer: str) -> None:
    text = SENTENCES[language]
    assert bleu_tokenizer([text]) == tokenizer
    assert f"|tok:{tokenizer}|" in dict(one("x", text, "bleu").protocol.parameters)["signature"]


def test_tokenizers_of_chinese_latin_cyrillic_and_of_no_letters_are_those_of_the_field() -> None:
    assert bleu_tokenizer(["白日依山盡，黃河入海流。 (2 lines)"]) == "zh"
    assert {bleu_tokenizer([text]) for text in ("Die Straße, 3 km.", "Привет, мир!", "Καλημέρα", "1, 2", "")} == {"13a"}


def test_bleu_of_scripts_without_spaces_counts_their_letters() -> None:
    """One letter of 22 is another, so 21 words of 22 are shared; a tokeniser that saw one long word would find none."""
    thai = SENTENCES["Thai"]
    assert graphemes("น้ำ, OK!") == "น้ำ , OK !"
    found = one(thai.replace("เย็น", "เย็ก"), thai, "bleu").value
    assert 60 < found < 100
    assert self_bleu([thai, thai], "graphemes") == pytest.approx([100, 100])


def test_the_protocol_of_variety_says_what_a_word_is() -> None:
    thai = [SENTENCES["Thai"]] * 2
    (found,) = measure_texts(thai, thai, thai, metrics=["distinct_1"])
    assert "grapheme clusters" in dict(found.protocol.parameters)["words"]


@pytest.mark.parametrize(
    "hypotheses",
    [["q", "this is sentence number 1 .", "this is sentence number 2 ."], ["", "", ""], ["q", "q", "q"]],
)
@pytest.mark.parametrize("metric", ["chrf", "bleu"])
def test_scores_of_exactly_0_have_a_value_and_an_error_or_none(hypotheses: list[str], metric: str) -> None:
    references = [f"this is sentence number {i} ." for i in range(3)]
    (found,) = measure_translations(hypotheses, references, metrics=[metric])
    if any("sentence" in text for text in hypotheses):
        assert 50 < found.value < 90 and found.stderr is not None and 0 < found.stderr < 50
    else:
        assert found.value == 0 and found.stderr is None


def test_chrf_of_mostly_empty_hypotheses() -> None:
    references = [f"this is sentence number {i} ." for i in range(50)]
    (found,) = measure_translations([""] * 45 + references[45:], references, metrics=["chrf"])
    assert 0 < found.value < 40 and found.stderr is not None
    assert one("", "a", "chrf").value == 0 and one("", "a", "chrf").stderr is None
